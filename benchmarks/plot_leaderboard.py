"""The picture of the leaderboard, from the table that ``compare`` wrote (needs matplotlib, which the package does not).

python benchmarks/plot_leaderboard.py results/ml-100k/results.csv docs/leaderboard.png
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

DIFFUSION = ("DiffRec", "DreamRec", "DiffuRec", "DiffDiv", "ADIGRec")
# Okabe and Ito's colours can be told apart with any colour vision. The grey is dark enough to read a name in.
COLOURS = {True: "#C04A00", False: "#4D4D4D"}
# Where a name stands: its offset from the point in typographic points, and which of its ends is there.
RIGHT = (8, 0, "left")
PLACES = {
    "ADIGRec": (0, 24, "center"),
    "WindowSASRec": (-8, 0, "right"),
    "DreamRec": (-14, 20, "left"),
    "DiffuRec": (-8, 0, "right"),
    "GRU4Rec": (-8, -15, "right"),
    "DiffDiv": (-8, -9, "right"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("picture", type=Path)
    arguments = parser.parse_args()
    with arguments.results.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    figure, axis = plt.subplots(figsize=(8.2, 4.9), layout="constrained")
    for row in rows:
        name, is_diffusion = row["model"], row["model"] in DIFFUSION
        x, y, deviation = (float(row[key]) for key in ("train_seconds", "test_ndcg@10_mean", "test_ndcg@10_std"))
        colour, marker = COLOURS[is_diffusion], "o" if is_diffusion else "s"
        axis.errorbar(x, y, deviation or None, color=colour, marker=marker, markersize=6, capsize=2, elinewidth=0.9)
        right, up, alignment = PLACES.get(name, RIGHT)
        axis.annotate(
            name, (x, y), (right, up), textcoords="offset points", ha=alignment, va="center", color=colour,
            weight="bold" if is_diffusion else None,
        )  # fmt: skip
    axis.set_xscale("log")
    axis.set_xlim(0.25, 1300)
    axis.set_xticks([1, 10, 100, 1000], ["1", "10", "100", "1000"])
    axis.set_xlabel("seconds to train and validate (one CPU thread)")
    axis.set_ylabel("test NDCG@10")
    axis.text(0.3, 0.107, "diffusion models", color=COLOURS[True], weight="bold", va="center")
    axis.text(0.3, 0.103, "baselines", color=COLOURS[False], va="center")
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_title("ml-100k: mean over three seeds, bars are one standard deviation", fontsize=10, loc="left")
    figure.savefig(arguments.picture, dpi=150)


if __name__ == "__main__":
    main()
