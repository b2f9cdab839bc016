"""Search spaces. A YAML file names settings of a model, each with the values to try.

``learning_rate: {low: 1e-4, high: 1e-2, log: true}`` is a range of numbers. ``num_layers: {low: 1, high: 3}`` is a
range of whole numbers, because both ends are whole. ``dropout: [0.1, 0.3, 0.5]`` is a choice.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole_diffusion.config.model_files import model_files
from recbole_diffusion.config.reading import load_settings
from recbole_diffusion.config.roles import FIXED
from recbole_diffusion.config.settings import Settings, UserError, did_you_mean
from recbole_diffusion.model.base import DiffusionRecommender
from recbole_diffusion.quick_start import Request

_RANGE_KEYS = ("low", "high", "log", "step")
_ALLOWED = "a list of two or more values, or a range such as {low: 1, high: 4} (with log: true or step: 2)"


@dataclass(frozen=True)
class Choice:
    """One of several values: numbers, texts, True, False or ~."""

    values: tuple[Any, ...]

    def contains(self, value: Any) -> bool:
        return any(type(value) is type(allowed) and value == allowed for allowed in self.values)

    def corners(self) -> tuple[Any, ...]:
        """The values that must all be allowed settings."""
        return self.values

    def size(self) -> int | None:
        return len(self.values)


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, both included; whole numbers if both are whole.

    With ``log``, values are drawn evenly on a logarithmic scale. ``step`` is the distance between neighbouring values
    (1 for whole numbers; None allows any number).
    """

    low: float
    high: float
    log: bool
    step: float | None

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int)

    def contains(self, value: Any) -> bool:
        right_type = type(value) is int if self.whole else type(value) in (int, float)
        return right_type and self.low <= value <= self.high and _is_whole(value - self.low, self.step)

    def corners(self) -> tuple[Any, ...]:
        """The values that must both be allowed settings."""
        return self.low, self.high

    def size(self) -> int | None:
        """How many values there are; None if they cannot be counted."""
        return None if self.step is None else round((self.high - self.low) / self.step) + 1


Space = dict[str, Choice | Range]


def space_file(wanted: Request) -> Path:
    """The file of the search space that ships with a model.

    Raises:
        UserError: the model has none.
    """
    file = shipped_space(wanted.resolved.model_class)
    if file is None:
        raise UserError(f"model={wanted.model}: has no shipped search space. Give one with --space=FILE.")
    return file


def shipped_space(model_class: type) -> Path | None:
    """The file of :func:`space_file`, or None."""
    return model_files(model_class).path("space")


def read_space(path: str | Path) -> Space:
    """Read a search space.

    Raises:
        UserError: there is no such file, or a value is neither a range nor a choice. The message names file, key and
            value.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"space: there is no file {str(path)!r}.")
    entries = load_settings([path])
    if not entries:
        raise UserError(f"{path}: has no setting to search.")
    return {key: _entry(f"{path}: {key}={value!r}", value) for key, value in entries.items()}


def _entry(where: str, value: Any) -> Choice | Range:
    if isinstance(value, list):
        return _choice(where, value)
    if isinstance(value, dict):
        return _range(where, value)
    raise UserError(f"{where}: must be {_ALLOWED}.")


def _choice(where: str, values: list[Any]) -> Choice:
    if any(value is not None and type(value) not in (bool, int, float, str) for value in values):
        raise UserError(f"{where}: the values of a choice must be numbers, texts, True, False or ~.")
    # For Python and for the storage of a study, 1 and 1.0 are the same value, and so are 1 and True.
    if len(values) < 2 or len({value if isinstance(value, str) else (value,) for value in values}) < len(values):
        raise UserError(f"{where}: must be a list of two or more different values.")
    return Choice(tuple(values))


def _range(where: str, entry: dict[str, Any]) -> Range:
    for key in entry:
        if key not in _RANGE_KEYS:
            hint = did_you_mean(str(key), _RANGE_KEYS)
            raise UserError(f"{where}: unknown key {key!r} of a range. Allowed: {', '.join(_RANGE_KEYS)}.{hint}")
    low, high = (entry.get(key, "missing") for key in ("low", "high"))
    log, step = entry.get("log", False), entry.get("step")
    if type(low) not in (int, float) or type(high) not in (int, float) or not low < high:
        raise UserError(f"{where}: low and high must be numbers, with low below high.")
    if not isinstance(log, bool):
        raise UserError(f"{where}: log must be True or False.")
    if log and low <= 0:
        raise UserError(f"{where}: with log: true, low must be above 0.")
    whole = type(low) is int and type(high) is int
    if step is None:
        return Range(low, high, log, 1) if whole else Range(float(low), float(high), log, None)
    if log:
        raise UserError(f"{where}: can have log or step, not both.")
    right_type = type(step) is int if whole else type(step) in (int, float)
    if not right_type or step <= 0 or not _is_whole(high - low, step):
        kind = "a whole number" if whole else "a number"
        raise UserError(f"{where}: step must be {kind} above 0 that divides high - low.")
    return Range(low, high, False, step) if whole else Range(float(low), float(high), False, float(step))


def _is_whole(distance: float, step: float | None) -> bool:
    """Whether ``distance`` is a multiple of ``step``, up to rounding."""
    return step is None or abs(distance / step - round(distance / step)) < 1e-6


def check_space(space: Space, where: str | Path, wanted: Request) -> Settings:
    """Check a space against its model. Returns the default values of the settings that are searched.

    Raises:
        UserError: a key is not a setting of the model, is also set by the user, or must be the same in all trials; a
            value is not allowed; or the default value, which is the first trial, is not in the space.
    """
    for key in space:
        if key in wanted.user:
            raise UserError(
                f"{key}={wanted.user[key]!r} is set, but {where} searches it. Do not set it, or give --space=FILE "
                f"without {key}."
            )
    config = wanted.config()
    for key, entry in space.items():
        if key in FIXED:
            raise UserError(
                f"{where}: {key} cannot be searched, because all trials of a study must have the same value."
            )
        for value in entry.corners():
            try:
                changed = wanted.config(**{key: value})
                if issubclass(config.model_class, DiffusionRecommender):  # RecBole's models check when they are built
                    config.model_class.config_class.from_config(changed)
            except UserError as error:
                raise UserError(f"{where}: {error}") from error
        if not entry.contains(config[key]):
            raise UserError(
                f"{where}: {key} does not contain its default, {config[key]!r}. The first trial has the default "
                "settings, so they must be in the space."
            )
    return {key: config[key] for key in space}
