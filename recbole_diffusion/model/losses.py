"""Losses as pure functions of tensors. Each returns one value per row, if its docstring does not say otherwise."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from recbole_diffusion.config.settings import rows_at_once

DIVERGENCES = ("alpha", "beta", "gamma", "none")


def squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean of ``(target - prediction)^2`` over the last dimension: [*leading, dim] to [*leading]."""
    return (prediction - target).square().mean(dim=-1)


def softmax_cross_entropy(prediction: Tensor, table: Tensor, index: Tensor, max_cells: int) -> Tensor:
    """``-log softmax(prediction . table)`` of each row's ``index``, [rows].

    Args:
        prediction: [rows, dim].
        table: embeddings of the candidates, [N, dim].
        index: which row of ``table`` is right, [rows].
        max_cells: most numbers in one matrix of scores, see :func:`in_parts`.
    """

    def loss(prediction: Tensor, index: Tensor) -> Tensor:
        return F.cross_entropy(prediction @ table.T, index, reduction="none")

    return in_parts(loss, max_cells, len(table), prediction, index)


def in_parts(loss: Callable[..., Tensor], max_cells: int, columns: int, *of_rows: Tensor) -> Tensor:
    """``loss(*of_rows)``, [rows], whose matrix of scores is [rows, columns].

    If that is more than ``max_cells`` numbers, the rows are computed in parts. The scores of a part are not kept for
    the gradient, but computed again. ``loss`` must draw no random numbers.
    """
    rows = rows_at_once(max_cells, columns)
    if len(of_rows[0]) <= rows:
        return loss(*of_rows)
    parts = zip(*(values.split(rows) for values in of_rows), strict=True)
    return torch.cat([checkpoint(loss, *part, use_reentrant=False, preserve_rng_state=False) for part in parts])


def catalogue_cross_entropy(
    x_0: Tensor, item_table: Tensor, items: Tensor, temperature: float, max_cells: int
) -> Tensor:
    """``-log softmax(x_0 . e_i / temperature)`` of each item, over the items 1 ... N, [*leading].

    Args:
        x_0: predictions [*leading, dim].
        item_table: embeddings of items 0 ... N, [N + 1, dim]. Item 0 is padding and not among the candidates.
        items: ids in 1 ... N, [*leading]. With two or more dimensions, 0 is allowed too: padding, with loss 0.
        temperature: divides the scores. Below 1, a prediction as long as an embedding can give one item most of the
            probability.
        max_cells: as in :func:`softmax_cross_entropy`.
    """
    if items.dim() > 1:
        real = items != 0  # padding needs no scores
        loss = catalogue_cross_entropy(x_0[real], item_table, items[real], temperature, max_cells)
        return loss.new_zeros(items.shape).masked_scatter(real, loss)
    # Dividing [rows, dim] numbers is cheaper than dividing the scores [rows, N].
    return softmax_cross_entropy(x_0 / temperature, item_table[1:], items - 1, max_cells)


def covariance_penalty(weights: Tensor, real: Tensor) -> Tensor:
    """ADIGRec's ``sum_k ||C[k, :]||_2`` with ``C = (W - mean W)^T (W - mean W) / n`` over the real positions.

    Args:
        weights: W, attention of each interest over the positions, 0 at padding, [rows, length, k].
        real: which positions are real, [rows, length].

    Returns:
        [rows].
    """
    n = real.sum(dim=-1).view(-1, 1, 1)
    centred = (weights - weights.sum(dim=1, keepdim=True) / n) * real.unsqueeze(-1)
    covariance = centred.transpose(1, 2) @ centred / n  # [rows, k, k]
    # The square root has no finite gradient at 0, and a history of one item always gives 0.
    return (covariance.square().sum(dim=-1) + 1e-12).sqrt().sum(dim=-1)


def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """``KL(N(mean, diag exp(log_variance)) || N(0, I))``, one value per dimension: [rows, dim] to [rows, dim]."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)


def robust_divergence(kind: str, squared_distance: Tensor, variance: Tensor, order: float) -> Tensor:
    """D(c, c_hat) of DiffDiv's latent model with ``p(c_hat | z) = N(c, variance)``, [rows].

    With ``r = squared_distance / (2 variance)``:

    - ``alpha``: ``1/(a-1) log((2 pi variance)^(-a/2) exp(-r)^(1-a))``, 0 < a < 1;
    - ``beta``: ``-(b+1)/b ((2 pi variance)^(-b/2) exp(-b r) - 1)``, b > 0;
    - ``gamma``: ``-(g+1)/g (2 pi variance)^(-g/2) exp(-g r)``, g > 0. It is printed without the minus sign; minimising
      that would push c and c_hat apart, so the sign is ours;
    - ``none``: ``squared_distance``, the plain evidence bound.

    With the same order, beta is gamma plus the constant (b+1)/b, so both train in the same way.

    Args:
        kind: one of :data:`DIVERGENCES`.
        squared_distance: ``||c - c_hat||^2`` as a mean over dimensions, [rows]. With a sum, ``exp`` would be 0.
        variance: ``sigma_c^2``, one value per row, [rows].
        order: alpha, beta or gamma of the divergence.

    Raises:
        ValueError: ``kind`` is unknown.
    """
    if kind == "none":
        return squared_distance
    r = squared_distance / (2 * variance)
    log_normaliser = torch.log(2 * math.pi * variance)
    if kind == "alpha":
        return (-order / 2 * log_normaliser - (1 - order) * r) / (order - 1)
    density = torch.exp(-order / 2 * log_normaliser - order * r)
    if kind == "beta":
        return -(order + 1) / order * (density - 1)
    if kind == "gamma":
        return -(order + 1) / order * density
    raise ValueError(f"divergence={kind!r}: must be one of {', '.join(DIVERGENCES)}")
