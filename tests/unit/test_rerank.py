"""Maximal marginal relevance compared with its definition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from recbole_diffusion.evaluation import rerank
from recbole_diffusion.evaluation.rerank import maximal_marginal_relevance

USERS, ITEMS, CATEGORIES, K = 40, 30, 5, 6


@pytest.fixture
def scores() -> Tensor:
    scores = 50 * torch.randn(USERS, ITEMS, generator=torch.Generator().manual_seed(1))
    scores[:, 0] = -torch.inf
    scores[3, 4:] = -torch.inf  # fewer than k are left
    scores[4] = -torch.inf
    scores[5, 1:] = 2.0  # no item is better than another
    return scores


@pytest.fixture
def categories() -> Tensor:
    flags = torch.rand(ITEMS, CATEGORIES, generator=torch.Generator().manual_seed(2)) < 0.4
    flags[[0, 7]] = False
    return flags


def by_definition(scores: list[float], categories: list[set[int]], weight: float, candidates: int) -> list[int]:
    """The list of one user, built item by item with sets and loops."""
    ranked = sorted(range(len(scores)), key=lambda item: -scores[item])[:candidates]
    ranked = [item for item in ranked if scores[item] > float("-inf")]
    low, high = min(scores[item] for item in ranked), max(scores[item] for item in ranked)
    chosen: list[int] = []

    def value(item: int) -> float:
        overlaps = [
            len(categories[item] & categories[other]) / (len(categories[item] | categories[other]) or 1)
            for other in chosen
        ]
        return weight * (scores[item] - low) / (high - low) - (1 - weight) * max(overlaps, default=0.0)

    while len(chosen) < min(K, len(ranked)):
        chosen.append(max((item for item in ranked if item not in chosen), key=value))
    return chosen


@pytest.mark.parametrize("candidates", [K, 15, 100])
@pytest.mark.parametrize("weight", [0.0, 0.3, 0.8])
def test_the_lists_are_those_of_the_definition(
    scores: Tensor, categories: Tensor, weight: float, candidates: int, device: torch.device
) -> None:
    new = maximal_marginal_relevance(scores.to(device), categories.to(device), weight, candidates, K).cpu()
    sets = [set(row.nonzero().flatten().tolist()) for row in categories]
    for user in [*range(4), *range(6, USERS)]:
        wanted = by_definition(scores[user].tolist(), sets, weight, candidates)
        assert new[user].topk(len(wanted)).indices.tolist() == wanted, user


def test_weight_one_keeps_the_order(scores: Tensor, categories: Tensor) -> None:
    new = maximal_marginal_relevance(scores, categories, 1.0, 20, K)
    rows = [user for user in range(USERS) if user not in (3, 4, 5)]
    assert torch.equal(new.topk(K).indices[rows], scores.topk(K).indices[rows])


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_what_was_excluded_stays_so_and_every_place_has_another_item(
    scores: Tensor, categories: Tensor, weight: float
) -> None:
    new = maximal_marginal_relevance(scores, categories, weight, 20, K)
    assert torch.equal(new.isneginf(), scores.isneginf())
    assert not new.isnan().any()
    assert all(len(set(row)) == K for row in new.topk(K).indices.tolist())


def test_lists_are_the_same_in_parts(scores: Tensor, categories: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = maximal_marginal_relevance(scores, categories, 0.4, 20, K)
    monkeypatch.setattr(rerank, "_CELLS_AT_ONCE", 3 * 20 * 20)
    assert torch.equal(maximal_marginal_relevance(scores, categories, 0.4, 20, K), whole)


def test_items_that_were_not_chosen_keep_their_order(scores: Tensor, categories: Tensor) -> None:
    new = maximal_marginal_relevance(scores, categories, 0.2, 20, K)
    for user in range(6, USERS):
        chosen = set(new[user].topk(K).indices.tolist())
        before = [item for item in scores[user].argsort(descending=True).tolist() if item not in chosen]
        after = [item for item in new[user].argsort(descending=True).tolist() if item not in chosen]
        assert before == after
