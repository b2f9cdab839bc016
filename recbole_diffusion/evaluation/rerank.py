"""Maximal marginal relevance (MMR): re-rank the lists of any model for diversity. A pure function."""

from __future__ import annotations

import torch
from torch import Tensor

from recbole_diffusion.evaluation.diversity import jaccard

_CELLS_AT_ONCE = 1 << 25  # bounds the memory of [lists, candidates, candidates or categories]
_NEVER = 1e30  # below every value, above what has been chosen


def maximal_marginal_relevance(scores: Tensor, categories: Tensor, weight: float, candidates: int, k: int) -> Tensor:
    """Scores whose best k items are those that MMR picks, in its order (Carbonell and Goldstein, SIGIR 1998).

    The list S is chosen from the ``candidates`` items with the highest scores. It grows by the item i with the largest
    ``weight * r_i - (1 - weight) * max_{j in S} J(C_i, C_j)``. The relevance r_i is the score, scaled to 0 ... 1 over
    the candidates of the list. So models with scores of any scale can be compared at the same weight. J is the Jaccard
    similarity of the items' categories, 0 for an item without categories.

    Args:
        scores: [users, n_items]; an item with -inf is not recommended, and keeps -inf.
        categories: [n_items, n_categories] bool.
        weight: 1 keeps the order of the scores, 0 uses only the categories.
        candidates: number of items to choose a list from, at least k; fewer if the catalogue is smaller.
        k: items to choose.

    Returns:
        [users, n_items]: ``scores``, where the chosen items are raised above all others; the first chosen is highest.
    """
    candidates = min(candidates, scores.shape[1])
    lists = max(1, _CELLS_AT_ONCE // (candidates * max(candidates, categories.shape[1])))
    return torch.cat([_rerank(part, categories, weight, candidates, k) for part in torch.split(scores, lists)])


def _rerank(scores: Tensor, categories: Tensor, weight: float, candidates: int, k: int) -> Tensor:
    top, items = scores.topk(candidates, dim=-1)  # [users, candidates], best first: of equal values the best is chosen
    best, allowed = top[:, :1], ~top.isneginf()
    worst = top.masked_fill(~allowed, torch.inf).amin(dim=-1, keepdim=True)
    relevance = (top - worst) / (best - worst).clamp(min=torch.finfo(top.dtype).tiny)
    similarity = jaccard(categories[items])  # [users, candidates, candidates]
    closest = torch.zeros_like(similarity[:, 0])  # max over S of J, [users, candidates]
    rows, left, order = torch.arange(len(scores), device=scores.device), torch.ones_like(allowed), []
    for _ in range(min(k, candidates)):
        value = (
            (weight * relevance - (1 - weight) * closest).masked_fill(~allowed, -_NEVER).masked_fill(~left, -torch.inf)
        )
        order.append(value.argmax(dim=-1))
        left[rows, order[-1]] = False
        closest = torch.maximum(closest, similarity[rows, order[-1]])
    chosen = torch.stack(order, dim=-1)  # [users, k]
    places = torch.arange(len(order), 0, -1, device=scores.device)
    raised = best + places * best.abs().clamp(min=1)  # by steps that rounding does not lose
    return scores.scatter(1, items.gather(1, chosen), raised.where(allowed.gather(1, chosen), -torch.inf))
