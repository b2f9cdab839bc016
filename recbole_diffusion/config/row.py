"""One row of the table of settings: allowed values, what the setting changes, and a line of help."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from enum import Enum
from typing import Any

from recbole_diffusion.config.settings import UserError, did_you_mean, is_finite, shown
from recbole_diffusion.config.shapes import Check


class Role(Enum):
    """What a setting changes."""

    RESULT = "result"  # what a model learns, or what is measured
    GENERATION = "generation"  # how a trained model generates; the validations of training generate too
    SPEED = "speed"  # only speed; results change at most by rounding
    PLACE = "place"  # where a run reads, writes and computes
    OUTPUT = "output"  # what a run shows


class Part(Enum):
    """The part of a run that a setting with :attr:`Role.RESULT` belongs to."""

    DATA = "data"  # what is read
    PROTOCOL = "protocol"  # which task is solved
    EVALUATION = "evaluation"  # what is measured, and so which epoch is kept
    NETWORK = "network"  # what a trained model computes
    TRAINING = "training"  # how a model learns; a trained model does not read it
    COURSE = "course"  # where training starts and ends, and its worker processes
    KNOWLEDGE = "knowledge"  # read only by RecBole's models of knowledge graphs


_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,), "float": (float, int), "bool": (bool,), "str": (str,), "path": (str,),
}  # fmt: skip
_WORDS = {"int": "a whole number", "float": "a number", "bool": "True or False", "str": "a text", "path": "a path"}


@dataclasses.dataclass(frozen=True)
class Row:
    """One setting.

    Args:
        kind: ``int``, ``float``, ``bool``, ``str``, ``path`` or ``any``, for lists and mappings.
        help: what it is, in one line.
        role, part: what it changes. ``part`` has a meaning only with :attr:`Role.RESULT`.
        low, high, above, below: bounds of a number. ``low`` and ``high`` themselves are allowed.
        choices: the allowed texts.
        optional: whether ``~`` is allowed.
        required_by: the models for which an ``optional`` setting cannot be None.
        says: what is allowed, for the kind ``any``.
        check: whether a value is allowed, for the kind ``any``; None if it is checked where it is read.
        keys: the allowed keys of a mapping.
        of: other ``choices`` for some models, by their names.
        main: whether ``run --help`` lists it.
        compared: whether the models of a comparison must have the same value.
        fixed: whether all trials of a study must have the same value, even if role and part do not require it.
        stamp: its title in the protocol of a comparison. If empty, it is not listed there.
        formerly: its names in earlier versions.
        derived: if not empty, a user cannot set it; the text says what to set instead.
        refused: if not empty, only its default is allowed; the text says why.
        read_by: the models that read it, if other models would ignore it.
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
    required_by: tuple[str, ...] = ()
    says: str = ""
    check: Check | None = None
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
        """The row with what is allowed for this model."""
        row = dataclasses.replace(self, optional=False) if model in self.required_by else self
        choices = self.of.get(model or "")
        return dataclasses.replace(row, choices=choices, of={}) if choices else row

    def described(self) -> str:
        """What is allowed, as text for errors, help and docs, e.g. ``a whole number >= 1 or ~``."""
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
        """Check ``value`` of the setting ``key`` and return it. An int of the kind ``float`` becomes a float; a path
        becomes a text.

        Raises:
            UserError: the value is not allowed. The message names key, value and what is allowed.
        """
        if value is None and self.optional:
            return value
        if self.kind == "any":
            if self.check is not None and not self.check(value):
                raise self.error(key, value)
            return value
        if self.kind == "path" and (isinstance(value, os.PathLike) or type(value) is int):
            value = str(value)
        types = _TYPES[self.kind]
        right_type = isinstance(value, types) and (bool in types or not isinstance(value, bool)) and is_finite(value)
        if right_type and self._in_range(value):
            return float(value) if self.kind == "float" else value
        raise self.error(key, value)

    def error(self, key: str, value: Any) -> UserError:
        """The error that says that ``value`` is not allowed, and what is allowed."""
        hint = did_you_mean(value, self.choices) if self.choices and isinstance(value, str) else ""
        finite = "" if is_finite(value) else " and finite"
        return UserError(f"{key}={shown(value)}: must be {self.described()}{finite}.{hint}")

    def _in_range(self, value: Any) -> bool:
        return (
            (self.choices is None or value in self.choices)
            and (self.kind != "path" or (value != "" and "\0" not in value))
            and (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )


def _plain(number: float) -> str:
    """``0.5``, ``1``; a large int with all its digits."""
    return str(number) if isinstance(number, int) else f"{number:g}"


Rows = dict[str, Row]


def section(role: Role, part: Part | None, rows: Rows) -> Rows:
    """``rows`` with this role and, if ``part`` is not None, this part."""
    return {key: dataclasses.replace(row, role=role, part=part or row.part) for key, row in rows.items()}


def whole(help: str, low: int = 1, **more: Any) -> Row:
    """A whole number >= ``low``."""
    return Row("int", help, low=low, **more)


def number(help: str, **more: Any) -> Row:
    return Row("float", help, **more)


def from_zero(help: str, **more: Any) -> Row:
    """A number >= 0."""
    return Row("float", help, low=0, **more)


def share(help: str, **more: Any) -> Row:
    """A number >= 0 and < 1."""
    return Row("float", help, low=0, below=1, **more)


def flag(help: str, **more: Any) -> Row:
    return Row("bool", help, **more)


def text(help: str, **more: Any) -> Row:
    return Row("str", help, **more)


def path(help: str, **more: Any) -> Row:
    return Row("path", help, **more)


def one_of(choices: tuple[str, ...], help: str, **more: Any) -> Row:
    return Row("str", help, choices=choices, **more)


def other(says: str, help: str, check: Check | None = None, **more: Any) -> Row:
    """A list or a mapping. ``says`` describes what is allowed, and ``check`` decides it."""
    return Row("any", help, says=says, check=check, **more)


def derived(instead: str, **more: Any) -> Row:
    return Row("any", derived=instead, **more)


def refused(reason: str, **more: Any) -> Row:
    return Row("any", refused=reason, **more)
