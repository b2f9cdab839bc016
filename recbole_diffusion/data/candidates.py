"""Sampled candidates: the items among which a user's held-out items are ranked (``uniN``, ``popN``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from recbole.data.dataloader import NegSampleEvalDataLoader
from recbole.data.dataset import Dataset
from recbole.utils import EvaluatorType
from torch import Tensor

from recbole_diffusion.config.settings import UserError, rows_at_once
from recbole_diffusion.data.items import interaction_counts

_PHASES = ("valid", "test")


class CandidateSampler:
    """Draws the candidates of a user, instead of RecBole's sampler. Every call gives the same ones.

    They are a function of ``candidate_seed``, the phase, the user, the catalogue and, for ``popN``, the counts of its
    items. Users and items are identified by their tokens, so models with different ids get the same candidates. No
    shared random state is used. As with RecBole, a candidate can occur twice. None is an item of the user in this
    phase, nor one that RecBole's sampler leaves out.

    Args:
        config: settings of the run.
        splits: training, validation and test.
        sampler: RecBole's sampler of the phase.
    """

    def __init__(self, config: Any, splits: Sequence[Dataset], sampler: Any) -> None:
        self.phase: str = sampler.phase
        self._left_out = sampler.used_ids  # a set of items for each user id
        self._seed = (config["candidate_seed"], _PHASES.index(self.phase))
        tokens = splits[0].field2id_token
        self.users = tokens[splits[0].uid_field].astype(str)
        self._items = np.argsort(tokens[splits[0].iid_field][1:].astype(str), kind="stable") + 1  # by token
        weights = np.ones(len(self._items), dtype=np.int64)
        if config[f"{self.phase}_neg_sample_args"]["distribution"] == "popularity":
            weights = np.sum([interaction_counts(split) for split in splits], axis=0)[self._items]
        self.drawable = int(np.count_nonzero(weights))
        self._bounds = weights.cumsum()

    def own_items(self, user: int, items: np.ndarray) -> list[int]:
        """Items that cannot be candidates of the user id ``user``, who has ``items`` in this phase."""
        return list(self._left_out[user].union(items))

    def sample_by_user_ids(self, user_ids: np.ndarray, item_ids: np.ndarray, num: int) -> Tensor:
        """Candidates of one user, ``num`` for each item in this phase.

        Args:
            user_ids: the same user, once for each item, [rows].
            item_ids: all items of the user in this phase, [rows].

        Returns:
            Item ids, [num * rows].
        """
        user = user_ids[0]
        rng = np.random.default_rng([*self._seed, int.from_bytes(self.users[user].encode(), "little")])
        own = self.own_items(user, item_ids)
        drawn = self._draw(rng, num * len(user_ids))
        while len(again := np.flatnonzero(np.isin(drawn, own))):
            drawn[again] = self._draw(rng, len(again))
        return torch.from_numpy(drawn)

    def _draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        places = np.searchsorted(self._bounds, rng.integers(self._bounds[-1], size=count), side="right")
        return self._items[places]


class SampledEvalDataLoader(NegSampleEvalDataLoader):
    """RecBole's evaluation among sampled candidates. The scores of a batch are at most ``max_cells`` numbers.

    (RecBole's trainer writes the scores of the candidates into a matrix of users by all items.)

    Raises:
        UserError: a user has all items, so there is none to sample.
    """

    step: int

    def __init__(self, config: Any, dataset: Dataset, sampler: CandidateSampler, shuffle: bool = False) -> None:
        super().__init__(config, dataset, sampler, shuffle=shuffle)
        items = dataset.inter_feat[dataset.iid_field].numpy()
        for user in self.uid_list:
            if len(sampler.own_items(user, items[self.uid2index[user]])) >= sampler.drawable:
                raise UserError(
                    f"eval_args mode={config['eval_args']['mode'][sampler.phase]!r}: user '{sampler.users[user]}' has "
                    f"all {sampler.drawable} items; there is none to sample. Set mode to full, or leave out such users "
                    "with user_inter_num_interval."
                )

    def _init_batch_size_and_step(self) -> None:
        super()._init_batch_size_and_step()
        if self.config["eval_type"] == EvaluatorType.RANKING:
            self.step = min(self.step, rows_at_once(self.config["max_cells"], self._dataset.item_num))
