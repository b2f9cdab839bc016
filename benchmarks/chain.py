"""What steps and chains of generation are worth: NDCG@10 of every user of the validation split.

    python benchmarks/chain.py PLAN.yaml OUT_DIR [--only TEXT] [--steps 1 2 3 5 10 20] [--chains 8 32]
    python benchmarks/chain.py PLAN.yaml OUT_DIR --table [--only TEXT]

A plan is as for ``sweep.py``: ``name``, ``model``, ``dataset`` and any settings. Each run is trained once. Its best
epoch then ranks with each number of steps (one chain), and with each number of chains (in one, two and three steps).
OUT_DIR/name.npz has the users' values, OUT_DIR/name.json the training. The test split is not read. ``--table`` compares
each choice with one step and one chain of the same model: 95 % bootstrap interval and Wilcoxon's p over users.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sweep import read_plan

from recbole_diffusion import checkpoint
from recbole_diffusion.compare.statistics import bootstrap_interval, wilcoxon
from recbole_diffusion.files import write_text
from recbole_diffusion.quick_start import prepare, request, train

KEPT = ("valid", "best_epoch", "epochs", "train_seconds", "parameters", "history")


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
    settings = {key: value for key, value in run.items() if key not in ("name", "model", "dataset")}
    settings["checkpoint_dir"] = str(out / "saved" / name)
    wanted = request(run["model"], run["dataset"], settings, preset=None)
    prepared = prepare(wanted.resolved, wanted.config())
    done = out / f"{name}.json"
    if not done.exists():
        result = train(prepared)
        write_text(done, json.dumps({"run": run, **{key: result[key] for key in KEPT}}))
    (file,) = (out / "saved" / name).glob("*.pth")
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


def table(runs: list[dict[str, Any]], out: Path) -> None:
    print("| run | steps x chains | NDCG@10 | -log p | against 1x1 | p |\n|---|---|---|---|---|---|")
    for run in runs:
        kept = out / f"{run['name']}.npz"
        if not kept.exists():
            continue
        found = dict(np.load(kept))
        base = found["ndcg-1x1"].astype(float)
        for key in found:
            what, _, pair = key.partition("-")
            if what == "ndcg":
                difference = found[key].astype(float) - base
                low, high = bootstrap_interval(difference)
                print(
                    f"| {run['name']} | {pair} | {found[key].mean():.4f} | {found['loss-' + pair].mean():.4f} | "
                    f"{difference.mean():+.4f} ({low:+.4f}, {high:+.4f}) | {wilcoxon(difference):.3g} |"
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 3, 5, 10, 20])
    parser.add_argument("--chains", type=int, nargs="*", default=[8, 32])
    arguments = parser.parse_args()
    runs = read_plan(arguments.plan, arguments.only)
    if arguments.table:
        return table(runs, arguments.out)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for run in runs:
        measure(run, arguments.out, arguments.steps, arguments.chains)
    return None


if __name__ == "__main__":
    main()
