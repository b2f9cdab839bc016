"""Metrics of diversity and novelty in whole runs: ours, RecBole's sequential and RecBole's general models."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Built

from recbole_diffusion.config.settings import UserError
from recbole_diffusion.evaluation.collector import item_categories
from recbole_diffusion.evaluation.examples import example_recommendations
from recbole_diffusion.quick_start import run
from recbole_diffusion.testing.markov import write_atomic

OURS = ["ILD", "EmbeddingILD", "CategoryCoverage", "CategoryEntropy", "Novelty"]
RECBOLES = ["ItemCoverage", "GiniIndex", "ShannonEntropy", "AveragePopularity", "TailPercentage"]
MODELS = ["DreamRec", "WindowSASRec", "SASRec", "FEARec", "BPR", "Pop"]
SMALL = {"epochs": 1, "MAX_ITEM_LIST_LENGTH": 10, "topk": [1, 5], "valid_metric": "ILD@5"}


@pytest.fixture(scope="module")
def film_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data set ``films``: 40 users, 30 items; its .item file leaves out some and has some that no user has seen."""
    rng = np.random.default_rng(5)
    sequences = [rng.permutation(30)[:length] + 1 for length in rng.integers(4, 12, size=40)]
    folder = write_atomic(tmp_path_factory.mktemp("films"), "films", sequences)
    rows = [f"i{i}\t{' '.join(rng.choice(list('abcdef'), size=i % 3, replace=False))}\t{i}" for i in range(4, 50)]
    text = "\n".join(["item_id:token\tgenre:token_seq\tyear:float", *rows]) + "\n"
    (folder / "films" / "films.item").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("mask_history", [False, True])
def test_every_kind_of_model_has_every_metric(film_data: Path, model: str, mask_history: bool) -> None:
    if model == "FEARec" and mask_history:
        pytest.skip("FEARec keeps no whole histories")
    settings = {"data_path": str(film_data), "category_field": "genre", "metrics": [*OURS, *RECBOLES], **SMALL}
    result = run(model, "films", settings={**settings, "mask_history": mask_history})
    for values in (result["valid"], result["test"]):
        assert set(values) == {f"{name.lower()}@{k}" for name in [*OURS, *RECBOLES] for k in (1, 5)}
        assert values["ild@1"] == values["embeddingild@1"] == 0
        assert 0 < values["ild@5"] <= 1 and 0 < values["embeddingild@5"] <= 2
        assert 0 < values["categorycoverage@1"] < values["categorycoverage@5"] <= 1
        assert 0 < values["categoryentropy@5"] <= math.log2(6)
        assert 0 < values["novelty@5"] <= math.log2(400)
        assert 0 < values["itemcoverage@5"] <= 1 and 0 <= values["giniindex@5"] < 1
        assert 0 < values["shannonentropy@5"] <= math.log(30) and values["averagepopularity@5"] > 0
        assert 0 <= values["tailpercentage@5"] <= 1


def evaluate(build: Callable[..., Built], model: str, film_data: Path, **settings: Any) -> dict[str, float]:
    """Test metrics of an untrained model."""
    built = build(model, dataset="films", data_path=str(film_data), **{**SMALL, **settings})
    built.trainer.eval_collector.data_collect(built.loaders.train)
    return dict(built.trainer.evaluate(built.loaders.test, load_best_model=False))


@pytest.mark.parametrize("model", ["SASRec", "BPR"])
def test_metrics_change_neither_the_catalogue_nor_each_other(
    film_data: Path, build: Callable[..., Built], model: str
) -> None:
    accuracy = {"metrics": ["NDCG", "MRR"], "valid_metric": "NDCG@5"}
    alone = evaluate(build, model, film_data, **accuracy)
    every = evaluate(build, model, film_data, metrics=["NDCG", "MRR", *OURS], category_field="genre")
    assert alone.items() <= every.items() and len(every) == 14
    for name in OURS:
        values = evaluate(build, model, film_data, metrics=[name], category_field="genre", valid_metric=f"{name}@1")
        assert values.items() <= every.items() and len(values) == 2


@pytest.mark.parametrize("model", ["SASRec", "BPR"])
def test_metrics_do_not_depend_on_batches(film_data: Path, build: Callable[..., Built], model: str) -> None:
    settings = {"metrics": [*OURS, *RECBOLES], "category_field": "genre"}
    whole = evaluate(build, model, film_data, **settings, eval_batch_size=4096)
    assert evaluate(build, model, film_data, **settings, eval_batch_size=31) == whole
    assert evaluate(build, model, film_data, **settings, bucket_by_length=False) == whole


def test_every_model_is_measured_by_the_same_facts(film_data: Path, build: Callable[..., Built]) -> None:
    collected = []
    for model in ("WindowSASRec", "SASRec", "FEARec", "BPR"):
        built = build(
            model,
            dataset="films",
            data_path=str(film_data),
            metrics=[*OURS, *RECBOLES],
            category_field="genre",
            **SMALL,
        )
        built.trainer.eval_collector.data_collect(built.loaders.train)
        collected.append(built.trainer.eval_collector.get_data_struct())
    training = len(built.loaders.train.dataset)  # the general model's rows are the interactions
    for facts in collected:
        assert facts["data.num_items"] == 30 and int(facts["data.item_counts"].sum()) == training
        assert facts["data.count_items"] == dict(enumerate(facts["data.item_counts"].tolist()[1:], start=1))
        assert torch.equal(facts["data.item_counts"], collected[0]["data.item_counts"])
        assert torch.equal(facts["data.item_categories"], collected[0]["data.item_categories"])
        torch.testing.assert_close(facts["data.item_vectors"], collected[0]["data.item_vectors"])


def test_short_lists_are_measured_by_what_is_in_them(film_data: Path, build: Callable[..., Built]) -> None:
    settings = {"metrics": [*OURS, *RECBOLES], "category_field": "genre", "topk": [30], "valid_metric": "Novelty@30"}
    masked = evaluate(build, "BPR", film_data, **settings, mask_history=True)
    assert masked["itemcoverage@30"] == 1 and masked["giniindex@30"] > 0
    whole = evaluate(build, "BPR", film_data, **settings)
    assert whole["giniindex@30"] == 0 and whole["shannonentropy@30"] == round(math.log(30), 4)
    assert whole["itemcoverage@30"] == whole["categorycoverage@30"] == 1


@pytest.mark.parametrize("model", ["DreamRec", "BPR"])
@pytest.mark.parametrize(
    ("dataset", "settings", "message"),
    [
        ("films", {}, "metrics of categories need category_field"),
        ("films", {"category_field": "class"}, "category_field='class': .*films.item has no column 'class'"),
        ("films", {"category_field": "year"}, "category_field='year': must be a column of type token or token_seq"),
        ("films", {"category_field": 3}, "category_field=3: must be a text or ~"),
        ("random", {"category_field": "class"}, "category_field='class': there is no file"),
    ],
)
def test_categories_of_a_data_set_that_has_none(
    film_data: Path, random_data: Path, model: str, dataset: str, settings: dict[str, Any], message: str
) -> None:
    folder = film_data if dataset == "films" else random_data
    with pytest.raises(UserError, match=message):
        run(model, dataset, settings={"data_path": str(folder), "metrics": ["ILD"], **SMALL, **settings})


@pytest.mark.parametrize("model", ["DreamRec", "SASRec", "BPR"])
def test_re_ranking_makes_the_lists_of_every_model_more_diverse(
    film_data: Path, build: Callable[..., Built], model: str
) -> None:
    settings = {"metrics": ["NDCG", "ILD"], "category_field": "genre", "mask_history": True}
    plain = evaluate(build, model, film_data, **settings)
    assert evaluate(build, model, film_data, **settings, mmr_weight=1.0) == plain
    diverse = evaluate(build, model, film_data, **settings, mmr_weight=0.0)
    assert diverse["ild@5"] > plain["ild@5"] + 0.05


def test_re_ranking_is_seen_in_the_examples(film_data: Path, build: Callable[..., Built]) -> None:
    def listed(mmr_weight: float | None) -> torch.Tensor:
        settings = {"metrics": ["ILD"], "category_field": "genre", "mmr_weight": mmr_weight, **SMALL}
        built = build("DreamRec", dataset="films", data_path=str(film_data), **settings)
        built.trainer.eval_collector.data_collect(built.loaders.train)
        tokens = [str(item) for item in range(built.loaders.test.dataset.item_num)]
        rerank = built.trainer.eval_collector.rerank
        lines = example_recommendations(built.model, built.loaders, tokens, built.config, 8, rerank)
        items = torch.tensor([int(line.split(". ")[1].removesuffix(" (seen)")) for line in lines[3:]])
        assert len(items.unique()) == 8
        return item_categories(built.config, list(built.loaders.test.dataset.field2id_token["item_id"]))[items]

    def distance(categories: torch.Tensor) -> float:
        shared = categories.float() @ categories.float().T
        return float((shared == 0).float().mean())

    assert distance(listed(0.0)) > distance(listed(1.0)) == distance(listed(None))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"mmr_weight": 0.5, "metrics": ["NDCG"], "valid_metric": "NDCG@5"},
            "mmr_weight=0.5: re-ranking by categories",
        ),
        ({"mmr_weight": 1.5}, "mmr_weight=1.5: must be a number >= 0 and <= 1"),
        (
            {"mmr_weight": 0.5, "metrics": ["AUC"], "valid_metric": "AUC", "eval_args": {"mode": "uni10"}},
            "needs metrics of ranked lists",
        ),
        ({"mmr_weight": 0.5, "mmr_candidates": 4}, "mmr_candidates=4: must be 5 or more"),
    ],
)
def test_what_re_ranking_needs(film_data: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        run("BPR", "films", settings={"data_path": str(film_data), **SMALL, "metrics": ["ILD"], **settings})


def test_without_categories_the_other_metrics_work(random_data: Path, build: Callable[..., Built]) -> None:
    names = ["EmbeddingILD", "Novelty", *RECBOLES]
    for model in ("SASRec", "BPR"):
        built = build(model, metrics=names, topk=[5], valid_metric="GiniIndex@5", tail_ratio=3)
        assert built.config["valid_metric_bigger"] is False
        built.trainer.eval_collector.data_collect(built.loaders.train)
        values = built.trainer.evaluate(built.loaders.test, load_best_model=False)
        assert set(values) == {f"{name.lower()}@5" for name in names}


def test_the_films_that_recbole_ships_have_genres(build: Callable[..., Built]) -> None:
    built = build("BPR", dataset="ml-100k", data_path=None, metrics=["ILD"], valid_metric="ILD@5")
    built.trainer.eval_collector.data_collect(built.loaders.train)
    categories = built.trainer.eval_collector.get_data_struct()["data.item_categories"]
    assert categories.shape[0] == 1683 and not categories[0].any() and categories[1:].any(dim=-1).all()
