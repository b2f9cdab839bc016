"""Noise schedules: how much noise each step of the forward process adds.

A schedule is a pure function ``(timesteps, **params) -> betas``, float64 of shape [T]. Index 0 is the least noisy step.
``abar_t`` is the product of ``1 - beta_0 ... 1 - beta_t``. ``abar(u)`` is the same as a curve over ``u`` in [0, 1].
"""

import inspect
import math
from collections.abc import Callable

import torch
from torch import Tensor

MAX_BETA = 0.999  # a curve that reaches abar = 0 would give beta = 1, and no reverse step can undo that


def linear(timesteps: int, beta_start: float = 1e-4, beta_end: float = 0.02) -> Tensor:
    """Evenly spaced betas, the same ends for every T (Ho et al. 2020, section 4).

    Raises:
        ValueError: the betas would get smaller, so that the noisiest step adds the least noise.
    """
    if beta_start > beta_end:
        raise ValueError(f"beta_start={beta_start:g}: must be <= beta_end={beta_end:g}.")
    return torch.linspace(beta_start, beta_end, timesteps, dtype=torch.float64)


def scaled_linear(timesteps: int) -> Tensor:
    """``linear`` with both ends multiplied by 1000/T, so that the total noise is about the same for every T."""
    scale = 1000 / timesteps
    return linear(timesteps, 1e-4 * scale, 0.02 * scale)


def truncated_linear(timesteps: int) -> Tensor:
    """``scaled_linear`` plus 0.01. If its end exceeds 1, a smaller end is used (DiffuRec)."""
    scale = 1000 / timesteps
    end = 0.02 * scale + 0.01
    return linear(timesteps, 1e-4 * scale + 0.01, end if end <= 1 else 0.001 * scale + 0.01)


def _curve_betas(abar: Callable[[Tensor], Tensor], timesteps: int) -> Tensor:
    """``beta_t = min(1 - abar((t+1)/T) / abar(t/T), 0.999)`` (Nichol & Dhariwal 2021, section 3.2)."""
    values = abar(torch.arange(timesteps + 1, dtype=torch.float64) / timesteps)
    return (1 - values[1:] / values[:-1]).clamp(max=MAX_BETA)


def cosine(timesteps: int) -> Tensor:
    """``abar(u) = cos^2((u + 0.008)/1.008 * pi/2)`` (Nichol & Dhariwal 2021, equation 17)."""
    return _curve_betas(lambda u: torch.cos((u + 0.008) / 1.008 * (math.pi / 2)) ** 2, timesteps)


def truncated_cosine(timesteps: int) -> Tensor:
    """``abar(u) = cos^2((u + 0.1)/1.1 * pi/2)``; ``beta_0 = 1 - abar(0)``, and the curve's last step is left out."""

    def abar(u: Tensor) -> Tensor:
        return torch.cos((u + 0.1) / 1.1 * (math.pi / 2)) ** 2

    first = 1 - abar(torch.zeros(1, dtype=torch.float64))
    return torch.cat([first, _curve_betas(abar, timesteps)[:-1]])


def sqrt(timesteps: int) -> Tensor:
    """``abar(u) = 1 - sqrt(u + 1e-4)`` (Li et al. 2022, Diffusion-LM). It ends just below 0, so the cap applies."""
    return _curve_betas(lambda u: 1 - torch.sqrt(u + 1e-4), timesteps)


def exp(timesteps: int, beta_min: float = 0.1, beta_max: float = 10.0) -> Tensor:
    """``beta_t = 1 - exp(-b0/T - x_t (b1 - b0)/(2 T^2))``, ``x = linspace(1, 2T+1, T)`` (DreamRec).

    The noise rate grows linearly from ``beta_min`` to ``beta_max``; this is nearly its integral over each step.
    """
    x = torch.linspace(1, 2 * timesteps + 1, timesteps, dtype=torch.float64)
    return -torch.expm1(-beta_min / timesteps - x * (beta_max - beta_min) / (2 * timesteps**2))


def linear_variance(
    timesteps: int, noise_scale: float, noise_min: float, noise_max: float, first_beta: float | None = None
) -> Tensor:
    """``1 - abar_t`` grows linearly from ``noise_scale * noise_min`` to ``noise_scale * noise_max`` (DiffRec).

    Args:
        first_beta: a fixed ``beta_0`` (the authors use 1e-5) instead of the computed one; the other betas stay.

    Raises:
        ValueError: a variance is not inside (0, 1), or they get smaller. The smallest may be 0 if ``first_beta`` is
            given.
    """
    if noise_min > noise_max:
        raise ValueError(
            f"noise_schedule='linear_variance', noise_min={noise_min:g}: must be <= noise_max={noise_max:g}."
        )
    low, high = noise_scale * noise_min, noise_scale * noise_max
    if not (0 <= low < 1 and 0 < high < 1):
        raise ValueError(
            f"noise_scale={noise_scale!r}, noise_min={noise_min!r}, noise_max={noise_max!r}: noise_scale * noise_min "
            f"({low:g}) and noise_scale * noise_max ({high:g}) are variances and must lie inside (0, 1)."
        )
    abar = 1 - torch.linspace(low, high, timesteps, dtype=torch.float64)
    betas = 1 - abar
    betas[1:] = (1 - abar[1:] / abar[:-1]).clamp(max=MAX_BETA)
    if first_beta is not None:
        betas[0] = first_beta
    return betas


def binomial(timesteps: int) -> Tensor:
    """``beta_t = 1/(T - t + 1)``, from 1/(T+1) to 1/2 (DiffRec; Sohl-Dickstein et al. 2015, section 2.4.1)."""
    return 1 / (timesteps + 1 - torch.arange(timesteps, dtype=torch.float64))


SCHEDULES: dict[str, Callable[..., Tensor]] = {
    "linear": linear,
    "scaled_linear": scaled_linear,
    "truncated_linear": truncated_linear,
    "cosine": cosine,
    "truncated_cosine": truncated_cosine,
    "sqrt": sqrt,
    "exp": exp,
    "linear_variance": linear_variance,
    "binomial": binomial,
}


def make_betas(name: str, timesteps: int, **params: float | None) -> Tensor:
    """The checked betas of a named schedule, float64 of shape [T].

    Raises:
        ValueError: the name is unknown, T < 1, a parameter is missing or not this schedule's, or a beta is not inside
            (0, 1).
    """
    if name not in SCHEDULES:
        raise ValueError(f"noise_schedule={name!r}: must be one of {', '.join(SCHEDULES)}.")
    if not isinstance(timesteps, int) or timesteps < 1:
        raise ValueError(f"timesteps={timesteps!r}: must be a whole number >= 1.")
    schedule = SCHEDULES[name]
    known = {key: value for key, value in inspect.signature(schedule).parameters.items() if key != "timesteps"}
    required = [key for key, value in known.items() if value.default is value.empty]
    if not set(required) <= set(params) <= set(known):
        raise ValueError(
            f"noise_schedule={name!r} with {', '.join(params) or 'no parameters'}: "
            f"needs {', '.join(required) or 'none'}, allowed {', '.join(known) or 'none'}."
        )
    betas = schedule(timesteps, **params)
    wrong = betas[~((betas > 0) & (betas < 1))]  # so that NaN counts as wrong
    if len(wrong):
        given = "".join(f", {key}={value!r}" for key, value in params.items())
        raise ValueError(
            f"noise_schedule={name!r}, timesteps={timesteps}{given}: every beta must lie inside (0, 1), "
            f"not {wrong[0].item():g}."
        )
    return betas
