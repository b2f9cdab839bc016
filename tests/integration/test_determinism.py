"""The same command twice gives the same digits; another number of threads changes only the last ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from conftest import Built
from torch import Tensor

SMALL = {"epochs": 2, "train_batch_size": 32}
SIZES = {
    "DreamRec": {"embedding_size": 16, "num_layers": 1, "dropout": 0.2},
    "DiffuRec": {"embedding_size": 16, "num_layers": 1, "dropout": 0.2},
    "DiffRec": {"dropout": 0.2},
    "WindowSASRec": {"hidden_size": 16, "inner_size": 16},
    "SASRec": {"hidden_size": 16, "inner_size": 16},
    "BPR": {"embedding_size": 16},
}
SAMPLES_NEGATIVES = ("BPR",)


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def trained(
    build: Callable[..., Built], model: str, **settings: Any
) -> tuple[dict[str, Tensor], dict[str, float], Any]:
    """Weights, test metrics and losses of a run."""
    built = build(model, **SMALL, **SIZES[model], **settings)
    built.trainer.fit(built.loaders.train, built.loaders.valid)
    test = built.trainer.evaluate(built.loaders.test)
    return built.model.state_dict(), dict(test), built.trainer.train_loss_dict


def same(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    return one[1:] == other[1:] and all(torch.equal(one[0][name], other[0][name]) for name in one[0])


@pytest.mark.parametrize("model", SIZES)
def test_the_same_run_twice(build: Callable[..., Built], model: str) -> None:
    first = trained(build, model)
    torch.rand(7)  # what a program draws before a run does not matter
    assert same(first, trained(build, model))
    assert not same(first, trained(build, model, seed=2))


@pytest.mark.parametrize("model", ["DreamRec", "DiffRec", "SASRec"])
def test_worker_processes_change_nothing_where_no_negative_is_sampled(build: Callable[..., Built], model: str) -> None:
    assert same(trained(build, model), trained(build, model, worker=2))


def test_with_worker_processes_negatives_are_others_but_the_same_each_time(build: Callable[..., Built]) -> None:
    (model,) = SAMPLES_NEGATIVES
    with_workers = trained(build, model, worker=2)
    assert same(with_workers, trained(build, model, worker=2))


@pytest.mark.parametrize(
    "model", [pytest.param(model, marks=[pytest.mark.slow] if model != "DreamRec" else []) for model in SIZES]
)
def test_another_number_of_threads_changes_only_last_digits(
    build: Callable[..., Built], threads: Callable[[int], None], model: str
) -> None:
    """Kernels that add up in parallel add in another order, so sums of 32 bits round differently."""
    runs = []
    for count in (1, 2):
        threads(count)
        runs.append(trained(build, model))
    for name, weights in runs[0][0].items():
        torch.testing.assert_close(weights, runs[1][0][name], atol=2e-3, rtol=1e-2)
    threads(2)
    assert same(runs[1], trained(build, model))
