"""The README's picture from the finished runs of ``ml100k.py`` (needs matplotlib, which the package does not).

python benchmarks/plot_ml100k.py results.jsonl docs/ml100k.png
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
    ("WindowSASRec", "default"): ("#000000", "-", "SASRec (WindowSASRec)"),
    ("DreamRec", "default"): ("#0072B2", "-", "DreamRec"),
    ("DiffDiv", "default"): ("#D55E00", "-", "DiffDiv"),
    ("ADIGRec", "default"): ("#009E73", "-", "ADIGRec"),
    ("DreamRec", "paper"): ("#0072B2", ":", "DreamRec, paper's recipe"),
    ("DiffDiv", "paper"): ("#D55E00", ":", "DiffDiv, paper's recipe"),
}
PANELS = (
    ("validation NDCG@10", lambda entry: entry["valid"]["ndcg@10"]),
    ("rank of the target by one look at t = T - 1", lambda entry: entry.get("diagnostics", {}).get("target_rank")),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("picture", type=Path)
    arguments = parser.parse_args()
    runs: list[dict[str, Any]] = [json.loads(line) for line in arguments.results.read_text().splitlines()]
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.8), constrained_layout=True)
    for axis, (label, value) in zip(axes, PANELS, strict=True):
        for (model, preset), (colour, dash, name) in STYLES.items():
            first = True
            for run in (r for r in runs if (r["model"], r["preset"]) == (model, preset)):
                points = [(entry["epoch"] + 1, value(entry)) for entry in run["history"] if value(entry) is not None]
                if points:
                    axis.plot(*zip(*points, strict=True), color=colour, ls=dash, lw=1.5, label=name if first else None)
                    first = False
        axis.set_xlabel("epoch")
        axis.set_ylabel(label)
        axis.spines[["top", "right"]].set_visible(False)
    pop = statistics.mean(r["valid"]["ndcg@10"] for r in runs if r["model"] == "Pop")
    axes[0].axhline(pop, color="#7F7F7F", ls="--", lw=1, label="Pop")
    axes[0].set_ylim(bottom=0)
    axes[1].axhline(841, color="#7F7F7F", ls="--", lw=1, label="chance")
    axes[1].set_ylim(bottom=0)
    axes[0].legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1, 0.24))
    axes[1].legend(frameon=False, fontsize=8, loc="upper right", bbox_to_anchor=(1, 0.9))
    arguments.picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.picture, dpi=130)


if __name__ == "__main__":
    main()
