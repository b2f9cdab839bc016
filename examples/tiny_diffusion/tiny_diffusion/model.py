"""TinyDiffusion: denoises the embedding of the next item with one hidden layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from recbole_diffusion.config.row import Role
from recbole_diffusion.config.typed import setting
from recbole_diffusion.diffusion.denoiser import TimestepEmbedding
from recbole_diffusion.model.embedding import EmbeddingDiffusionRecommender
from recbole_diffusion.model.layers import CausalEncoder
from recbole_diffusion.model.settings import DiffusionConfig, EmbeddingDiffusionConfig


@dataclass(frozen=True)
class TinyDiffusionConfig(EmbeddingDiffusionConfig):
    """Its own setting. Defaults of the inherited settings come from the file that its YAML file extends."""

    denoiser_size: int = setting(low=1, role=Role.RESULT, help="hidden units of the denoiser")


class TinyDenoiser(nn.Module):
    """``W2 gelu(W1 (x_t + c + tau(t)))``."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.tau = TimestepEmbedding(dim, dim, nn.SiLU())
        self.layers = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(self, x_t: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """From ``x_t`` and ``cond`` [..., dim] and ``t`` [...]: a tensor shaped like ``x_t``."""
        return self.layers(x_t + cond + self.tau(t))


class TinyDiffusion(EmbeddingDiffusionRecommender):
    """Generates the embedding of the next item from noise. The guidance is the state of a causal Transformer."""

    config_class: ClassVar[type[DiffusionConfig]] = TinyDiffusionConfig
    settings: TinyDiffusionConfig

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        s = self.settings
        self.encoder = CausalEncoder(
            self.max_seq_length, s.embedding_size, s.num_layers, s.num_heads, s.dropout, init_std=s.item_init_std
        )
        self.denoiser = TinyDenoiser(s.embedding_size, s.denoiser_size)

    def encode(self, item_seq: Tensor) -> Tensor:
        """A state at every position of histories [batch, length]: [batch, length, dim]."""
        return self.encoder(self.item_embedding(item_seq))
