"""Whole runs with Pop as a reference: its figures equal those of --model=Pop; only a collapsed model gives warnings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Built
from recbole.model.general_recommender.pop import Pop

from recbole_diffusion.model.windowsasrec import WindowSASRec
from recbole_diffusion.quick_start import run
from recbole_diffusion.testing.markov import markov_sequences, write_atomic

SMALL = {"epochs": 1, "MAX_ITEM_LIST_LENGTH": 10, "topk": [5, 10], "metrics": ["NDCG", "Hit", "ItemCoverage", "ILD"]}
UNI = {"eval_args": {"mode": "uni10"}}
ABOVE = "is not clearly above Pop"
FEW = "recommends few items"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data set ``shop``: 60 users of 40 items, many of them equally popular; the popular ones share a genre."""
    rng = np.random.default_rng(3)
    popularity = rng.permutation(np.repeat([8.0, 4, 2, 1], 10))
    sizes = rng.integers(5, 15, size=60)
    chance = popularity / popularity.sum()
    sequences = [rng.choice(40, size=size, replace=False, p=chance) + 1 for size in sizes]
    folder = write_atomic(tmp_path_factory.mktemp("shop"), "shop", sequences)
    rows = [f"i{item}\tg{often}" for item, often in enumerate(popularity, start=1)]
    (folder / "shop" / "shop.item").write_text("\n".join(["item_id:token\tgenre:token", *rows]) + "\n")
    return folder


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data set ``chain``: each of 60 items has one likely successor, all are equally popular."""
    return write_atomic(tmp_path_factory.mktemp("chain"), "chain", markov_sequences(150, 12, 60, 0.9))


def result_of(model: str, folder: Path, **settings: Any) -> dict[str, Any]:
    name = next(folder.iterdir()).name
    categories = {"category_field": "genre"} if name == "shop" else {}
    return run(model, name, settings={"data_path": str(folder), **categories, **SMALL, **settings})


@pytest.mark.parametrize("settings", [{}, {"mask_history": True}, UNI, {"eval_args": {"mode": "pop10"}}], ids=str)
def test_pop_has_the_figures_of_a_run_of_its_own(shop: Path, settings: dict[str, Any]) -> None:
    own = result_of("Pop", shop, **settings)
    for model in ("WindowSASRec", "BPR"):
        beside = result_of(model, shop, **settings)
        assert beside["pop"] == {"valid": own["valid"], "test": own["test"]}
        assert beside["test"] != own["test"]
    assert own["pop"] is None and own["warnings"] == []


def test_pop_ranks_by_training_interactions_and_then_by_id(shop: Path, build: Callable[..., Built]) -> None:
    """Count and rank again, from the file. Ids are in the order of the file."""
    sequences: dict[str, list[str]] = {}
    for line in (shop / "shop" / "shop.inter").read_text().splitlines()[1:]:
        user, item, _ = line.split("\t")
        sequences.setdefault(user, []).append(item)
    items = list(dict.fromkeys(item for sequence in sequences.values() for item in sequence))
    trained = [item for sequence in sequences.values() for item in sequence[:-2]]
    order = sorted(items, key=lambda item: (-trained.count(item), items.index(item)))
    gains = []
    for sequence in sequences.values():
        unseen = [item for item in order if item not in sequence[:-1]]
        place = unseen.index(sequence[-1])
        gains.append(1 / np.log2(place + 2) if place < 10 else 0)
    beside = result_of("WindowSASRec", shop, mask_history=True)
    assert beside["pop"]["test"]["ndcg@10"] == pytest.approx(np.mean(gains), abs=0.5001e-4)


def test_neither_batches_nor_re_ranking_move_pop(shop: Path) -> None:
    plain = result_of("WindowSASRec", shop)
    small = result_of("WindowSASRec", shop, eval_batch_size=7)
    assert small["pop"] == plain["pop"]
    diverse = result_of("WindowSASRec", shop, mmr_weight=0.1)
    assert diverse["test"]["ild@10"] > plain["test"]["ild@10"] and diverse["pop"] == plain["pop"]
    assert result_of("Pop", shop, mmr_weight=0.1)["test"] != plain["pop"]["test"]


def test_pop_changes_no_figure_of_the_model(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beside = result_of("BPR", shop, **UNI)
    monkeypatch.setattr("recbole_diffusion.quick_start.reference_for", lambda *_: None)
    alone = result_of("BPR", shop, **UNI)
    assert (alone["pop"], alone["warnings"]) == (None, [])
    assert (beside["valid"], beside["test"]) == (alone["valid"], alone["test"])


@pytest.mark.parametrize("model", ["WindowSASRec", "BPR"])
def test_pop_ranks_the_candidates_that_the_model_ranked(
    shop: Path, build: Callable[..., Built], monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    drawn: dict[str, list[torch.Tensor]] = {"model": [], "pop": []}

    def watch(owner: Any, name: str) -> None:
        original = owner.predict

        def predict(self: Any, interaction: Any) -> torch.Tensor:
            drawn[name].append(interaction["item_id"].clone())
            return original(self, interaction)

        monkeypatch.setattr(owner, "predict", predict)

    built = build(model, "shop", data_path=str(shop), **{**SMALL, "metrics": ["NDCG"]}, **UNI)
    watch(type(built.model), "model")
    watch(Pop, "pop")
    built.trainer.fit(built.loaders.train, built.loaders.valid)
    valid = drawn["model"].copy()
    np.random.random(9)
    built.trainer.evaluate(built.loaders.test)
    np.random.random(9)
    before = np.random.get_state()
    assert built.trainer.reference.valid.metrics.keys() == built.trainer.reference.test.metrics.keys()
    after = np.random.get_state()
    assert after[2] == before[2] and np.array_equal(after[1], before[1])
    assert len(torch.cat(valid)) == 60 * 11
    assert torch.equal(torch.cat(drawn["pop"]), torch.cat(drawn["model"]))


def test_a_model_that_scores_all_items_alike_has_collapsed(chain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        WindowSASRec, "full_sort_predict", lambda self, interaction: torch.zeros(len(interaction), self.n_items)
    )
    warned = result_of("WindowSASRec", chain, metrics=["NDCG"])["warnings"]
    assert len(warned) == 2 and ABOVE in warned[0] and FEW in warned[1]
    assert "hold 10 of the 60 items" in warned[1] and "150 users" in warned[0]


def test_a_diffusion_model_that_cannot_learn_says_so_at_the_end(chain: Path, caplog: pytest.LogCaptureFixture) -> None:
    absurd = {"learning_rate": 1e-9, "embedding_size": 8, "num_layers": 1, "num_heads": 1, "sampling_steps": 1}
    result = run(
        "DiffDiv",
        "chain",
        settings={"data_path": str(chain), **SMALL, "metrics": ["NDCG"], **absurd},
        examples=3,
    )
    assert any(ABOVE in text for text in result["warnings"])
    logged = [record for record in caplog.records if record.name == "root"]
    told = [record.getMessage() for record in logged[-len(result["warnings"]) :]]
    assert told == result["warnings"] and all(record.levelname == "WARNING" for record in logged[-len(told) :])


def test_a_model_that_learns_warns_of_nothing(chain: Path) -> None:
    settings = {"epochs": 12, "eval_step": 4, "train_batch_size": 8, "hidden_dropout_prob": 0.0, "metrics": ["NDCG"]}
    result = result_of("WindowSASRec", chain, **settings)
    assert result["warnings"] == []
    assert result["valid"]["ndcg@10"] > 2 * result["pop"]["valid"]["ndcg@10"]


def test_the_epoch_that_was_kept_is_judged(chain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"train_batch_size": 8, "hidden_dropout_prob": 0.0, "metrics": ["NDCG"], "eval_batch_size": 4096}
    original, calls = WindowSASRec.full_sort_predict, []

    def forgets(self: WindowSASRec, interaction: Any) -> torch.Tensor:
        calls.append(len(interaction))
        scores = original(self, interaction)
        return scores if len(calls) == 1 else torch.zeros_like(scores)  # after the first validation

    monkeypatch.setattr(WindowSASRec, "full_sort_predict", forgets)
    result = result_of("WindowSASRec", chain, **settings, epochs=16, eval_step=8)
    assert calls == [150] * 3 and result["best_epoch"] == 7 and result["warnings"] == []


def test_what_is_validated_by_diversity_is_judged_by_accuracy(shop: Path) -> None:
    result = result_of("WindowSASRec", shop, valid_metric="ILD@5", learning_rate=1e-9)
    assert "ndcg@5" in result["warnings"][0]
    no_accuracy = result_of("WindowSASRec", shop, valid_metric="ILD@5", metrics=["ILD"])
    assert set(no_accuracy["pop"]["test"]) == {"ild@5", "ild@10"} and not any(
        ABOVE in text for text in no_accuracy["warnings"]
    )


def test_metrics_of_single_predictions_have_no_pop(shop: Path) -> None:
    settings = {"metrics": ["AUC"], "valid_metric": "AUC", "eval_args": {"mode": "labeled"}}
    inter = (shop / "shop" / "shop.inter").read_text().splitlines()
    folder = shop.parent / "labelled"
    (folder / "shop").mkdir(parents=True, exist_ok=True)
    rows = [f"{line}\t{number % 2}" for number, line in enumerate(inter[1:])]
    (folder / "shop" / "shop.inter").write_text("\n".join([inter[0] + "\tlabel:float", *rows]) + "\n")
    loaded = {"load_col": {"inter": ["user_id", "item_id", "timestamp", "label"]}}
    split = {"split": {"RS": [0.8, 0.1, 0.1]}, "group_by": None, "order": "RO", "mode": "labeled"}
    result = run(
        "FM", "shop", settings={"data_path": str(folder), "epochs": 1, **settings, "eval_args": split, **loaded}
    )
    assert result["pop"] is None and result["warnings"] == [] and set(result["test"]) == {"auc"}
