"""Pop as a reference: what recommending the most popular items to everyone scores on the same rows as a model."""

from __future__ import annotations

import copy
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from recbole.model.general_recommender.pop import Pop
from recbole.trainer import Trainer
from recbole.utils import EvaluatorType

from recbole_diffusion.data.items import interaction_counts
from recbole_diffusion.evaluation.users import UserEvaluator, ranked_users


class Scored(NamedTuple):
    """Pop on one split.

    - ``metrics``: the metrics, rounded by RecBole.
    - ``values``: the value of each ranked row, [rows], for metrics that have values of single rows.
    - ``users``: the user id of each row, [rows].
    """

    metrics: dict[str, float]
    values: dict[str, np.ndarray]
    users: np.ndarray

    @property
    def exact(self) -> dict[str, float]:
        """The metrics, not rounded if rows have values."""
        return {**self.metrics, **{name: float(of_rows.mean()) for name, of_rows in self.values.items()}}


class Reference:
    """Pop's figures on the splits of a trained model. Each is computed once, when it is first read.

    Pop counts the interactions of the training split, including the first of each user. The model's own trainer and
    loaders rank it: the same rows, masks, sampled candidates and metrics. Its lists are never re-ranked.
    """

    def __init__(self, trainer: Any, loaders: Any) -> None:
        self._trainer, self._loaders = trainer, loaders

    @cached_property
    def valid(self) -> Scored:
        """On the validation split."""
        return self._score(self._loaders.valid)

    @cached_property
    def test(self) -> Scored:
        """On the test split."""
        return self._score(self._loaders.test)

    @cached_property
    def _pop(self) -> Pop:
        dataset = self._loaders.train._dataset
        pop = Pop(self._trainer.config, dataset)
        pop.item_cnt = torch.from_numpy(interaction_counts(dataset)).view(-1, 1).to(self._trainer.device)
        pop.max_cnt = pop.item_cnt.max(dim=0).values
        return pop.to(self._trainer.device)

    def _score(self, loader: Any) -> Scored:
        trainer = copy.copy(self._trainer)
        trainer.model = self._pop
        trainer.evaluator = UserEvaluator(trainer.config)
        trainer.eval_collector = self._trainer.eval_collector.without_reranking()
        trainer.wandblogger = copy.copy(trainer.wandblogger)
        trainer.wandblogger.log_wandb = False  # it would log Pop's figures under the model's name
        metrics = Trainer.evaluate(trainer, loader, load_best_model=False)  # not ours, which loads a checkpoint
        values = trainer.evaluator.user_values()
        return Scored({name: float(value) for name, value in metrics.items()}, values, ranked_users(loader))


def reference_for(trainer: Any, loaders: Any) -> Reference | None:
    """Pop as a reference for the model of ``trainer``; None for Pop itself and for metrics of single predictions."""
    if isinstance(trainer.model, Pop) or trainer.config["eval_type"] != EvaluatorType.RANKING:
        return None
    return Reference(trainer, loaders)
