"""Which rows make a batch: histories of like length together, in a new random order each epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

_BATCHES_A_CHUNK = 64  # rows are sorted by length among so many batches' rows, not among all: batches stay mixed


class BatchSampler(Sampler[list[int]]):
    """Batches of row numbers.

    Args:
        draw: gives the rows of an epoch, [rows]; every draw has as many targets.
        lengths: history length of every row that can be drawn, [N].
        targets: targets in every row that can be drawn (windows: up to L), [N]; None where each row has one.
        batch_size: rows a batch. Where rows of like length meet, a batch holds as many targets as so many rows do on
            average: a batch of short windows would else weigh each of its targets more.
        bucket: whether rows of like length meet in a batch; else batches are cut from the (shuffled) rows in order.
        generator: source of the order; None keeps the rows in order (sorted by length, where ``bucket``).
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
            self.budget = max(round(batch_size * mean), int(self.targets.max()))  # targets a batch
            self.total = int(self.targets[draw()].sum())  # targets an epoch

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
        return torch.cat([part[self.lengths[part].argsort(stable=True)] for part in torch.split(rows, chunk)])

    def _cut(self, rows: Tensor) -> tuple[Tensor, ...]:
        if self.targets is None:
            return torch.split(rows, self.batch_size)
        batch = (self.targets[rows].cumsum(0) - 1) // self.budget
        return torch.split(rows, torch.bincount(batch).tolist())

    def __len__(self) -> int:
        return -(-self.total // self.budget)

    def attach(self, loader: DataLoader[Any]) -> None:
        """Make ``loader`` draw these batches. It is built by RecBole, and torch lets nobody set this attribute then."""
        loader.__dict__["batch_sampler"] = self


def draw_prefixes(users: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """``count`` random rows of each user, all of them where a user has fewer: row numbers, [rows].

    Args:
        users: user of each row, [N].
    """
    # By user, and within a user in random order; the first of each are drawn.
    order = torch.randperm(len(users), generator=generator)
    order = order[users[order].argsort(stable=True)]
    ordered = users[order]
    place = torch.arange(len(users)) - torch.searchsorted(ordered, ordered)
    return order[place < count]


def last_rows(users: Tensor, target_rows: Tensor) -> Tensor:
    """The latest row of each user: row numbers, [users].

    Args:
        users: user of each row, [N].
        target_rows: which event is the target of each row, [N]; events are in order of user and time.
    """
    order = target_rows.argsort()
    ordered = users[order]
    last = torch.ones_like(ordered, dtype=torch.bool)
    last[:-1] = ordered[1:] != ordered[:-1]
    return order[last]
