"""Typed and checked settings, and the error that tells a user what is wrong with one."""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, TypeVar

Settings = dict[str, Any]
D = TypeVar("D", bound="TypedSettings")


class UserError(ValueError):
    """A mistake in what the user asked for: one message, no traceback, exit status 2."""


def did_you_mean(value: str, allowed: Iterable[str], count: int = 3) -> str:
    """`` Did you mean 'a' or 'b'?`` for the names nearest to ``value``, or an empty string."""
    by_lower = {name.lower(): name for name in allowed}
    near = difflib.get_close_matches(value.lower(), by_lower, n=count, cutoff=0.6)
    return f" Did you mean {' or '.join(repr(by_lower[name]) for name in near)}?" if near else ""


# What a path or a pattern of file names gives a meaning to, on one system or another, and what cannot be seen.
_NO_NAME = re.compile(r"[/\\:*?\[\]<>|\"\x00-\x1f\x7f]")
_LONGEST_NAME = 100  # bytes; names of files and folders are made of it


def check_name(key: str, name: Any) -> None:
    """Refuse what would not be one part of a path: names of data sets become those of files and folders.

    Raises:
        UserError: ``name``, the value of ``key``, is no such name.
    """
    size = len(name.encode(errors="replace")) if isinstance(name, str) else 0
    if not 0 < size <= _LONGEST_NAME or not name.strip(". ") or _NO_NAME.search(name):
        shown = repr(name) if size <= _LONGEST_NAME else f"{name[:40]!r}..."
        raise UserError(
            f"{key}={shown}: must be a name of at most {_LONGEST_NAME} bytes, without any of "
            '/ \\ : * ? [ ] < > | " and not only dots.'
        )


def rows_at_once(max_cells: int, columns: int) -> int:
    """How many rows of ``columns`` numbers a matrix of at most ``max_cells`` numbers has; one at least."""
    return max(1, max_cells // columns)


def check_finite(settings: Mapping[str, Any]) -> None:
    """Refuse numbers that are not finite, in lists and dictionaries too: no setting means anything with them.

    Raises:
        UserError: with the setting that has one.
    """
    for key, value in settings.items():
        if not _all_finite(value):
            raise UserError(f"{key}={value!r}: must be finite, neither inf nor nan.")


def _all_finite(value: Any) -> bool:
    if isinstance(value, dict):
        # The infinity norm is a norm: clip_grad_norm={max_norm: 5, norm_type: .inf}.
        return all(_all_finite(item) for key, item in value.items() if key != "norm_type")
    if isinstance(value, list | tuple):
        return all(_all_finite(item) for item in value)
    return not isinstance(value, float) or math.isfinite(value)


def setting(
    low: float | None = None,
    high: float | None = None,
    choices: Iterable[str] | None = None,
    above: float | None = None,
    below: float | None = None,
    optional: bool = False,
) -> Any:
    """A field of :class:`TypedSettings`: bounds (``low``, ``high`` included, ``above``, ``below`` not) or choices."""
    allowed = tuple(choices) if choices is not None else None
    bounds = {"low": low, "high": high, "choices": allowed, "above": above, "below": below, "optional": optional}
    return dataclasses.field(metadata=bounds)


@dataclasses.dataclass(frozen=True)
class TypedSettings:
    """Settings of one model, read once and checked: subclasses declare ``name: type = setting(...)``."""

    _kinds: ClassVar[dict[str, tuple[type, ...]]] = {
        "int": (int,), "float": (float, int), "bool": (bool,), "str": (str,), "list": (list,),
    }  # fmt: skip

    @classmethod
    def from_config(cls: type[D], config: Any) -> D:
        """Read every field from ``config``.

        Raises:
            UserError: a value is missing, of another type or out of range; the message names key, value and range.
        """
        return cls(**{field.name: cls._read(field, config) for field in dataclasses.fields(cls)})

    @classmethod
    def _read(cls, field: dataclasses.Field, config: Any) -> Any:
        value: Any = config[field.name] if field.name in config else None
        kind = str(field.type).removesuffix(" | None")
        rule = field.metadata
        if value is None and rule["optional"]:
            return None
        types = cls._kinds[kind]
        right_type = isinstance(value, types) and (bool in types or not isinstance(value, bool)) and _all_finite(value)
        in_range = right_type and (
            (rule["choices"] is None or value in rule["choices"])
            and (rule["low"] is None or value >= rule["low"])
            and (rule["high"] is None or value <= rule["high"])
            and (rule["above"] is None or value > rule["above"])
            and (rule["below"] is None or value < rule["below"])
        )
        if in_range:
            return float(value) if kind == "float" else value
        hint = did_you_mean(str(value), rule["choices"]) if rule["choices"] else ""
        finite = "" if _all_finite(value) else " and finite"
        raise UserError(f"{field.name}={value!r}: must be {_describe(kind, rule)}{finite}.{hint}")


def _describe(kind: str, rule: Mapping[str, Any]) -> str:
    words = {"int": "a whole number", "float": "a number", "bool": "True or False", "str": "a text", "list": "a list"}[
        kind
    ]
    if rule["choices"] is not None:
        words = "one of " + ", ".join(rule["choices"])
    limits = [
        f"{sign} {rule[name]:g}"
        for name, sign in (("low", ">="), ("above", ">"), ("high", "<="), ("below", "<"))
        if rule[name] is not None
    ]
    return " ".join([words, *([" and ".join(limits)] if limits else []), *(["or ~"] if rule["optional"] else [])])
