"""DiffDiv's claim on ml-100k: does it buy diversity at less cost in accuracy than its rivals?

    python benchmarks/diffdiv_claim.py --out=claim.jsonl [--seeds 0 1 2] [--part 0 2] [--picture claim.png]

Trains DiffDiv with each divergence, without its latent loss and with three steps of generation, DreamRec, and
WindowSASRec, once per seed, and then ranks with every value of what changes only generation or the list: 1, 2, 4, 8, 16
channels (DiffDiv), guidance w = 0, 2, 4, 8 (DreamRec), weights of MMR re-ranking (WindowSASRec). The epoch is picked on
validation at the default value. Finished runs are kept in ``--out``, one JSON object per line. ``--part I N`` makes
every N-th from the I-th on. Prints tables of means over seeds. The picture needs kaleido and Chrome or Chromium.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from plotly.subplots import make_subplots
from results_file import append_rows, read_rows

from recbole_diffusion.quick_start import Prepared, run

METRICS = ("NDCG", "Hit", "ILD", "CategoryCoverage", "EmbeddingILD", "ItemCoverage", "GiniIndex")
SHOWN = ("ndcg@10", "ild@10", "categorycoverage@10", "embeddingild@10", "itemcoverage@10", "giniindex@10")


class Kind(NamedTuple):
    """What is trained, and what is then varied: its name, its values and how it is set."""

    model: str
    settings: dict[str, Any]
    varied: str
    values: tuple[float, ...]
    set: Callable[[Prepared, Any], None]


def _set_channels(prepared: Prepared, value: int) -> None:
    prepared.model.num_channels = value


def _set_guidance(prepared: Prepared, value: float) -> None:
    prepared.model.settings = dataclasses.replace(prepared.model.settings, guidance_strength=value)


def _set_mmr(prepared: Prepared, value: float) -> None:
    prepared.trainer.config["mmr_weight"] = value


CHANNELS = ("num_channels", (1, 2, 4, 8, 16), _set_channels)
KINDS = {
    "DiffDiv, gamma": Kind("DiffDiv", {"divergence": "gamma"}, *CHANNELS),
    "DiffDiv, beta": Kind("DiffDiv", {"divergence": "beta"}, *CHANNELS),
    "DiffDiv, alpha": Kind("DiffDiv", {"divergence": "alpha"}, *CHANNELS),
    "DiffDiv, squared error": Kind("DiffDiv", {"divergence": "none"}, *CHANNELS),
    "DiffDiv, no latent loss": Kind("DiffDiv", {"w_dagl": 0.0}, *CHANNELS),
    "DiffDiv, three steps": Kind("DiffDiv", {"sampling_steps": 3}, *CHANNELS),
    "DreamRec": Kind("DreamRec", {}, "guidance_strength", (0.0, 2.0, 4.0, 8.0), _set_guidance),
    "WindowSASRec, MMR": Kind(
        "WindowSASRec", {}, "mmr_weight", (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.6, 0.5, 0.3, 0.0), _set_mmr
    ),
}
LOOKS = {  # those of beta would hide gamma's: the two train alike
    "DiffDiv, gamma": ("#D55E00", "solid", "circle"),
    "DiffDiv, alpha": ("#CC79A7", "solid", "diamond"),
    "DiffDiv, squared error": ("#E69F00", "dot", "triangle-up"),
    "DiffDiv, no latent loss": ("#000000", "dash", "x"),
    "DiffDiv, three steps": ("#56B4E9", "solid", "star-triangle-down"),
    "DreamRec": ("#009E73", "solid", "star"),
    "WindowSASRec, MMR": ("#0072B2", "solid", "cross"),
}


def measure(kind: Kind, seed: int) -> list[dict[str, Any]]:
    """Train once; validation and test metrics at each value."""
    rows = []

    def vary(prepared: Prepared) -> Mapping[str, float]:
        trainer, loaders = prepared.trainer, prepared.loaders
        for value in kind.values:
            kind.set(prepared, value)
            metrics = {
                split: trainer.evaluate(loader, load_best_model=not rows)
                for split, loader in (("valid", loaders.valid), ("test", loaders.test))
            }
            rows.append({"value": value} | {split: dict(found) for split, found in metrics.items()})
        return rows[0]["test"]

    settings = {**kind.settings, "seed": seed, "metrics": list(METRICS), "topk": [10]}
    result = run(kind.model, "ml-100k", settings=settings, test_model=vary)
    return [{"epochs": result["epochs"], "train_seconds": result["train_seconds"], **row} for row in rows]


def means(rows: list[dict[str, Any]], name: str, value: float, split: str) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation over seeds of every shown metric."""
    found = [row[split] for row in rows if (row["kind"], row["value"]) == (name, value)]
    return {
        metric: (
            statistics.mean(of_seed[metric] for of_seed in found),
            statistics.stdev(of_seed[metric] for of_seed in found) if len(found) > 1 else 0.0,
        )
        for metric in (SHOWN if found else ())
    }


def table(rows: list[dict[str, Any]], split: str) -> str:
    """Markdown, one line per model and value."""
    names = [name.replace("categorycoverage", "category coverage").split("@")[0] for name in SHOWN]
    lines = [f"| model | varied | value | seeds | {' | '.join(names)} |", "|---" * (4 + len(SHOWN)) + "|"]
    for name, kind in KINDS.items():
        for value in kind.values:
            found = means(rows, name, value, split)
            if found:
                seeds = sum((row["kind"], row["value"]) == (name, value) for row in rows)
                cells = [f"{mean:.4f}" + f" ± {spread:.4f}" * (seeds > 1) for mean, spread in found.values()]
                lines.append(f"| {name} | {kind.varied} | {value:g} | {seeds} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(rows: list[dict[str, Any]], split: str, picture: Path) -> None:
    """Accuracy to the right, diversity upwards; a line joins the values of what is varied."""
    panels = {"ild@10": "intra-list distance, ILD@10", "categorycoverage@10": "category coverage@10"}
    figure = make_subplots(1, 2, horizontal_spacing=0.1, subplot_titles=list(panels.values()))
    for column, metric in enumerate(panels, start=1):
        for name, (colour, dash, symbol) in LOOKS.items():
            values = [value for value in KINDS[name].values if means(rows, name, value, split)]
            points = [means(rows, name, value, split) for value in values]
            figure.add_scatter(
                x=[point["ndcg@10"][0] for point in points], y=[point[metric][0] for point in points],
                error_x={"array": [point["ndcg@10"][1] for point in points], "thickness": 0.7, "width": 0},
                mode="lines+markers", line={"color": colour, "dash": dash, "width": 1.5},
                marker={"symbol": symbol, "size": 8}, name=name, legendgroup=name, showlegend=column == 1,
                row=1, col=column,
            )  # fmt: skip
    figure.update_xaxes(title_text=f"{split} NDCG@10 (mean of seeds, bars one standard deviation)")
    figure.update_layout(
        template="simple_white", font={"size": 13}, margin={"t": 50, "b": 120, "l": 60, "r": 20},
        legend={"orientation": "h", "y": -0.2},
    )  # fmt: skip
    figure.write_image(picture, width=1100, height=520, scale=2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--part", type=int, nargs=2, default=(0, 1), metavar=("I", "N"))
    parser.add_argument("--picture", type=Path, default=None)
    arguments = parser.parse_args()

    wanted = [(name, seed) for seed in arguments.seeds for name in KINDS]
    for name, seed in wanted[arguments.part[0] :: arguments.part[1]]:
        if sum((row["kind"], row["seed"]) == (name, seed) for row in read_rows(arguments.out)) == len(
            KINDS[name].values
        ):
            continue
        append_rows(arguments.out, *({"kind": name, "seed": seed, **row} for row in measure(KINDS[name], seed)))
    rows = read_rows(arguments.out)
    for split in ("valid", "test"):
        print(f"\n{split}:\n\n{table(rows, split)}")
    if arguments.picture:
        draw(rows, "test", arguments.picture)


if __name__ == "__main__":
    main()
