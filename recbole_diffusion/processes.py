"""One training by several processes: who they are, and what they tell each other. Started by ``torchrun``.

In a single process every function here does nothing: it returns what this process has. With more, all processes must
make the same calls in the same order. A process that has ended breaks the next call of the others (:class:`Broken`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from recbole_diffusion.config.launch import is_first, launched, left_to_first
from recbole_diffusion.config.settings import UserError

T = TypeVar("T")
# torchrun ends the others as soon as a process has died. This is for one that hangs: longer than writing a checkpoint.
_LONGEST_WAIT = timedelta(minutes=10)


class Broken(RuntimeError):
    """Another process of this training has ended, so the training cannot go on."""


class _Group:
    """The state of this module."""

    store: Any = None  # of keys that all processes share
    joined = False
    alone = False


def count() -> int:
    """How many processes work together here: 1 if they are not joined, and inside :func:`alone`."""
    return dist.get_world_size() if _Group.joined and not _Group.alone else 1


def rank() -> int:
    """The number of this process, from 0; 0 inside :func:`alone`."""
    return dist.get_rank() if _Group.joined and not _Group.alone else 0


def may_tell() -> bool:
    """Whether this process should show an error: the first that asks. Before they are joined, it is number 0."""
    if _Group.store is None:
        if not is_first():
            left_to_first()
        return is_first()
    try:
        return bool(_Group.store.add("told", 1) == 1)
    except RuntimeError:  # the process that holds the store has ended
        return True


@contextmanager
def joined(config: Any) -> Iterator[None]:
    """A context in which the processes that ``torchrun`` has started are one group: NCCL on GPUs, Gloo on CPUs.

    Only the first one shows bars and logs to Weights & Biases: the settings of the others are changed.

    Args:
        config: with the device.

    Raises:
        UserError: some have a GPU, and others have none; or not torchrun has set ``WORLD_SIZE``.
    """
    if launched() == 1 or _Group.store is not None:
        yield
        return
    if not is_first():
        config.final_config_dict.update(show_progress=False, log_wandb=False)
    device = config["device"]
    try:
        store, rank, size = next(iter(rendezvous("env://", timeout=_LONGEST_WAIT)))
    except ValueError as error:  # a variable is missing
        raise UserError(
            f"WORLD_SIZE={launched()}: means several processes, which torchrun starts ({error})."
        ) from error
    store.set(f"device {rank}", device.type)
    devices = [store.get(f"device {other}").decode() for other in range(size)]
    _Group.store = store
    if len(set(devices)) > 1:
        raise UserError(f"torchrun has started {size} processes, and they have the devices {', '.join(devices)}.")
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_LONGEST_WAIT)
    _Group.joined = True
    yield
    # Not after an error: the others might wait for this process, and its end tells them.
    _Group.store, _Group.joined = None, False
    dist.destroy_process_group()


@contextmanager
def alone() -> Iterator[None]:
    """A context in which this process works as if it were the only one."""
    before, _Group.alone = _Group.alone, True
    try:
        yield
    finally:
        _Group.alone = before


def gathered(value: T) -> list[T]:
    """``value`` of every process, in their order. It travels as a pickle, which only these processes write."""
    if count() == 1:
        return [value]
    values: list[Any] = [None] * count()
    _together(dist.all_gather_object, values, value)
    return values


def from_first(make: Callable[[], T]) -> T:
    """What ``make`` returns in the first process, in all of them. Its exceptions are raised in all of them too."""
    if count() == 1:
        return make()
    answer: list[Any] = [None, None]
    if rank() == 0:
        try:
            answer[0] = make()
        except Exception as error:
            answer[1] = error
    _together(dist.broadcast_object_list, answer, src=0)
    if answer[1] is not None:
        raise answer[1]
    return answer[0]


def largest(*numbers: float) -> list[float]:
    """The largest of each number over all processes."""
    if count() == 1:
        return list(numbers)
    values = torch.tensor(numbers, dtype=torch.float64)
    _together(dist.all_reduce, values, dist.ReduceOp.MAX)
    return values.tolist()


def add_up(values: Tensor) -> Tensor:
    """The sum of ``values`` over all processes, in place and without a gradient. All have the same shape."""
    if count() > 1:
        _together(dist.all_reduce, values)
    return values


def sum_of_all(values: Tensor) -> Tensor:
    """The sum of ``values`` over all processes, with a gradient: that of the sum of all processes' losses."""
    if count() == 1:
        return values
    total: Tensor = _Sum.apply(values)  # type: ignore[no-untyped-call]
    return total


def count_rows(values: Tensor) -> int:
    """The number of rows of ``values`` [rows, ...] over all processes."""
    return len(values) if count() == 1 else int(add_up(torch.tensor(len(values), device=values.device)))


def rows_of_all(values: Tensor) -> Tensor:
    """The rows of all processes [rows, ...], in the order of the processes. No gradient."""
    if count() == 1:
        return values
    rows = [torch.zeros(1, dtype=torch.long, device=values.device) for _ in range(count())]
    _together(dist.all_gather, rows, rows[0].new_tensor([len(values)]))
    sizes = [int(size) for size in rows]
    padded = values.new_zeros(max(sizes), *values.shape[1:])
    padded[: len(values)] = values.detach()
    parts = [torch.empty_like(padded) for _ in sizes]
    _together(dist.all_gather, parts, padded)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


def wait() -> None:
    """Wait until all processes are here."""
    if count() > 1:
        gathered(None)  # not a barrier, which would need to know the device


class _Sum(torch.autograd.Function):
    """A sum over processes. Each of their losses depends on each part, so the gradient is a sum over them too."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.detach().clone(memory_format=torch.contiguous_format)
        _together(dist.all_reduce, total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        _together(dist.all_reduce, total)
        return total


def _together(call: Callable[..., Any], *arguments: Any, **named: Any) -> None:
    try:
        call(*arguments, **named)
    except RuntimeError as error:
        raise Broken("another process of this training has ended") from error
