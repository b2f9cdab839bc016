"""Builds a small model with random data and a trainer, for a test."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from recbole.data.interaction import Interaction

from recbole_diffusion import registry
from recbole_diffusion.config.strict import Config
from recbole_diffusion.data.loaders import Loaders
from recbole_diffusion.quick_start import prepare
from recbole_diffusion.testing.case import Case
from recbole_diffusion.testing.markov import write_atomic


class Built(NamedTuple):
    """A model that is ready to train, with its configuration, loaders and trainer."""

    config: Config
    loaders: Loaders
    model: Any
    trainer: Any


def write_random(folder: Path) -> Path:
    """Write the data set ``random``: 40 users, 30 items, histories of 3 to 25 items; returns ``folder``."""
    rng = np.random.default_rng(7)
    sequences = [rng.integers(1, 31, size=length) for length in rng.integers(3, 26, size=40)]
    return write_atomic(folder, "random", sequences)


def builder(data_path: Path) -> Callable[..., Built]:
    """``build(model, dataset='random', preset='default', resume=None, **settings)``: a model, its loaders and trainer.

    On the CPU, where the loaders' batches are; ``use_gpu=True`` is for tests that move them.
    """

    def build(
        model: str, dataset: str = "random", preset: str = "default", resume: str | None = None, **settings: Any
    ) -> Built:
        user = {"data_path": str(data_path), "MAX_ITEM_LIST_LENGTH": 10, "seed": 1, "use_gpu": False, **settings}
        resolved = registry.get_model(model)
        config = Config(resolved.model_class, dataset, user, resolved.ours, preset)
        _, loaders, recommender, trainer = prepare(resolved, config, resume)
        return Built(config, loaders, recommender, trainer)

    return build


def training_loss(model: Any, batch: Interaction) -> torch.Tensor:
    """The sum of a model's losses."""
    losses = model.calculate_loss(batch)
    return torch.stack(losses).sum() if isinstance(losses, tuple) else losses


class ModelTests:
    """Fixtures for the tests of a model. Each test works in its own folder."""

    @pytest.fixture(autouse=True)
    def _own_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)  # logs and checkpoints go there

    @pytest.fixture(params=["cpu", "cuda"])
    def device(self, request: pytest.FixtureRequest) -> str:
        """Each device that a test runs on."""
        if request.param == "cuda" and not torch.cuda.is_available():
            pytest.skip("torch sees no CUDA device")
        return str(request.param)

    @pytest.fixture
    def build(self, tmp_path: Path, device: str) -> Callable[..., Built]:
        """See :func:`builder`; on each device."""
        return partial(builder(write_random(tmp_path)), use_gpu=device == "cuda")

    @pytest.fixture
    def built(self, build: Callable[..., Built], case: Case) -> Built:
        """The model of a case."""
        return build(case.model, preset=case.preset, **case.small)
