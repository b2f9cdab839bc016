"""DiffuRec (Li, Sun and Li, "A Diffusion Model for Sequential Recommendation", TOIS 2023, arXiv 2304.00686).

================================  ====================================================================
paper                             here
================================  ====================================================================
e_i, items of the history         ``History.items``: LayerNorm(dropout(E[i])), optionally with positions
z_i = e_i + lambda_i (x_t + d_t)  ``Approximator``: lambda_i elementwise from N(delta, delta),
                                  delta = ``uncertainty``
f_theta, the approximator         bidirectional Transformer over z; x0_hat is its last real position
L, cross-entropy                  the ``ce`` term over the whole catalogue; ``mse_weight`` is 0
================================  ====================================================================

Differences from the authors' code:

- padding is on the right and masked as attention keys; the padding item is neither trained nor ranked;
- dropout is only after attention and after the feed-forward layer (theirs is also inside that layer and at the output
  of each block);
- linear layers have torch's initial weights (theirs are Xavier-normal);
- the epoch is chosen by one metric on validation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from recbole.data.interaction import Interaction
from torch import Tensor, nn

from recbole_diffusion.diffusion.denoiser import TimestepEmbedding
from recbole_diffusion.diffusion.noise import GUIDANCE, RowNoise
from recbole_diffusion.model.layers import Dropout, TransformerBlock
from recbole_diffusion.model.normed_items import EPS, NormedItemsConfig, NormedItemsRecommender
from recbole_diffusion.model.settings import DiffusionConfig


@dataclass(frozen=True)
class DiffuRecConfig(NormedItemsConfig, model="DiffuRec"):
    """DiffuRec's own settings. It trains on prefixes, because each target is added to its whole history."""

    draws_elsewhere: ClassVar[bool] = True  # lambda_i

    uncertainty: float


class History(NamedTuple):
    """The guidance: histories, and the noise for lambda_i (None: from torch's global generator)."""

    items: Tensor  # [batch, length, dim]
    length: Tensor  # [batch]
    noise: RowNoise | None
    item_seq: Tensor  # ids of the items, [batch, length]


class Approximator(nn.Module):
    """``f_theta(z_1 ... z_n)``: x0_hat from the history, with the noised target added to each item.

    Args:
        dim, num_layers, num_heads, dropout: of the Transformer.
        uncertainty: delta.
        timesteps: T; for the embedding, steps are scaled to 0 ... 1,000.
    """

    def __init__(
        self, dim: int, num_layers: int, num_heads: int, dropout: float, uncertainty: float, timesteps: int
    ) -> None:
        super().__init__()
        self.uncertainty = uncertainty
        self.step_scale = 1000 / timesteps
        self.tau = TimestepEmbedding(dim, 4 * dim, nn.SiLU())
        self.blocks = nn.ModuleList(
            TransformerBlock(dim, num_heads, dropout, gelu="tanh", eps=EPS) for _ in range(num_layers)
        )
        self.final_norm = nn.LayerNorm(dim, EPS)
        self.dropout = Dropout(dropout)

    def forward(self, x_t: Tensor, t: Tensor, history: History) -> Tensor:
        """From x_t [batch, dim] and t [batch]: x0_hat [batch, dim]."""
        return self.with_middle(x_t, t, history)[0]

    def with_middle(self, x_t: Tensor, t: Tensor, history: History) -> tuple[Tensor, Tensor]:
        """x0_hat, and the state of the last real position after half of the blocks (rounded up), each [batch, dim]."""
        items, length, noise, _ = history
        eps = torch.randn_like(items) if noise is None else noise.normal(GUIDANCE, *items.shape[1:], t=t)
        lambda_ = self.uncertainty * (1 + eps)  # N(delta, delta), [batch, length, dim]
        z = items + lambda_ * (x_t + self.tau(t * self.step_scale)).unsqueeze(1)
        real = torch.arange(items.shape[1], device=length.device) < length.unsqueeze(-1)  # [batch, length]
        mask = real[:, None, None, :]
        last, rows = length - 1, torch.arange(len(items), device=length.device)
        for number, block in enumerate(self.blocks, start=1):
            z = block(z, mask, at=last if number == len(self.blocks) else None)
            if number == (len(self.blocks) + 1) // 2:
                middle = z[:, 0] if number == len(self.blocks) else z[rows, last]
        return self.final_norm(self.dropout(z.squeeze(1))), middle


class DiffuRec(NormedItemsRecommender):
    """Denoises the embedding of the next item with a Transformer over the history."""

    config_class: ClassVar[type[DiffusionConfig]] = DiffuRecConfig
    settings: DiffuRecConfig

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        s = self.settings
        self.denoiser = Approximator(s.embedding_size, s.num_layers, s.num_heads, s.dropout, s.uncertainty, s.timesteps)

    def encode(self, item_seq: Tensor) -> Tensor:
        return self.normed_items(item_seq)

    def last_state(self, interaction: Interaction) -> History:
        item_seq = interaction[self.ITEM_SEQ]
        return History(self.encode(item_seq), self.history_length(interaction), None, item_seq)

    def training_pairs(self, interaction: Interaction) -> tuple[History, Tensor]:
        return self.last_state(interaction), interaction[self.ITEM_ID]

    def generation_guidance(self, state: History, noise: RowNoise) -> History:
        return state._replace(noise=noise)
