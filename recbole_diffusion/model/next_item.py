"""Baselines that are an encoder of the history, trained by the loss of the next item."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.utils import InputType
from torch import Tensor, nn

from recbole_diffusion.config.settings import check_heads
from recbole_diffusion.model.layers import Dropout
from recbole_diffusion.model.negatives import SampledLoss, next_item_loss
from recbole_diffusion.model.settings import CatalogueLossConfig


@dataclass(frozen=True)
class NextItemConfig(CatalogueLossConfig):
    """The settings of every encoder here."""

    embedding_size: int
    item_init_std: float
    num_layers: int
    num_heads: int
    dropout: float

    def __post_init__(self) -> None:
        self.check_catalogue_loss()
        check_heads(("num_heads", self.num_heads), ("embedding_size", self.embedding_size))


class NextItemRecommender(SequentialRecommender):
    """Scores an item by the inner product of its embedding and the encoder's state after the history.

    A subclass overrides :meth:`encode`. With ``train_on = "windows"`` its states must be causal. With ``"prefixes"``
    only the state at the end of the history is used.
    """

    input_type = InputType.POINTWISE
    train_on: ClassVar[str] = "windows"
    config_class: ClassVar[type[NextItemConfig]] = NextItemConfig

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.settings = self.config_class.from_config(config)
        self.TARGET_SEQ = config["TARGET_LIST_FIELD"]
        self.max_cells = config["max_cells"]
        size, std = self.settings.embedding_size, self.settings.item_init_std
        self.item_embedding = nn.Embedding(self.n_items, size, padding_idx=0)
        nn.init.normal_(self.item_embedding.weight[1:], std=std)
        self.position_embedding = nn.Embedding(self.max_seq_length, size)
        nn.init.normal_(self.position_embedding.weight, std=std)
        self.dropout = Dropout(self.settings.dropout)
        self.sampled_loss = None
        if self.settings.num_negatives is not None:
            self.sampled_loss = SampledLoss(self.settings, dataset, self.max_cells)

    def with_positions(self, interaction: Interaction) -> Tensor:
        """Embeddings of items plus positions, [batch, length, dim]."""
        items = interaction[self.ITEM_SEQ]
        return self.item_embedding(items) + self.position_embedding(torch.arange(items.shape[1], device=items.device))

    def encode(self, interaction: Interaction) -> Tensor:
        """A state at each position of the histories, [batch, length, dim]. Padding is on the right."""
        raise NotImplementedError

    def forward(self, interaction: Interaction) -> Tensor:
        """The state after each history, [batch, dim]. An empty history counts as one padding item."""
        last = interaction[self.ITEM_SEQ_LEN].clamp(min=1) - 1
        return self.encode(interaction)[torch.arange(len(last), device=last.device), last]

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        if self.TARGET_SEQ in interaction:
            targets = interaction[self.TARGET_SEQ]  # [batch, length]
            real = targets != 0
            states, items = self.encode(interaction)[real], targets[real]
        else:
            states, items = self(interaction), interaction[self.ITEM_ID]
        table, temperature = self.item_embedding.weight, self.settings.ce_temperature
        return next_item_loss(self.sampled_loss, states, table, items, temperature, self.max_cells).mean()

    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """Scores of items 0 ... N, [batch, N + 1]."""
        return self(interaction) @ self.item_embedding.weight.T

    def predict(self, interaction: Interaction) -> Tensor:
        """Score of each row's item, [batch]."""
        return (self(interaction) * self.item_embedding(interaction[self.ITEM_ID])).sum(dim=-1)
