"""HSTU (Zhai et al., "Actions Speak Louder than Words", ICML 2024, arXiv 2402.17152).

====================================  ==========================================================================
paper                                 here
====================================  ==========================================================================
U, V, Q, K = silu(f_1(X))   (eq. 1)   ``HSTUBlock.project``, on LN(X)
A V, A = silu(Q K^T + rab^{p,t})      ``HSTUBlock.forward``; divided by L, the longest history, as in the authors' code
                            (eq. 2)
Y = f_2(LN(A V) * U)        (eq. 3)   plus the residual X
rab^p, rab^t                          :class:`RelativeBias`: learned numbers for each distance of two positions, and for
                                      each bucket of the time between them
====================================  ==========================================================================

Differences from the authors' code:

- Their query time is that of the next event, which training takes from the target. Here it is that of the last event
  that is read, so nothing of the target is known.
- Items are scored by the inner product, with learned positions at the input; theirs normalises both vectors, with a
  temperature of 0.05. ``ce_temperature`` and ``num_negatives`` are settings here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from recbole.data.interaction import Interaction
from torch import Tensor, nn

from recbole_diffusion.model.layers import Dropout
from recbole_diffusion.model.next_item import NextItemConfig, NextItemRecommender
from recbole_diffusion.names import AGE_LIST

_BUCKETS = 128
_BUCKET_WIDTH = 0.301  # of log seconds, as the authors have it
_EPS = 1e-6


@dataclass(frozen=True)
class HSTUConfig(NextItemConfig):
    """HSTU's own settings."""

    time_bias: bool


class RelativeBias(nn.Module):
    """What is added to the attention of position i to position j <= i, shared by the heads.

    Args:
        max_length: L.
        with_time: add ``rab^t`` to ``rab^p``.
    """

    def __init__(self, max_length: int, with_time: bool) -> None:
        super().__init__()
        self.of_distance = nn.Parameter(torch.empty(max_length).normal_(std=0.02))
        self.of_time = nn.Parameter(torch.empty(_BUCKETS).normal_(std=0.02)) if with_time else None

    def forward(self, age: Tensor) -> Tensor:
        """The bias [batch or 1, length, length]; above the diagonal it has no meaning.

        Args:
            age: seconds from each event to the last one of its history, [batch, length].
        """
        position = torch.arange(age.shape[1], device=age.device)
        bias = self.of_distance[(position.unsqueeze(1) - position).clamp(min=0)].unsqueeze(0)
        if self.of_time is None:
            return bias
        seconds = (age.unsqueeze(1) - age.unsqueeze(2)).clamp(min=1)  # t_i - t_j, [batch, i, j]
        bucket = (seconds.log() / _BUCKET_WIDTH).long().clamp(max=_BUCKETS - 1)
        return bias + self.of_time[bucket]


class HSTUBlock(nn.Module):
    """Gated attention without softmax. Shapes are [batch, length, dim]."""

    def __init__(self, max_length: int, settings: HSTUConfig) -> None:
        super().__init__()
        dim = settings.embedding_size
        self.max_length, self.num_heads = max_length, settings.num_heads
        self.input_norm, self.attended_norm = nn.LayerNorm(dim, _EPS), nn.LayerNorm(dim, _EPS)
        self.project, self.out = nn.Linear(dim, 4 * dim, bias=False), nn.Linear(dim, dim)
        self.bias = RelativeBias(max_length, settings.time_bias)
        self.dropout = Dropout(settings.dropout)

    def forward(self, x: Tensor, age: Tensor) -> Tensor:
        gate, *parts = F.silu(self.project(self.input_norm(x))).chunk(4, dim=-1)
        value, query, key = (part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in parts)
        weights = F.silu(query @ key.transpose(2, 3) + self.bias(age).unsqueeze(1)) / self.max_length
        attended = (weights.tril() @ value).transpose(1, 2).flatten(2)
        return x + self.out(self.dropout(gate * self.attended_norm(attended)))


class HSTU(NextItemRecommender):
    """Hierarchical sequential transduction units. A batch without times counts as one with equal times."""

    reads_ages: ClassVar[bool] = True
    config_class: ClassVar[type[NextItemConfig]] = HSTUConfig
    settings: HSTUConfig

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        s = self.settings
        self.blocks = nn.ModuleList(HSTUBlock(self.max_seq_length, s) for _ in range(s.num_layers))
        self.final_norm = nn.LayerNorm(s.embedding_size, _EPS)

    def encode(self, interaction: Interaction) -> Tensor:
        x = self.dropout(self.with_positions(interaction))
        age = interaction[AGE_LIST] if AGE_LIST in interaction else torch.zeros(x.shape[:2], device=x.device)
        for block in self.blocks:
            x = block(x, age)
        return self.final_norm(x)
