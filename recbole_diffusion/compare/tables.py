"""The tables of a comparison: ``results.csv`` (raw numbers) and ``results.md`` (to be read), from its finished runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from recbole_diffusion.compare import popularity
from recbole_diffusion.compare.summary import BETWEEN_RUNS, label, stamp
from recbole_diffusion.evaluation.users import of_lists
from recbole_diffusion.storage.files import whole_file

_NONE = "–"
NOTES = f"""\
Test metrics are means over training seeds ± the standard deviation over them. Generation seeds are averaged first.
**Spread by generation** is the standard deviation over the generation seeds of one trained model.

**Test.** The metric of each user is averaged over seeds. Then the difference from the baseline is tested over the
users that both models ranked. The table has the 95 % bootstrap interval of its mean, and p of a
two-sided Wilcoxon signed-rank test, with Holm's correction for the models of one data set. The test tells whether the
difference would hold for other users. It does not tell whether it would hold for other training seeds: for that,
compare the difference with the deviation over seeds.

{popularity.NOTE}
Peak memory is the resident memory of the run's process, including PyTorch itself. Times are wall-clock times, so they
include the effect of other work on the machine.
"""
_MACHINE = ("versions", "device", "cpu", "threads")  # should be the same for all models
SPLITS_DIFFER = """\
**The splits differ between models.** There are two causes. RecBole splits users with fewer than four interactions
differently for sequential and for general models; leave these users out with `--user_inter_num_interval='[4,inf)'`. And
RecBole ranks another catalogue if a model reads an .item file.
"""
MACHINES_DIFFER = """\
**Not all runs are of one machine.** Device, CPU, threads and versions change a trained model a little. They can be the
cause of a small difference between models that do not share them.
"""


def write(out: Path, rows: Sequence[dict[str, Any]], baseline: str, metric: str, shown: Callable[[str], str]) -> None:
    """Write both tables from the rows of ``summary.summarise``; ``shown`` comes from :func:`metric_names`."""
    table = pd.DataFrame(rows)
    for name in ("paired_users", "parameters"):
        table[name] = table[name].astype("Int64")
    first = [name for name in table if name not in (*stamp(), "pop_differs")]
    with whole_file(out / "results.csv") as file:
        file.write(table[[*first, *stamp()]].to_csv(index=False).encode())
    with whole_file(out / "results.md") as file:
        file.write(markdown(rows, baseline, metric, shown).encode())


def metric_names(metrics: Sequence[str]) -> Callable[[str], str]:
    """A function from the names in results to those in the settings: ``ndcg@10`` to ``NDCG@10``."""
    names = {name.lower(): name for name in metrics}

    def shown(key: str) -> str:
        name, at, k = key.partition("@")
        return names.get(name, name) + at + k

    return shown


class Table(NamedTuple):
    """A table as it is shown, with ``title`` above it; cells are text."""

    title: str
    header: list[str]
    lines: list[list[str]]


def markdown(rows: Sequence[Mapping[str, Any]], baseline: str, metric: str, shown: Callable[[str], str]) -> str:
    """The tables of every data set, each under its protocol."""
    parts = ["# Comparison\n", NOTES]
    for dataset, own in by_dataset(rows).items():
        parts.append(f"## {dataset}\n")
        parts.append("\n".join(f"- {line}" for line in protocol(own)) + "\n")
        parts += warnings(own)
        for table in shown_tables(own, baseline, metric, shown):
            lines = [table.header, ["---"] * len(table.header), *table.lines]
            text = "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
            parts += [f"{table.title}:\n", text]
    return "\n".join(parts)


def by_dataset(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """The rows of each data set."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["dataset"], []).append(row)
    return found


def tested_metrics(row: Mapping[str, Any]) -> list[str]:
    """The test metrics that a row has: ``ndcg@10``, ..."""
    return [key[5:-5] for key in row if key.startswith("test_") and key.endswith("_mean")]


def warnings(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The warnings above the tables of one data set: why its models may not be comparable."""
    made = [row for row in rows if not popularity.is_reference(row)]
    machines = any(row[name] != made[0][name] or BETWEEN_RUNS in row[name] for row in made for name in _MACHINE)
    differ = {
        SPLITS_DIFFER: any(row["splits_differ"] for row in rows),
        popularity.POP_DIFFERS: rows[0]["pop_differs"],
        MACHINES_DIFFER: machines,
    }
    return [text for text, holds in differ.items() if holds]


def shown_tables(
    rows: Sequence[Mapping[str, Any]], baseline: str, metric: str, shown: Callable[[str], str]
) -> list[Table]:
    """The four tables of one data set: metrics, diversity of the lists with accuracy, tests, cost."""
    models = [row for row in rows if not popularity.is_reference(row)]

    def table(title: str, columns: Mapping[str, Sequence[str]], of_rows: Sequence[Mapping[str, Any]]) -> Table:
        cells = zip(*columns.values(), strict=True)
        lines = [[row["model"], row["preset"], *of_row] for row, of_row in zip(of_rows, cells, strict=True)]
        return Table(title, ["model", "preset", *columns], lines)

    metrics = {name: [_spread(row, f"test_{name}") for row in rows] for name in tested_metrics(rows[0])}
    beside = {}
    if accuracy := rows[0]["accuracy_metric"]:
        name = shown(accuracy)
        beside = {name: metrics[accuracy], "difference from Pop (95 % interval)": [_margin(row) for row in rows]}
    plain = {shown(name): cells for name, cells in metrics.items() if not of_lists(name) and name != accuracy}
    lists = {shown(name): cells for name, cells in metrics.items() if of_lists(name)}
    runs = {"runs": [str(row["runs"] or _NONE) for row in rows]}
    test = {
        "difference (95 % interval)": [_interval(row, "difference") for row in models],
        "p": [_number(row["p"], ".2g") for row in models],
        "p, Holm": [_number(row["p_holm"], ".2g") for row in models],
        "users in both": [_number(row["paired_users"], ",d") for row in models],
        "deviation over seeds": [_number(row[f"test_{metric}_std"], ".4f") for row in models],
        "spread by generation": [_number(row[f"test_{metric}_generation_std"], ".4f") for row in models],
    }
    cost = {
        "seconds to train and validate": [_number(row["train_seconds"], ",.1f") for row in models],
        "epochs": [_number(row["epochs"], ".1f") for row in models],
        "seconds to rank 1,000 users": [_number(row["seconds_per_1000_users"], ",.2f") for row in models],
        "parameters": [_number(row["parameters"], ",d") for row in models],
        "peak memory, GB": [_number(row["peak_memory_gb"], ".2f") for row in models],
    }
    return [
        table("Test metrics", {**runs, **beside, **plain}, rows),
        *([table("Diversity and novelty of the lists, with accuracy", {**beside, **lists}, rows)] if lists else []),
        table(f"{shown(metric)} compared with the baseline, {baseline}", test, models),
        table("Cost", cost, models),
    ]


def protocol(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The protocol, one line per entry. If models differ, the line says which model has which value."""
    lines = []
    for name, title in stamp().items():
        models: dict[str, list[str]] = {}
        for row in rows:
            if popularity.is_reference(row):
                continue
            models.setdefault(row[name], []).append(label(row))
        if len(models) == 1:
            (text,) = models
        else:
            text = "; ".join(f"{value} ({', '.join(labels)})" for value, labels in models.items() if value)
        if text:
            lines.append(f"{title}: {text}")
    return lines


def _spread(row: Mapping[str, Any], name: str) -> str:
    """``0.0568 ± 0.0017``; a single run has only the mean."""
    mean, deviation = row.get(f"{name}_mean", math.nan), row.get(f"{name}_std", math.nan)
    return _number(mean, ".4f") + ("" if math.isnan(deviation) else f" ± {deviation:.4f}")


def _interval(row: Mapping[str, Any], name: str) -> str:
    """``+0.0067 (-0.0026 to +0.0167)``."""
    mean, low, high = (row.get(f"{name}{end}", math.nan) for end in ("", "_low", "_high"))
    return _NONE if math.isnan(mean) else f"{mean:+.4f} ({low:+.4f} to {high:+.4f})"


def _margin(row: Mapping[str, Any]) -> str:
    return _interval(row, "pop_difference") + (", not above Pop" if popularity.not_above(row) else "")


def _number(value: Any, form: str) -> str:
    return _NONE if value is None or math.isnan(value) else format(value, form)
