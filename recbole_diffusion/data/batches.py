"""Which rows make a batch: histories of similar length together, in a new random order each epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

_BATCHES_A_CHUNK = 64  # rows are sorted by length within a chunk of so many batches, so that batches stay mixed


class BatchSampler(Sampler[list[int]]):
    """Batches of row numbers.

    Args:
        draw: returns the rows of an epoch, [rows]. Every draw must have the same number of targets.
        lengths: history length of every row that can be drawn, [N].
        targets: number of targets in every row that can be drawn, [N]; None if each has one.
        batch_size: rows per batch. With ``bucket`` and ``targets``, a batch holds as many targets as that many rows
            have on average. Otherwise a target in a batch of short windows would have more weight.
        bucket: put rows of similar length into one batch. Otherwise batches are cut from the (shuffled) rows in order.
        generator: source of the random order; None keeps the rows in order (with ``bucket``, sorted by length).
    """

    def __init__(
        self,
        draw: Callable[[], Tensor],
        lengths: Tensor,
        targets: Tensor | None,
        batch_size: int,
        bucket: bool,
        generator: torch.Generator | None = None,
    ) -> None:
        self.draw = draw
        self.lengths = lengths
        self.batch_size = batch_size
        self.bucket = bucket
        self.generator = generator
        self.targets = targets if bucket else None
        if self.targets is None:
            self.budget, self.total = batch_size, len(draw())
        else:
            mean = float(self.targets.double().mean())
            self.budget = max(round(batch_size * mean), int(self.targets.max()))  # targets per batch
            self.total = int(self.targets[draw()].sum())  # targets per epoch

    def __iter__(self) -> Iterator[list[int]]:
        rows = self._shuffled(self.draw())
        if self.bucket:
            rows = self._by_length(rows)
        batches = self._cut(rows)
        order = self._shuffled(torch.arange(len(batches))) if self.bucket else torch.arange(len(batches))
        for index in order.tolist():
            yield batches[index].tolist()

    def _shuffled(self, values: Tensor) -> Tensor:
        if self.generator is None:
            return values
        return values[torch.randperm(len(values), generator=self.generator)]

    def _by_length(self, rows: Tensor) -> Tensor:
        chunk = len(rows) if self.generator is None else self.batch_size * _BATCHES_A_CHUNK
        return torch.cat([part[self.lengths[part].argsort(stable=True)] for part in rows.split(chunk)])

    def _cut(self, rows: Tensor) -> tuple[Tensor, ...]:
        if self.targets is None:
            return rows.split(self.batch_size)
        batch = (self.targets[rows].cumsum(0) - 1) // self.budget
        return rows.split(torch.bincount(batch).tolist())

    def __len__(self) -> int:
        return -(-self.total // self.budget)

    def attach(self, loader: DataLoader[Any]) -> None:
        """Make ``loader`` draw these batches. RecBole has built it, and torch then refuses a plain assignment."""
        loader.__dict__["batch_sampler"] = self


def draw_prefixes(users: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Row numbers of ``count`` random rows of each user, or of all if a user has fewer: [rows].

    Args:
        users: user of each row, [N].
    """
    # Sort by user, in random order within a user, and take the first of each user.
    order = torch.randperm(len(users), generator=generator)
    order = order[users[order].argsort(stable=True)]
    ordered = users[order]
    place = torch.arange(len(users)) - torch.searchsorted(ordered, ordered)
    return order[place < count]


def last_rows(users: Tensor, target_rows: Tensor) -> Tensor:
    """Row number of the latest row of each user, [users].

    Args:
        users: user of each row, [N].
        target_rows: the event that is the target of each row, [N]; events are sorted by user and time.
    """
    order = target_rows.argsort()
    ordered = users[order]
    last = torch.ones_like(ordered, dtype=torch.bool)
    last[:-1] = ordered[1:] != ordered[:-1]
    return order[last]
