"""One row of the table of settings: which values are allowed, what the setting changes, and a line of help."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from enum import Enum
from typing import Any

from recbole_diffusion.config.settings import UserError, did_you_mean, is_finite


class Role(Enum):
    """What a setting changes."""

    RESULT = "result"  # what a model learns, or what is measured of it
    GENERATION = "generation"  # what a trained model ranks; the validations of training generate too
    SPEED = "speed"  # no result but for rounding
    PLACE = "place"  # where a run is made
    OUTPUT = "output"  # what a run shows


class Part(Enum):
    """What of a run a setting with :attr:`Role.RESULT` belongs to."""

    DATA = "data"  # what is read
    PROTOCOL = "protocol"  # which task is solved
    EVALUATION = "evaluation"  # what is measured of a ranking, and so which epoch is kept
    NETWORK = "network"  # what a trained model computes
    TRAINING = "training"  # how a model learns, and nothing that a trained one computes
    COURSE = "course"  # where training starts, how its negatives are drawn and when it ends
    KNOWLEDGE = "knowledge"  # what only RecBole's models of knowledge graphs read


_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,), "float": (float, int), "bool": (bool,), "str": (str,), "path": (str,),
}  # fmt: skip
_WORDS = {"int": "a whole number", "float": "a number", "bool": "True or False", "str": "a text", "path": "a path"}


@dataclasses.dataclass(frozen=True)
class Row:
    """One setting.

    Args:
        kind: ``int``, ``float``, ``bool``, ``str`` or ``path``; ``any`` is described by ``says`` and is checked where
            it is read.
        help: what it is, in a line.
        role, part: what it changes; ``part`` counts with :attr:`Role.RESULT` only.
        low, high, above, below: bounds of a number; the first two are allowed themselves.
        choices: the texts that are allowed.
        optional: whether ``~`` is allowed.
        says: what is allowed, of the kind ``any``.
        keys: those of a mapping.
        of: other ``choices``, for the models named.
        main: whether ``run --help`` lists it.
        compared: whether the models of a comparison must agree on it.
        fixed: whether the trials of a study must share it, although its role and part do not say so.
        stamp: how the protocol of a comparison calls it; empty: it is not listed there.
        formerly: its names in earlier versions.
        derived: what to set instead; it follows from that and cannot be set.
        refused: why a run here would ignore it; only its default is allowed.
        read_by: the models that read it, where others would ignore it.
    """

    kind: str
    help: str = ""
    role: Role = Role.RESULT
    part: Part = Part.NETWORK
    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None
    choices: tuple[str, ...] | None = None
    optional: bool = False
    says: str = ""
    keys: tuple[str, ...] = ()
    of: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    main: bool = False
    compared: bool = False
    fixed: bool = False
    stamp: str = ""
    formerly: tuple[str, ...] = ()
    derived: str = ""
    refused: str = ""
    read_by: tuple[str, ...] = ()

    @property
    def settable(self) -> bool:
        """Whether a user can choose its value."""
        return not self.derived and not self.refused

    @property
    def changes_no_result(self) -> bool:
        return self.role in (Role.SPEED, Role.PLACE, Role.OUTPUT)

    def for_model(self, model: str | None) -> Row:
        """The row with the choices of that model."""
        choices = self.of.get(model or "")
        return dataclasses.replace(self, choices=choices, of={}) if choices else self

    def described(self) -> str:
        """What is allowed, e.g. ``a whole number >= 1 or ~``: for errors, help and pages."""
        if self.kind == "any":
            return self.says
        words = _WORDS[self.kind]
        if self.choices is not None:
            words = ("one of " if len(self.choices) > 1 else "") + ", ".join(self.choices)
        bounds = [
            f"{sign} {_plain(bound)}"
            for sign, bound in ((">=", self.low), (">", self.above), ("<=", self.high), ("<", self.below))
            if bound is not None
        ]
        return " ".join([words, *([" and ".join(bounds)] if bounds else []), *(["or ~"] if self.optional else [])])

    def read(self, key: str, value: Any) -> Any:
        """``value`` as the setting ``key``, whole numbers as floats where numbers are meant.

        Raises:
            UserError: it is not allowed; the message names key, value and what is.
        """
        if self.kind == "any" or (value is None and self.optional):
            return value
        types = _TYPES[self.kind]
        right_type = isinstance(value, types) and (bool in types or not isinstance(value, bool)) and is_finite(value)
        if right_type and self._in_range(value):
            return float(value) if self.kind == "float" else value
        raise self.error(key, value)

    def error(self, key: str, value: Any) -> UserError:
        """That ``value`` is not allowed, and what is."""
        hint = did_you_mean(str(value), self.choices) if self.choices else ""
        finite = "" if is_finite(value) else " and finite"
        return UserError(f"{key}={value!r}: must be {self.described()}{finite}.{hint}")

    def _in_range(self, value: Any) -> bool:
        return (
            (self.choices is None or value in self.choices)
            and (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )


def _plain(number: float) -> str:
    """``0.5``, ``1``, and a large whole number with all its digits."""
    return str(number) if isinstance(number, int) else f"{number:g}"


Rows = dict[str, Row]


def section(role: Role, part: Part | None, rows: Rows) -> Rows:
    """``rows`` with their role, and the part of those with :attr:`Role.RESULT`."""
    return {key: dataclasses.replace(row, role=role, part=part or row.part) for key, row in rows.items()}


def whole(help: str, low: int = 1, **more: Any) -> Row:
    """A whole number, from ``low``."""
    return Row("int", help, low=low, **more)


def number(help: str, **more: Any) -> Row:
    return Row("float", help, **more)


def from_zero(help: str, **more: Any) -> Row:
    """A number >= 0."""
    return Row("float", help, low=0, **more)


def share(help: str, **more: Any) -> Row:
    """A number from 0 to below 1."""
    return Row("float", help, low=0, below=1, **more)


def flag(help: str, **more: Any) -> Row:
    return Row("bool", help, **more)


def text(help: str, **more: Any) -> Row:
    return Row("str", help, **more)


def path(help: str, **more: Any) -> Row:
    return Row("path", help, **more)


def one_of(choices: tuple[str, ...], help: str, **more: Any) -> Row:
    return Row("str", help, choices=choices, **more)


def other(says: str, help: str, **more: Any) -> Row:
    """What is checked where it is read; ``says`` is what is allowed."""
    return Row("any", help, says=says, **more)


def derived(instead: str, **more: Any) -> Row:
    return Row("any", derived=instead, **more)


def refused(reason: str, **more: Any) -> Row:
    return Row("any", refused=reason, **more)
