"""Layers that more than one model uses."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Dropout(nn.Module):
    """Dropout that costs half of torch's on a CPU, because four elements share one 64-bit random number.

    On a CPU, ``p`` is rounded to a multiple of 2^-16 below 1, and kept elements are divided by 1 minus the rounded
    ``p``. Other devices use torch's dropout.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.p)
        dropped = min(round(self.p * 2**16), 2**16 - 1)  # of the 2^16 values a word can take
        words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
        kept = words[: x.numel()].view(x.shape) >= dropped - 2**15
        return x * kept.to(x.dtype).mul_(2**16 / (2**16 - dropped))


class SelfAttention(nn.Module):
    """Self-attention with several heads, and dropout of its weights.

    Args:
        dim: d.
        num_heads: attention heads; must divide ``dim``.
        dropout: share of the attention weights set to 0.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.query_key_value = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None = None, causal: bool = False, at: Tensor | None = None) -> Tensor:
        """What each position reads from the others, shaped like ``x``.

        Args:
            x: [batch, length, dim].
            mask: True where a key may be seen, [batch, 1, 1 or length, length].
            causal: whether each position sees only itself and earlier ones; then there is no ``mask``.
            at: one position of each row, [batch]. Only its output is computed, [batch, 1, dim]. Not with ``causal``.
        """
        assert not (causal and at is not None), "torch would treat a single query as the first position"
        batch, _, dim = x.shape
        asking = x if at is None else x[torch.arange(batch, device=x.device), at].unsqueeze(1)
        (w_query, w_seen), (b_query, b_seen) = (
            parameter.split([dim, 2 * dim]) for parameter in (self.query_key_value.weight, self.query_key_value.bias)
        )
        query, key, value = (  # each [batch, heads, length, dim / heads]; with ``at`` the query has length 1
            part.view(batch, -1, self.num_heads, dim // self.num_heads).transpose(1, 2)
            for part in (F.linear(asking, w_query, b_query), *F.linear(x, w_seen, b_seen).chunk(2, dim=-1))
        )
        dropout = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(query, key, value, mask, dropout, is_causal=causal)
        return self.out(attended.transpose(1, 2).reshape(batch, -1, dim))


class TransformerBlock(nn.Module):
    """Pre-norm Transformer block: self-attention, then a feed-forward layer of ``4 dim`` with GELU.

    Args:
        dim: d.
        num_heads: attention heads; must divide ``dim``.
        dropout: share of elements set to 0 after attention, after the feed-forward layer, and of attention weights.
        gelu: ``none`` for the exact GELU, ``tanh`` for its approximation.
        eps: added to the variance in the layer norms. It matters for embeddings with a standard deviation of 0.02.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float, gelu: str = "none", eps: float = 1e-5) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim, eps)
        self.attention = SelfAttention(dim, num_heads, dropout)
        self.feed_forward_norm = nn.LayerNorm(dim, eps)
        self.feed_forward = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(gelu), nn.Linear(4 * dim, dim))
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None, causal: bool = False, at: Tensor | None = None) -> Tensor:
        """The output of the block, shaped like ``x``; see :class:`SelfAttention`.

        With ``at`` it is [batch, 1, dim]; the other positions are keys and values. This is for the last block of a
        network that reads one position.
        """
        attended = self.attention(self.attention_norm(x), mask, causal, at)
        if at is not None:
            x = x[torch.arange(len(x), device=x.device), at].unsqueeze(1)
        x = x + self.dropout(attended)
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


class CausalEncoder(nn.Module):
    """SASRec-style encoder: the state at each position depends only on this position and earlier ones.

    Padding is on the right. So the causal mask also keeps real positions from attending to padding.

    Args:
        max_length: longest history, for the learned position embeddings.
        dim, num_layers, num_heads, dropout: of each :class:`TransformerBlock`.
        init_std: standard deviation of the position embeddings at the start. It should be that of the item embeddings:
            larger position embeddings hide the items, and those that training never reaches disturb long histories.
        input_norm: whether a layer norm scales items and positions before the first block, as in RecBole's SASRec. The
            blocks add vectors of norm 1 and more to their input, which hides items of standard deviation 0.02.
    """

    def __init__(
        self,
        max_length: int,
        dim: int,
        num_layers: int,
        num_heads: int,
        dropout: float,
        init_std: float,
        input_norm: bool = False,
    ) -> None:
        super().__init__()
        self.position_embedding = nn.Embedding(max_length, dim)
        nn.init.normal_(self.position_embedding.weight, std=init_std)
        # 1e-12: the variance of the items is 0.0004 at the start
        self.input_norm = nn.LayerNorm(dim, eps=1e-12) if input_norm else nn.Identity()
        self.blocks = nn.ModuleList(TransformerBlock(dim, num_heads, dropout) for _ in range(num_layers))
        self.final_norm = nn.LayerNorm(dim)
        self.dropout = Dropout(dropout)

    def with_positions(self, item_embeddings: Tensor) -> Tensor:
        """``E_S + P``, [batch, length, dim]."""
        positions = torch.arange(item_embeddings.shape[1], device=item_embeddings.device)
        return item_embeddings + self.position_embedding(positions)

    def forward(self, item_embeddings: Tensor) -> Tensor:
        """States [batch, length, dim] from item embeddings of the same shape, with padding on the right."""
        x = self.dropout(self.input_norm(self.with_positions(item_embeddings)))
        for block in self.blocks:
            x = block(x, causal=True)
        return self.final_norm(x)
