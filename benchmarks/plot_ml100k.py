"""The picture of docs/ml100k.md from the finished runs of ``ml100k.py`` (needs matplotlib, which the package does not).

python benchmarks/plot_ml100k.py table.jsonl docs/ml100k.png
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

# Okabe and Ito's colours, told apart with any colour vision.
STYLES = {
    ("WindowSASRec", "default"): ("#000000", "-", "WindowSASRec"),
    ("DreamRec", "default"): ("#0072B2", "-", "DreamRec"),
    ("DiffDiv", "default"): ("#D55E00", "-", "DiffDiv"),
    ("ADIGRec", "default"): ("#009E73", "-", "ADIGRec"),
    ("DiffuRec", "default"): ("#CC79A7", "-", "DiffuRec"),
    ("DreamRec", "paper"): ("#0072B2", ":", "DreamRec, paper preset"),
    ("DiffDiv", "paper"): ("#D55E00", ":", "DiffDiv, paper preset"),
    ("ADIGRec", "paper"): ("#009E73", ":", "ADIGRec, paper preset"),
}
SHARES = (1, 0.75, 0.5, 0.25, 0)  # of T - 1, in the order the diagnostics have them
# Mean ranks of the validation targets among ml-100k's 1,682 films: at random, and by popularity in training.
REFERENCES = {"chance": 841, "by popularity": 361}


def learning_curves(axis: Any, runs: list[dict[str, Any]]) -> None:
    """Validation NDCG@10 by epoch, a line a seed."""
    for (model, preset), (colour, dash, name) in STYLES.items():
        for index, run in enumerate(of(runs, model, preset)):
            points = [(entry["epoch"] + 1, entry["valid"]["ndcg@10"]) for entry in run["history"]]
            axis.plot(*zip(*points, strict=True), color=colour, ls=dash, lw=1.2, label=name if index == 0 else None)
    pop = statistics.mean(r["valid"]["ndcg@10"] for r in of(runs, "Pop", "default"))
    axis.axhline(pop, color="#7F7F7F", ls="--", lw=1, label="Pop")
    axis.set_xlabel("epoch")
    axis.set_ylabel("validation NDCG@10")
    axis.set_ylim(bottom=0)


def ranks_by_timestep(axis: Any, runs: list[dict[str, Any]]) -> None:
    """The target's rank by one look at x_t at the last validation, mean over seeds."""
    for (model, preset), (colour, dash, _) in STYLES.items():
        diagnosed = [r["history"][-1].get("diagnostics") for r in of(runs, model, preset)]
        ranks = [[v for k, v in d.items() if k.startswith("target_rank")] for d in diagnosed if d]
        if ranks:
            axis.plot(SHARES, [statistics.mean(column) for column in zip(*ranks, strict=True)], color=colour, ls=dash)
    for name, rank in REFERENCES.items():
        axis.axhline(rank, color="#7F7F7F", ls="--", lw=1)
        axis.text(0.02, rank, name, va="bottom", fontsize=8, color="#5F5F5F")
    axis.set_xlabel("t / (T - 1): 0 shows the target, 1 is pure noise (history only)")
    axis.set_ylabel("mean rank of the true next film (lower is better)")
    axis.set_ylim(0, REFERENCES["chance"] * 1.1)


def of(runs: list[dict[str, Any]], model: str, preset: str) -> list[dict[str, Any]]:
    """The runs of a line of the table, without those of other studies."""
    return [r for r in runs if (r["model"], r["preset"], r["change"]) == (model, preset, {})]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("picture", type=Path)
    arguments = parser.parse_args()
    runs = [json.loads(line) for line in arguments.results.read_text(encoding="utf-8").splitlines()]
    figure, axes = plt.subplots(1, 2, figsize=(10.5, 4.6), layout="constrained")
    learning_curves(axes[0], runs)
    ranks_by_timestep(axes[1], runs)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False, fontsize=8)
    arguments.picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.picture, dpi=130)


if __name__ == "__main__":
    main()
