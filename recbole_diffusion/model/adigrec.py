"""ADIGRec (SIGIR 2025, doi 10.1145/3726302.3729888): adaptive dynamic-interest guidance.

========================  ============================================================================
paper                     here
========================  ============================================================================
W, attention [n, k]       ``Interests.weights``
G1 = W^T E_S              ``Interests.inherent``, k inherent interests
G2, dynamic interest      ``Interests.dynamic``, last state of a causal Transformer
G = [G1 ; G2]             the guidance [k, 2d], G2 repeated on each row
AI2M                      ``InterestDenoiser``: x_t asks the interests by cross-attention
x_t <- x_t / ||x_t||      ``project`` (DimeRec, arXiv 2408.12153)
L_G1                      the ``interest`` term: cross-entropy of the interest nearest to the target
lambda1 L_simple          the ``mse`` term, lambda1 = ``mse_weight`` (mean, not sum, over dimensions)
lambda2 L_ssm             the ``ce`` term, lambda2 = ``ce_weight``, always of x0_hat
L_reg                     the ``penalty`` term
========================  ============================================================================

Every position of a window has its own interests, from the items up to this position. One pass computes all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from recbole.data.interaction import Interaction
from torch import Tensor, nn

from recbole_diffusion.config.settings import UserError
from recbole_diffusion.diffusion.noise import RowNoise
from recbole_diffusion.model.embedding import EmbeddingDiffusionRecommender
from recbole_diffusion.model.losses import covariance_penalty
from recbole_diffusion.model.settings import DiffusionConfig, EmbeddingDiffusionConfig


@dataclass(frozen=True)
class ADIGRecConfig(EmbeddingDiffusionConfig, model="ADIGRec"):
    """ADIGRec's own settings. It predicts x0: x_t is scaled to length 1, so x0 cannot be computed from eps or v."""

    num_interests: int
    interest_weight: float
    penalty_weight: float
    use_dynamic_interest: bool
    use_ai2m: bool
    encoder_input_norm: bool
    denoiser_skip: bool

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.denoiser_skip and not self.use_dynamic_interest:
            raise UserError(
                "denoiser_skip=True with use_dynamic_interest=False: the skip adds the dynamic interest. Set "
                "denoiser_skip=False."
            )

    def reads_catalogue_loss(self) -> bool:
        return super().reads_catalogue_loss() or self.interest_weight > 0


class Interests(NamedTuple):
    """The interests at some positions. Every tensor begins with the same dimensions ``[...]``."""

    weights: Tensor  # [..., length, k], 0 at positions that are not seen
    inherent: Tensor  # [..., k, dim]
    dynamic: Tensor  # [..., dim]
    seen: Tensor  # [..., length], True at the position itself and at earlier ones


class InterestDenoiser(nn.Module):
    """AI2M and f: ``x0_hat = Linear([x_t ; attended ; t_E])``, with a skip ``x0_hat = G2 + Linear(...)``.

    Args:
        dim: d.
        timesteps: T; each step has a learned embedding t_E.
        attend: whether x_t weighs the interests by attention. If not, all have the same weight.
        skip: whether the dynamic interest G2 is added to the output.
    """

    def __init__(self, dim: int, timesteps: int, attend: bool, skip: bool = False) -> None:
        super().__init__()
        self.attend, self.skip = attend, skip
        self.t_embedding = nn.Embedding(timesteps, dim)
        self.query = nn.Linear(dim, dim, bias=False) if attend else None
        self.key = nn.Linear(2 * dim, dim, bias=False) if attend else None
        self.value = nn.Linear(2 * dim, dim, bias=False)
        self.f = nn.Linear(3 * dim, dim)

    def forward(self, x_t: Tensor, t: Tensor, guidance: Tensor) -> Tensor:
        """x_t [rows, dim], t [rows] and G [rows, k, 2 dim] to x0_hat [rows, dim]."""
        t_e = self.t_embedding(t)
        values = self.value(guidance)  # [rows, k, dim]
        if self.query is not None and self.key is not None:
            query = self.query(x_t + t_e).unsqueeze(1)  # [rows, 1, dim]
            attended = F.scaled_dot_product_attention(query, self.key(guidance), values).squeeze(1)
        else:
            attended = values.mean(dim=1)
        x_0_hat = self.f(torch.cat([x_t, attended, t_e], dim=-1))
        if self.skip:
            dynamic = guidance[:, 0, x_t.shape[-1] :]  # G2 is the same in each row of G = [G1 ; G2]
            return dynamic + x_0_hat
        return x_0_hat


class ADIGRec(EmbeddingDiffusionRecommender):
    """Generates the next item's embedding on the unit sphere, guided by several interests."""

    config_class: ClassVar[type[DiffusionConfig]] = ADIGRecConfig
    settings: ADIGRecConfig
    origin: ClassVar[str] = "interest"

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        s = self.settings
        dim = s.embedding_size
        self.encoder = self.causal_encoder(s.encoder_input_norm)
        self.interest_scores = nn.Sequential(nn.Linear(dim, 4 * dim), nn.Tanh(), nn.Linear(4 * dim, s.num_interests))
        self.denoiser = InterestDenoiser(dim, s.timesteps, s.use_ai2m, s.denoiser_skip)

    def encode(self, item_seq: Tensor) -> Interests:
        """The interests at every position of the histories [batch, length]."""
        length = item_seq.shape[1]
        seen = torch.ones(length, length, dtype=torch.bool, device=item_seq.device).tril()  # [position, length]
        items = self.item_embedding(item_seq)  # E_S, [batch, length, dim]
        return self._interests(items, seen.expand(len(items), -1, -1), self.encoder(items))

    def last_state(self, interaction: Interaction) -> Interests:
        # Only at the last position: all positions would take ``length`` times the work.
        items = self.item_embedding(interaction[self.ITEM_SEQ])
        length = self.history_length(interaction)
        seen = torch.arange(items.shape[1], device=length.device) < length.unsqueeze(-1)  # [batch, length]
        dynamic = self.gather_indexes(self.encoder(items), length - 1)
        return Interests(*(part.squeeze(1) for part in self._interests(items, seen[:, None], dynamic[:, None])))

    def _interests(self, items: Tensor, seen: Tensor, dynamic: Tensor) -> Interests:
        """The interests of each position.

        Args:
            items: E_S, [batch, length, dim].
            seen: which items each position sees, [batch, position, length].
            dynamic: G2 of each position, [batch, position, dim].
        """
        scores = self.interest_scores(self.encoder.with_positions(items))  # [batch, length, k]
        weights = scores.unsqueeze(1).masked_fill(~seen[..., None], -torch.inf).softmax(dim=2)
        inherent = torch.einsum("bplk,bld->bpkd", weights, items)  # [batch, position, k, dim]
        return Interests(weights, inherent, dynamic, seen)

    def guidance(self, interests: Interests) -> Tensor:
        """G = [G1 ; G2], [rows, k, 2 dim]; without the dynamic interest G2 is 0."""
        dynamic = interests.dynamic if self.settings.use_dynamic_interest else torch.zeros_like(interests.dynamic)
        return torch.cat([interests.inherent, dynamic.unsqueeze(1).expand_as(interests.inherent)], dim=-1)

    def training_guidance(self, state: Interests, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        s, x_0 = self.settings, self.item_embedding(target)
        terms = {}
        if s.interest_weight > 0:
            nearest = (state.inherent @ x_0.unsqueeze(-1)).squeeze(-1).argmax(dim=-1)  # [rows]
            g = state.inherent[torch.arange(len(x_0), device=x_0.device), nearest]
            terms["interest"] = s.interest_weight * self.cross_entropy(g, target).mean()
        if s.penalty_weight > 0:
            terms["penalty"] = s.penalty_weight * covariance_penalty(state.weights, state.seen).mean()
        return self.guidance(state), terms

    def generation_guidance(self, state: Interests, noise: RowNoise) -> Tensor:
        return self.guidance(state)

    def project(self, x_t: Tensor) -> Tensor:
        return F.normalize(x_t, dim=-1)

    def origins(self, interaction: Interaction, x_0: Tensor, rows: Tensor, items: Tensor) -> Tensor:
        """The inherent interest that is nearest to each item, [pairs]."""
        interests = self.last_state(interaction).inherent[rows]  # [pairs, k, dim]
        return torch.einsum("rkd,rd->rk", interests, self.item_embedding(items)).argmax(dim=1)

    @torch.no_grad()
    def diagnose(self, interaction: Interaction) -> dict[str, float]:
        """Also ``interest_correlation``: mean absolute correlation between the attention weights of two interests.

        1 means that all interests are the same.
        """
        state = self.last_state(interaction)
        long = state.seen.sum(dim=-1) > 2  # over two positions a correlation is always 1 or -1
        weights, seen = state.weights[long], state.seen[long]
        n = seen.sum(dim=-1).view(-1, 1, 1)
        centred = (weights - weights.sum(dim=1, keepdim=True) / n) * seen.unsqueeze(-1)
        unit = F.normalize(centred, dim=1)
        correlation = (unit.transpose(1, 2) @ unit).abs()  # [rows, k, k]
        k = correlation.shape[-1]
        off_diagonal = (correlation.sum(dim=(1, 2)) - k) / max(k * (k - 1), 1)
        return {**super().diagnose(interaction), "interest_correlation": off_diagonal.mean().item()}
