"""The rules for collapse, compared with values computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from recbole_diffusion.evaluation.collapse import accuracy_warning, coverage_warning, is_narrow, margin
from recbole_diffusion.evaluation.users import accuracy_metric


def of_users(*values: float) -> pd.Series:
    return pd.Series(values, index=[f"u{i}" for i in range(len(values))])


def test_the_margin_is_the_mean_difference_with_its_standard_error() -> None:
    found = margin(of_users(1, 1, 0, 0), of_users(0, 0, 0, 0))
    # Deviation of 1, 1, 0, 0: sqrt(4 * 0.25 / 3); of the mean: that over sqrt(4).
    half = 1.96 * math.sqrt(1 / 3) / 2
    assert found == pytest.approx((4, 0.5, 0.5 - half, 0.5 + half))
    assert not found.is_clear


def test_a_margin_is_clear_from_enough_users() -> None:
    for hits, clear in ((3, False), (4, True)):  # of 100 users more than Pop: 0.03 +- 0.034, 0.04 +- 0.039
        values = np.zeros(100)
        values[:hits] = 1
        assert margin(of_users(*values), of_users(*np.zeros(100))).is_clear is clear
    assert not margin(of_users(0, 0, 0), of_users(1, 1, 1)).is_clear


def test_a_user_counts_once_and_only_where_both_ranked_it() -> None:
    model = pd.Series([1.0, 0.0, 1.0, 1.0], index=["a", "a", "b", "c"])
    pop = pd.Series([0.0, 0.0, 0.5, 0.5], index=["b", "a", "a", "d"])
    found = margin(model, pop)
    assert found[:2] == (2, pytest.approx((0.5 - 0.25 + 1 - 0) / 2))


@pytest.mark.parametrize("values", [[], [1.0]])
def test_too_few_users_are_no_evidence(values: list[float]) -> None:
    found = margin(of_users(*values), of_users(*[0.0] * len(values)))
    assert found.users == len(values) and not found.is_clear


@pytest.mark.parametrize(
    ("listed", "taken", "narrow"),
    [
        (19, 180, True),  # a shop of 400 items, 300 users
        (10, 535, True),  # Pop on ml-100k
        (91, 535, True),  # Pop there, without what users have seen
        (367, 535, False),  # ItemKNN there
        (2420, 8351, False),  # a fifth of Amazon Beauty's items
        (30, 28, False),  # a shop of 30 items
        (10, 30, False),  # all items are bought, and the model is like Pop: with lists of 10 this is not a collapse
        (10, 40, False),
        (10, 41, True),
    ],
)
def test_lists_are_narrow_compared_with_what_users_took(listed: int, taken: int, narrow: bool) -> None:
    assert is_narrow(listed, taken) is narrow
    assert (coverage_warning("DiffDiv", 10, listed, taken, 1000) is not None) is narrow


def test_warnings_say_what_was_seen_and_what_to_do() -> None:
    model, pop = of_users(0.0, 0.5, 0.0), of_users(0.0, 0.25, 0.25)
    text = accuracy_warning("DiffDiv", "ndcg@10", 0.1667, 0.1667, margin(model, pop))
    assert text is not None and text.startswith("DiffDiv is not clearly above Pop")
    for part in ("ndcg@10 is 0.1667", "Pop's 0.1667", "+0.0000", "3 users", "diagnostics", "WindowSASRec"):
        assert part in text, part
    assert "too few" not in text
    text = accuracy_warning("DiffDiv", "hit@10", 0.5, 0.0, margin(of_users(1, 0), of_users(0, 0)))
    assert text is not None and "or the users may be too few to tell: look at" in text
    text = coverage_warning("WindowSASRec", 10, 19, 180, 400)
    assert text is not None
    assert "hold 19 of the 400 items" in text and "180 different items" in text
    assert text.count("WindowSASRec") == 1  # its warning does not recommend WindowSASRec again
    above = margin(of_users(1, 1, 0.9), of_users(0, 0, 0))
    assert accuracy_warning("DiffDiv", "ndcg@10", 0.97, 0.0, above) is None


@pytest.mark.parametrize(
    ("names", "preferred", "accuracy"),
    [
        (["hit@5", "ndcg@5", "ild@5"], "ndcg@5", "ndcg@5"),
        (["ild@5", "mrr@5", "hit@5"], "ild@5", "mrr@5"),
        (["gauc", "itemcoverage@5", "recall@5"], "gauc", "recall@5"),
        (["ild@5", "averagepopularity@5"], "averagepopularity@5", None),
    ],
)
def test_what_tells_accuracy(names: list[str], preferred: str, accuracy: str | None) -> None:
    assert accuracy_metric(names, preferred) == accuracy
