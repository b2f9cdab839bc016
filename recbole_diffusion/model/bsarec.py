"""BSARec (Shin et al., "An Attentive Inductive Bias for Sequential Recommendation beyond the Self-Attention", AAAI
2024).

====================================  ==========================================================================
paper                                 here
====================================  ==========================================================================
F, the discrete Fourier transform     :func:`low_pass`: keeping the c // 2 + 1 lowest frequencies of L positions is
over positions, and its low part      a matrix [L, L], so no transform is computed
A_IB X, the inductive bias            ``FrequencyFilter``: LFC + beta^2 HFC, beta a vector of d
S = alpha A_IB X + (1-alpha) A X      ``filter_weight`` is alpha
c                                     ``low_frequencies``
====================================  ==========================================================================

The filter reads the whole history at each position. So the model trains on prefixes with one target each.

Differences from the authors' code:

- Padding is on the right and 0 for the filter, so that a batch can be cut to its longest history. Theirs is on the
  left, and the filter also reads the position embeddings of the padding.
- Positions count from the start of the history; theirs count from its end.
- The padding item is not in the softmax.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from recbole.data.interaction import Interaction
from torch import Tensor, nn

from recbole_diffusion.model.layers import Dropout, SelfAttention
from recbole_diffusion.model.next_item import NextItemConfig, NextItemRecommender

_EPS = 1e-12  # of every layer norm, as the authors have it


@dataclass(frozen=True)
class BSARecConfig(NextItemConfig):
    """BSARec's own settings."""

    filter_weight: float
    low_frequencies: int


def low_pass(length: int, frequencies: int) -> Tensor:
    """The matrix that keeps the lowest ``frequencies`` of ``length`` positions, 0 included: [length, length].

    It is circulant, so its entry depends on the distance of two positions alone. A sequence of n < L positions and
    zeros elsewhere needs only n rows and columns, wherever it lies.
    """
    spectrum = torch.fft.rfft(torch.eye(length), dim=0, norm="ortho")
    spectrum[frequencies:] = 0
    return torch.fft.irfft(spectrum, n=length, dim=0, norm="ortho")


class FrequencyFilter(nn.Module):
    """``LFC + beta^2 HFC`` of a sequence, then dropout, the residual and layer norm.

    Args:
        max_length: L.
        dim: d.
        frequencies: in the low-frequency part LFC; the high-frequency part HFC is the rest.
        dropout: of the filtered sequence.
    """

    low_pass: Tensor

    def __init__(self, max_length: int, dim: int, frequencies: int, dropout: float) -> None:
        super().__init__()
        self.register_buffer("low_pass", low_pass(max_length, frequencies), persistent=False)
        self.beta = nn.Parameter(torch.randn(dim))
        self.norm = nn.LayerNorm(dim, _EPS)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        """From x [batch, length, dim] and which positions are real [batch, length, 1]: [batch, length, dim]."""
        length = x.shape[1]
        sequence = x * real
        low = self.low_pass[:length, :length] @ sequence
        return self.norm(x + self.dropout(low + self.beta.square() * (sequence - low)))


class BSARecBlock(nn.Module):
    """Filter beside causal attention, then a feed-forward layer. Post-norm."""

    def __init__(self, max_length: int, settings: BSARecConfig) -> None:
        super().__init__()
        s, dim = settings, settings.embedding_size
        self.filter_weight = s.filter_weight
        self.filter = FrequencyFilter(max_length, dim, s.low_frequencies // 2 + 1, s.dropout)
        self.attention = SelfAttention(dim, s.num_heads, s.dropout)
        self.attention_norm = nn.LayerNorm(dim, _EPS)
        self.feed_forward = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.feed_forward_norm = nn.LayerNorm(dim, _EPS)
        self.dropout = Dropout(s.dropout)

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        attended = self.attention_norm(x + self.dropout(self.attention(x, causal=True)))
        x = self.filter_weight * self.filter(x, real) + (1 - self.filter_weight) * attended
        return self.feed_forward_norm(x + self.dropout(self.feed_forward(x)))


class BSARec(NextItemRecommender):
    """Self-attention beside a filter of frequencies."""

    train_on: ClassVar[str] = "prefixes"
    config_class: ClassVar[type[NextItemConfig]] = BSARecConfig
    settings: BSARecConfig

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        s = self.settings
        self.input_norm = nn.LayerNorm(s.embedding_size, _EPS)
        self.blocks = nn.ModuleList(BSARecBlock(self.max_seq_length, s) for _ in range(s.num_layers))

    def encode(self, interaction: Interaction) -> Tensor:
        x = self.dropout(self.input_norm(self.with_positions(interaction)))
        positions = torch.arange(x.shape[1], device=x.device)
        real = (positions < interaction[self.ITEM_SEQ_LEN].unsqueeze(-1)).unsqueeze(-1)  # [batch, length, 1]
        for block in self.blocks:
            x = block(x, real)
        return x
