"""DiffDiv (SIGIR 2025, doi 10.1145/3726302.3730109): diversity-guided recommendation.

======================  ==============================================================================
paper                   here
======================  ==============================================================================
c = SeqEncoder(s)       ``encode``, the state at the last position
DAGL: q(z | c)          ``LatentGuidance``: z ~ N(mu(c), sigma^2(c)), c_hat = psi(z)
L_DAGL                  the ``divergence`` and ``kl`` terms: w_dagl (D(c, c_hat) + kl_weight KL(q || N(0, I)))
f(x_t, c_hat, t)        ``denoiser``: an MLP that predicts x_0
L_diff                  the ``mse`` term
HDI, L channels         ``num_channels`` draws of z and of noise per history, in one batched chain
y(s, i)                 ``score``: the largest x0_hat . e_i over channels
======================  ==============================================================================

The posterior mean is that of DDPM (Ho et al. 2020, eq. 7). The gamma divergence has the opposite sign of the printed
one (see :func:`recbole_diffusion.model.losses.robust_divergence`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from recbole.data.interaction import Interaction
from torch import Tensor, nn

from recbole_diffusion.config.settings import UserError
from recbole_diffusion.diffusion.noise import GUIDANCE, RowNoise
from recbole_diffusion.model.dreamrec import DreamRec, DreamRecConfig
from recbole_diffusion.model.losses import gaussian_kl, robust_divergence, squared_error
from recbole_diffusion.model.settings import DiffusionConfig


@dataclass(frozen=True)
class DiffDivConfig(DreamRecConfig):
    """DiffDiv's own settings, in addition to DreamRec's."""

    draws_elsewhere: ClassVar[bool] = True  # z

    latent_size: int | None
    latent_residual: bool
    divergence: str
    divergence_order: float
    divergence_variance: float | None
    w_dagl: float
    kl_weight: float
    stop_gradient_latent: bool
    num_channels: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.divergence == "alpha" and self.divergence_order >= 1:
            raise UserError(f"divergence_order={self.divergence_order:g}: the alpha divergence needs a number below 1.")
        if self.latent_residual and self.latent_size not in (None, self.embedding_size):
            raise UserError(
                f"latent_residual=True with latent_size={self.latent_size}: c and z are added, so latent_size must be "
                f"~ or embedding_size={self.embedding_size}. Set latent_residual=False for another size."
            )


class LatentGuidance(nn.Module):
    """DAGL: an MLP d -> d' gives ``q(z | c) = N(mu(c), diag sigma^2(c))``, an MLP d' -> d gives ``c_hat = psi(z)``.

    With ``residual`` both maps are residual, ``mu(c) = c + MLP(c)`` and ``psi(z) = z + MLP(z)``; then ``d' = d``.
    """

    def __init__(self, dim: int, latent_dim: int, residual: bool = False) -> None:
        super().__init__()
        self.residual = residual
        self.posterior = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, 2 * latent_dim))
        self.psi = nn.Sequential(nn.Linear(latent_dim, dim), nn.GELU(), nn.Linear(dim, dim))

    def forward(self, c: Tensor) -> tuple[Tensor, Tensor]:
        """``mu`` and ``log sigma^2`` of q(z | c): from c [rows, dim], two tensors [rows, latent_dim]."""
        mean, log_variance = self.posterior(c).chunk(2, dim=-1)
        return c + mean if self.residual else mean, log_variance

    def draw(self, mean: Tensor, log_variance: Tensor, eps: Tensor) -> Tensor:
        """``c_hat = psi(mu + sigma eps)``, [rows, dim], with standard normal ``eps`` [rows, latent_dim]."""
        z = mean + (0.5 * log_variance).exp() * eps
        return z + self.psi(z) if self.residual else self.psi(z)


class DiffDiv(DreamRec):
    """DreamRec's generator with a sampled guidance, and several chains per history for diverse lists."""

    config_class: ClassVar[type[DiffusionConfig]] = DiffDivConfig
    settings: DiffDivConfig

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        s = self.settings
        self.num_channels = s.num_channels
        self.latent = LatentGuidance(s.embedding_size, s.latent_size or s.embedding_size, s.latent_residual)

    def training_guidance(self, state: Tensor, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        s = self.settings
        mean, log_variance = self.latent(state)
        c_hat = self.latent.draw(mean, log_variance, torch.randn_like(mean))
        if s.w_dagl == 0:
            return c_hat, {}
        c, variance = state, log_variance.exp().mean(dim=-1)  # sigma_c^2: one number per row
        if s.divergence_variance is not None:
            variance = torch.full_like(variance, s.divergence_variance)
        if s.stop_gradient_latent:
            # Otherwise c becomes constant, to be easy to reconstruct, and sigma_c goes to 0, to make the density large.
            c, variance = c.detach(), variance.detach()
        divergence = robust_divergence(s.divergence, squared_error(c_hat, c), variance, s.divergence_order)
        kl = gaussian_kl(mean, log_variance).sum(dim=-1)
        return c_hat, {"divergence": s.w_dagl * divergence.mean(), "kl": s.w_dagl * s.kl_weight * kl.mean()}

    def generation_guidance(self, state: Tensor, noise: RowNoise) -> Tensor:
        mean, log_variance = self.latent(state)
        return self.latent.draw(mean, log_variance, noise.normal(GUIDANCE, mean.shape[-1]))

    @torch.no_grad()
    def diagnose(self, interaction: Interaction) -> dict[str, float]:
        """Also ``kl``, mean KL per row (0: posterior collapse), ``sigma``, its mean, and ``c_explained``.

        The last is the share of the variance of c that c_hat explains.
        """
        c = self.last_state(interaction)
        mean, log_variance = self.latent(c)
        eps = self.evaluation_noise(interaction).normal(GUIDANCE, mean.shape[-1])
        c_hat = self.latent.draw(mean, log_variance, eps)
        unexplained = (c - c_hat).square().sum() / (c - c.mean(dim=0)).square().sum().clamp_min(1e-12)
        return {
            **super().diagnose(interaction),
            "kl": gaussian_kl(mean, log_variance).sum(dim=-1).mean().item(),
            "sigma": (0.5 * log_variance).exp().mean().item(),
            "c_explained": 1 - unexplained.item(),
        }
