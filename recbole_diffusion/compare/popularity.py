"""Pop in a comparison: the row that it has where it is not among the models, and how far each model is above it."""

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

REFERENCE = "reference"  # the preset of the row of a Pop that is none of the comparison's models
ABOVE, NOT_ABOVE = "yes", "no"  # in the column ``above_pop``; empty: not known
NOTE = """\
**Pop** recommends the most popular items of the training split to everyone. Where it is not among the models it has a
row all the same, as a reference without seeds or cost, computed beside each run on the same rows. How much a model is
above it is the mean difference over the users of the test split, with the 95 % interval of its standard error; a model
whose interval is not above 0 is marked "not above Pop". What the lists of such a model are like says nothing for it.
"""
POP_DIFFERS = """\
**Pop's figures differ between runs of one split.** They were made by different versions; how much a model is above Pop
is by the Pop beside its own runs. Remove the older runs, and they are made again.
"""
_OWN = ("Pop", "recbole.Pop")
_SAME = 1e-9  # rounding: the batches of models differ

Rows = list[dict[str, Any]]


def is_pop(row: Mapping[str, Any]) -> bool:
    """Whether a row is Pop's, one of the comparison's models or not."""
    return row["model"] in _OWN


def is_reference(row: Mapping[str, Any]) -> bool:
    """Whether a row is that of a Pop that is none of the comparison's models."""
    return bool(row["preset"] == REFERENCE)


def not_above(row: Mapping[str, Any]) -> bool:
    """Whether a row is of a model that is known not to be clearly above Pop."""
    return bool(row["above_pop"] == NOT_ABOVE)


def add_margins(rows: Rows, finished: Sequence[Run], records: Mapping[Run, dict[str, Any]], metric: str) -> None:
    """To each row of a data set how far the model is above Pop, on the users of the test split.

    By what tells accuracy, ``metric`` if that does, and by Pop beside the model's own runs, or else by Pop's own. Runs
    of earlier versions have no Pop beside them: where Pop is no model either, it is not known.
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
    """Pop's row for a data set whose ``rows`` have none: its test metrics beside the runs, and nothing else.

    They are means over the runs, for splits may differ. Empty where no run has Pop beside it.
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
    """Pop's metric of each user, for the model of ``runs``."""
    beside = [run for run in runs if records[run].get("pop_test")]
    if beside:
        return user_means(beside, POP_VALUES + metric)
    own = [run for run in finished if _is_plain_pop(run)]
    return user_means(own, metric) if own else None


def _is_plain_pop(run: Run) -> bool:
    return run.model in _OWN and run.resolved.get("mmr_weight") is None


def _differ(finished: Sequence[Run], records: Mapping[Run, dict[str, Any]]) -> bool:
    """Whether two runs of one split have other figures of Pop, which cannot be."""
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
