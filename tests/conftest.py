"""Fixtures that several test files share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from recbole_diffusion.testing.fixtures import Built, builder, write_random


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> str:
    """Each device that a test runs on."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    return request.param


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RecBole writes logs and checkpoints into the working directory."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def random_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data set ``random``: 40 users, 30 items, histories of 3 to 25 items."""
    return write_random(tmp_path_factory.mktemp("random"))


@pytest.fixture
def build(random_data: Path) -> Callable[..., Built]:
    """``build(model, dataset='random', preset='default', **settings)``: a model with its loaders and trainer."""
    return builder(random_data)
