"""The metrics of single users; RecBole reports only their mean."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from recbole.data.dataloader import FullSortEvalDataLoader
from recbole.evaluator import Evaluator
from recbole.evaluator.register import metric_information, metrics_dict

from recbole_diffusion.evaluation.metrics import ListMetric


class UserEvaluator(Evaluator):
    """RecBole's evaluator. It keeps its last input, so that :meth:`user_values` can use it."""

    collected: Any = None

    def evaluate(self, dataobject: Any) -> Any:
        self.collected = dataobject
        return super().evaluate(dataobject)

    def user_values(self, metrics: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """``{metric@k: value of each row}`` of the last evaluation, [rows] float64, in the order of its batches.

        Metrics of all lists together, and those without a k, have no values of single rows and are left out.

        Args:
            metrics: names in lower case, without k; default: all.
        """
        values: dict[str, np.ndarray] = {}
        for name, metric in self.metric_class.items():
            if has_user_values(name) and (metrics is None or name in metrics):
                values.update(_user_values(metric, self.collected))
        return {name: np.asarray(of_users, dtype=np.float64) for name, of_users in values.items()}


def has_user_values(metric: str) -> bool:
    """Whether a metric is a mean over users, with one value per user for each k; named as in RecBole's settings."""
    metric_class = metrics_dict[metric.lower()]
    return issubclass(metric_class, ListMetric) or hasattr(metric_class, "topk_result")


def tells_accuracy(metric: str) -> bool:
    """Whether a metric measures where the held-out items are in each user's list. Larger is better for all of these.

    ``metric`` with or without ``@k``.
    """
    return "rec.topk" in metric_information[metric.partition("@")[0].lower()]


def of_lists(metric: str) -> bool:
    """Whether a metric looks only at the listed items, not at the held-out ones; ``metric`` with or without ``@k``."""
    return "rec.items" in metric_information[metric.partition("@")[0].lower()]


def accuracy_metric(names: Sequence[str], preferred: str) -> str | None:
    """``preferred`` if it measures accuracy, else the first of ``names`` that does, else None.

    All are named as in results: ``ndcg@10``.
    """
    return next((name for name in (preferred, *names) if tells_accuracy(name)), None)


def smaller_is_better(metric: str) -> bool:
    """Whether a smaller value is better; ``metric`` with or without ``@k``."""
    return bool(metrics_dict[metric.partition("@")[0].lower()].smaller)


def _user_values(metric: Any, collected: Any) -> dict[str, Any]:
    if isinstance(metric, ListMetric):
        return metric.user_values(collected)
    # RecBole's metrics compute a matrix [users, max k]; ``topk_result`` takes its mean.
    without_mean = copy.copy(metric)
    without_mean.topk_result = lambda name, matrix: {f"{name}@{k}": matrix[:, k - 1] for k in metric.topk}
    values: dict[str, Any] = without_mean.calculate_metric(collected)
    return values


def ranked_users(loader: Any) -> np.ndarray:
    """The user id of each row that ``loader`` ranks, [rows], in the order of its batches."""
    field = loader._dataset.uid_field
    users = [batch[0][field] for batch in loader]
    if not isinstance(loader, FullSortEvalDataLoader):
        # One row per candidate, and the candidates of a user are together.
        users = [torch.unique_consecutive(of_batch) for of_batch in users]
    return torch.cat(users).cpu().numpy()
