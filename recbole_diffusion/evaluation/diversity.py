"""Diversity and novelty of recommended lists. Pure functions that know no recommender and no data set.

``items`` are ids of recommended items, [users, k]. Every function gives one value per list, [users], float64. Id 0 is
no item: a list may have fewer than k items.

An item without a category (or a vector) is left out of the list for that measure, so it neither adds diversity nor
takes any away. If too few items are left, the value is 0: coverage, entropy and novelty need one item, distances two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy.sparse import csr_matrix, diags, spmatrix
from scipy.sparse.linalg import svds
from torch import Tensor
from torch.nn.functional import embedding_bag, normalize

_LISTS_AT_ONCE = 256  # bounds the memory of [lists, k, categories]
_VECTOR_SIZE = 64
_ROUNDING = 1e-6  # a shorter vector is the rounding error of a zero


def category_matrix(texts: Sequence[str], separator: str | None) -> Tensor:
    """The categories of each item, [n_items, n_categories] bool, in the order of their names.

    Args:
        texts: the categories of each item, [n_items]; an empty text is none.
        separator: between the categories of an item; None: each text is one category.
    """
    sets = [set(text.split(separator) if separator else [text]) - {""} for text in texts]
    number = {name: index for index, name in enumerate(sorted(set().union(*sets)))}
    categories = torch.zeros(len(texts), len(number), dtype=torch.bool)
    cells = [(item, number[name]) for item, found in enumerate(sets) for name in found]
    if cells:
        categories[tuple(torch.tensor(cells).T)] = True
    return categories


def category_distance(items: Tensor, categories: Tensor) -> Tensor:
    """Intra-list distance by categories: the mean over pairs i < j of ``1 - |C_i & C_j| / |C_i | C_j|`` (Jaccard).

    Args:
        items: [users, k].
        categories: C_i as a row of flags, [n_items, n_categories] bool; row 0 has none.

    Returns:
        [users], from 0 (the items of a list have the same categories) to 1 (no two share any).
    """

    def distance(part: Tensor) -> Tensor:
        flags = categories[part]  # [lists, k, n_categories]
        known = flags.any(dim=-1)
        pairs = (known.unsqueeze(-1) & known.unsqueeze(-2)).triu(diagonal=1)
        distances = torch.where(pairs, 1 - jaccard(flags), 0)
        return distances.sum(dim=(1, 2)) / pairs.sum(dim=(1, 2)).clamp(min=1)

    return _in_parts(distance, items)


def jaccard(flags: Tensor) -> Tensor:
    """Jaccard similarity of every two items, ``|C_i & C_j| / |C_i | C_j|``; 0 if neither has a category.

    Args:
        flags: the categories of the items of each list, [lists, k, n_categories] bool.

    Returns:
        [lists, k, k] float64.
    """
    ones = flags.float()
    size = ones.sum(dim=-1)  # [lists, k]
    both = ones @ ones.transpose(1, 2)  # [lists, k, k]
    either = size.unsqueeze(-1) + size.unsqueeze(-2) - both
    return both.double() / either.clamp(min=1)


def vector_distance(items: Tensor, vectors: Tensor) -> Tensor:
    """Intra-list distance by vectors: the mean over pairs i < j of ``1 - cos(v_i, v_j)``.

    Args:
        items: [users, k].
        vectors: [n_items, size], of any norm; zero for row 0 and for unknown items.

    Returns:
        [users]: 0 if all vectors of a list have the same direction, 1 if they are orthogonal, 2 for two opposite ones.
    """
    unit = normalize(vectors.double(), dim=-1)
    count = (unit != 0).any(dim=-1)[items].sum(dim=-1)  # [users]
    # |sum of n unit vectors|^2 = n + 2 * (sum of the cosines of their pairs).
    length = embedding_bag(items, unit, mode="sum").square().sum(dim=-1)  # [users]
    pairs = count * (count - 1) / 2
    distance = 1 - (length - count) / 2 / pairs.clamp(min=1)
    return torch.where(pairs > 0, distance.clamp(0, 2), 0)  # the clamp is for rounding only


def category_coverage(items: Tensor, categories: Tensor) -> Tensor:
    """Share of all categories that the items of a list cover: ``|union of the C_i| / n_categories``.

    Args:
        items: [users, k].
        categories: [n_items, n_categories] bool; row 0 has none.

    Returns:
        [users], from 0 to 1.
    """
    return _in_parts(lambda part: categories[part].any(dim=1).double().mean(dim=-1), items)


def category_entropy(items: Tensor, categories: Tensor) -> Tensor:
    """Entropy of the categories of a list, in bits: ``-sum_c p(c) log2 p(c)``.

    ``p(c)`` is the mean over the items of ``[c in C_i] / |C_i|``: all items have the same weight, and an item's weight
    is spread evenly over its categories.

    Args:
        items: [users, k].
        categories: [n_items, n_categories] bool; row 0 has none.

    Returns:
        [users], from 0 (one category) to log2(n_categories) bits.
    """

    def entropy(part: Tensor) -> Tensor:
        flags = categories[part].double()  # [lists, k, n_categories]
        weight = (flags / flags.sum(dim=-1, keepdim=True).clamp(min=1)).sum(dim=1)  # [lists, n_categories]
        p = weight / weight.sum(dim=-1, keepdim=True).clamp(min=1)
        bits: Tensor = -torch.special.xlogy(p, p).sum(dim=-1) / np.log(2)
        return bits + 0.0  # + 0.0: no negative zero

    return _in_parts(entropy, items)


def novelty(items: Tensor, counts: Tensor) -> Tensor:
    """Mean self-information of the items of a list, in bits: ``-log2(counts_i / sum of counts)``.

    Args:
        items: [users, k].
        counts: training interactions of each item, [n_items]; row 0 has none. An item without interactions counts as
            one with a single interaction, the most novel that there is.

    Returns:
        [users], from 0 (all interactions are with that item) to log2(interactions) bits.
    """
    total = counts.sum().clamp(min=1).double()
    bits = (total / counts.clamp(min=1)).log2()  # [n_items]
    real = items > 0
    return torch.where(real, bits[items], 0).sum(dim=-1) / real.sum(dim=-1).clamp(min=1)


def item_vectors(interactions: spmatrix) -> Tensor:
    """A vector for each item, from the users who interacted with it: items with the same users get similar vectors.

    It is the truncated singular value decomposition, of rank 64 at most, of the 0/1 users-by-items matrix whose columns
    are scaled to length 1. An item's vector is its column in the space of the singular vectors. So the cosine of two
    vectors is the cosine similarity of item-based collaborative filtering, smoothed by the low rank. The solver starts
    from a fixed vector, so the same interactions always give the same vectors.

    Args:
        interactions: users by items, [n_users, n_items]; repeated interactions count once.

    Returns:
        [n_items, rank] float64; zero for an item without interactions, or with no component in the space.
    """
    seen = csr_matrix(interactions, dtype=np.float64)
    seen.sum_duplicates()
    seen.data[:] = 1
    users_of_item = np.asarray(seen.sum(axis=0)).ravel()
    scaled = seen @ diags(1 / np.sqrt(np.maximum(users_of_item, 1)))
    smaller = min(scaled.shape)
    start = np.random.default_rng(0).standard_normal(smaller)
    _, strength, directions = svds(scaled, k=min(_VECTOR_SIZE, smaller - 1), v0=start)
    vectors = torch.from_numpy(np.ascontiguousarray((strength[:, None] * directions).T))
    return torch.where(vectors.norm(dim=-1, keepdim=True) > _ROUNDING, vectors, 0)


def _in_parts(function: Callable[[Tensor], Tensor], items: Tensor) -> Tensor:
    return torch.cat([function(part) for part in torch.split(items, _LISTS_AT_ONCE)])
