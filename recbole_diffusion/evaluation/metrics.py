"""The functions of :mod:`recbole_diffusion.evaluation.diversity` as metrics with names for RecBole's settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from recbole.evaluator.base_metric import AbstractMetric
from recbole.evaluator.register import metric_information, metric_types, metrics_dict
from recbole.utils import EvaluatorType
from torch import Tensor

from recbole_diffusion.evaluation import diversity


class ListMetric(AbstractMetric):
    """The mean over users of ``value``, computed from the list of each user, at each k of ``topk``.

    ``metric_need`` names the inputs of ``value`` in the collector: the lists, and one resource.
    """

    metric_type = EvaluatorType.RANKING
    metric_need: ClassVar[list[str]]
    value: Callable[[Tensor, Tensor], Tensor]  # (items [users, k], resource) -> [users]

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.topk = config["topk"]

    def user_values(self, dataobject: Any) -> dict[str, Tensor]:
        """``{metric@k: value of each list}``, [users]."""
        items, resource = (dataobject.get(name) for name in self.metric_need)
        name = type(self).__name__.lower()
        return {f"{name}@{k}": self.value(items[:, :k], resource) for k in self.topk}

    def calculate_metric(self, dataobject: Any) -> dict[str, float]:
        values = self.user_values(dataobject)
        return {key: round(of_users.mean().item(), self.decimal_place) for key, of_users in values.items()}


class ILD(ListMetric):
    """Intra-list distance by categories (:func:`~recbole_diffusion.evaluation.diversity.category_distance`), 0 to 1."""

    metric_need = ["rec.items", "data.item_categories"]
    value = staticmethod(diversity.category_distance)


class EmbeddingILD(ListMetric):
    """Intra-list distance by item vectors (:func:`~recbole_diffusion.evaluation.diversity.vector_distance`), 0 to 2.

    The vectors come from the training interactions, not from the model. A model's loss shapes its item table, so
    distances in the tables of two models cannot be compared.
    """

    metric_need = ["rec.items", "data.item_vectors"]
    value = staticmethod(diversity.vector_distance)


class CategoryCoverage(ListMetric):
    """Share of all categories in a list (:func:`~recbole_diffusion.evaluation.diversity.category_coverage`), 0 to 1."""

    metric_need = ["rec.items", "data.item_categories"]
    value = staticmethod(diversity.category_coverage)


class CategoryEntropy(ListMetric):
    """Entropy of a list's categories (:func:`~recbole_diffusion.evaluation.diversity.category_entropy`), in bits."""

    metric_need = ["rec.items", "data.item_categories"]
    value = staticmethod(diversity.category_entropy)


class Novelty(ListMetric):
    """Mean self-information of a list's items (:func:`~recbole_diffusion.evaluation.diversity.novelty`), in bits."""

    metric_need = ["rec.items", "data.item_counts"]
    value = staticmethod(diversity.novelty)


METRICS: tuple[type[ListMetric], ...] = (ILD, EmbeddingILD, CategoryCoverage, CategoryEntropy, Novelty)


def register() -> None:
    """Add our metrics to RecBole's tables. The tables are changed in place, because RecBole's modules share them.

    It is safe to call this again. For each of our metrics a larger value is more diverse or more novel, so none is in
    RecBole's ``smaller_metrics``.
    """
    for metric in METRICS:
        name = metric.__name__.lower()
        metrics_dict[name] = metric
        metric_information[name] = metric.metric_need
        metric_types[name] = metric.metric_type
