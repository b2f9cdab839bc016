"""What the overlap of windows costs and brings: validation NDCG@10 and seconds an epoch by ``window_overlap``.

    python benchmarks/window_overlap.py --dataset=ml-100k --out=overlap.jsonl [--data_path=DIR] [--models DreamRec ...]
        [--overlaps 0 0.5] [--seeds 0 1] [--key=value ...]

Trains by the model's own early stopping; other settings are passed on. Rows that ``--out`` has are not measured again;
the table at the end has the means over seeds. The test split is not read.
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

KEY = ("model", "dataset", "settings", "overlap", "seed")


def measure(model: str, dataset: str, overlap: float, seed: int, user: dict[str, Any], settings: str) -> dict[str, Any]:
    """One training, without its test."""
    wanted = request(model, dataset, {**user, "window_overlap": overlap, "seed": seed}, preset=None)
    result = train(prepare(wanted.resolved, wanted.config()))
    return {
        **dict(zip(KEY, (model, dataset, settings, overlap, seed), strict=True)),
        "valid": result["valid"]["ndcg@10"],
        "best_epoch": result["best_epoch"],
        "epochs": result["epochs"],
        "epoch_seconds": float(np.median([entry["train_seconds"] for entry in result["history"]])),
        "seconds": result["train_seconds"],
        "threads": torch.get_num_threads(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data_path")
    parser.add_argument("--models", nargs="+", default=["WindowSASRec", "DreamRec", "ADIGRec"])
    parser.add_argument("--overlaps", nargs="+", type=float, default=[0.0, 0.5])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    arguments, rest = parser.parse_known_args()
    user = read_arguments(rest)
    if arguments.data_path:
        user["data_path"] = arguments.data_path
    settings = " ".join(rest)
    done = {tuple(row[name] for name in KEY) for row in read_rows(arguments.out)}
    for seed in arguments.seeds:
        for model in arguments.models:
            for overlap in arguments.overlaps:
                if (model, arguments.dataset, settings, overlap, seed) not in done:
                    append_rows(arguments.out, measure(model, arguments.dataset, overlap, seed, user, settings))
    rows = [
        row for row in read_rows(arguments.out) if (row["dataset"], row["settings"]) == (arguments.dataset, settings)
    ]
    for model in arguments.models:
        for overlap in arguments.overlaps:
            own = [row for row in rows if (row["model"], row["overlap"]) == (model, overlap)]
            valid, best, seconds = (
                np.array([row[name] for row in own]) for name in ("valid", "best_epoch", "epoch_seconds")
            )
            print(
                f"{model}, window_overlap={overlap:g}: validation NDCG@10 {valid.mean():.4f} ± {valid.std(ddof=1):.4f} "
                f"({len(own)} seeds), best epoch {best.mean():.0f}, {seconds.mean():.1f} s an epoch"
            )


if __name__ == "__main__":
    main()
