"""A training step as a value: data, noised data, timesteps, and the weights of the losses."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from recbole_diffusion.diffusion.process import Process
from recbole_diffusion.diffusion.timesteps import TimestepSampler


class Step(NamedTuple):
    """States of any leading shape: rows [rows, dim], positions [batch, length, dim], channels.

    The loss of each state is multiplied by ``weight`` before the mean over all states. The weight is 0 at padding. The
    other weights are larger to make up for it, so that the result is the mean over the states that are not padding.
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
    noiseless: bool = False,
    noise: Tensor | None = None,
) -> Step:
    """Adds noise to ``x_0`` [*leading, dim]. First t is drawn, then the noise, from torch's global generator.

    Args:
        timesteps: draws a timestep and a weight for every state.
        real: which states are not padding, bool [*leading], at least one of them; None: all.
        project: applied to ``x_t`` before the denoiser sees it.
        noiseless: the noise is drawn, so that later draws stay the same, but it is 0.
        noise: to use instead of standard normal noise, shaped like ``x_0``.
    """
    t, weight = timesteps.draw(*x_0.shape[:-1])
    if real is not None:
        weight = weight * real / real.to(weight.dtype).mean()
    if noise is None:
        noise = torch.randn_like(x_0)
    if noiseless:
        noise = torch.zeros_like(noise)
    x_t = process.q_sample(x_0, t, noise)
    return Step(x_0, x_t if project is None else project(x_t), t, noise, weight)
