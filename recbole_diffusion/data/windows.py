"""Windows: one row holds up to L targets, so one causal pass learns from every position."""

from __future__ import annotations

from logging import getLogger
from typing import Any, NamedTuple

import numpy as np
import torch
from recbole.data.dataloader import AbstractDataLoader
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_diffusion.data.batches import BatchSampler
from recbole_diffusion.data.sequences import LazySequentialDataset
from recbole_diffusion.names import AGE_LIST


class Windows(NamedTuple):
    """Windows. Each has consecutive events of one user; the last ``targets`` events are its targets."""

    first: Tensor  # row of the first target among the events, [windows]
    targets: Tensor  # number of targets, [windows]
    context: Tensor  # items that the window also reads, before the one that predicts its first target, [windows]


def cut_windows(target_rows: Tensor, users: Tensor, length: int, stride: int) -> Windows:
    """Cut each user's run of consecutive targets into windows, from the latest target backwards.

    Every target is in exactly one window. A window reads at most ``length`` items: the one before each target, and
    earlier items of the run as context. So a target is predicted from at least ``length - stride + 1`` items, or from
    all items that the run has before it.

    Args:
        target_rows: positions of the targets among the events, [N], any order.
        users: user of each event, [events].
        length: L, items per window.
        stride: targets per window, 1 ... L.
    """
    rows = target_rows.sort().values
    starts_run = torch.ones_like(rows, dtype=torch.bool)
    starts_run[1:] = (rows[1:] != rows[:-1] + 1) | (users[rows[1:]] != users[rows[:-1]])
    run = starts_run.cumsum(0) - 1
    run_end = rows[torch.cat([starts_run[1:], starts_run.new_ones(1)])]
    from_end = run_end[run] - rows
    places = torch.nonzero(starts_run | (from_end % stride == stride - 1)).squeeze(-1)
    first = rows[places]
    targets = torch.diff(places, append=places.new_tensor([len(rows)]))
    earlier = first - rows[starts_run][run[places]]  # items of the run before the first target's predecessor
    return Windows(first, targets, torch.minimum(earlier, length - targets))


class WindowDataLoader(AbstractDataLoader):
    """Training batches of windows.

    A batch has these fields, where L is the longest window of the batch:

    - ``item_id_list`` [batch, L]: the context, then the item before each target, padded on the right with 0.
    - ``target_list`` (``TARGET_LIST_FIELD``) [batch, L]: the target of each position, 0 if there is none.
    - ``item_length`` [batch] and ``user_id`` [batch].
    - ``age_list`` [batch, L], if the model reads it (:data:`recbole_diffusion.names.AGE_LIST`).

    ``train_batch_size`` counts windows. With ``bucket_by_length``, windows of similar length are together, and a batch
    holds as many targets as that number of windows has on average.
    """

    def __init__(self, config: Any, dataset: LazySequentialDataset, sampler: Any, shuffle: bool = False) -> None:
        assert dataset.events is not None
        self.logger = getLogger()
        self.events = dataset.events
        users, length = self.events[dataset.uid_field], dataset.max_item_list_len
        stride = length - int(length * config["window_overlap"])
        self.windows = cut_windows(dataset.target_rows, users, length, stride)
        self.sample_size = len(self.windows.first)
        super().__init__(config, dataset, sampler, shuffle=shuffle)
        if config["bucket_by_length"]:
            rows = torch.arange(self.sample_size)
            generator = self.generator if shuffle else None
            targets = self.windows.targets
            lengths = targets + self.windows.context
            BatchSampler(lambda: rows, lengths, targets, self.step, True, generator).attach(self)

    def _init_batch_size_and_step(self) -> None:
        self.step = self.config["train_batch_size"]
        self.set_batch_size(self.step)

    def collate_fn(self, index: Any) -> Interaction:
        index = torch.as_tensor(np.asarray(index))
        data = self._dataset
        first, targets, context = (part[index] for part in self.windows)
        length = context + targets
        offset = torch.arange(int(length.max()))
        inside = offset < length.unsqueeze(-1)  # [batch, L]
        is_target = inside & (offset >= context.unsqueeze(-1))
        rows = torch.where(inside, (first - context).unsqueeze(-1) + offset, 1)
        items = self.events[data.iid_field]
        batch = {
            data.uid_field: self.events[data.uid_field][first].long(),
            data.item_id_list_field: torch.where(inside, items[rows - 1], 0).long(),
            self.config["TARGET_LIST_FIELD"]: torch.where(is_target, items[rows], 0).long(),
            data.item_list_length_field: length,
        }
        if data.with_ages:
            batch[AGE_LIST] = data.ages(rows - 1, inside)
        return Interaction(batch)
