"""Signs of collapse: a model that is not above Pop, or whose lists hold few different items. Pure functions.

A collapsed model scores like Pop, or gives everyone the same few items. Its diversity may even look best.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pandas as pd

_DECIMALS = 12  # differences are rounded, so that equal means over seeds tie in spite of rounding errors
_Z = 1.96  # of a 95 % interval
# The lists must hold at least this share of the number of different items that the users took next. On ml-100k, trained
# models reach 0.7 and more; Pop reaches 0.02, or 0.17 if lists leave out what a user has seen. The share is not of the
# catalogue, because in some data most of it is never touched. One list alone holds k items, so there is no warning if
# the users took at most 4 k different items.
_NARROW = 0.25


def paired_differences(model: pd.Series, baseline: pd.Series) -> pd.Series:
    """Model minus baseline for each user that is in both series, sorted by user. Rounding errors become zero."""
    return (model - baseline.reindex(model.index)).dropna().sort_index().round(_DECIMALS)


class Validation(NamedTuple):
    """What one validation says about a collapse of the model.

    ``accuracy`` is the name of the metric of accuracy (None if none is computed), and ``values`` its value for each
    ranked row, [rows]. ``listed`` is how many different items the lists contain (None if there are no lists).
    """

    accuracy: str | None
    values: np.ndarray | None
    listed: int | None


class Margin(NamedTuple):
    """The difference of a model from Pop: its mean over ``users``, and its 95 % interval, ``low`` to ``high``.

    The interval uses the normal distribution and the standard error of the differences. It is nan with fewer than two
    users.
    """

    users: int
    difference: float
    low: float
    high: float

    @property
    def is_clear(self) -> bool:
        """Whether the whole interval is above 0."""
        return self.low > 0


def margin(model: pd.Series, pop: pd.Series) -> Margin:
    """The difference of a model from Pop in a metric for which larger is better.

    Args:
        model, pop: the metric of each ranked row, indexed by user. The rows of a user are averaged. Users that are in
            only one of the two are left out.
    """
    differences = paired_differences(*(of_rows.groupby(level=0).mean() for of_rows in (model, pop)))
    mean = float(differences.mean())
    half = _Z * float(differences.std(ddof=1)) / math.sqrt(max(len(differences), 1))
    return Margin(len(differences), mean, mean - half, mean + half)


def is_narrow(listed: int, taken: int) -> bool:
    """Whether ``listed`` different items are few, for users who took ``taken`` different items next."""
    return listed < _NARROW * taken


def accuracy_warning(model: str, metric: str, figure: float, of_pop: float, found: Margin) -> str | None:
    """The warning for a model that is not clearly above Pop; None if it is.

    Args:
        model: its name.
        metric: name of the metric.
        figure, of_pop: the means of the model and of Pop on the validation split.
        found: the difference from Pop.
    """
    if found.is_clear:
        return None
    doubt = ", or the users may be too few to tell" if found.difference > 0 else ""
    return (
        f"{model} is not clearly above Pop, which recommends the most popular items to everyone: {metric} is "
        f"{figure:.4f} on the validation split and Pop's {of_pop:.4f} (mean difference over "
        f"{found.users} users {found.difference:+.4f}, 95 % interval {found.low:+.4f} to {found.high:+.4f}). "
        f"{_advice(model, doubt)}"
    )


def coverage_warning(model: str, k: int, listed: int, taken: int, items: int) -> str | None:
    """The warning for a model whose lists hold few items; None if they hold enough.

    Args:
        model: its name.
        k: length of the lists.
        listed: different items in the lists of all users of the validation split.
        taken: different items that the same users took next.
        items: items of the catalogue.
    """
    if not is_narrow(listed, taken):
        return None
    return (
        f"{model} recommends few items: on the validation split, the top {k} of all users hold {listed} of the {items} "
        f"items, and the same users took {taken} different items next. {_advice(model)}"
    )


def _advice(model: str, doubt: str = "") -> str:
    """What to do about it, in one sentence. WindowSASRec is not told to compare itself with WindowSASRec."""
    beside = "" if model == "WindowSASRec" else ", and compare it with WindowSASRec on the same data"
    return f"It may have collapsed{doubt}: look at the losses and diagnostics in its log, try other settings{beside}."
