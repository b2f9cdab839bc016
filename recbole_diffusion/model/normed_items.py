"""What DiffuRec and ADRec share: the items of a history behind dropout and layer norm, optionally with positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from recbole_diffusion.model.embedding import EmbeddingDiffusionRecommender
from recbole_diffusion.model.layers import Dropout
from recbole_diffusion.model.settings import EmbeddingDiffusionConfig

EPS = 1e-12  # of the items' layer norm: their variance is 0.0004 at the start


@dataclass(frozen=True)
class NormedItemsConfig(EmbeddingDiffusionConfig):
    """The settings of this input."""

    embedding_dropout: float
    use_position: bool


class NormedItemsRecommender(EmbeddingDiffusionRecommender):
    """``LayerNorm(dropout(E[i]) + P)``; without ``use_position`` there is no P."""

    settings: NormedItemsConfig

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        s = self.settings
        self.position_embedding = None
        if s.use_position:  # at the scale of the items, as in CausalEncoder: larger ones would hide the items
            self.position_embedding = nn.Embedding(self.max_seq_length, s.embedding_size)
            nn.init.normal_(self.position_embedding.weight, std=s.item_init_std)
        self.embedding_dropout = Dropout(s.embedding_dropout)
        self.embedding_norm = nn.LayerNorm(s.embedding_size, EPS)

    def normed_items(self, item_seq: Tensor) -> Tensor:
        """From histories [batch, length]: [batch, length, dim]."""
        items = self.embedding_dropout(self.item_embedding(item_seq))
        if self.position_embedding is not None:
            items = items + self.position_embedding(torch.arange(item_seq.shape[1], device=item_seq.device))
        return self.embedding_norm(items)
