"""Whether a trained model is worth more than popularity, and its lists are more than a few items. Pure functions.

A collapsed model scores like Pop or gives everyone the same few items; measures of diversity may then look their best.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import pandas as pd

_DECIMALS = 12  # differences are rounded to so many: users whose mean over seeds is the same tie, whatever the rounding
_Z = 1.96  # of a 95 % interval
# Of the items that users went on to take, so many must at least be in the lists. On ml-100k trained models have 0.7
# times as many and more, Pop 0.02 (or 0.17, where lists leave out what a user has seen). The measure is what users do
# and not the catalogue, which on some data most users never touch. A list has k items itself: data whose users take no
# more than 4 k never warn.
_NARROW = 0.25


def paired_differences(model: pd.Series, baseline: pd.Series) -> pd.Series:
    """Model less baseline for each user that both have, in the order of the users; rounding errors are zero."""
    return (model - baseline.reindex(model.index)).dropna().sort_index().round(_DECIMALS)


class Margin(NamedTuple):
    """How much a model is above Pop: the mean difference over ``users``, ``low`` and ``high`` its 95 % interval.

    The interval is that of the normal distribution, by the standard error of the differences; nan with fewer than two
    users.
    """

    users: int
    difference: float
    low: float
    high: float

    @property
    def is_clear(self) -> bool:
        """Whether the model is above Pop by more than the users' chance."""
        return self.low > 0


def margin(model: pd.Series, pop: pd.Series) -> Margin:
    """The difference of a model from Pop, by a metric of which more is better.

    Args:
        model, pop: the metric of each ranked row, indexed by user; a user's rows are averaged. Users that one of them
            lacks are left out.
    """
    differences = paired_differences(*(of_rows.groupby(level=0).mean() for of_rows in (model, pop)))
    mean = float(differences.mean())
    half = _Z * float(differences.std(ddof=1)) / math.sqrt(max(len(differences), 1))
    return Margin(len(differences), mean, mean - half, mean + half)


def is_narrow(listed: int, taken: int) -> bool:
    """Whether lists of ``listed`` different items are few for users whose next items were ``taken`` different ones."""
    return listed < _NARROW * taken


def accuracy_warning(model: str, metric: str, figure: float, of_pop: float, found: Margin) -> str | None:
    """What to say of a model that is not clearly above Pop; None where it is.

    Args:
        model: its name.
        metric: what the others are of.
        figure, of_pop: its means on the validation split.
        found: the difference between them.
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
    """What to say of a model whose lists have few items; None where they have enough.

    Args:
        model: its name.
        k: length of the lists.
        listed: different items in the lists of all users of the validation split.
        taken: different items that these users took next.
        items: items of the catalogue.
    """
    if not is_narrow(listed, taken):
        return None
    return (
        f"{model} recommends few items: the top {k} of all users of the validation split hold {listed} of the {items} "
        f"items, and what these users took were {taken} different ones. {_advice(model)}"
    )


def _advice(model: str, doubt: str = "") -> str:
    """One sentence; there is no better model to send a user of the last one to."""
    beside = "" if model == "WindowSASRec" else ", and compare it with WindowSASRec on the same data"
    return f"It may have collapsed{doubt}: look at the losses and diagnostics in its log, try other settings{beside}."
