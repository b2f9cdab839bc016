"""Denoisers. The contract: ``denoiser(x_t, t, cond)`` returns a tensor shaped like ``x_t``.

``x_t`` is [*leading, dim]. ``t`` is a LongTensor [*leading] with the step of each row, position or channel. ``cond`` is
what the denoiser is conditioned on. Here it is one vector for each row, position or channel, [*leading, c]. A model's
own denoiser may take anything, such as a history with its mask.
"""

import math

import torch
from torch import Tensor, nn


def sinusoidal_embedding(t: Tensor, dim: int, max_period: float = 10000.0) -> Tensor:
    """``[sin(t w_i) ; cos(t w_i)]``, ``w_i = max_period^(-i/(dim//2))`` (Vaswani et al. 2017, section 3.5).

    Args:
        t: timesteps of any shape. They need not be whole numbers.
        dim: size of the embedding. If it is odd, the last entry is 0.
        max_period: every wavelength is below ``2 pi max_period``.

    Returns:
        Float tensor [*t.shape, dim].
    """
    half = dim // 2
    frequencies = torch.exp(torch.arange(half, device=t.device) * (-math.log(max_period) / max(half, 1)))
    angles = t.unsqueeze(-1).float() * frequencies
    return nn.functional.pad(torch.cat([angles.sin(), angles.cos()], dim=-1), (0, dim % 2))


class TimestepEmbedding(nn.Module):
    """``tau(t)``: sinusoidal embedding, Linear(dim, hidden_dim), activation, Linear(hidden_dim, dim)."""

    def __init__(self, dim: int, hidden_dim: int, activation: nn.Module) -> None:
        super().__init__()
        self.dim = dim
        self.mlp = nn.Sequential(nn.Linear(dim, hidden_dim), activation, nn.Linear(hidden_dim, dim))

    def forward(self, t: Tensor) -> Tensor:
        return self.mlp(sinusoidal_embedding(t, self.dim))  # [*t.shape, dim]


class MLPDenoiser(nn.Module):
    """``f([x_t ; c ; tau(t)])`` (DreamRec), or with a skip from the condition ``c + f([x_t ; c ; tau(t)])``.

    Args:
        dim: d, size of ``x_t`` and of ``tau(t)``.
        cond_dim: size of ``c``.
        kind: ``mlp1``, one Linear to d; ``mlp2``, Linear to 2d, GELU, Linear to d.
        skip: whether c is added to the output. It must have size d. For a denoiser that predicts x0: f then learns the
            difference between the condition and x0, and need not carry c through its layers.

    Raises:
        ValueError: ``kind`` is unknown, or ``skip`` and c is not of size d.
    """

    KINDS = ("mlp1", "mlp2")

    def __init__(self, dim: int, cond_dim: int, kind: str, skip: bool = False) -> None:
        super().__init__()
        if kind not in self.KINDS:
            raise ValueError(f"denoiser={kind!r}: must be one of {', '.join(self.KINDS)}.")
        if skip and cond_dim != dim:
            raise ValueError(f"skip: the condition has size {cond_dim}, but x_t has size {dim}.")
        self.skip = skip
        self.tau = TimestepEmbedding(dim, 2 * dim, nn.GELU())
        size = 2 * dim + cond_dim
        self.f: nn.Module = (
            nn.Linear(size, dim)
            if kind == "mlp1"
            else nn.Sequential(nn.Linear(size, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))
        )

    def forward(self, x_t: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        output = self.f(torch.cat([x_t, cond, self.tau(t)], dim=-1))  # [*leading, d]
        return cond + output if self.skip else output


class ClassifierFreeGuidance(nn.Module):
    """A denoiser with a learned null condition (Ho & Salimans 2022, arXiv 2207.12598).

    Args:
        denoiser: any denoiser whose ``cond`` is [*leading, c].
        cond_dim: c, size of the null condition.
        p_uncond: probability that :meth:`drop` replaces a condition by the null condition. If it is 0, there is no null
            condition, and only ``w = 0`` is allowed.

    Raises:
        ValueError: ``p_uncond`` is outside [0, 1).
    """

    def __init__(self, denoiser: nn.Module, cond_dim: int, p_uncond: float) -> None:
        super().__init__()
        if not 0 <= p_uncond < 1:
            raise ValueError(f"p_uncond={p_uncond!r}: must be >= 0 and < 1.")
        self.denoiser = denoiser
        self.p_uncond = p_uncond
        self.null = nn.Parameter(torch.randn(cond_dim)) if p_uncond > 0 else None

    def drop(self, cond: Tensor) -> Tensor:
        """``cond`` for a training step: each condition becomes the null condition with probability ``p_uncond``."""
        if self.null is None:
            return cond
        dropped = torch.rand(*cond.shape[:-1], 1, device=cond.device) < self.p_uncond  # [*leading, 1]
        return torch.where(dropped, self.null, cond)

    def forward(self, x_t: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """The denoiser with ``cond`` as it is, shaped like ``x_t``."""
        return self.denoiser(x_t, t, cond)

    def guided(self, x_t: Tensor, t: Tensor, cond: Tensor, w: float) -> Tensor:
        """``(1 + w) f(x_t, c) - w f(x_t, null)``, shaped like ``x_t``.

        Both terms are computed in one batch of double size; with ``w = 0`` it is one plain call. The guidance is the
        same, whether ``f`` predicts x0, eps or v: for a given ``x_t`` they are affine in each other, and the weights
        sum to 1.

        Raises:
            ValueError: ``w`` is not 0, but ``p_uncond`` is 0.
        """
        if w == 0:
            return self.denoiser(x_t, t, cond)
        if self.null is None:
            raise ValueError(f"guidance_strength={w:g} needs p_uncond above 0: the null condition is never trained.")
        null = self.null.expand_as(cond)
        out = self.denoiser(torch.cat([x_t, x_t]), torch.cat([t, t]), torch.cat([cond, null]))
        conditional, unconditional = out.chunk(2)
        return (1 + w) * conditional - w * unconditional
