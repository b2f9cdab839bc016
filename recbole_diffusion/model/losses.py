"""Losses as pure functions of tensors; each returns one value a row unless it says otherwise."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from recbole_diffusion.config.settings import rows_at_once

DIVERGENCES = ("alpha", "beta", "gamma", "none")


def squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """``mean over dimensions of (target - prediction)^2``: [*leading, dim] to [*leading]."""
    return (prediction - target).square().mean(dim=-1)


def softmax_cross_entropy(prediction: Tensor, table: Tensor, index: Tensor, max_cells: int) -> Tensor:
    """``-log softmax(prediction . table)`` of each row's ``index``, [rows].

    Where [rows, N] numbers are more than ``max_cells``, as many rows as hold so many are done at a time, and their
    scores computed again for the gradient instead of kept.

    Args:
        prediction: [rows, dim].
        table: what is chosen among, [N, dim].
        index: the right row of ``table``, [rows].
    """

    def loss(prediction: Tensor, index: Tensor) -> Tensor:
        return F.cross_entropy(prediction @ table.T, index, reduction="none")

    rows = rows_at_once(max_cells, len(table))
    if len(prediction) <= rows:
        return loss(prediction, index)
    parts = zip(prediction.split(rows), index.split(rows), strict=True)
    return torch.cat([checkpoint(loss, *part, use_reentrant=False, preserve_rng_state=False) for part in parts])


def catalogue_cross_entropy(
    x_0: Tensor, item_table: Tensor, items: Tensor, temperature: float, max_cells: int
) -> Tensor:
    """``-log softmax(x_0 . e_i / temperature)`` of each item over items 1 ... N, [*leading]; padding is no candidate.

    Args:
        x_0: predictions [*leading, dim].
        item_table: embeddings of items 0 ... N, [N + 1, dim].
        items: ids in 1 ... N, [*leading]; of positions [batch, length] some may be 0, padding, whose loss is 0.
        temperature: below 1, a prediction of the size of its embedding can still be certain of its item.
        max_cells: of :func:`softmax_cross_entropy`.
    """
    if items.dim() > 1:
        real = items != 0  # the others need no scores
        loss = catalogue_cross_entropy(x_0[real], item_table, items[real], temperature, max_cells)
        return loss.new_zeros(items.shape).masked_scatter(real, loss)
    # The temperature divides [rows, dim] numbers here; after the product it would be [rows, N].
    return softmax_cross_entropy(x_0 / temperature, item_table[1:], items - 1, max_cells)


def sampled_cross_entropy(
    prediction: Tensor, item_table: Tensor, items: Tensor, negatives: Tensor, temperature: float = 1.0
) -> Tensor:
    """``-log softmax(prediction . e_i / temperature)`` of each row's item against negatives shared by all rows.

    Args:
        prediction: [rows, dim].
        item_table: embeddings of items 0 ... N, [N + 1, dim].
        items: ids in 1 ... N, [rows].
        negatives: ids in 1 ... N, [count]; where one is a row's own item, that row leaves it out.
    """
    prediction = prediction / temperature
    own = (prediction * item_table[items]).sum(dim=-1, keepdim=True)  # [rows, 1]
    others = prediction @ item_table[negatives].T  # [rows, count]
    others = others.masked_fill(negatives == items.unsqueeze(-1), -torch.inf)
    return -F.log_softmax(torch.cat([own, others], dim=-1), dim=-1)[:, 0]


def covariance_penalty(weights: Tensor, real: Tensor) -> Tensor:
    """ADIGRec's ``sum_k ||C[k, :]||_2`` with ``C = (W - mean W)^T (W - mean W) / n`` over the real positions.

    Args:
        weights: W, attention of each interest over positions, 0 where there is none, [rows, length, k].
        real: which positions are real, [rows, length].

    Returns:
        [rows].
    """
    n = real.sum(dim=-1).view(-1, 1, 1)
    centred = (weights - weights.sum(dim=1, keepdim=True) / n) * real.unsqueeze(-1)
    covariance = centred.transpose(1, 2) @ centred / n  # [rows, k, k]
    # The square root has no gradient at 0, where a history of one item always is.
    return (covariance.square().sum(dim=-1) + 1e-12).sqrt().sum(dim=-1)


def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """``KL(N(mean, diag exp(log_variance)) || N(0, I))``, one value a dimension: [rows, dim] to [rows, dim]."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)


def robust_divergence(kind: str, squared_distance: Tensor, variance: Tensor, order: float) -> Tensor:
    """D(c, c_hat) of DiffDiv's latent model with ``p(c_hat | z) = N(c, variance)``, [rows].

    With ``r = squared_distance / (2 variance)``:

    - ``alpha``: ``1/(a-1) log((2 pi variance)^(-a/2) exp(-r)^(1-a))``, 0 < a < 1;
    - ``beta``: ``-(b+1)/b ((2 pi variance)^(-b/2) exp(-b r) - 1)``, b > 0;
    - ``gamma``: ``-(g+1)/g (2 pi variance)^(-g/2) exp(-g r)``, g > 0. The paper's notes print it without the minus
      sign; minimised that way it drives c and c_hat apart, so the sign is ours;
    - ``none``: ``squared_distance``, the plain evidence bound.

    At one order beta is gamma plus the constant (b+1)/b: the two train alike.

    Args:
        kind: one of :data:`DIVERGENCES`.
        squared_distance: ``||c - c_hat||^2`` averaged over dimensions (a sum would make ``exp`` vanish), [rows].
        variance: ``sigma_c^2``, one value a row.
        order: the divergence's alpha, beta or gamma.
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
