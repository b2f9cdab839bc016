"""What steps, chains and starts of generation are worth: NDCG@10 of every user of the validation split.

    python benchmarks/chain.py PLAN.yaml OUT_DIR [--only TEXT] [--choices 1x1 2x1 1x8 1x1-zero]
    python benchmarks/chain.py PLAN.yaml OUT_DIR --table [--only TEXT]

A plan is as for ``sweep.py``: ``name``, ``model``, ``dataset`` and any settings, and perhaps ``trial``, which
``chain_trials.py`` explains. Each run is trained once. Its best epoch then ranks with each choice: steps x chains, and
perhaps ``-zero`` (chain_start=zero), ``-nearest`` or ``-mean`` (what x0_hat becomes between steps), ``-seed7``
(eval_seed=7). OUT_DIR/name.npz has the users' values, OUT_DIR/name.json the training. The test split is not read.
``--table`` compares each choice with ``--base`` of the same model, or of the run ``--against``: 95 % bootstrap interval
and Wilcoxon's p over users. Its choice ``draws`` is the mean of each user over ``1x1`` and all ``1x1-seed...``.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import chain_trials
import numpy as np
import torch
from results_file import append_rows
from sweep import plan_parser, prepare_run, read_plan, record

from recbole_diffusion.compare.statistics import bootstrap_interval, wilcoxon
from recbole_diffusion.quick_start import train
from recbole_diffusion.storage import checkpoint
from recbole_diffusion.storage.files import write_text

VALUES = ("ndcg", "loss")


@torch.no_grad()
def rank(model: Any, loader: Any) -> dict[str, np.ndarray]:
    """NDCG@10 and -log p of the target, [users] each, in the order of the users."""
    users, places, losses = [], [], []
    for interaction, history, rows, items in loader:
        batch = interaction.to(model.device)
        scores = model.full_sort_predict(batch)
        if history is not None:  # mask_history
            scores[history] = -torch.inf
        scores = scores[rows]
        target = scores.gather(1, items.unsqueeze(1))
        places.append((scores > target).sum(dim=1))
        losses.append(-(target.squeeze(1) - scores.logsumexp(dim=1)))
        users.append(batch[model.USER_ID][rows])
    order = torch.cat(users).argsort()
    place, loss = torch.cat(places)[order].double(), torch.cat(losses)[order]
    ndcg = torch.where(place < 10, 1 / torch.log2(place + 2), 0.0)
    return {"ndcg": ndcg.numpy().astype(np.float32), "loss": loss.numpy()}


def measure(run: dict[str, Any], out: Path, choices: list[str], watched: list[str]) -> None:
    """Train, unless the checkpoint is there, and rank with what OUT_DIR/name.npz does not have.

    After each validation of the training the model also ranks with the choices ``watched``.
    """
    name = run["name"]
    saved = out / "saved" / name
    settings = {key: value for key, value in run.items() if key != "trial"}
    prepared = prepare_run(settings, checkpoint_dir=str(saved))
    model = prepared.model
    if "trial" in run:
        chain_trials.apply(model, run["trial"])
        if "continues" in run["trial"]:
            load_best(model, out / "saved" / run["trial"]["continues"])
    curve = []

    def watch(epoch: int, score: float) -> None:
        found = {choice: float(rank_with(model, choice, prepared.loaders.valid)["ndcg"].mean()) for choice in watched}
        curve.append({"epoch": epoch, **found})

    done = out / f"{name}.json"
    if not done.exists():
        write_text(done, json.dumps(record(run, train(prepared, watch)) | {"watched": curve}))
    load_best(model, saved)
    model.eval()
    kept = out / f"{name}.npz"
    found = dict(np.load(kept)) if kept.exists() else {}
    for choice in choices:
        if f"ndcg-{choice}" not in found:
            values = rank_with(model, choice, prepared.loaders.valid)
            found |= {f"{what}-{choice}": value for what, value in values.items()}
            print(name, choice, f"{values['ndcg'].mean():.4f} {values['loss'].mean():.4f}", flush=True)
            np.savez(kept, **found)


def load_best(model: Any, folder: Path) -> None:
    (file,) = folder.glob("*-best.safetensors")
    model.load_state_dict(checkpoint.load(file)["state_dict"])


def rank_with(model: Any, choice: str, loader: Any) -> dict[str, np.ndarray]:
    """:func:`rank` with a choice of generation, e.g. ``3x1-zero``."""
    pair, *others = choice.split("-")
    steps, chains = map(int, pair.split("x"))
    settings, trial, changed = model.settings, getattr(model, "trial", {}), {}
    for other in others:
        if other == "zero":
            changed["chain_start"] = "zero"
        elif other.startswith("seed"):
            changed["eval_seed"] = int(other.removeprefix("seed"))
        else:
            chain_trials.apply(model, {**trial, "between": other})
    model.settings = dataclasses.replace(settings, **changed)
    if chains > 1:
        model.num_chains = chains
    with model.generating_in(steps):
        values = rank(model, loader)
    model.settings, model.num_chains, model.trial = settings, 1, trial
    return values


def compare(runs: list[dict[str, Any]], out: Path, against: str | None, base: str) -> list[dict[str, Any]]:
    """A row for each run and choice: the seeds of a run ("name-s0", "name-s1") are averaged for each user first."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        if (out / f"{run['name']}.npz").exists():
            groups.setdefault(run["name"].rpartition("-s")[0], []).append(run)
    found = {group: _mean([out / f"{run['name']}.npz" for run in members]) for group, members in groups.items()}
    rows = []
    for group, members in groups.items():
        settings = {key: value for key, value in members[0].items() if key not in ("name", "seed", "data_path")}
        row = {"run": group, "seeds": [run["seed"] for run in members], "settings": settings}
        row |= {"against": against or group, "base": base, "choices": []}
        rows.append(row)
        for name, values in found[group].items():
            difference = values["ndcg"] - found[against or group][base]["ndcg"]
            low, high = bootstrap_interval(difference)
            numbers = {"ndcg@10": values["ndcg"].mean(), "loss": values["loss"].mean()}
            numbers |= {"difference": difference.mean(), "low": low, "high": high, "p": wilcoxon(difference)}
            row["choices"].append({"choice": name} | {k: float(f"{v:.4g}") for k, v in numbers.items()})
    return rows


def _mean(files: list[Path]) -> dict[str, dict[str, np.ndarray]]:
    """Choice -> ndcg and loss of each user, mean over the files. ``draws``: mean over the seeds of generation."""
    arrays = [dict(np.load(file)) for file in files]
    choices = [key.removeprefix("ndcg-") for key in arrays[0] if key.startswith("ndcg-")]
    choices = [choice for choice in choices if all(f"ndcg-{choice}" in of for of in arrays)]
    found = {
        choice: {what: np.mean([of[f"{what}-{choice}"] for of in arrays], axis=0, dtype=float) for what in VALUES}
        for choice in choices
    }
    draws = [found.pop(choice) if "seed" in choice else found[choice] for choice in choices if _is_draw(choice)]
    return {"draws": {what: np.mean([draw[what] for draw in draws], axis=0) for what in VALUES}} | found


def _is_draw(choice: str) -> bool:
    return choice == "1x1" or choice.startswith("1x1-seed")


def table(rows: list[dict[str, Any]]) -> None:
    head = "| run | seeds | choice | NDCG@10 | -log p | difference | p |\n|---|---|---|---|---|---|---|"
    print(head)
    for row in rows:
        for c in row["choices"]:
            cells = [row["run"], str(len(row["seeds"])), c["choice"], f"{c['ndcg@10']:.4f}"]
            interval = f"{c['difference']:+.4f} ({c['low']:+.4f}, {c['high']:+.4f})"
            print("| " + " | ".join([*cells, f"{c['loss']:.3f}", interval, f"{c['p']:.2g}"]) + " |")


def main() -> None:
    parser = plan_parser(__doc__)
    parser.add_argument(
        "--against", default=None, help="a run that all others are compared with; default: each with itself"
    )
    parser.add_argument("--base", default="1x1", help="the choice that others are compared with, e.g. draws")
    parser.add_argument("--jsonl", type=Path, default=None, help="append the rows of the table")
    parser.add_argument("--choices", nargs="+", default=["1x1", "2x1", "3x1", "5x1", "10x1", "1x8", "1x1-zero"])
    parser.add_argument("--watch", nargs="*", default=[], help="choices to rank with after each validation")
    arguments = parser.parse_args()
    runs = read_plan(arguments.plan, arguments.only)
    if arguments.table:
        rows = compare(runs, arguments.out, arguments.against, arguments.base)
        table(rows)
        if arguments.jsonl:
            append_rows(arguments.jsonl, *rows)
        return
    arguments.out.mkdir(parents=True, exist_ok=True)
    for run in runs:
        measure(run, arguments.out, arguments.choices, arguments.watch)


if __name__ == "__main__":
    main()
