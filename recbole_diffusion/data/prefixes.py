"""One row per target, with its history, which is gathered when the batch is made."""

from __future__ import annotations

from typing import Any

import torch
from recbole.data.dataloader import TrainDataLoader
from torch import Tensor

from recbole_diffusion.data.batches import BatchSampler, draw_prefixes, last_rows
from recbole_diffusion.data.sequences import LazySequentialDataset


class PrefixDataLoader(TrainDataLoader):
    """RecBole's training batches of a sequential model, with a choice of rows and of their order.

    Args:
        config: ``bucket_by_length`` puts histories of similar length into one batch. ``prefixes_per_user`` is the
            number of random rows per user and epoch. Without both, the batches are RecBole's own, to the last id.
        dataset, sampler, shuffle: as in RecBole.
        last_only: one row per user, the one with the longest history.
    """

    def __init__(
        self, config: Any, dataset: LazySequentialDataset, sampler: Any, shuffle: bool, last_only: bool = False
    ) -> None:
        super().__init__(config, dataset, sampler, shuffle=shuffle)
        self.last_only = last_only
        self.users = dataset.inter_feat[dataset.uid_field]
        if config["bucket_by_length"] or config["prefixes_per_user"] is not None or last_only:
            lengths = dataset.inter_feat[dataset.item_list_length_field]
            order = self.generator if shuffle else None
            BatchSampler(self.draw_rows, lengths, None, self.step, config["bucket_by_length"], order).attach(self)

    def draw_rows(self) -> Tensor:
        """The rows of one epoch, [rows]."""
        if self.last_only:
            return last_rows(self.users, self._dataset.target_rows)
        if self.config["prefixes_per_user"] is not None:
            return draw_prefixes(self.users, self.config["prefixes_per_user"], self.generator)
        return torch.arange(len(self.users))
