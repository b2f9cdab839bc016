"""Pop in a comparison: its own row if it is not among the models, and the difference of each model from it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from recbole_diffusion.compare.run import POP_VALUES, Run, label
from recbole_diffusion.compare.values import by_label, user_means
from recbole_diffusion.evaluation.collapse import margin
from recbole_diffusion.evaluation.users import accuracy_metric

REFERENCE = "reference"  # the preset in Pop's row, if Pop is not among the models
ABOVE, NOT_ABOVE = "yes", "no"  # in the column ``above_pop``; empty means not known
NOTE = """\
**Pop** recommends the most popular items of the training split to everyone. If it is not among the models, it has a
row without seeds or cost, as a reference: each run also computes it on the same test rows. The difference from Pop is
the mean over the users of the test split, with a 95 % interval from its standard error. A model is marked "not above
Pop" if its interval is not above 0. The diversity of such a model's lists is no merit.
"""
POP_DIFFERS = """\
**Pop's figures differ between runs of one split.** Different versions made them. Each model is compared with the Pop of
its own runs. Remove the older runs, and the same command makes them again.
"""
_OWN = ("Pop", "recbole.Pop")
_SAME = 1e-9  # rounding error: models have different batches

Rows = list[dict[str, Any]]


def is_pop(row: Mapping[str, Any]) -> bool:
    """Whether a row is Pop's, as a model of the comparison or as the reference."""
    return row["model"] in _OWN


def is_reference(row: Mapping[str, Any]) -> bool:
    """Whether a row is Pop's as the reference, not as a model of the comparison."""
    return bool(row["preset"] == REFERENCE)


def not_above(row: Mapping[str, Any]) -> bool:
    """Whether the model of a row is known not to be clearly above Pop."""
    return bool(row["above_pop"] == NOT_ABOVE)


def add_margins(rows: Rows, finished: Sequence[Run], records: Mapping[Run, dict[str, Any]], metric: str) -> None:
    """Add the difference from Pop to each row of a data set: the mean over the users of the test split.

    The metric is ``metric`` if it measures accuracy, else the first one that does. Pop's values come from the model's
    own runs. Runs of earlier versions have none; then they come from Pop's runs, if Pop is one of the models.
    """
    own = by_label(finished)
    differ = _differ(finished, records)
    for row in rows:
        runs = own[label(row["model"], row["preset"])]
        names = list(records[runs[0]]["tests"][0])
        accuracy = accuracy_metric(names, metric)
        of_pop = None if accuracy is None or is_pop(row) else _user_means_of_pop(runs, finished, records, accuracy)
        found = None if of_pop is None else margin(user_means(runs, str(accuracy)), of_pop)
        row["accuracy_metric"] = accuracy or ""
        row["pop_difference"], row["pop_difference_low"], row["pop_difference_high"] = (
            (math.nan,) * 3 if found is None else found[1:]
        )
        known = found is not None and found.users > 0
        row["above_pop"] = "" if found is None or not known else ABOVE if found.is_clear else NOT_ABOVE
        row["pop_differs"] = differ


def reference_rows(rows: Rows, finished: Sequence[Run], records: Mapping[Run, dict[str, Any]]) -> Rows:
    """Pop's row for a data set whose ``rows`` have none: its test metrics only, as means over the runs.

    They are means because splits may differ. Empty if no run has computed Pop.
    """
    beside = _beside(finished, records)
    if not beside or any(is_pop(row) for row in rows):
        return []
    first = rows[0]
    row: dict[str, Any] = {"dataset": first["dataset"], "model": "Pop", "preset": REFERENCE, "runs": 0}
    for name in beside[0]:
        row[f"test_{name}_mean"] = float(np.mean([figures[name] for figures in beside]))
        row[f"test_{name}_std"] = row[f"test_{name}_generation_std"] = math.nan
    shared = ("splits_differ", "pop_differs", "baseline", "tested_metric", "accuracy_metric")
    return [{**row, **{key: first[key] for key in shared}, "above_pop": ""}]


def _beside(finished: Sequence[Run], records: Mapping[Run, dict[str, Any]]) -> list[dict[str, float]]:
    return [records[run]["pop_test"] for run in finished if records[run].get("pop_test")]


def _user_means_of_pop(
    runs: Sequence[Run], finished: Sequence[Run], records: Mapping[Run, dict[str, Any]], metric: str
) -> pd.Series | None:
    """Pop's metric of each user, to compare the model of ``runs`` with."""
    beside = [run for run in runs if records[run].get("pop_test")]
    if beside:
        return user_means(beside, POP_VALUES + metric)
    own = [run for run in finished if _is_plain_pop(run)]
    return user_means(own, metric) if own else None


def _is_plain_pop(run: Run) -> bool:
    return run.model in _OWN and run.resolved.get("mmr_weight") is None


def _differ(finished: Sequence[Run], records: Mapping[Run, dict[str, Any]]) -> bool:
    """Whether two runs of one split have different figures of Pop. Runs of one version never do."""
    if not _beside(finished, records):
        return False
    known: dict[str, dict[str, float]] = {}
    for run in finished:
        record = records[run]
        figures = record["tests"][0] if _is_plain_pop(run) else record.get("pop_test")
        if not figures:
            continue
        first = known.setdefault(record["split_sha256"], figures)
        if any(abs(first[name] - figures[name]) > _SAME for name in first):
            return True
    return False
