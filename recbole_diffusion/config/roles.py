"""Groups of settings by their role: those that a result or a checkpoint depends on, and those that runs must share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from typing import Any

from recbole_diffusion.config.row import Part, Role, Row
from recbole_diffusion.config.rows_models import RECBOLE_SOURCE_ROWS
from recbole_diffusion.config.settings import shown
from recbole_diffusion.config.table import TABLE

_SHOWN = 8


class Keys(Set[str]):
    """The settings whose rows ``fit``, in the order of the table. Settings that are added later count too."""

    def __init__(self, fit: Callable[[Row], bool]) -> None:
        self._fit = fit

    def __contains__(self, key: object) -> bool:
        row = TABLE.get(key) if isinstance(key, str) else None
        return row is not None and self._fit(row)

    def __iter__(self) -> Iterator[str]:
        return (key for key, row in TABLE.items() if self._fit(row))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    @classmethod
    def _from_iterable(cls, keys: Iterable[Any]) -> frozenset[Any]:
        return frozenset(keys)


def _of_part(row: Row, *parts: Part) -> bool:
    return row.role is Role.RESULT and row.part in parts


GENERATION = Keys(lambda row: row.role is Role.GENERATION)
EVALUATION = Keys(lambda row: _of_part(row, Part.EVALUATION))
COURSE = Keys(lambda row: _of_part(row, Part.COURSE))
TRAINING = Keys(lambda row: _of_part(row, Part.TRAINING))
NO_RESULT = Keys(lambda row: row.changes_no_result)
# Settings that are paths. A comparison and a study run in other folders than the user's, so they make them absolute.
PATHS = Keys(lambda row: row.kind == "path")
# Files that RecBole's models start from.
RECBOLE_SOURCES = tuple(RECBOLE_SOURCE_ROWS)
# In a comparison, all models on a data set must have the same values of these, so that they solve the same task.
COMPARED = Keys(lambda row: row.compared)
# All trials of a study have the same values of these: otherwise they do not compare, or there is nothing to search.
FIXED = Keys(
    lambda row: (
        row.fixed
        or row.changes_no_result
        or not row.settable
        or _of_part(row, Part.DATA, Part.PROTOCOL, Part.EVALUATION, Part.KNOWLEDGE)
    )
)
# A setting without a row in the table counts as one that changes what the network computes.
_FREE_TO_RESUME = Keys(lambda row: row.changes_no_result or _of_part(row, Part.COURSE))
_FREE_TO_LOAD = Keys(
    lambda row: (
        row.changes_no_result
        or row.role is Role.GENERATION
        or _of_part(row, Part.COURSE, Part.TRAINING, Part.EVALUATION)
    )
)


def new_name(key: str) -> str | None:
    """The present name of a setting that had the name ``key`` in an earlier version; None if there is none."""
    return next((new for new, row in TABLE.items() if key in row.formerly), None)


def stamp() -> dict[str, str]:
    """The settings that the protocol of a comparison lists, each with the title that it has there."""
    titles = {
        key: row.stamp or (key if row.role is Role.GENERATION and not row.fixed else "") for key, row in TABLE.items()
    }
    return {key: title for key, title in titles.items() if title}


def that_count(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that can change a result."""
    return {key: value for key, value in settings.items() if key not in NO_RESULT}


def that_bind(settings: Mapping[str, Any], resume: bool = False) -> dict[str, Any]:
    """The settings that must be the same as in a checkpoint, to use its model or to ``resume`` its training."""
    free = _FREE_TO_RESUME if resume else _FREE_TO_LOAD
    return {key: value for key, value in settings.items() if key not in free}


class _Absent:
    """The value of a setting that one side does not have. It differs from every value, also from None."""

    def __repr__(self) -> str:
        return "(no such setting)"


ABSENT = _Absent()


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """``setting -> (value there, value here)`` of the settings that differ. A missing value is :data:`ABSENT`."""
    pairs = {key: (there.get(key, ABSENT), here.get(key, ABSENT)) for key in sorted(there.keys() | here.keys())}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def described(found: Mapping[str, tuple[Any, Any]]) -> str:
    """:func:`differences` as text for a message: ``epochs=5 and not 6, seed=0 and not 1``. It has only the first 8."""
    pairs = [f"{key}={shown(there)} and not {shown(here)}" for key, (there, here) in list(found.items())[:_SHOWN]]
    return ", ".join([*pairs, *([f"{len(found) - _SHOWN} more"] if len(found) > _SHOWN else [])])
