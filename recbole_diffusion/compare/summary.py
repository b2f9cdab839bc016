"""The rows of a comparison's tables: one per data set and model, from the finished runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from recbole_diffusion.compare import popularity
from recbole_diffusion.compare.run import Run
from recbole_diffusion.compare.run import label as label_of
from recbole_diffusion.compare.statistics import holm, paired_test
from recbole_diffusion.compare.values import by_label, user_means
from recbole_diffusion.config import roles
from recbole_diffusion.config.protocol import is_sampled

Record = dict[str, Any]
_DECIMALS = 12
_DATA = {
    "data_sha256": "data set, SHA-256",
    "split_sha256": "split, SHA-256",
    "users": "users",
    "items": "items",
    "interactions": "interactions",
}
_RUNS = {
    "eval_seeds": "generation seeds",
    "seeds": "training seeds",
    "tuning": "tuning, on the validation split",
    "set": "settings given or found by tuning",
    "versions": "versions",
    "device": "device",
    "cpu": "CPU",
    "threads": "threads",
}
BETWEEN_RUNS = " | "  # separates values that differ between the runs of one model


def stamp() -> dict[str, str]:
    """What a result depends on: columns of results.csv, each with its title in results.md."""
    return {**_DATA, **roles.stamp(), **_RUNS}


def summarise(runs: Sequence[Run], records: Mapping[Run, Record], baseline: str, metric: str) -> list[dict[str, Any]]:
    """One row per data set and model.

    If Pop is not one of the models, its row comes last (:func:`recbole_diffusion.compare.popularity.reference_rows`).

    Args:
        runs: all runs of the comparison.
        records: the results of the finished runs.
        baseline: label of the model that the others are tested against.
        metric: metric of that test, e.g. ``ndcg@10``.
    """
    rows: list[dict[str, Any]] = []
    for dataset in dict.fromkeys(run.dataset for run in runs):
        finished = [run for run in runs if run.dataset == dataset and run in records]
        own = _dataset_rows(finished, records)
        _add_tests(own, finished, baseline, metric)
        popularity.add_margins(own, finished, records, metric)
        rows += own + popularity.reference_rows(own, finished, records)
    return rows


def _dataset_rows(runs: Sequence[Run], records: Mapping[Run, Record]) -> list[dict[str, Any]]:
    """One row per model, with means over its finished seeds."""
    rows = []
    splits: dict[int, set[str]] = {}
    for run in runs:
        splits.setdefault(run.seed, set()).add(records[run]["split_sha256"])  # a random split differs between seeds
    splits_differ = any(len(of_seed) > 1 for of_seed in splits.values())
    for own in by_label(runs).values():
        results = [records[run] for run in own]
        row: dict[str, Any] = {"dataset": own[0].dataset, "model": own[0].model, "preset": own[0].preset}
        row["runs"] = len(own)
        for name in results[0]["tests"][0]:
            values = np.array([[test[name] for test in result["tests"]] for result in results])  # [seeds, generations]
            row[f"test_{name}_mean"] = values.mean()
            row[f"test_{name}_std"] = _deviation(values.mean(axis=1))
            # Variances are averaged over the trained models, not deviations.
            row[f"test_{name}_generation_std"] = math.sqrt(np.mean([_deviation(v) ** 2 for v in values]))
        row["train_seconds"] = np.mean([result["train_seconds"] for result in results])
        row["seconds_per_1000_users"] = np.mean(
            [np.mean(result["rank_seconds"]) / result["rows"] * 1000 for result in results]
        )
        row["parameters"] = results[0]["parameters"]
        row["peak_memory_gb"] = np.max([result["peak_memory_gb"] for result in results])
        row["epochs"] = np.mean([result["epochs"] for result in results])
        row["splits_differ"] = splits_differ
        facts = [_facts(result) for result in results]
        for name in stamp():
            row[name] = BETWEEN_RUNS.join(dict.fromkeys(_text(of_run.get(name)) for of_run in facts))
        row["seeds"] = ", ".join(str(run.seed) for run in own)
        told = {
            "seed",
            "eval_seed",
            "metrics",
            "topk",
            *roles.NO_RESULT,
            *stamp(),
        }  # shown elsewhere, or not interesting
        given = {key: value for key, value in own[0].settings.items() if key not in told}
        row["set"] = _text(given)
        rows.append(row)
    return rows


def _facts(record: Record) -> dict[str, Any]:
    """The entries of a record, and the settings of :func:`stamp` that its figures depend on."""
    settings = record["settings"]
    facts = {**{key: settings.get(key) for key in stamp()}, **record}
    if not is_sampled(settings["eval_args"]["mode"]["test"]):
        facts["candidate_seed"] = None
    return facts


def _deviation(values: np.ndarray) -> float:
    """Sample standard deviation, rounded to hide rounding errors; nan for a single value."""
    return round(float(np.std(values, ddof=1)), _DECIMALS) if len(values) > 1 else math.nan


def _text(value: Any) -> str:
    if value is None or value == []:
        return ""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(_text(item) for item in value)
    return str(value)


def _add_tests(rows: Sequence[dict[str, Any]], finished: Sequence[Run], baseline: str, metric: str) -> None:
    """Add to each row of a data set the paired test against the baseline, if both have finished runs."""
    values = {name: user_means(own, metric) for name, own in by_label(finished).items()}
    tests = {
        name: paired_test(of_users, values[baseline])
        for name, of_users in values.items()
        if name != baseline and baseline in values
    }
    corrected = dict(zip(tests, holm([test.p_value for test in tests.values()]), strict=True))
    for row in rows:
        test = tests.get(label(row))
        row["baseline"], row["tested_metric"] = baseline, metric
        row["paired_users"] = test.users if test else None
        row["difference"] = test.difference if test else math.nan
        row["difference_low"], row["difference_high"] = (test.low, test.high) if test else (math.nan, math.nan)
        row["p"], row["p_holm"] = (test.p_value, corrected[label(row)]) if test else (math.nan, math.nan)


def label(row: Mapping[str, Any]) -> str:
    """The model of a row, as the user names it."""
    return label_of(row["model"], row["preset"])
