"""A checkpoint with a right checksum and wrong parts: one line of error, and no traceback later in training."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Built

from recbole_diffusion.config.settings import UserError
from recbole_diffusion.model.pretrained import load_item_table
from recbole_diffusion.storage import checkpoint
from recbole_diffusion.storage.run_files import LAST

WRONG: list[Any] = [
    None,
    -1,
    10**12,
    "x",
    [],
    {},
    [1, "a"],
    {"a": 1},
    float("nan"),
    True,
    torch.zeros(3),
    torch.zeros(2, 2),
]


def paths(value: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where each value in a checkpoint stands: keys of mappings and places in lists."""
    yield here
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inner:
        yield from paths(part, (*here, key))


def changed(state: dict[str, Any], path: tuple[Any, ...], wrong: Any, remove: bool) -> dict[str, Any]:
    """A copy of a checkpoint in which the value at ``path`` is removed, or is ``wrong``."""
    state = copy.deepcopy(state)
    where: Any = state
    for key in path[:-1]:
        where = where[key]
    if remove:
        del where[path[-1]]
    else:
        where[path[-1]] = wrong
    return state


@pytest.fixture
def stopped(build: Callable[..., Built]) -> tuple[Callable[[], Built], dict[str, Any], Path]:
    """``(build it again, the parts of its last, its path)`` of a training of one epoch."""

    def again() -> Built:
        return build(
            "DreamRec", epochs=2, embedding_size=8, num_layers=1, num_heads=1, train_batch_size=64, eval_step=1
        )

    built = again()
    built.trainer.epochs = 1
    built.trainer.fit(built.loaders.train, built.loaders.valid)
    return again, checkpoint.load(built.trainer.files.last), built.trainer.files.last


def goes_on(again: Callable[[], Built], state: dict[str, Any], last: Path) -> str:
    """The error of a training that goes on from these parts; empty if it goes on and ends."""
    checkpoint.save(state, last)
    built = again()
    try:
        built.trainer.resume_checkpoint(last)
        built.trainer.fit(built.loaders.train, built.loaders.valid)
    except UserError as error:
        assert "\n" not in str(error)
        return str(error)
    return ""


def test_a_part_that_is_missing_is_named(stopped: tuple[Callable[[], Built], dict[str, Any], Path]) -> None:
    again, state, last = stopped
    assert goes_on(again, state, last) == ""
    for name in state:
        if name == "training":
            continue
        error = goes_on(again, changed(state, (name,), None, remove=True), last)
        assert repr(name) in error and str(last) in error and "no checkpoint of this version" in error
    for name in state["training"]:
        error = goes_on(again, changed(state, ("training", name), None, remove=True), last)
        assert repr(name) in error and str(last) in error


def test_a_part_that_is_wrong_is_named(stopped: tuple[Callable[[], Built], dict[str, Any], Path]) -> None:
    again, state, last = stopped
    for path in [("epoch",), ("items",), ("training", "history"), ("training", "random"), ("training", "optimizers")]:
        assert str(last) in goes_on(again, changed(state, path, "x", remove=False), last), path
    weights = next(iter(state["state_dict"]))
    assert "does not fit" in goes_on(again, changed(state, ("state_dict", weights), torch.zeros(1), False), last)
    moments = ("training", "optimizers", "optimizer", "state", 0, "exp_avg")
    assert "optimiser" in goes_on(again, changed(state, moments, torch.zeros(1), remove=False), last)
    assert "optimiser" in goes_on(again, changed(state, moments, None, remove=True), last)
    other = ("other_parameter", "forward")
    assert "forward" in goes_on(again, changed(state, other, 1, remove=False), last)


def test_an_item_table_of_wrong_parts_is_named(
    stopped: tuple[Callable[[], Built], dict[str, Any], Path], tmp_path: Path
) -> None:
    _, state, _ = stopped
    path = tmp_path / f"a{LAST}"
    for part in ("state_dict", "items", "config"):
        checkpoint.save(changed(state, (part,), None, remove=True), path)
        with pytest.raises(UserError, match=f"pretrained_item_table: .*{part}"):
            load_item_table(str(path), state["items"], 8)


@pytest.mark.slow
def test_no_part_that_is_wrong_is_a_traceback(stopped: tuple[Callable[[], Built], dict[str, Any], Path]) -> None:
    again, state, last = stopped
    draw = random.Random(0)
    places = [path for path in paths(state) if path and path[0] != "items" and path[0] != "users"]
    refused = 0
    for _ in range(400):
        path, wrong = draw.choice(places), draw.choice(WRONG)
        refused += bool(goes_on(again, changed(state, path, wrong, draw.random() < 0.3), last))
    assert refused > 200
