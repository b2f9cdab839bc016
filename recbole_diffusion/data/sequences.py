"""Histories that are gathered batch by batch, instead of RecBole's table of every padded prefix."""

from __future__ import annotations

from typing import Any

import torch
from recbole.data.dataset import SequentialDataset
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_diffusion.config.settings import UserError
from recbole_diffusion.data.dataset import AtomicDataset, as_in_batches
from recbole_diffusion.data.times import ages_of, file_times
from recbole_diffusion.names import AGE_LIST

# Column of ``inter_feat``: the event that is a row's target. Batches do not have it.
_TARGET_ROW = "_target_row"


class LazySequentialDataset(AtomicDataset, SequentialDataset):
    """RecBole's ``SequentialDataset`` with the same rows and batches, in memory proportional to the interactions.

    RecBole writes the history of every target into an ``[N, L]`` table for each field. Here ``events`` keeps the
    interactions once, sorted by user and time. A row of ``inter_feat`` is a target with its ``item_length``. Its
    history is the ``item_length`` events before it, gathered when the row is read.
    """

    events: Interaction | None = None
    trim: bool = False  # cut a batch to its longest history, instead of padding it to L
    with_ages: bool = False  # batches have AGE_LIST
    inter_feat: Any

    def data_augmentation(self) -> None:
        self._aug_presets()
        self._check_field("uid_field", "time_field")
        self.sort(by=[self.uid_field, self.time_field], ascending=True)
        # Half the size; batches have RecBole's 64-bit ids.
        self.events = Interaction({field: _narrow(values) for field, values in self.inter_feat.interaction.items()})
        users = self.events[self.uid_field]
        rows = torch.arange(len(users))
        first = _run_start(users)  # first event of the same user
        target = rows[first != rows]
        if len(target) == 0:
            raise UserError(
                f"dataset={self.dataset_name!r}: no user has two interactions, so there is nothing to predict: "
                f"{self.counted}."
            )
        columns = {field: self.events[field][target] for field in self.events}
        columns[self.item_list_length_field] = _narrow((target - first[target]).clamp(max=self.max_item_list_len))
        columns[_TARGET_ROW] = _narrow(target)
        self.inter_feat = Interaction(columns)

    def leave_one_out(self, group_by: str, leave_one_mode: str) -> list[LazySequentialDataset]:
        """RecBole's leave-one-out with the same rows, but without a Python list of row numbers for each user."""
        assert leave_one_mode == "valid_and_test"  # the settings allow no other
        kept, held_out = _leave_out(self.inter_feat[group_by].long(), 2)
        self._drop_unused_col()
        return [self.copy(self.inter_feat[part]) for part in (kept, *held_out)]

    def __getitem__(self, index: Any, join: bool = True) -> Interaction:
        data = self.inter_feat[index]
        data = Interaction({field: _wide(values) for field, values in data.interaction.items()})
        if self.events is not None:
            target = data[_TARGET_ROW]
            data = Interaction({field: data[field] for field in data if field != _TARGET_ROW})
            length = data[self.item_list_length_field]
            width = int(length.max()) if self.trim and len(length) else self.max_item_list_len
            data.update(self.histories(target, length, width))
        return self.join(data) if join else data

    @property
    def target_rows(self) -> Tensor:
        """The events that are the targets of this split, in the order of its rows, [N]."""
        return _wide(self.inter_feat[_TARGET_ROW])

    def histories(self, target: Tensor, length: Tensor, width: int) -> Interaction:
        """The ``<field>_list`` columns [batch, width]: the ``length`` events before each target, padded with 0."""
        assert self.events is not None
        offset = torch.arange(width)
        inside = offset < length.unsqueeze(-1)  # [batch, width]
        rows = torch.where(inside, (target - length).unsqueeze(-1) + offset, 0)
        lists = {}
        for field in self.events:
            if field == self.uid_field:
                continue
            values = _wide(self.events[field][rows])  # [batch, width, ...]
            keep = inside.view(*inside.shape, *(1,) * (values.dim() - 2))
            lists[getattr(self, f"{field}_list_field")] = torch.where(keep, values, torch.zeros_like(values))
        if self.with_ages:
            lists[AGE_LIST] = self.ages(rows, inside)
        return Interaction(lists)

    def ages(self, rows: Tensor, inside: Tensor) -> Tensor:
        """:func:`ages_of` of the events ``rows`` [batch, width]."""
        assert self.events is not None
        return ages_of(file_times(self, self.events[self.time_field][rows]), inside)

    def seen_items(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """All items of the user before each target, without the target's own item.

        Returns:
            (position in ``target``, item), both [total].
        """
        assert self.events is not None
        users, items = self.events[self.uid_field], self.events[self.iid_field]
        first = torch.searchsorted(users, users[target])
        count = target - first
        position = torch.repeat_interleave(torch.arange(len(target)), count)
        seen = _wide(items[spans(first, count)])
        keep = seen != items[target][position]
        return position[keep], seen[keep]

    def inter_matrix(self, form: str = "coo", value_field: str | None = None) -> Any:
        """Sparse users-by-items matrix of this split: its targets, and each user's first event if it is in here."""
        if self.events is None:
            return super().inter_matrix(form, value_field)
        rows = self.target_rows
        opening = rows[self.inter_feat[self.item_list_length_field] == 1] - 1
        rows = torch.cat([rows, opening])
        local = Interaction({field: self.events[field][rows] for field in self.events})
        return self._create_sparse_matrix(local, self.uid_field, self.iid_field, form, value_field)


def spans(first: Tensor, count: Tensor) -> Tensor:
    """The positions of ``count[r]`` events from ``first[r]`` on, one row after the other, [total]."""
    start = torch.repeat_interleave(first - (count.cumsum(0) - count), count)
    return start + torch.arange(len(start))


def _leave_out(users: Tensor, count: int) -> tuple[Tensor, list[Tensor]]:
    """Row numbers of the kept rows, and ``count`` lists of held-out rows, the last row of each user in the last list.

    A user keeps at least one row. Users are in the order of their first row, and their rows keep their order.
    """
    rows = torch.arange(len(users))
    size = torch.bincount(users)
    first = torch.full_like(size, len(users)).scatter_reduce_(0, users, rows, reduce="amin")
    order = first[users].argsort(stable=True)
    users = users[order]
    from_end = size[users] - 1 - (rows - _run_start(users))
    left_out = (size[users] - 1).clamp(max=count)  # a user keeps one row at least
    held_out = [order[(from_end == place) & (place < left_out)] for place in reversed(range(count))]
    return order[from_end >= left_out], held_out


def _run_start(values: Tensor) -> Tensor:
    """For each position, where its run of equal neighbours begins, [N]."""
    begins = torch.ones_like(values, dtype=torch.bool)
    begins[1:] = values[1:] != values[:-1]
    return torch.cummax(torch.arange(len(values)) * begins, dim=0).values


def _narrow(values: Tensor) -> Tensor:
    return values.to(torch.int32) if values.dtype == torch.int64 else values


def _wide(values: Tensor) -> Tensor:
    return values.to(torch.int64) if values.dtype == torch.int32 else as_in_batches(values)
