"""One training step by several processes: each takes its share of a batch, and all make the same step.

The step is that of one process on the whole batch: ``train_batch_size`` does not depend on the number of processes. All
draw the same batches, from the same seed. Process r of N takes the rows r, r + N, r + 2N, ... of each, as torch's
``DistributedSampler`` divides an epoch. A loss is a mean over targets, so each process weighs its loss by its share of
the targets, and the gradients are added up.

This is not ``DistributedDataParallel``. That divides the sum of the gradients by N, which is right only for equal
shares of targets; it wants one ``forward``, where a stage of training has a loss of its own; and it stands in front of
the model, whose parts the trainer and the checkpoints read by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from recbole.data.interaction import Interaction
from torch import Tensor, nn

from recbole_diffusion import compat, processes

compat.apply()

Loss = Callable[[Interaction], Any]


def over_processes(loss_func: Loss, model: nn.Module, target_field: str) -> Loss:
    """``loss_func`` of the whole batch, to which each process contributes its share; itself in a single process.

    The terms that it returns have the values of the whole batch. The backward pass of their sum gives the gradients of
    the whole batch, in every process the same.

    Args:
        loss_func: from a batch to a loss, or to a tuple of terms. Each is a mean over targets, or depends on no row.
        model: its parameters.
        target_field: of a batch of windows: their targets [rows, length], 0 at padding. Others have one target per row.
    """
    if processes.count() == 1:
        return loss_func

    def loss_of_all(batch: Interaction) -> Any:
        number = processes.count()
        if len(batch) < number:  # not a row for each: all compute it whole
            weight = 1 / number
            # With the same draws, so that what learns from them, such as a timestep sampler, stays the same in all.
            with processes.alone(), torch.random.fork_rng():
                torch.manual_seed(int(np.random.randint(2**31)))
                losses = loss_func(batch)
        else:
            own = batch[list(range(processes.rank(), len(batch), number))]
            weight = _targets(own, target_field) / _targets(batch, target_field)
            losses = loss_func(own)
        terms = losses if isinstance(losses, tuple) else (losses,)
        added = _added_up([weight * term for term in terms], [p for p in model.parameters() if p.requires_grad])
        return added if isinstance(losses, tuple) else added[0]

    return loss_of_all


def own_random_numbers() -> None:
    """Give each process its own timesteps, noise and dropout. Otherwise row 1 of all shares would draw the same ones.

    Python's and numpy's generators stay the same in all, as the loaders' do: they draw batches and sampled negatives.
    """
    if processes.count() > 1:
        torch.manual_seed(int(torch.randint(2**62, (processes.count(),))[processes.rank()]))


def _targets(batch: Interaction, field: str) -> int:
    return int((batch[field] != 0).sum()) if field in batch else len(batch)


def _added_up(terms: list[Tensor], parameters: list[nn.Parameter]) -> tuple[Tensor, ...]:
    """The terms, summed over the processes. The first one brings the gradients of all, also summed."""
    total, values = torch.stack(terms).sum(), torch.stack([term.detach() for term in terms])
    if not total.requires_grad:  # the trainer says why
        return tuple(processes.add_up(values))
    own = torch.autograd.grad(total, parameters, allow_unused=True)
    parts = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, own, strict=True)]
    used = torch.tensor([g is not None for g in own], dtype=values.dtype, device=values.device)
    sizes = [part.numel() for part in parts]
    flat = processes.add_up(torch.cat([*(part.reshape(-1) for part in parts), used, values]))
    *sums, used, values = flat.split([*sizes, len(used), len(terms)])
    found = [(p, g.view_as(p)) for p, g, here in zip(parameters, sums, used.tolist(), strict=True) if here]
    gradients, used_ones = [g for _, g in found], [p for p, _ in found]
    with_gradient: Tensor = _Given.apply(values[0].clone(), gradients, *used_ones)  # type: ignore[no-untyped-call]
    return (with_gradient, *values[1:])


class _Given(torch.autograd.Function):
    """A value whose gradient with respect to the parameters is known already."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: list[Tensor], *parameters: Tensor) -> Tensor:
        ctx.gradients = gradients
        return value

    @staticmethod
    def backward(ctx: Any, *of_value: Tensor) -> Any:
        return (None, None, *(of_value[0] * gradient for gradient in ctx.gradients))
