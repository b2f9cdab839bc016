"""Do two models differ by more than chance? Paired tests over users, as pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from recbole_diffusion.evaluation.collapse import paired_differences

_RESAMPLES = 1000
_BATCH_VALUES = 10_000_000  # drawn at once by the bootstrap: 80 MB


class PairedTest(NamedTuple):
    """One model compared with another, on the users that both have ranked.

    ``difference`` is the mean over users of model minus baseline, ``low`` and ``high`` its 95 % bootstrap interval,
    ``p_value`` that of the two-sided Wilcoxon signed-rank test. With fewer than two users all but ``users`` are nan.
    """

    users: int
    difference: float
    low: float
    high: float
    p_value: float


def paired_test(model: pd.Series, baseline: pd.Series) -> PairedTest:
    """Compare two series of values, indexed by user. Users that are in only one series are left out."""
    differences = paired_differences(model, baseline).to_numpy()
    if len(differences) < 2:
        return PairedTest(len(differences), *[float("nan")] * 4)
    low, high = bootstrap_interval(differences)
    return PairedTest(len(differences), float(differences.mean()), low, high, wilcoxon(differences))


def wilcoxon(differences: np.ndarray) -> float:
    """p of the two-sided Wilcoxon signed-rank test of paired ``differences``, [users]; zeros are left out.

    1 if no pair differs (scipy gives nan).
    """
    return float(stats.wilcoxon(differences).pvalue) if np.any(differences) else 1.0


def bootstrap_interval(differences: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of the mean of ``differences``, [users], over resamples of the users."""
    interval = stats.bootstrap(
        (differences,),
        np.mean,
        n_resamples=_RESAMPLES,
        batch=max(1, _BATCH_VALUES // len(differences)),
        method="percentile",
        random_state=seed,
    ).confidence_interval
    return float(interval.low), float(interval.high)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction: the i-th smallest of m p-values is multiplied by m - i + 1.

    A result is at most 1, and never below the result of a smaller p-value. A nan is no test: it stays nan and does not
    count in m.
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p)[: np.count_nonzero(~np.isnan(p))]  # nan sorts last
    factors = len(order) - np.arange(len(order))
    corrected = np.full_like(p, np.nan)
    corrected[order] = np.maximum.accumulate(np.minimum(p[order] * factors, 1))
    return [float(p_value) for p_value in corrected]
