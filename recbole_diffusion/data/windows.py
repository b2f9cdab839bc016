"""Windows: one row holds up to L targets, so that one causal pass learns from every position."""

from __future__ import annotations

from logging import getLogger
from typing import Any

import numpy as np
import torch
from recbole.data.dataloader import AbstractDataLoader
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_diffusion.data.batches import BatchSampler
from recbole_diffusion.data.sequences import LazySequentialDataset


def cut_windows(target_rows: Tensor, users: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Cut each user's run of consecutive targets into windows of at most ``length``, whole ones at the recent end.

    Args:
        target_rows: positions of the targets among the events, [N], any order.
        users: user of each event, [events].
        length: L, targets a window.

    Returns:
        (row of the first target, number of targets) of each window; every target is in exactly one.
    """
    rows = target_rows.sort().values
    starts_run = torch.ones_like(rows, dtype=torch.bool)
    starts_run[1:] = (rows[1:] != rows[:-1] + 1) | (users[rows[1:]] != users[rows[:-1]])
    run = starts_run.cumsum(0) - 1
    run_end = rows[torch.cat([starts_run[1:], starts_run.new_ones(1)])]
    from_end = run_end[run] - rows
    starts_window = starts_run | (from_end % length == length - 1)
    first = rows[starts_window]
    ends = torch.cat([torch.nonzero(starts_window).squeeze(-1)[1:], torch.tensor([len(rows)])])
    return first, ends - torch.nonzero(starts_window).squeeze(-1)


class WindowDataLoader(AbstractDataLoader):
    """Training batches of windows.

    A batch has ``item_id_list`` [batch, L] (the items before each target, padded on the right with 0),
    ``target_list`` (``TARGET_LIST_FIELD``) [batch, L] (the target of each position, 0 where there is none),
    ``item_length`` [batch] and ``user_id`` [batch]; L is the longest window of the batch. ``train_batch_size`` counts
    windows; with ``bucket_by_length`` windows of like length meet, as many as hold the targets of that many.
    """

    def __init__(self, config: Any, dataset: LazySequentialDataset, sampler: Any, shuffle: bool = False) -> None:
        assert dataset.events is not None
        self.logger = getLogger()
        self.events = dataset.events
        users = self.events[dataset.uid_field]
        self.first, self.count = cut_windows(dataset.target_rows, users, dataset.max_item_list_len)
        self.sample_size = len(self.first)
        super().__init__(config, dataset, sampler, shuffle=shuffle)
        if config["bucket_by_length"]:
            rows = torch.arange(self.sample_size)
            generator = self.generator if shuffle else None
            BatchSampler(lambda: rows, self.count, self.count, self.step, True, generator).attach(self)

    def _init_batch_size_and_step(self) -> None:
        self.step = self.config["train_batch_size"]
        self.set_batch_size(self.step)

    def collate_fn(self, index: Any) -> Interaction:
        index = torch.as_tensor(np.asarray(index))
        data = self._dataset
        first, count = self.first[index], self.count[index]
        offset = torch.arange(int(count.max()))
        inside = offset < count.unsqueeze(-1)  # [batch, L]
        rows = torch.where(inside, first.unsqueeze(-1) + offset, 1)
        items = self.events[data.iid_field]
        return Interaction(
            {
                data.uid_field: self.events[data.uid_field][first].long(),
                data.item_id_list_field: torch.where(inside, items[rows - 1], 0).long(),
                self.config["TARGET_LIST_FIELD"]: torch.where(inside, items[rows], 0).long(),
                data.item_list_length_field: count,
            }
        )
