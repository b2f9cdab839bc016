"""Quality and seconds of an epoch by the loss over the catalogue: the whole softmax and kinds of sampled negatives.

    python benchmarks/losses.py --dataset=D --out=losses.jsonl [--data_path=DIR] [--models WindowSASRec DreamRec]
        [--losses full uniform popularity in_batch gbce] [--negatives 64 256 1024 4096] [--seeds 0] [--key=value ...]

A row is one training by validation alone: its validation NDCG@10 after each validated epoch, and the median seconds of
training for an epoch. Other settings are passed on, e.g. ``--epochs=10``. Rows that ``--out`` has are not measured
again. The test split is not read.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from results_file import append_rows, read_rows

from recbole_diffusion.console.arguments import read_arguments
from recbole_diffusion.quick_start import prepare, request, train

KEY = ("model", "dataset", "settings", "loss", "negatives", "seed")
LOSSES: dict[str, dict[str, Any]] = {
    "full": {"num_negatives": None, "negative_sampler": None},
    "uniform": {"negative_sampler": "uniform"},
    "popularity": {"negative_sampler": "popularity"},
    "in_batch": {"negative_sampler": "in_batch"},
    "gbce": {"catalogue_loss": "gbce"},
}


def measure(key: tuple[Any, ...], user: dict[str, Any]) -> dict[str, Any]:
    """One training, without its test."""
    model, dataset, _, loss, negatives, seed = key
    settings = {**user, "seed": seed, "num_negatives": negatives, **LOSSES[loss]}
    wanted = request(model, dataset, settings, preset=None)
    result = train(prepare(wanted.resolved, wanted.config()))
    history = result["history"]
    return {
        **dict(zip(KEY, key, strict=True)),
        "valid": result["valid"]["ndcg@10"],
        "best_epoch": result["best_epoch"],
        "epochs": result["epochs"],
        "curve": {entry["epoch"] + 1: entry["valid"]["ndcg@10"] for entry in history},
        "epoch_seconds": float(np.median([entry["train_seconds"] for entry in history])),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data_path")
    parser.add_argument("--models", nargs="+", default=["WindowSASRec", "DreamRec"])
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=list(LOSSES))
    parser.add_argument("--negatives", nargs="+", type=int, default=[64, 256, 1024, 4096])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    arguments, rest = parser.parse_known_args()
    user, settings = read_arguments(rest), " ".join(rest)
    if arguments.data_path:
        user["data_path"] = arguments.data_path
    done = {tuple(row[name] for name in KEY) for row in read_rows(arguments.out)}
    keys = [
        (model, arguments.dataset, settings, loss, negatives, seed)
        for seed in arguments.seeds
        for model in arguments.models
        for loss in arguments.losses
        for negatives in ([None] if loss == "full" else arguments.negatives)
    ]
    for key in keys:
        if key not in done:
            append_rows(arguments.out, measure(key, user))
    print(
        "| model | loss | negatives | seed | best valid NDCG@10 | epoch | s per epoch |\n|---|---|---|---|---|---|---|"
    )
    for row in read_rows(arguments.out):
        if tuple(row[name] for name in KEY) in keys:
            cells = (row["model"], row["loss"], row["negatives"] or "all", row["seed"], f"{row['valid']:.4f}")
            print("|", *(f"{cell} |" for cell in cells), f"{row['best_epoch'] + 1} | {row['epoch_seconds']:.1f} |")


if __name__ == "__main__":
    main()
