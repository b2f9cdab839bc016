"""What the user asks for, and what comes out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole_diffusion.config.settings import UserError

# Shows a label and a text, as Screen.fact does.
Say = Callable[[str, str], None]


def counted(count: int, what: str) -> str:
    """``1 row``, ``1,200 rows``."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def silent(label: str, text: str) -> None:
    """Shows nothing."""


FILE_ORDER = "row"  # --time=row
NO_QUOTES = "none"  # --quote=none


@dataclass(frozen=True)
class Options:
    """How files are read, and which rows are kept.

    Args:
        encoding: of text files; None finds it.
        delimiter: between two fields; None finds it. One character or more.
        quote: the quotation mark, one character; ``none``: there are none.
        header: names of the columns, for files whose first line is a row.
        time_format: as of ``strptime``, for dates that are not ISO.
        decimal: ``.`` or ``,``, in ratings.
        category_separator: between two categories of an item; None: ``|`` if there is any.
        min_interactions: users and items with fewer rows are dropped, until all that are left have as many.
        drop_bad_rows: leave out rows that cannot be read. Otherwise they are an error.
        overwrite: write over the files of a data set.
    """

    encoding: str | None = None
    delimiter: str | None = None
    quote: str = '"'
    header: tuple[str, ...] = ()
    time_format: str | None = None
    decimal: str = "."
    category_separator: str | None = None
    min_interactions: int = 1
    drop_bad_rows: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.delimiter is not None and (not self.delimiter or set(self.delimiter) & set('"\r\n')):
            raise UserError(f"delimiter={self.delimiter!r}: must be one character or more, no quotation mark.")
        if self.quote != NO_QUOTES and (len(self.quote.encode()) != 1 or self.quote in "\r\n"):
            raise UserError(f"quote={self.quote!r}: must be one ASCII character, or {NO_QUOTES}.")
        if self.decimal not in (".", ","):
            raise UserError(f"decimal={self.decimal!r}: must be '.' or ','.")
        if type(self.min_interactions) is not int or self.min_interactions < 1:
            raise UserError(f"min_interactions={self.min_interactions!r}: must be a whole number >= 1.")
        if self.category_separator == "":
            raise UserError("category_separator='': must be a text of one character or more.")
        if len(set(self.header)) < len(self.header) or not all(self.header):
            raise UserError(f"header={','.join(self.header)!r}: must be different names, A,B,...")

    @property
    def quotes(self) -> str | None:
        """The quotation mark; None if there are none."""
        return None if self.quote == NO_QUOTES else self.quote


@dataclass(frozen=True)
class Converted:
    """A data set that was written.

    Args:
        folder: where it is.
        files: the files.
        rows_read: rows of the sources, without blank lines.
        dropped: how many rows were left out, by reason.
        rows, users, items: of the data set.
        short_users: users with fewer than three rows, from whom leave-one-out holds nothing out.
        facts: what was found and decided, as label and text.
        command: the command that trains on it.
    """

    folder: Path
    files: tuple[Path, ...]
    rows_read: int
    dropped: dict[str, int]
    rows: int
    users: int
    items: int
    short_users: int
    facts: tuple[tuple[str, str], ...]
    command: str


def require_polars() -> Any:
    """Import polars, which only this part of the package needs.

    Raises:
        UserError: it is not installed.
    """
    try:
        import polars
    except ModuleNotFoundError as error:
        if error.name != "polars":
            raise
        raise UserError("convert needs the package polars: pip install 'polars>=2,<3'") from error
    return polars
