"""A training step as a value: data, what noise made of it, and what its losses count."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from recbole_diffusion.diffusion.process import Process
from recbole_diffusion.diffusion.timesteps import TimestepSampler


class Step(NamedTuple):
    """States of any leading shape: rows [rows, dim], positions [batch, length, dim], channels.

    ``weight`` is what the loss of each state is multiplied by before the mean over all states. It is 0 at padding, and
    the other weights make up for it: the mean is then one over the real states.
    """

    x_0: Tensor  # [*leading, dim]
    x_t: Tensor  # [*leading, dim], as the denoiser sees it
    t: Tensor  # [*leading], long
    noise: Tensor  # [*leading, dim]
    weight: Tensor  # [*leading]


def draw_step(
    process: Process,
    timesteps: TimestepSampler,
    x_0: Tensor,
    real: Tensor | None = None,
    project: Callable[[Tensor], Tensor] | None = None,
) -> Step:
    """Noise ``x_0`` [*leading, dim]: first t is drawn, then the noise, from torch's global generator.

    Args:
        timesteps: draws a step and a weight for every state.
        real: which states are no padding, bool [*leading], at least one; None: all.
        project: where ``x_t`` is taken to before the denoiser sees it.
    """
    t, weight = timesteps.draw(*x_0.shape[:-1])
    if real is not None:
        weight = weight * real / real.to(weight.dtype).mean()
    noise = torch.randn_like(x_0)
    x_t = process.q_sample(x_0, t, noise)
    return Step(x_0, x_t if project is None else project(x_t), t, noise, weight)
