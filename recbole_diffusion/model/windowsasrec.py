"""SASRec trained on windows (Kang and McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from recbole.data.interaction import Interaction
from recbole.model.sequential_recommender import SASRec
from torch import Tensor

from recbole_diffusion.settings import UserError


class WindowSASRec(SASRec):
    """RecBole's SASRec with cross-entropy at every position of a window, as its paper trains it.

    Parameters, scoring and checkpoints are SASRec's; only the training rows differ: one pass over a window of L targets
    in place of L passes over its padded prefixes.
    """

    train_on = "windows"

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        if self.loss_type != "CE":
            raise UserError(f"loss_type={self.loss_type!r}: WindowSASRec learns by cross-entropy; only CE is allowed.")
        self.TARGET_SEQ = config["TARGET_LIST_FIELD"]

    def states(self, item_seq: Tensor) -> Tensor:
        """The encoder's output at every position: [batch, length] to [batch, length, hidden_size]."""
        positions = torch.arange(item_seq.shape[1], device=item_seq.device)
        x = self.item_embedding(item_seq) + self.position_embedding(positions)
        x = self.dropout(self.LayerNorm(x))
        return self.trm_encoder(x, self.get_attention_mask(item_seq), output_all_encoded_layers=False)[-1]

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        targets = interaction[self.TARGET_SEQ]  # [batch, length]
        real = targets != 0
        logits = self.states(interaction[self.ITEM_SEQ])[real] @ self.item_embedding.weight.T
        return F.cross_entropy(logits, targets[real])
