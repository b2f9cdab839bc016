"""Whether the parts of a checkpoint are what this version writes. A file with a right checksum may have others."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recbole_diffusion.config.settings import UserError, shown

Check = Callable[[Any], bool]


@contextmanager
def understood(where: str) -> Iterator[None]:
    """A context in which a checkpoint is put into a model and trainer. ``where`` names the file.

    Raises:
        UserError: something in the file does not fit; the other exceptions become this one. A lack of memory and
            errors of the disk stay as they are.
    """
    try:
        yield
    except (UserError, OSError, MemoryError, torch.OutOfMemoryError):
        raise
    except (Exception, RecursionError) as error:
        reason = " ".join([type(error).__name__, *str(error).split()])
        raise UserError(
            f"{where}: its content does not fit: {reason[:_LONGEST_REASON]}. Another program, or another version of "
            "this one, has written it."
        ) from error


def check_model_parts(state: Mapping[str, Any], where: str) -> None:
    """Check what every checkpoint of this package has.

    Raises:
        UserError: a part is missing or is something else; the message names it.
    """
    _check(state, _MODEL, where)


def check_training_parts(training: Mapping[str, Any], where: str) -> None:
    """Check what ``last`` has in addition, after :func:`recbole_diffusion.storage.checkpoint.unpack`.

    Raises:
        UserError: as :func:`check_model_parts`.
    """
    _check({"others": [], **training}, _TRAINING, where)


def check_optimizer(optimizer: Any, before: Mapping[str, Any], where: str) -> None:
    """Check that an optimiser, or a schedule of the learning rate, can go on with what it has loaded.

    Args:
        before: its ``state_dict`` before loading.

    Raises:
        UserError: it could not.
    """
    after = optimizer.state_dict()
    if not _alike(after.get("param_groups"), before.get("param_groups")):
        raise UserError(f"{where}: the settings of the optimiser in it are not those of this version.")
    needed = {"step", "exp_avg", "exp_avg_sq"} if isinstance(optimizer, torch.optim.Adam) else None
    for parameter, values in getattr(optimizer, "state", {}).items():
        right = all(_fits(name, value, parameter) for name, value in values.items())
        if not right or (values and needed is not None and needed != values.keys()):
            raise UserError(f"{where}: the state of the optimiser in it does not fit the model.")


def _fits(name: str, value: Any, parameter: Tensor) -> bool:
    """Whether a value in the state of an optimiser may be one of this parameter."""
    if name == "momentum_buffer" and value is None:
        return True
    shape = () if name == "step" else parameter.shape
    return isinstance(value, Tensor) and value.is_floating_point() and value.shape == shape


def _check(parts: Any, checks: Mapping[str, Check], where: str) -> None:
    if not isinstance(parts, Mapping):
        raise UserError(f"{where}: is no checkpoint of this version: it has {shown(parts)} for its parts.")
    for name, check in checks.items():
        if name not in parts:
            raise UserError(f"{where}: is no checkpoint of this version: it has no {name!r}.")
        try:
            right = check(parts[name])
        except Exception:
            right = False
        if not right:
            raise UserError(f"{where}: is no checkpoint of this version: its {name!r} is {shown(parts[name])}.")


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**31


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _or_none(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _list_of(check: Check) -> Check:
    return lambda value: isinstance(value, list | tuple) and all(map(check, value))


def _mapping_of(key: Check, item: Check) -> Check:
    return lambda value: isinstance(value, dict) and all(key(name) and item(part) for name, part in value.items())


def _anything(value: Any) -> bool:
    return True


def _is_random_state(state: Any) -> bool:
    """Whether the generators accept it. Generators of its own try."""
    version, words, gauss = state["python"]
    random.Random().setstate((version, tuple(words.tolist()), gauss))
    of_numpy = state["numpy"]
    key = of_numpy["key"].numpy().astype(np.uint32)
    np.random.RandomState().set_state(("MT19937", key, of_numpy["pos"], of_numpy["has_gauss"], of_numpy["gauss"]))
    for generator in (state["torch"], *state["loader"]):
        torch.Generator().set_state(generator)
    return all(isinstance(generator, Tensor) for generator in state["cuda"])


def _is_place(place: Any) -> bool:
    return (
        place.keys() == {"done", "sums", "start", "now"}
        and _is_count(place["done"])
        and _or_none(_list_of(_is_number))(place["sums"])
        and _is_random_state(place["start"])
        and _is_random_state(place["now"])
    )


def _alike(value: Any, other: Any) -> bool:
    """Whether two values have the same shape: the same keys, lengths and types."""
    if isinstance(other, dict):
        return (
            isinstance(value, dict) and value.keys() == other.keys() and all(_alike(value[k], other[k]) for k in other)
        )
    if isinstance(other, list | tuple):
        return type(value) is type(other) and len(value) == len(other) and all(map(_alike, value, other))
    return type(value) is type(other) or (_is_number(value) and _is_number(other))


_LONGEST_REASON = 300
_TEXTS = _mapping_of(_is_text, _anything)
_MODEL: dict[str, Check] = {
    "config": _TEXTS,
    "versions": _TEXTS,
    "epoch": _is_count,
    "cur_step": lambda value: type(value) is int,
    "best_valid_score": _is_number,
    "items": _list_of(_is_text),
    "users": _list_of(_is_text),
    "fields": _mapping_of(_is_text, _is_text),
    "state_dict": _mapping_of(_is_text, lambda value: isinstance(value, Tensor)),
    "other_parameter": _TEXTS,
}
_TRAINING: dict[str, Check] = {
    "place": _or_none(_is_place),
    "random": _is_random_state,
    "others": _list_of(_list_of(_is_random_state)),
    "optimizers": _mapping_of(_is_text, lambda value: isinstance(value, dict)),
    "loss_names": _or_none(_list_of(_is_text)),
    "train_losses": _mapping_of(_is_count, lambda loss: _is_number(loss) or _list_of(_is_number)(loss)),
    "history": _list_of(lambda entry: isinstance(entry, dict) and _is_count(entry["epoch"])),
    "best_valid_result": _or_none(_mapping_of(_is_text, _is_number)),
    "saved_epoch": _or_none(_is_count),
    "saved_validation": _or_none(lambda value: value.keys() == {"accuracy", "values", "listed"}),
    "seconds": _is_number,
    "epoch_seconds": _is_number,
}
