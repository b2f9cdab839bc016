"""What every reader gives: rows as texts, with their lines, and the lines that are no rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl

from recbole_diffusion.config.settings import UserError, did_you_mean
from recbole_diffusion.conversion.request import counted

LINE = "line"  # column of line numbers
_SHOWN = 5


class Bad(NamedTuple):
    """Rows of a file that cannot be read, for one reason."""

    reason: str
    lines: list[int]

    def shown(self, unit: str = "line") -> str:
        """``3 rows (lines 4, 9, 12)`` and the reason."""
        few = ", ".join(f"{line}" for line in self.lines[:_SHOWN]) + (", ..." if len(self.lines) > _SHOWN else "")
        s = "s" if len(self.lines) > 1 else ""
        return f"{counted(len(self.lines), 'row')} ({unit}{s} {few}): {self.reason}"


class Table(NamedTuple):
    """Rows of one file.

    Args:
        shown: the file's name in messages.
        frame: columns by their role (``user``, ``item``, ``time``, ...), as text or categories, and :data:`LINE`.
        bad: rows that cannot be split into columns. They are not in ``frame``.
        note: encoding and delimiter that were found.
        unit: what :data:`LINE` counts: ``line``, or ``row`` of a file without lines.
    """

    shown: str
    frame: pl.DataFrame
    bad: list[Bad]
    note: str
    unit: str = "line"


Types = Mapping[str, Any]  # the polars type of each role


def check_columns(shown: str, wanted: Mapping[str, str], names: Sequence[str]) -> None:
    """Check that a file has the columns that the user named.

    Args:
        shown: the file's name in messages.
        wanted: role to column.
        names: the file's columns.

    Raises:
        UserError: it lacks one, or has it twice.
    """
    for role, name in wanted.items():
        if name not in names:
            few = ", ".join(map(repr, names[:20])) + (", ..." if len(names) > 20 else "")
            raise UserError(f"{role}={name!r}: {shown} has no such column, only {few}.{did_you_mean(name, names)}")
        if list(names).count(name) > 1:
            raise UserError(f"{role}={name!r}: {shown} has this column twice.")
