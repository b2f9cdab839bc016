"""Sampled candidates: a user has the same ones in every evaluation, and never one of the user's own items."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Built

from recbole_diffusion.config.settings import UserError
from recbole_diffusion.quick_start import run
from recbole_diffusion.testing.markov import write_atomic

Build = Callable[..., Built]
ALL_USERS = {"user_inter_num_interval": "[4,inf)"}  # split alike for all kinds of models
SMALL = {"embedding_size": 8, **ALL_USERS}
SEVERAL = {"split": {"RS": [0.5, 0.2, 0.3]}, "order": "TO", "group_by": "user"}  # several held-out items per user


def candidates(built: Built, phase: str = "test") -> dict[str, list[str]]:
    """The candidates of each user, sorted; by token."""
    loader, found = getattr(built.loaders, phase), {}
    users, items = (loader._dataset.field2id_token[field] for field in ("user_id", "item_id"))
    for rows, *_ in loader:
        for user, item, label in zip(rows["user_id"].tolist(), rows["item_id"].tolist(), rows["label"], strict=True):
            own = found.setdefault(str(users[user]), [])
            if not label:
                own.append(str(items[item]))
    return {user: sorted(of_user) for user, of_user in found.items()}


def sampled(mode: str, **split: Any) -> dict[str, Any]:
    return {"eval_args": {**split, "mode": mode}}


def random_states() -> list[Any]:
    return [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]


@pytest.mark.parametrize("mode", ["uni20", pytest.param("pop20", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("split", "models"),
    [
        ({}, ["BPR", "Pop", "DreamRec", "FEARec"]),  # the last with RecBole's own data set
        (SEVERAL, ["BPR", "Pop"]),  # sequential models cannot predict a first item, so their split differs
        (SEVERAL, ["DreamRec", "FEARec"]),
    ],
)
def test_a_user_has_the_same_candidates_in_every_evaluation(
    build: Build, mode: str, split: dict[str, Any], models: list[str]
) -> None:
    settings = {**ALL_USERS, **sampled(mode, **split)}
    skewed = {"distribution": "popularity", "alpha": 0.5}
    negatives = {"train_neg_sample_args": skewed} if models[0] == "BPR" else {}
    first = candidates(build(models[0], **negatives, **settings))
    assert len(first) == 39 and len({tuple(of_user) for of_user in first.values()}) == 39
    for model in models:
        for change in ({}, {"eval_batch_size": 1, "seed": 5, "worker": 1}):
            built = build(model, **settings, **change)
            before = random_states()
            found = candidates(built)
            assert random_states() == before and found == first
        held_out = built.loaders.test._dataset.inter_feat["user_id"].bincount()
        tokens = built.loaders.test._dataset.field2id_token["user_id"]
        assert all(len(found.get(str(tokens[user]), ())) == 20 * count for user, count in enumerate(held_out.tolist()))
        assert candidates(built) == first  # once more
        others = [
            (Counter(of_user) - Counter(first[user])).total() for user, of_user in candidates(built, "valid").items()
        ]
        assert np.mean(others) > 4
        assert candidates(build(model, candidate_seed=1, **settings)) != first


@pytest.mark.parametrize("mode", ["uni20", "pop20"])
def test_ids_have_no_part_in_it(build: Build, random_data: Path, tmp_path: Path, mode: str) -> None:
    """With the same rows in another order, the same users and items get other ids."""
    settings = {**ALL_USERS, **sampled(mode)}
    first = candidates(build("BPR", **settings))
    header, *rows = (random_data / "random" / "random.inter").read_text().splitlines()
    folder = tmp_path / "other" / "random"
    folder.mkdir(parents=True)
    (folder / "random.inter").write_text("\n".join([header, *reversed(rows)]) + "\n")
    assert candidates(build("BPR", data_path=str(folder.parent), **settings)) == first


@pytest.mark.parametrize("mode", ["uni40", "pop40"])
@pytest.mark.parametrize("phase", ["valid", "test"])
@pytest.mark.parametrize(("model", "mask_history"), [("BPR", False), ("BPR", True), ("DreamRec", False)])
def test_no_candidate_is_the_users_own(
    build: Build, random_data: Path, mode: str, phase: str, model: str, mask_history: bool
) -> None:
    embedding = {} if model == "BPR" else {"embedding_size": 8}
    built = build(model, mask_history=mask_history, **embedding, **ALL_USERS, **sampled(mode, **SEVERAL))
    phases = ("train", "valid", "test")
    own: dict[str, set[str]] = {}
    for split in phases[: phases.index(phase) + 1] if mask_history else [phase]:
        loader = getattr(built.loaders, split)
        feat, tokens = loader._dataset.inter_feat, loader._dataset.field2id_token
        for user, item in zip(feat["user_id"].tolist(), feat["item_id"].tolist(), strict=True):
            own.setdefault(str(tokens["user_id"][user]), set()).add(str(tokens["item_id"][item]))
    drawn = candidates(built, phase)
    assert drawn and all(not own[user].intersection(of_user) for user, of_user in drawn.items())
    if not mask_history:  # items of the history stay in the ranking
        assert any(set(of_user) & _history(random_data)[user] for user, of_user in drawn.items())


def _history(folder: Path) -> Mapping[str, set[str]]:
    found: dict[str, set[str]] = {}
    for line in (folder / "random" / "random.inter").read_text().splitlines()[1:]:
        user, item, _ = line.split("\t")
        found.setdefault(user, set()).add(item)
    return found


def test_candidates_have_the_distribution_of_the_mode(build: Build, tmp_path: Path) -> None:
    """Every second user takes item k of 8 k times and item 9 last, the others 8 items once; all take item 10 first."""
    often = [item for item in range(1, 9) for _ in range(item)]
    rng = np.random.default_rng(0)
    sequences = [[10, *rng.permutation(often), 9] if user % 2 else [10, *rng.permutation(8) + 1] for user in range(60)]
    write_atomic(tmp_path, "skewed", sequences)
    items = np.concatenate(sequences)
    for mode, expected in (("uni400", np.ones(10)), ("pop400", np.bincount(items)[1:])):
        for model in ("Pop", "DreamRec"):
            small = {"topk": [1], "valid_metric": "NDCG@1"}
            built = build(model, "skewed", data_path=str(tmp_path), **small, **sampled(mode))
            drawn = candidates(built)
            # Each user's own item is left out of the draw.
            wanted = np.zeros(10)
            test = built.loaders.test._dataset
            for item in test.field2id_token["item_id"][test.inter_feat["item_id"]]:
                chance = np.where(np.arange(1, 11) == int(item[1:]), 0, expected)
                wanted += 400 * chance / chance.sum()
            found = np.bincount([int(item[1:]) for of_user in drawn.values() for item in of_user], minlength=11)[1:]
            np.testing.assert_allclose(found, wanted, rtol=0.1)


@pytest.mark.parametrize("model", ["DreamRec", "BPR"])
def test_the_same_weights_have_the_same_figures(build: Build, model: str) -> None:
    settings = {**SMALL, **sampled("uni10"), "epochs": 2, "metric_decimal_place": 9}
    built = build(model, **settings)
    built.trainer.fit(built.loaders.train, built.loaders.valid)
    first = built.trainer.evaluate(built.loaders.test)
    assert built.trainer.evaluate(built.loaders.test) == first
    kept = built.trainer.evaluate(built.loaders.valid)
    assert [kept] == [of["valid"] for of in built.trainer.history if of["epoch"] == built.trainer.saved_epoch]
    for candidate_seed in (2020, 1):
        later = build(model, eval_batch_size=11, candidate_seed=candidate_seed, **settings)
        figures = later.trainer.evaluate(later.loaders.test, model_file=built.trainer.saved_model_file)
        assert (figures == pytest.approx(first)) is (candidate_seed == 2020)


@pytest.mark.parametrize("model", ["BPR", "SASRec"])
def test_sampling_takes_nothing_from_training(random_data: Path, model: str) -> None:
    small = {"data_path": str(random_data), "epochs": 3, "MAX_ITEM_LIST_LENGTH": 10}
    losses = []
    for settings in ({}, sampled("uni10"), {**sampled("pop7"), "candidate_seed": 3}):
        result = run(model, "random", settings={**small, **settings})
        losses.append([epoch["train_loss"] for epoch in result["history"]])
    assert losses[0] == losses[1] == losses[2]


@pytest.mark.parametrize("mode", ["full", "uni10", "pop10"])
@pytest.mark.parametrize("model", ["BPR", "SASRec"])
def test_max_cells_bounds_the_users_of_a_batch(build: Build, model: str, mode: str) -> None:
    for max_cells, users in ((31 * 7 + 30, 7), (3, 1)):
        built = build(model, max_cells=max_cells, eval_batch_size=10**6, **sampled(mode))
        for loader in built.loaders[1:]:
            batches = [int(positive_u[-1]) + 1 for _, _, positive_u, _ in loader]
            assert max(batches) == users and sum(batches) >= 39


def test_a_user_with_all_items_has_nothing_to_be_ranked_among(build: Build, tmp_path: Path) -> None:
    write_atomic(tmp_path, "few", [[1, 2, 3, 1, 2, 3, 1, 2, 3], [3, 3, 3, 3, 1, 1, 1, 1, 1]])
    settings = {"data_path": str(tmp_path), "topk": [1], "valid_metric": "NDCG@1", "epochs": 1}
    split = {"split": {"RS": [2, 1, 6]}, "order": "TO", "group_by": "user"}
    for model in ("Pop", "SASRec"):
        with pytest.raises(UserError, match=r"eval_args mode='pop2': user 'u0' has all 3 items; .*Set mode to full"):
            build(model, "few", **settings, **sampled("pop2", **split))


def test_a_seed_that_draws_nothing_is_refused(build: Build) -> None:
    with pytest.raises(UserError, match=r"candidate_seed=1: has an effect only with eval_args mode uniN or popN"):
        build("BPR", candidate_seed=1)
    assert build("BPR", candidate_seed=1, eval_args={"mode": {"valid": "full", "test": "uni5"}})
    with pytest.raises(UserError, match="candidate_seed=-1: must be"):
        build("BPR", candidate_seed=-1, **sampled("uni5"))
