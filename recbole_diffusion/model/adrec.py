"""ADRec (KDD 2025, arXiv 2505.19544).

Every position of a window denoises its next item. Each token has a timestep of its own.

==============================  ==============================================================================
paper                           here
==============================  ==============================================================================
y_l, the item after position l  ``x_0`` [batch, length, dim], rows of ``item_embedding``
t_l, one per token              ``Step.t`` [batch, length]
c_l, the guidance               ``encode``: causal Transformer over LayerNorm(dropout(E[i])), optionally with
                                positions
f(c + delta (y_t + tau))        ``SequenceDenoiser``: a second causal Transformer; delta = ``token_weight``
L_mse, L_ce                     the ``mse`` and ``ce`` terms. The authors average their gradients: both weights
                                are 1/2
three stages                    ``stages``: pre-train by ``loss: next_item``, train with the item table frozen,
                                train everything
==============================  ==============================================================================

At generation the items of the history are known: they are tokens without noise, with t = 0. Only the last token begins
as noise.

Differences from the authors' code:

- blocks are pre-norm, with a layer norm at their end (theirs are post-norm);
- the squared error is a mean over all positions (theirs: over each sequence, then over sequences); the padding item is
  neither trained nor ranked, nor seen by attention;
- the pre-training stage trains the encoder too and keeps it (theirs is a SASRec of its own, of which only the item
  table is kept: ``pretrained_item_table`` does that);
- the frozen item table does not move (theirs does, by weight decay);
- the learning rate stays as it is (theirs follows a cosine).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from recbole.data.interaction import Interaction
from torch import Tensor, nn

from recbole_diffusion.diffusion.denoiser import TimestepEmbedding
from recbole_diffusion.model.layers import TransformerBlock
from recbole_diffusion.model.normed_items import NormedItemsConfig, NormedItemsRecommender
from recbole_diffusion.model.settings import DiffusionConfig


@dataclass(frozen=True)
class ADRecConfig(NormedItemsConfig, model="ADRec"):
    """ADRec's own settings. It trains on windows: a target at every position."""

    token_weight: float


class Known(NamedTuple):
    """The guidance at generation: the states of a history, the items after each position, and the last position."""

    states: Tensor  # [rows, length, dim]
    items: Tensor  # [rows, length, dim]
    last: Tensor  # [rows]


class CausalBlocks(nn.Module):
    """Causal Transformer blocks with a layer norm at their end: [batch, length, dim] to the same shape."""

    def __init__(self, dim: int, num_layers: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(TransformerBlock(dim, num_heads, dropout, gelu="tanh") for _ in range(num_layers))
        self.final_norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, causal=True)
        return self.final_norm(x)


class SequenceDenoiser(nn.Module):
    """``f(c + delta (x_t + tau(t)))``: x0_hat at every position depends on this position and earlier ones.

    Args:
        blocks: f.
        dim: d.
        token_weight: delta.
        timesteps: T; for the embedding, steps are scaled to 0 ... 1,000.
    """

    def __init__(self, blocks: CausalBlocks, dim: int, token_weight: float, timesteps: int) -> None:
        super().__init__()
        self.blocks, self.token_weight, self.step_scale = blocks, token_weight, 1000 / timesteps
        self.tau = TimestepEmbedding(dim, 4 * dim, nn.SiLU())

    def forward(self, x_t: Tensor, t: Tensor, states: Tensor) -> Tensor:
        """x0_hat [batch, length, dim] from x_t and c of the same shape and t [batch, length]."""
        return self.blocks(states + self.token_weight * (x_t + self.tau(t * self.step_scale)))


class ADRec(NormedItemsRecommender):
    """Denoises the item after every position of a window."""

    config_class: ClassVar[type[DiffusionConfig]] = ADRecConfig
    settings: ADRecConfig
    stage_losses: ClassVar[tuple[str, ...]] = ("next_item",)

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        s = self.settings
        sizes = s.embedding_size, s.num_layers, s.num_heads, s.dropout
        self.encoder = CausalBlocks(*sizes)
        self.denoiser = SequenceDenoiser(CausalBlocks(*sizes), s.embedding_size, s.token_weight, s.timesteps)

    def encode(self, item_seq: Tensor) -> Tensor:
        return self.encoder(self.normed_items(item_seq))

    def training_pairs(self, interaction: Interaction) -> tuple[Tensor, Tensor]:
        return self.encode(interaction[self.ITEM_SEQ]), interaction[self.TARGET_SEQ]

    def last_state(self, interaction: Interaction) -> Known:
        history = interaction[self.ITEM_SEQ]
        followed = self.item_embedding(F.pad(history[:, 1:], (0, 1)))
        return Known(self.encode(history), followed, self.history_length(interaction) - 1)

    def guided_denoiser(self, x_t: Tensor, t: Tensor, guidance: Known) -> Tensor:
        place = torch.arange(len(x_t), device=x_t.device), guidance.last
        tokens = self.seen(guidance.items).index_put(place, x_t)
        steps = t.new_zeros(tokens.shape[:-1]).index_put(place, t)
        return self.denoiser(tokens, steps, guidance.states)[place]
