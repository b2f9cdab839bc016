"""Diversity and novelty: cases counted by hand, bounds and invariances on random lists, and the inputs of metrics."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recbole.evaluator.register import metric_types, metrics_dict, smaller_metrics
from scipy.sparse import coo_matrix
from torch import Tensor

from recbole_diffusion import registry
from recbole_diffusion.config.settings import UserError
from recbole_diffusion.evaluation import diversity
from recbole_diffusion.evaluation.collector import SafeCollector, item_categories
from recbole_diffusion.evaluation.metrics import METRICS

# Items 1 to 5 have the categories ab, bc, c, none, ab.
CATEGORIES = torch.tensor([[0, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 1], [0, 0, 0], [1, 1, 0]], dtype=torch.bool)
VECTORS = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 3.0], [-1.0, 0.0], [0.0, 0.0]])
COUNTS = torch.tensor([0, 8, 4, 4, 0])
N_ITEMS, K = 40, 6


def close(values: Tensor, expected: list[float]) -> None:
    torch.testing.assert_close(values, torch.tensor(expected, dtype=torch.float64))


# --------------------------------------------------------------------------------------------------------------
# By hand


def test_category_distance_by_hand() -> None:
    lists = torch.tensor([[1, 2, 3], [1, 5, 0], [1, 3, 0], [1, 2, 4], [1, 0, 0], [4, 4, 0], [4, 1, 0], [0, 0, 0]])
    expected = [(2 / 3 + 1 + 1 / 2) / 3, 0.0, 1.0, 2 / 3, 0.0, 0.0, 0.0, 0.0]
    close(diversity.category_distance(lists, CATEGORIES), expected)
    close(diversity.category_distance(torch.tensor([[1], [4]]), CATEGORIES), [0.0, 0.0])


def test_vector_distance_by_hand() -> None:
    lists = torch.tensor([[1, 2, 0], [1, 3, 0], [1, 2, 3], [1, 4, 0], [1, 2, 4], [1, 0, 0], [0, 0, 0]])
    close(diversity.vector_distance(lists, VECTORS), [1.0, 2.0, 4 / 3, 0.0, 1.0, 0.0, 0.0])


def test_category_coverage_by_hand() -> None:
    lists = torch.tensor([[1, 3], [1, 5], [3, 4], [4, 0], [3, 3]])
    close(diversity.category_coverage(lists, CATEGORIES), [1.0, 2 / 3, 1 / 3, 0.0, 1 / 3])


def test_category_entropy_by_hand() -> None:
    lists = torch.tensor([[1, 2, 3], [1, 5, 4], [3, 0, 0], [4, 0, 0]])
    p = (1 / 6, 1 / 3, 1 / 2)  # a: 1/2 of item 1; b: 1/2 of items 1 and 2; c: 1/2 of item 2, and item 3
    entropy = -sum(x * math.log2(x) for x in p)
    close(diversity.category_entropy(lists, CATEGORIES), [entropy, 1.0, 0.0, 0.0])


def test_novelty_by_hand() -> None:
    lists = torch.tensor([[1, 2], [2, 3], [4, 0], [1, 4], [0, 0]])
    close(diversity.novelty(lists, COUNTS), [1.5, 2.0, 4.0, 2.5, 0.0])  # 1, 2, 2 and, as if seen once, 4 bits
    close(diversity.novelty(torch.tensor([[1]]), torch.tensor([0, 7])), [0.0])


# --------------------------------------------------------------------------------------------------------------
# On random lists

Measure = Callable[[Tensor], Tensor]


def facts(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Lists of 50 users, and categories (some items have none), vectors and counts of their items."""
    rng = np.random.default_rng(seed)
    items = np.stack([rng.permutation(N_ITEMS - 1)[:K] + 1 for _ in range(50)])
    items[rng.random(items.shape) < 0.1] = 0
    categories = torch.from_numpy(rng.random((N_ITEMS, 7)) < 0.2)
    vectors, counts = torch.from_numpy(rng.normal(size=(N_ITEMS, 5))), torch.from_numpy(rng.integers(0, 30, N_ITEMS))
    vectors[::9] = 0
    for fact in (categories, vectors, counts):
        fact[0] = 0
    return torch.from_numpy(items), categories, vectors, counts


def measures(seed: int) -> tuple[Tensor, dict[str, tuple[Measure, float]]]:
    """The lists, and each measure with its upper bound."""
    items, categories, vectors, counts = facts(seed)
    return items, {
        "category_distance": (lambda lists: diversity.category_distance(lists, categories), 1.0),
        "vector_distance": (lambda lists: diversity.vector_distance(lists, vectors), 2.0),
        "category_coverage": (lambda lists: diversity.category_coverage(lists, categories), 1.0),
        "category_entropy": (lambda lists: diversity.category_entropy(lists, categories), math.log2(7)),
        "novelty": (lambda lists: diversity.novelty(lists, counts), math.log2(int(counts.sum()))),
    }


@pytest.mark.parametrize("seed", range(5))
def test_distances_equal_a_loop_over_pairs(seed: int) -> None:
    items, categories, vectors, _ = facts(seed)
    sets = [set(torch.nonzero(row).squeeze(-1).tolist()) for row in categories]
    by_category, by_vector = [], []
    for row in items.tolist():
        jaccard = [
            1 - len(sets[i] & sets[j]) / len(sets[i] | sets[j]) for i, j in combinations(row, 2) if sets[i] and sets[j]
        ]
        known = [vectors[i] for i in row if vectors[i].any()]
        cosine = [1 - float(v @ w / v.norm() / w.norm()) for v, w in combinations(known, 2)]
        by_category.append(float(np.mean(jaccard)) if jaccard else 0.0)
        by_vector.append(float(np.mean(cosine)) if cosine else 0.0)
    close(diversity.category_distance(items, categories), by_category)
    close(diversity.vector_distance(items, vectors), by_vector)


@pytest.mark.parametrize("seed", range(5))
def test_bounds_and_invariances(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    items, all_measures = measures(seed)
    users, places = torch.randperm(len(items)), torch.randperm(K)
    for name, (measure, highest) in all_measures.items():
        values = measure(items)
        assert values.shape == (len(items),) and values.dtype == torch.float64, name
        assert values.min() >= 0 and values.max() <= highest + 1e-12 and values.max() > 0, name
        # A user's value depends only on that user's items, in any order.
        torch.testing.assert_close(measure(items[users]), values[users])
        torch.testing.assert_close(measure(items[:, places]), values)
        torch.testing.assert_close(torch.cat([measure(row) for row in items.split(1)]), values)
        torch.testing.assert_close(measure(torch.cat([items, items])).mean(), values.mean())
        # A place without an item changes nothing.
        torch.testing.assert_close(measure(torch.nn.functional.pad(items, (0, 2))), values)
        monkeypatch.setattr(diversity, "_LISTS_AT_ONCE", 7)
        torch.testing.assert_close(measure(items), values)
        monkeypatch.undo()


def test_the_extremes() -> None:
    same, apart = torch.zeros(K + 1, K, dtype=torch.bool), torch.zeros(K + 1, K, dtype=torch.bool)
    same[1:, 2] = True
    apart[1:] = torch.eye(K, dtype=torch.bool)
    items = torch.arange(1, K + 1).unsqueeze(0)
    close(diversity.category_distance(items, same), [0.0])
    close(diversity.category_entropy(items, same), [0.0])
    close(diversity.category_coverage(items, same), [1 / K])
    close(diversity.category_distance(items, apart), [1.0])
    close(diversity.category_entropy(items, apart), [math.log2(K)])
    close(diversity.category_coverage(items, apart), [1.0])
    close(diversity.vector_distance(items, 3 * same.double()), [0.0])
    close(diversity.vector_distance(items, 3 * apart.double()), [1.0])


# --------------------------------------------------------------------------------------------------------------
# Item vectors


def test_items_of_the_same_users_are_near_and_unknown_ones_are_zero() -> None:
    users, items = [1, 1, 2, 2, 3, 3, 4, 4, 4], [1, 2, 1, 2, 3, 4, 3, 4, 4]  # the last one repeats
    vectors = diversity.item_vectors(coo_matrix((np.ones(9), (users, items)), shape=(6, 6)))
    close(diversity.vector_distance(torch.tensor([[1, 2], [3, 4], [1, 3], [2, 4], [1, 5]]), vectors), [0, 0, 1, 1, 0])
    assert not vectors[[0, 5]].any() and vectors[1:5].any(dim=-1).all()


def test_cosines_of_vectors_of_full_rank_are_those_of_the_columns() -> None:
    seen = np.random.default_rng(0).random((21, 13)) < 0.4
    seen[0] = seen[:, 0] = False  # the padding
    vectors = diversity.item_vectors(coo_matrix(seen))
    columns = torch.nn.functional.normalize(torch.from_numpy(seen).double(), dim=0)
    torch.testing.assert_close(vectors @ vectors.T, columns.T @ columns)
    np.random.seed(1)
    assert torch.equal(vectors, diversity.item_vectors(coo_matrix(seen)))


# --------------------------------------------------------------------------------------------------------------
# RecBole's side


def test_recbole_knows_our_metrics() -> None:
    registry.metrics.register()
    names = {metric.__name__.lower() for metric in METRICS}
    assert names == {"ild", "embeddingild", "categorycoverage", "categoryentropy", "novelty"}
    assert names <= set(metrics_dict) and names <= set(metric_types) and names.isdisjoint(smaller_metrics)
    assert {"giniindex", "averagepopularity"} <= set(smaller_metrics)


def test_a_metric_is_the_rounded_mean_at_each_k() -> None:
    data = {"rec.items": torch.tensor([[1, 2, 3], [1, 5, 3]]), "data.item_categories": CATEGORIES}
    metric = metrics_dict["ild"]({"topk": [1, 2, 3], "metric_decimal_place": 4})
    pairs = (2 / 3 + 1 + 1 / 2) / 3, (0 + 1 + 1) / 3
    expected = {"ild@1": 0.0, "ild@2": round(1 / 3, 4), "ild@3": round(sum(pairs) / 2, 4)}
    assert metric.calculate_metric(data) == expected


def test_items_that_cannot_be_recommended_are_no_part_of_a_list() -> None:
    config = {
        "metrics": ["Novelty"], "topk": [3], "valid_metric": "Novelty@2", "eval_args": {"mode": "full"},
        "device": "cpu", "mmr_weight": None,
    }  # fmt: skip
    collector = SafeCollector(config)
    low = -torch.inf
    for scores in ([[low, 1.0, 3.0, 2.0], [low, low, 1.0, 2.0]], [[low, low, low, 0.0]]):
        collector.eval_batch_collect(torch.tensor(scores), None, torch.tensor([0]), torch.tensor([3]))
    collected = collector.get_data_struct()
    assert collected["rec.items"].tolist() == [[2, 3, 1], [3, 2, 0], [3, 0, 0]]
    assert "rec.items" not in collector.data_struct
    assert collected["lists.items"] == 2  # in lists of two: 2, 3 and 3, 2 and 3
    collector.eval_batch_collect(torch.tensor([[low, low, low, 2.0]]), None, torch.tensor([0]), torch.tensor([3]))
    assert collector.get_data_struct()["lists.items"] == 1  # only of the second evaluation


@pytest.mark.parametrize("metrics", [["NDCG"], ["NDCG", "Novelty"]])
def test_listed_items_are_counted_whether_there_are_lists_or_not(
    monkeypatch: pytest.MonkeyPatch, metrics: list[str]
) -> None:
    config = {
        "metrics": metrics, "topk": [2, 4], "valid_metric": "NDCG@2", "eval_args": {"mode": "full"}, "device": "cpu",
        "mmr_weight": None,
    }  # fmt: skip
    collector, low = SafeCollector(config), -torch.inf
    scores = torch.tensor([[low, 5.0, 4.0, 3.0, 2.0], [low, low, low, low, 1.0]])
    ranked = []
    topk = torch.Tensor.topk
    monkeypatch.setattr(torch.Tensor, "topk", lambda *args, **kwargs: ranked.append(1) or topk(*args, **kwargs))
    collector.eval_batch_collect(scores, None, torch.tensor([0, 1]), torch.tensor([3, 4]))
    assert collector.get_data_struct()["lists.items"] == 3  # 1 and 2, 4
    assert len(ranked) == ("Novelty" not in metrics)  # ranked again only if RecBole has kept no lists


@pytest.fixture
def categories_of(tmp_path: Path) -> Callable[..., list[list[int]]]:
    """``categories_of(header, rows, tokens)``: what the .item file with these lines gives for these items."""

    def read(header: str, rows: list[str], tokens: list[str], field: Any = "class") -> list[list[int]]:
        (tmp_path / "d.item").write_text("\n".join([header, *rows]) + "\n")
        config = {
            "category_field": field, "data_path": str(tmp_path), "dataset": "d", "field_separator": "\t",
            "seq_separator": " ", "encoding": "utf-8", "ITEM_ID_FIELD": "item_id", "metrics": ["ILD"],
            "mmr_weight": None,
        }  # fmt: skip
        return item_categories(config, tokens).int().tolist()

    return read


def test_categories_are_read_by_item_token(categories_of: Callable[..., list[list[int]]]) -> None:
    rows = ["9\tdrama  war", "7\twar war", "8\t", "5\tunused"]
    flags = categories_of("item_id:token\tclass:token_seq", rows, ["[PAD]", "7", "8", "9", "10"])
    assert flags == [[0, 0], [0, 1], [0, 0], [1, 1], [0, 0]]  # drama, war
    flags = categories_of("item_id:token\tclass:token", ["9\tcivil war", "7\twar"], ["[PAD]", "7", "9"])
    assert flags == [[0, 0], [0, 1], [1, 0]]  # civil war, war


@pytest.mark.parametrize(
    ("header", "field", "message"),
    [
        ("item_id:token\tclass:token_seq", None, r"metrics=\['ILD'\]: metrics of categories need category_field"),
        ("item_id:token\tclass:token_seq", "genre", "category_field='genre': .*d.item has no column 'genre', only"),
        ("id:token\tclass:token_seq", "class", "has no column 'item_id'"),
        ("item_id:token\tclass:float", "class", "must be a column of type token or token_seq; it is float"),
        ("item_id:token\tclass:token", "class", "no item of 'd' has a value there"),
    ],
)
def test_missing_categories_are_a_clear_error(
    categories_of: Callable[..., list[list[int]]], header: str, field: Any, message: str
) -> None:
    with pytest.raises(UserError, match=message) as error:
        categories_of(header, ["1\t2"], ["[PAD]", "7"], field)
    assert "\n" not in str(error.value)
