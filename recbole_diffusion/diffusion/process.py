"""Diffusion processes: how noise is added to data, and what is needed to remove it.

Two processes share the contract :class:`Process`: :class:`GaussianDiffusion` (Ho et al. 2020, DDPM, arXiv 2006.11239)
and :class:`StraightPath` (Liu et al. 2023, rectified flow, arXiv 2209.03003).

Timesteps are indices ``t = 0 ... T-1``, and 0 has the least noise. ``t = -1`` stands for the data itself.

Data may have any shape [*leading, dim]: rows, positions of a sequence, channels. If a method takes ``t`` together with
data, ``t`` is a LongTensor, or one int for all data. The shape of ``t`` is the beginning of the shape of the data. For
data [batch, length, dim], a ``t`` of [batch] gives each row its own step, and [batch, length] each position.
"""

from typing import Protocol

import torch
from torch import Tensor, nn

PREDICTIONS = ("x0", "eps", "v")


class Process(Protocol):
    """What a model, the training step and the sampling loop need from a process.

    Every process is ``x_t = signal_t x_0 + noise_t eps`` with ``signal_{-1} = 1`` and ``noise_{-1} = 0``.
    ``predictions`` lists those of ``PREDICTIONS`` that :meth:`target` and :meth:`x0_from` accept. Both raise ValueError
    for any other.
    """

    predictions: tuple[str, ...]

    @property
    def timesteps(self) -> int:
        """T."""

    def alpha_bar(self, t: Tensor | int) -> Tensor:
        """``signal_t^2`` in the shape of ``t``."""

    def q_sample(self, x_0: Tensor, t: Tensor | int, noise: Tensor) -> Tensor:
        """``x_t``, shaped like ``x_0``."""

    def target(self, x_0: Tensor, noise: Tensor, t: Tensor | int, prediction: str) -> Tensor:
        """What a denoiser learns to predict, shaped like ``x_0``."""

    def x0_from(self, output: Tensor, x_t: Tensor, t: Tensor | int, prediction: str) -> Tensor:
        """The x_0 that a denoiser's ``output`` stands for, shaped like ``x_t``; the inverse of :meth:`target`."""


class GaussianDiffusion(nn.Module):
    """The forward process ``q`` and its posterior. All coefficients are buffers; ``abar_{-1} = 1``.

    Args:
        betas: noise of each step, [T], each inside (0, 1). With float64, the coefficients are exact to float32.
    """

    predictions: tuple[str, ...] = PREDICTIONS
    betas: Tensor
    _log_abar: Tensor
    _snr: Tensor
    _sqrt_abar: Tensor
    _sqrt_one_minus_abar: Tensor
    _mean_x_0: Tensor
    _mean_x_t: Tensor
    _variance: Tensor
    _log_variance: Tensor

    def __init__(self, betas: Tensor) -> None:
        super().__init__()
        betas = betas.detach().to(torch.float64)
        # abar is kept as a logarithm: so the ratio of two tiny ones stays exact, and 1 - abar too if abar is near 1.
        log_abar = torch.cat([betas.new_zeros(1), torch.log1p(-betas).cumsum(0)])  # [T + 1], from t = -1
        abar, one_minus_abar = log_abar.exp(), torch.expm1(log_abar).abs()
        variance = betas * one_minus_abar[:-1] / one_minus_abar[1:]
        # The variance is 0 at step 0: its logarithm is replaced by that of step 1 (Nichol & Dhariwal 2021).
        clipped = torch.cat([variance[1:2] if len(betas) > 1 else betas, variance[1:]])
        coefficients = {
            "betas": betas,
            "_log_abar": log_abar,
            "_snr": abar / one_minus_abar,
            "_sqrt_abar": abar[1:].sqrt(),
            "_sqrt_one_minus_abar": one_minus_abar[1:].sqrt(),
            "_mean_x_0": abar[:-1].sqrt() * betas / one_minus_abar[1:],
            "_mean_x_t": (1 - betas).sqrt() * one_minus_abar[:-1] / one_minus_abar[1:],
            "_variance": variance,
            "_log_variance": clipped.log(),
        }
        for name, value in coefficients.items():
            # Not persistent: they follow from the settings, and a checkpoint holds only what was learned.
            self.register_buffer(name, value.to(torch.float32), persistent=False)

    @property
    def timesteps(self) -> int:
        """T."""
        return len(self.betas)

    def alpha_bar(self, t: Tensor | int, s: Tensor | int = -1) -> Tensor:
        """``abar_t/abar_s`` in the shape of ``t``. By default it is ``abar_t``, and 1 at ``t = -1``."""
        return (self._log_abar[t + 1] - self._log_abar[s + 1]).exp()

    def beta_between(self, t: Tensor | int, s: Tensor | int) -> Tensor:
        """``1 - abar_t/abar_s`` in the shape of ``t``: the noise added from step ``s`` to step ``t >= s``.

        ``s = t - 1`` gives ``beta_t``, ``s = -1`` gives ``1 - abar_t``. No digits are lost by a subtraction.
        """
        return -torch.expm1(self._log_abar[t + 1] - self._log_abar[s + 1])

    def snr(self, t: Tensor | int) -> Tensor:
        """Signal-to-noise ratio ``abar_t/(1 - abar_t)`` in the shape of ``t``; infinite at ``t = -1``."""
        return self._snr[t + 1]

    def q_sample(self, x_0: Tensor, t: Tensor | int, noise: Tensor) -> Tensor:
        """``x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps`` (equation 4), shaped like ``x_0``."""
        return _at(self._sqrt_abar, t, x_0) * x_0 + _at(self._sqrt_one_minus_abar, t, x_0) * noise

    def posterior(self, x_0: Tensor, x_t: Tensor, t: Tensor | int) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, variance and clipped log variance of ``q(x_{t-1} | x_t, x_0)`` (equations 6 and 7).

        The mean is shaped like ``x_t``; the other two broadcast to it. The variance is the "fixed small" one.
        """
        mean = _at(self._mean_x_0, t, x_t) * x_0 + _at(self._mean_x_t, t, x_t) * x_t
        return mean, _at(self._variance, t, x_t), _at(self._log_variance, t, x_t)

    def eps_from(self, x_0: Tensor, x_t: Tensor, t: Tensor | int) -> Tensor:
        """The noise that ``q_sample`` added to ``x_0`` to reach ``x_t``."""
        return (x_t - _at(self._sqrt_abar, t, x_t) * x_0) / _at(self._sqrt_one_minus_abar, t, x_t)

    def x0_from(self, output: Tensor, x_t: Tensor, t: Tensor | int, prediction: str) -> Tensor:
        """The x_0 that a denoiser's ``output`` stands for, shaped like ``x_t``; the inverse of :meth:`target`.

        Args:
            prediction: what the denoiser predicts, one of ``PREDICTIONS``.
        """
        _check_prediction(prediction, self.predictions)
        if prediction == "x0":
            return output
        signal, noise = _at(self._sqrt_abar, t, x_t), _at(self._sqrt_one_minus_abar, t, x_t)
        if prediction == "eps":
            return (x_t - noise * output) / signal
        return signal * x_t - noise * output

    def target(self, x_0: Tensor, noise: Tensor, t: Tensor | int, prediction: str) -> Tensor:
        """What a denoiser learns to predict: x_0, eps, or ``v = sqrt(abar_t) eps - sqrt(1 - abar_t) x_0``.

        ``v`` is from Salimans & Ho 2022 (arXiv 2202.00512).
        """
        _check_prediction(prediction, self.predictions)
        if prediction == "x0":
            return x_0
        if prediction == "eps":
            return noise
        return _at(self._sqrt_abar, t, x_0) * noise - _at(self._sqrt_one_minus_abar, t, x_0) * x_0


class StraightPath(nn.Module):
    """A straight line from data to noise: ``x_t = (1 - s_t) x_0 + s_t eps`` with ``s_t = (t + 1)/T``.

    ``t = T-1`` is pure noise. A denoiser predicts x_0, or the velocity ``v = dx/ds = eps - x_0``. It cannot predict
    eps: at ``t = T-1``, x_0 cannot be computed from eps.

    Args:
        timesteps: T.
    """

    predictions: tuple[str, ...] = ("x0", "v")
    _share: Tensor

    def __init__(self, timesteps: int) -> None:
        super().__init__()
        share = torch.arange(timesteps + 1, dtype=torch.float64) / timesteps  # from t = -1
        self.register_buffer("_share", share.to(torch.float32), persistent=False)

    @property
    def timesteps(self) -> int:
        """T."""
        return len(self._share) - 1

    def noise_share(self, t: Tensor | int) -> Tensor:
        """``s_t`` in the shape of ``t``: from 0 at ``t = -1`` to 1 at ``t = T-1``."""
        return self._share[t + 1]

    def alpha_bar(self, t: Tensor | int) -> Tensor:
        """``(1 - s_t)^2`` in the shape of ``t``."""
        return (1 - self.noise_share(t)).square()

    def q_sample(self, x_0: Tensor, t: Tensor | int, noise: Tensor) -> Tensor:
        """``x_t = (1 - s_t) x_0 + s_t eps``, shaped like ``x_0``."""
        s = _at(self._share, t + 1, x_0)
        return (1 - s) * x_0 + s * noise

    def target(self, x_0: Tensor, noise: Tensor, t: Tensor | int, prediction: str) -> Tensor:
        """What a denoiser learns to predict: x_0, or ``v = eps - x_0``, the same at every ``t``."""
        _check_prediction(prediction, self.predictions)
        return x_0 if prediction == "x0" else noise - x_0

    def x0_from(self, output: Tensor, x_t: Tensor, t: Tensor | int, prediction: str) -> Tensor:
        """The x_0 that a denoiser's ``output`` stands for: ``output``, or ``x_t - s_t v``."""
        _check_prediction(prediction, self.predictions)
        return output if prediction == "x0" else x_t - _at(self._share, t + 1, x_t) * output


def _at(coefficient: Tensor, t: Tensor | int, x: Tensor) -> Tensor:
    """``coefficient[t]`` with more axes of size 1 at the end, so that it broadcasts over ``x`` [*t.shape, ...]."""
    value = coefficient[t]
    return value.reshape(value.shape + (1,) * (x.ndim - value.ndim))


def _check_prediction(prediction: str, allowed: tuple[str, ...]) -> None:
    if prediction not in allowed:
        raise ValueError(f"prediction={prediction!r}: must be one of {', '.join(allowed)}.")
