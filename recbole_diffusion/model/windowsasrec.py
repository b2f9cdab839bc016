"""SASRec trained on windows (Kang and McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from recbole.data.interaction import Interaction
from recbole.model.layers import FeedForward
from recbole.model.sequential_recommender import SASRec
from torch import Tensor, nn

from recbole_diffusion.config.settings import check_heads
from recbole_diffusion.model.layers import Dropout
from recbole_diffusion.model.losses import softmax_cross_entropy
from recbole_diffusion.model.negatives import SampledLoss
from recbole_diffusion.model.settings import CatalogueLossConfig


@dataclass(frozen=True)
class WindowSASRecConfig(CatalogueLossConfig):
    """The settings of RecBole's SASRec, and of the loss."""

    n_layers: int
    n_heads: int
    hidden_size: int
    inner_size: int
    hidden_dropout_prob: float
    attn_dropout_prob: float
    hidden_act: str
    layer_norm_eps: float
    initializer_range: float
    loss_type: str

    def __post_init__(self) -> None:
        self.check_catalogue_loss()
        check_heads(("n_heads", self.n_heads), ("hidden_size", self.hidden_size))


class WindowSASRec(SASRec):
    """RecBole's SASRec with cross-entropy at every position of a window, as in its paper.

    Parameters, scoring and checkpoints are those of SASRec. Only the training rows differ: one pass over a window with
    L targets instead of L passes over its padded prefixes.
    """

    train_on = "windows"
    config_class: ClassVar[type[WindowSASRecConfig]] = WindowSASRecConfig

    def __init__(self, config: Any, dataset: Any) -> None:
        settings = self.config_class.from_config(config)  # RecBole checks none of them
        super().__init__(config, dataset)
        _with_cheaper_layers(self)
        self.TARGET_SEQ = config["TARGET_LIST_FIELD"]
        self.max_cells = config["max_cells"]
        self.temperature = settings.ce_temperature
        self.sampled_loss = None
        if settings.num_negatives is not None:
            self.sampled_loss = SampledLoss(settings, dataset, self.max_cells)

    def states(self, item_seq: Tensor) -> Tensor:
        """The encoder's output at every position: [batch, length] to [batch, length, hidden_size]."""
        positions = torch.arange(item_seq.shape[1], device=item_seq.device)
        x = self.item_embedding(item_seq) + self.position_embedding(positions)
        x = self.dropout(self.LayerNorm(x))
        return self.trm_encoder(x, self.get_attention_mask(item_seq), output_all_encoded_layers=False)[-1]

    def get_attention_mask(self, item_seq: Tensor, bidirectional: bool = False) -> Tensor:
        """RecBole's causal mask, [batch, 1, length, length], with one change: padding positions see themselves too.

        A history without known items is read at a padding position. Without the change this position would see nothing,
        its attention would spread over the whole length, and its state would depend on the batch.
        """
        mask = super().get_attention_mask(item_seq, bidirectional)
        return mask.masked_fill(torch.eye(item_seq.shape[1], dtype=torch.bool, device=item_seq.device), 0.0)

    def forward(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        """The state after each history, [batch, hidden_size]. An empty history counts as one padding item."""
        return super().forward(item_seq, item_seq_len.clamp(min=1))

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        targets = interaction[self.TARGET_SEQ]  # [batch, length]
        real = targets != 0
        states, table = self.states(interaction[self.ITEM_SEQ])[real], self.item_embedding.weight
        if self.sampled_loss is not None:
            return self.sampled_loss(states, table, targets[real]).mean()
        return softmax_cross_entropy(states / self.temperature, table, targets[real], self.max_cells).mean()


def _with_cheaper_layers(model: nn.Module) -> None:
    """Replace RecBole's dropout by ours, and its GELU of five operations by torch's. Neither has parameters."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Dropout):
                setattr(module, name, Dropout(child.p))
        if isinstance(module, FeedForward) and module.intermediate_act_fn == module.gelu:
            module.intermediate_act_fn = F.gelu
