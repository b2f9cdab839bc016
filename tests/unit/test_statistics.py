"""Paired tests compared with values computed by hand, and their undefined cases."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from recbole_diffusion.compare.statistics import bootstrap_interval, holm, paired_test, wilcoxon

NAN = math.nan


@pytest.mark.parametrize(
    ("p_values", "corrected"),
    [
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),  # 3 * 0.01; 2 * 0.03; 0.04 is no less than that
        ([0.05, 0.01, 0.04, 0.02, 0.03], [0.09, 0.05, 0.09, 0.08, 0.09]),  # R: p.adjust(p, "holm")
        ([0.6, 0.7], [1.0, 1.0]),
        ([0.02, NAN, 0.01], [0.02, NAN, 0.02]),
        ([], []),
    ],
)
def test_holm(p_values: list[float], corrected: list[float]) -> None:
    assert holm(p_values) == pytest.approx(corrected, nan_ok=True)


def test_wilcoxon_of_five_users_who_all_gain() -> None:
    assert wilcoxon(np.array([0.1, 0.2, 0.3, 0.4, 0.5])) == pytest.approx(2 / 2**5)
    assert wilcoxon(np.array([-0.1, -0.2, -0.3, -0.4, -0.5])) == pytest.approx(2 / 2**5)


def test_users_who_are_all_equal_are_no_evidence() -> None:
    users = [f"u{i}" for i in range(10)]
    values = pd.Series(np.linspace(0, 1, 10), index=users)
    assert paired_test(values, values) == (10, 0.0, 0.0, 0.0, 1.0)
    # The same mean over three seeds, summed in another order.
    assert 0.1 + 0.2 + 0.3 != 0.3 + 0.2 + 0.1
    near = pd.Series([0.1 + 0.2 + 0.3] * 10, index=users)
    assert paired_test(near, pd.Series([0.3 + 0.2 + 0.1] * 10, index=users)).p_value == 1


def test_the_bootstrap_interval_is_that_of_the_mean() -> None:
    differences = np.random.default_rng(0).normal(0.1, 1, size=2000)
    low, high = bootstrap_interval(differences)
    margin = 1.96 * differences.std() / math.sqrt(2000)
    assert (low, high) == pytest.approx((differences.mean() - margin, differences.mean() + margin), abs=0.01)
    assert bootstrap_interval(differences) == (low, high)
    assert bootstrap_interval(np.full(5, 0.25)) == (0.25, 0.25)


def test_pairs_are_of_the_same_user_whatever_the_order() -> None:
    model = pd.Series([1.0, 0.5, 0.0, 0.25], index=["a", "b", "c", "only model"])
    baseline = pd.Series([0.0, 9.0, 0.25, 0.5], index=["c", "only baseline", "b", "a"])
    test = paired_test(model, baseline)
    assert test.users == 3 and test.difference == pytest.approx((0.5 + 0.25 + 0.0) / 3)
    assert paired_test(model.iloc[::-1], baseline) == test


def test_fewer_than_two_users_in_common_are_no_test() -> None:
    test = paired_test(pd.Series([1.0], index=["a"]), pd.Series([0.0, 1.0], index=["a", "b"]))
    assert test.users == 1 and all(math.isnan(value) for value in test[1:])
