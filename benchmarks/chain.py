"""What steps and chains of generation are worth: NDCG@10 of every user of the validation split.

    python benchmarks/chain.py PLAN.yaml OUT_DIR [--only TEXT] [--steps 1 2 3 5 10 20] [--chains 8 32]
    python benchmarks/chain.py PLAN.yaml OUT_DIR --table [--only TEXT]

A plan is as for ``sweep.py``: ``name``, ``model``, ``dataset`` and any settings. Each run is trained once. Its best
epoch then ranks with each number of steps (one chain), and with each number of chains (in one, two and three steps).
OUT_DIR/name.npz has the users' values, OUT_DIR/name.json the training. The test split is not read. ``--table`` compares
each choice with one step and one chain of the same model, or of the run ``--against``: 95 % bootstrap interval and
Wilcoxon's p over users.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from results_file import append_rows
from sweep import prepare_run, read_plan, record

from recbole_diffusion.compare.statistics import bootstrap_interval, wilcoxon
from recbole_diffusion.quick_start import train
from recbole_diffusion.storage import checkpoint
from recbole_diffusion.storage.files import write_text


@torch.no_grad()
def rank(model: Any, loader: Any) -> dict[str, np.ndarray]:
    """NDCG@10 and -log p of the target, [users] each, in the order of the users."""
    users, places, losses = [], [], []
    for interaction, _, rows, items in loader:
        batch = interaction.to(model.device)
        scores = model.full_sort_predict(batch)[rows]
        target = scores.gather(1, items.unsqueeze(1))
        places.append((scores > target).sum(dim=1))
        losses.append(-(target.squeeze(1) - scores.logsumexp(dim=1)))
        users.append(batch[model.USER_ID][rows])
    order = torch.cat(users).argsort()
    place, loss = torch.cat(places)[order].double(), torch.cat(losses)[order]
    ndcg = torch.where(place < 10, 1 / torch.log2(place + 2), 0.0)
    return {"ndcg": ndcg.numpy().astype(np.float32), "loss": loss.numpy()}


def measure(run: dict[str, Any], out: Path, steps: list[int], chains: list[int]) -> None:
    """Train, unless the checkpoint is there, and rank with what OUT_DIR/name.npz does not have."""
    name = run["name"]
    saved = out / "saved" / name
    prepared = prepare_run(run, checkpoint_dir=str(saved))
    done = out / f"{name}.json"
    if not done.exists():
        write_text(done, json.dumps(record(run, train(prepared))))
    (file,) = saved.glob("*-best.safetensors")
    model = prepared.model
    state = checkpoint.load(file)
    model.load_state_dict(state["state_dict"])
    model.eval()
    kept = out / f"{name}.npz"
    found = dict(np.load(kept)) if kept.exists() else {}
    wanted_pairs = [(s, 1) for s in steps] + [(s, c) for c in chains for s in steps if s <= 3]
    for number, count in wanted_pairs:
        key = f"{number}x{count}"
        if f"ndcg-{key}" in found:
            continue
        model.num_chains = count
        with model.generating_in(number):
            values = rank(model, prepared.loaders.valid)
        found |= {f"{what}-{key}": value for what, value in values.items()}
        print(name, key, f"{values['ndcg'].mean():.4f} {values['loss'].mean():.4f}", flush=True)
        np.savez(kept, **found)


def compare(runs: list[dict[str, Any]], out: Path, against: str | None) -> list[dict[str, Any]]:
    """A row for each run and choice: the seeds of a run ("name-s0", "name-s1") are averaged for each user first."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        if (out / f"{run['name']}.npz").exists():
            groups.setdefault(run["name"].rpartition("-s")[0], []).append(run)
    found = {group: _mean([out / f"{run['name']}.npz" for run in members]) for group, members in groups.items()}
    rows = []
    for group, members in groups.items():
        values = found[group]
        base = found[against or group]["ndcg-1x1"]
        settings = {key: value for key, value in members[0].items() if key not in ("name", "seed", "data_path")}
        row = {"run": group, "seeds": [run["seed"] for run in members], "settings": settings, "choices": []}
        rows.append(row | ({"against": against} if against else {}))
        for pair in (key.removeprefix("ndcg-") for key in values if key.startswith("ndcg-")):
            difference = values[f"ndcg-{pair}"] - base
            low, high = bootstrap_interval(difference)
            steps, chains = map(int, pair.split("x"))
            choice = {"steps": steps, "chains": chains, "ndcg@10": values[f"ndcg-{pair}"].mean()}
            choice |= {"loss": values[f"loss-{pair}"].mean(), "difference": difference.mean(), "low": low, "high": high}
            choice["p"] = wilcoxon(difference)
            row["choices"].append({k: v if isinstance(v, int) else float(f"{v:.4g}") for k, v in choice.items()})
    return rows


def _mean(files: list[Path]) -> dict[str, np.ndarray]:
    arrays = [dict(np.load(file)) for file in files]
    return {key: np.mean([of[key] for of in arrays], axis=0, dtype=float) for key in arrays[0]}


def table(rows: list[dict[str, Any]]) -> None:
    head = "| run | seeds | steps x chains | NDCG@10 | -log p | difference | p |\n|---|---|---|---|---|---|---|"
    print(f"Differences to 1x1 of {rows[0].get('against') or 'the same run'}\n\n{head}")
    for row in rows:
        for c in row["choices"]:
            cells = [row["run"], str(len(row["seeds"])), f"{c['steps']}x{c['chains']}", f"{c['ndcg@10']:.4f}"]
            interval = f"{c['difference']:+.4f} ({c['low']:+.4f}, {c['high']:+.4f})"
            print("| " + " | ".join([*cells, f"{c['loss']:.3f}", interval, f"{c['p']:.2g}"]) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--table", action="store_true")
    parser.add_argument(
        "--against", default=None, help="a run whose one step and one chain all others are compared with"
    )
    parser.add_argument("--jsonl", type=Path, default=None, help="append the rows of the table")
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 3, 5, 10, 20])
    parser.add_argument("--chains", type=int, nargs="*", default=[8, 32])
    arguments = parser.parse_args()
    runs = read_plan(arguments.plan, arguments.only)
    if arguments.table:
        rows = compare(runs, arguments.out, arguments.against)
        table(rows)
        if arguments.jsonl:
            append_rows(arguments.jsonl, *rows)
        return
    arguments.out.mkdir(parents=True, exist_ok=True)
    for run in runs:
        measure(run, arguments.out, arguments.steps, arguments.chains)


if __name__ == "__main__":
    main()
