"""What the roles of settings decide: what a figure rests on, what binds a checkpoint, what must be shared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from typing import Any

from recbole_diffusion.config.row import Part, Role, Row
from recbole_diffusion.config.rows_models import RECBOLE_SOURCE_ROWS
from recbole_diffusion.config.table import TABLE

_SHOWN = 8


class Keys(Set[str]):
    """The settings whose rows ``fit``, in the order of the table; those that are added to it later too."""

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
# Those that name files or folders, for those who make a run in another folder than the user's.
PATHS = Keys(lambda row: row.kind == "path")
# Files that RecBole's models start from.
RECBOLE_SOURCES = tuple(RECBOLE_SOURCE_ROWS)
# The models of a data set must agree on these, or their numbers are not of one task.
COMPARED = Keys(lambda row: row.compared)
# The trials of a study must share these, to be comparable, or because there is nothing to find.
FIXED = Keys(
    lambda row: (
        row.fixed
        or row.changes_no_result
        or not row.settable
        or _of_part(row, Part.DATA, Part.PROTOCOL, Part.EVALUATION, Part.KNOWLEDGE)
    )
)
# Every setting without a row changes what the network computes.
_FREE_TO_RESUME = Keys(lambda row: row.changes_no_result or _of_part(row, Part.COURSE))
_FREE_TO_LOAD = Keys(
    lambda row: (
        row.changes_no_result
        or row.role is Role.GENERATION
        or _of_part(row, Part.COURSE, Part.TRAINING, Part.EVALUATION)
    )
)


def new_name(key: str) -> str | None:
    """What a setting of an earlier version is called now; None if there was none of that name."""
    return next((new for new, row in TABLE.items() if key in row.formerly), None)


def stamp() -> dict[str, str]:
    """The settings that a comparison's protocol lists, and how it calls them."""
    titles = {
        key: row.stamp or (key if row.role is Role.GENERATION and not row.fixed else "") for key, row in TABLE.items()
    }
    return {key: title for key, title in titles.items() if title}


def that_count(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that can change a result."""
    return {key: value for key, value in settings.items() if key not in NO_RESULT}


def that_bind(settings: Mapping[str, Any], resume: bool = False) -> dict[str, Any]:
    """The settings that must be what a checkpoint was made with: to use its model, or to ``resume`` its training."""
    free = _FREE_TO_RESUME if resume else _FREE_TO_LOAD
    return {key: value for key, value in settings.items() if key not in free}


class _Absent:
    """The value of a setting that one side does not have. It is no other's: not that of a setting that is None."""

    def __repr__(self) -> str:
        return "(no such setting)"


ABSENT = _Absent()


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """``setting -> (value there, value here)`` of those that differ; a missing one is :data:`ABSENT`."""
    pairs = {key: (there.get(key, ABSENT), here.get(key, ABSENT)) for key in sorted(there.keys() | here.keys())}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def described(found: Mapping[str, tuple[Any, Any]]) -> str:
    """:func:`differences` as part of a line: ``epochs=5 and not 6, seed=0 and not 1``; the first few of many."""
    shown = [f"{key}={there!r} and not {here!r}" for key, (there, here) in list(found.items())[:_SHOWN]]
    return ", ".join([*shown, *([f"{len(found) - _SHOWN} more"] if len(found) > _SHOWN else [])])
