"""Fixtures that several test files share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from recbole_diffusion.testing.fixtures import Built, builder, write_random


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fake-device", action="store_true", help="run as on a machine with a GPU (fake_device.py)")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--fake-device"):
        import fake_device

        fake_device.install()


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> str:
    """Each device that a test runs on."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    return request.param


@pytest.fixture(autouse=True)
def _fixed_order_of_sums() -> Iterator[None]:
    """Two runs are compared digit by digit: a GPU must not add up in another order each time."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
    torch.use_deterministic_algorithms(torch.cuda.is_available(), warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


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
