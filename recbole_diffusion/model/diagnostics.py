"""Figures that show whether an embedding diffusion model collapses. Pure functions."""

from __future__ import annotations

import torch
from torch import Tensor


def table_statistics(table: Tensor) -> dict[str, float]:
    """Figures of the item embeddings [items, dim] (without padding):

    - ``table_norm``: mean norm divided by sqrt(dim), 1 for a table at the scale of unit noise;
    - ``table_cosine``: mean cosine over pairs of different items, 0 for random directions and 1 for a collapsed table;
    - ``table_rank``: effective rank, the exponential of the entropy of the normalised singular values
      (Roy and Vetterli, 2007).
    """
    items, dim = table.shape
    norms = table.norm(dim=-1)
    unit = table / norms.clamp_min(1e-12).unsqueeze(-1)
    cosine = (unit.sum(dim=0).square().sum() - unit.square().sum()) / max(items * (items - 1), 1)
    singular = torch.linalg.svdvals(table)
    share = singular / singular.sum().clamp_min(1e-12)
    entropy = -(share * share.clamp_min(1e-12).log()).sum()
    return {
        "table_norm": norms.mean().item() / dim**0.5,
        "table_cosine": cosine.item(),
        "table_rank": entropy.exp().item(),
    }


def nearest_neighbour_rank(x_0: Tensor, table: Tensor, items: Tensor) -> Tensor:
    """Rank of each row's item by Euclidean distance to the prediction; the nearest item has rank 1.

    Args:
        x_0: predictions [rows, dim].
        table: embeddings of items 0 ... N, [N + 1, dim]; item 0 is not ranked.
        items: ids in 1 ... N, [rows].

    Returns:
        ranks in 1 ... N, [rows].
    """
    distance = torch.cdist(x_0, table[1:])
    own = distance.gather(1, (items - 1).unsqueeze(-1))
    return (distance < own).sum(dim=-1) + 1
