"""eSASRec (Tikhonovich et al., "eSASRec: Enhancing Transformer-based Recommendations in a Modular Fashion", RecSys
2025).

SASRec with two exchanged parts: LiGR blocks (Borisyuk et al., "From Features to Transformers: Redefining Ranking for
Scalable Impact", 2025), and a sampled softmax instead of binary cross-entropy. A LiGR block is pre-norm. What each of
its two layers adds is multiplied by a gate, which reads the block's state:

    x <- x + sigmoid(W_1 x) * Attention(LN(x))
    x <- x + sigmoid(W_2 x) * SwiGLU(LN(x))

Difference from RecTools, whose code the authors use: all rows of a step share their negatives, with log-Q correction
(model/negatives.py); theirs draws negatives for each row, without a correction.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from recbole.data.interaction import Interaction
from torch import Tensor, nn

from recbole_diffusion.model.layers import Dropout, SelfAttention
from recbole_diffusion.model.next_item import NextItemRecommender


class SwiGLU(nn.Module):
    """``W_3 dropout(silu(W_1 x) * W_2 x)``, with a hidden layer of ``4 dim``."""

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.gate_and_value = nn.Linear(dim, 8 * dim)
        self.out = nn.Linear(4 * dim, dim)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.gate_and_value(x).chunk(2, dim=-1)
        return self.out(self.dropout(F.silu(gate) * value))


class LiGRBlock(nn.Module):
    """Causal attention and a feed-forward layer, each behind a gate. Shapes are [batch, length, dim]."""

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm, self.feed_forward_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = SelfAttention(dim, num_heads, dropout)
        self.feed_forward = SwiGLU(dim, dropout)
        self.attention_gate, self.feed_forward_gate = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        attended = self.attention(self.attention_norm(x), causal=True)
        x = x + self.dropout(torch.sigmoid(self.attention_gate(x)) * attended)
        return x + self.dropout(torch.sigmoid(self.feed_forward_gate(x)) * self.feed_forward(self.feed_forward_norm(x)))


class eSASRec(NextItemRecommender):  # the paper's name
    """SASRec with gated blocks and a sampled softmax."""

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        s = self.settings
        self.blocks = nn.ModuleList(LiGRBlock(s.embedding_size, s.num_heads, s.dropout) for _ in range(s.num_layers))
        self.final_norm = nn.LayerNorm(s.embedding_size)

    def encode(self, interaction: Interaction) -> Tensor:
        x = self.dropout(self.with_positions(interaction))
        for block in self.blocks:
            x = block(x)
        return self.final_norm(x)
