"""The Gaussian process of diffusion: what noise does to data, and what undoes it.

Ho et al. 2020 (DDPM, arXiv 2006.11239). Timesteps are indices ``t = 0 ... T-1``, 0 the least noisy; ``t = -1`` stands
for the data itself (``abar_{-1} = 1``). Wherever a method takes ``t`` beside data of shape [B, ...], ``t`` is a
LongTensor [B] with a step for each row, or one int for all rows.
"""

import torch
from torch import Tensor, nn

PREDICTIONS = ("x0", "eps", "v")


class GaussianDiffusion(nn.Module):
    """Forward process ``q`` and its posterior, with every coefficient in a buffer.

    Args:
        betas: noise of each step, [T], each inside (0, 1); float64 keeps the coefficients exact to float32.
    """

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
        # abar is kept as a logarithm: the ratio of two tiny ones stays right, and so does 1 - abar near 1.
        log_abar = torch.cat([betas.new_zeros(1), torch.log1p(-betas).cumsum(0)])  # [T + 1], from t = -1
        abar, one_minus_abar = log_abar.exp(), torch.expm1(log_abar).abs()
        variance = betas * one_minus_abar[:-1] / one_minus_abar[1:]
        # The variance is 0 at step 0; its logarithm takes that of step 1 (Nichol & Dhariwal 2021).
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
        """``abar_t/abar_s`` in the shape of ``t``: ``abar_t`` as it is by default; 1 at ``t = s = -1``."""
        return (self._log_abar[t + 1] - self._log_abar[s + 1]).exp()

    def beta_between(self, t: Tensor | int, s: Tensor | int) -> Tensor:
        """``1 - abar_t/abar_s`` in the shape of ``t``: the noise added from step ``s`` to step ``t >= s``.

        ``s = t - 1`` gives ``beta_t``, ``s = -1`` gives ``1 - abar_t``, both without the rounding of a difference.
        """
        return -torch.expm1(self._log_abar[t + 1] - self._log_abar[s + 1])

    def snr(self, t: Tensor | int) -> Tensor:
        """Signal-to-noise ratio ``abar_t/(1 - abar_t)`` in the shape of ``t``; infinite at ``t = -1``."""
        return self._snr[t + 1]

    def q_sample(self, x_0: Tensor, t: Tensor | int, noise: Tensor) -> Tensor:
        """``x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps`` (equation 4), shaped like ``x_0`` [B, ...]."""
        return _at(self._sqrt_abar, t, x_0) * x_0 + _at(self._sqrt_one_minus_abar, t, x_0) * noise

    def posterior(self, x_0: Tensor, x_t: Tensor, t: Tensor | int) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, variance and clipped log variance of ``q(x_{t-1} | x_t, x_0)`` (equations 6 and 7).

        The mean is shaped like ``x_t`` [B, ...]; the other two broadcast to it. The variance is the "fixed small" one.
        """
        mean = _at(self._mean_x_0, t, x_t) * x_0 + _at(self._mean_x_t, t, x_t) * x_t
        return mean, _at(self._variance, t, x_t), _at(self._log_variance, t, x_t)

    def eps_from(self, x_0: Tensor, x_t: Tensor, t: Tensor | int) -> Tensor:
        """The noise that ``q_sample`` added to ``x_0`` to reach ``x_t``."""
        return (x_t - _at(self._sqrt_abar, t, x_t) * x_0) / _at(self._sqrt_one_minus_abar, t, x_t)

    def x0_from(self, output: Tensor, x_t: Tensor, t: Tensor | int, prediction: str) -> Tensor:
        """The x_0 that a denoiser's ``output`` stands for.

        Args:
            prediction: what the denoiser predicts, one of ``PREDICTIONS``; the inverse of :meth:`target`.
        """
        _check_prediction(prediction)
        if prediction == "x0":
            return output
        signal, noise = _at(self._sqrt_abar, t, x_t), _at(self._sqrt_one_minus_abar, t, x_t)
        if prediction == "eps":
            return (x_t - noise * output) / signal
        return signal * x_t - noise * output

    def target(self, x_0: Tensor, noise: Tensor, t: Tensor | int, prediction: str) -> Tensor:
        """What a denoiser learns to predict: x_0, eps, or ``v = sqrt(abar_t) eps - sqrt(1 - abar_t) x_0``.

        ``v`` is that of Salimans & Ho 2022 (arXiv 2202.00512).
        """
        _check_prediction(prediction)
        if prediction == "x0":
            return x_0
        if prediction == "eps":
            return noise
        return _at(self._sqrt_abar, t, x_0) * noise - _at(self._sqrt_one_minus_abar, t, x_0) * x_0


def _at(coefficient: Tensor, t: Tensor | int, x: Tensor) -> Tensor:
    """``coefficient[t]`` with trailing axes of size 1 so that it broadcasts over ``x`` [B, ...]."""
    value = coefficient[t]
    return value.reshape(value.shape + (1,) * (x.ndim - value.ndim))


def _check_prediction(prediction: str) -> None:
    if prediction not in PREDICTIONS:
        raise ValueError(f"prediction={prediction!r}: must be one of {', '.join(PREDICTIONS)}.")
