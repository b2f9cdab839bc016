"""Reads one atomic file: text, one row per line, with a header ``name:type`` for each column.

Nothing is quoted: a quotation mark is a normal character. Only an empty field is missing. In a column of numbers, words
such as ``NaN`` are missing too. Anything else that cannot be read is an error with file and line.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from recbole.utils import FeatureType

from recbole_diffusion.config.rows_run import RUN_ROWS
from recbole_diffusion.config.settings import UserError, did_you_mean
from recbole_diffusion.data.ragged import may_be_ragged

_KINDS = [kind.value for kind in FeatureType]
# In a column of numbers these words mean that the number is missing. As identifiers they are normal words.
_NO_NUMBER = ["", "NA", "N/A", "#N/A", "n/a", "NaN", "nan", "-nan", "NULL", "Null", "null", "None", "<NA>"]
_DATE = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}")
# From here on, some whole numbers have no exact 64-bit float.
_LARGEST_TIME = 2.0**53
_LARGEST_NUMBER = float(np.finfo(np.float32).max)  # models compute in 32 bits
_LONGEST_HEADER = 1 << 20
_LONGEST_SHOWN = 40  # letters of a file's text in an error
_SEPARATORS = "\t,;| "
_UNIT = "\x1f"  # ASCII's own separator of fields


class AtomicFile:
    """An atomic file. The header is read and checked at once; :meth:`read` reads the rows.

    Args:
        path: the file.
        separator: the text between two fields (``field_separator``).
        encoding: encoding of the text; None means UTF-8. A byte order mark is skipped.

    Raises:
        UserError: the text is not in that encoding, the file is empty, or the header lacks a name or a type.
    """

    def __init__(self, path: str | Path, separator: str, encoding: str | None) -> None:
        self.path = Path(path)
        if not isinstance(separator, str) or not separator:
            raise RUN_ROWS["field_separator"].error("field_separator", separator)
        self.separator = separator
        self.encoding = "utf-8" if encoding is None else encoding
        try:
            codecs.lookup(self.encoding)
        except (LookupError, TypeError):
            raise UserError(f"encoding={encoding!r}: must be a text encoding of Python, e.g. latin-1.") from None
        self.columns = self._read_header()  # name to type

    def _read_header(self) -> dict[str, FeatureType]:
        # Wrong bytes in the rest of the buffer are no error yet: they may be in columns that nobody reads.
        try:
            with self._open(errors="replace") as lines:
                header = lines.readline(_LONGEST_HEADER + 1).rstrip("\n").removeprefix("\ufeff")
        except UnicodeError:  # of a UTF-16 that has no byte order mark
            raise self._wrong_encoding() from None
        if not header:
            raise UserError(f"{self.path} is empty: its first line must be a header such as user_id:token.")
        if "\ufffd" in header or "\0" in header:
            raise self._wrong_encoding()
        if len(header) > _LONGEST_HEADER:
            raise UserError(f"{self.path}: its first line is longer than {_LONGEST_HEADER} letters: it is no header.")
        columns: dict[str, FeatureType] = {}
        for text in header.split(self.separator):
            name, colon, kind = text.rpartition(":")
            if not colon or not name or ":" in name:
                raise UserError(
                    f"{self.path}: the header has {_shown(text)}; a column is NAME:TYPE, e.g. user_id:token (types: "
                    f"{', '.join(_KINDS)}).{self._hint(header)}"
                )
            if kind not in _KINDS:
                raise UserError(
                    f"{self.path}: column {_shown(name)} has the unknown type {_shown(kind)}. Allowed: "
                    f"{', '.join(_KINDS)}.{did_you_mean(kind, _KINDS)}"
                )
            if name in columns:
                raise UserError(f"{self.path}: the header has column {_shown(name)} twice.")
            columns[name] = FeatureType(kind)
        return columns

    def _hint(self, header: str) -> str:
        """What may be wrong with a header."""
        if self.separator in header:
            return ""
        others = [other for other in _SEPARATORS if other in header]
        return f" Is field_separator={self.separator!r} right?" + (f" It has {others[0]!r}." if others else "")

    def read(self, names: Sequence[str], text: bool = False) -> pd.DataFrame:
        """The columns ``names``: float64 for type float, else text; NaN if missing. The index is the line number.

        Args:
            names: columns of the header.
            text: read numbers as text too.

        Raises:
            UserError: there are no rows, a row has more or fewer fields than the header, or a value of a float column
                is no finite number.
        """
        places = {name: place for place, name in enumerate(self.columns)}
        numbers = [name for name in names if not text and self.columns[name] == FeatureType.FLOAT]
        options: dict[str, Any] = {
            "engine": "c",
            "encoding": self.encoding,
            "quoting": csv.QUOTE_NONE,
            "header": None,
            "skiprows": 1,
            "names": range(len(places)),
            "usecols": [places[name] for name in names],
            "index_col": False,
            "dtype": {places[name]: np.float64 if name in numbers else object for name in names},
            "keep_default_na": False,
            "na_values": {places[name]: _NO_NUMBER if name in numbers else [""] for name in names},
            "skip_blank_lines": False,  # so that a row's place in the table gives its line
        }
        source: Any = self.path
        try:
            if len(self.separator.encode()) > 1:  # longer than pandas's fast parser allows
                with self._open() as lines:
                    source = io.StringIO(lines.read().replace(self.separator, _UNIT))
            table = pd.read_csv(source, sep=self.separator if source is self.path else _UNIT, **options)
        except UnicodeError:
            raise self._wrong_encoding() from None
        except OSError as error:
            raise UserError(f"{self.path} cannot be read: {error.strerror}.") from error
        except pd.errors.EmptyDataError:
            table = pd.DataFrame()
        except ValueError as error:
            self._refuse_ragged_rows()
            raise self._refuse_first(numbers, _is_no_number, str(error)) from error
        if table.empty:
            raise UserError(f"{self.path} has a header and no rows.")
        self._refuse_ragged_rows()
        table = table.rename(columns=dict(enumerate(self.columns)))[list(names)]
        table.index = pd.RangeIndex(2, len(table) + 2)
        table = self._without_blank_lines(table)
        for name in numbers:
            wrong = table.index[table[name].abs() > _LARGEST_NUMBER]
            if len(wrong):
                raise self.refuse(name, wrong[0], "is not finite in 32 bits")
        return table

    def sequences(self, texts: pd.Series, separator: str) -> pd.Series:
        """A column of type token_seq or float_seq: one array per row, empty if the field is missing.

        Raises:
            UserError: a float_seq holds a value that is no finite number.
        """
        name = str(texts.name)
        kind: Any = str if self.columns[name] == FeatureType.TOKEN_SEQ else np.float64
        try:
            parts = [np.array([part for part in row.split(separator) if part], dtype=kind) for row in texts.fillna("")]
            finite = kind is str or all(np.abs(part).max(initial=0) <= _LARGEST_NUMBER for part in parts)
        except ValueError:
            finite = False
        if not finite:
            raise self._refuse_first([name], lambda text: not all(map(_is_finite, filter(None, text.split(separator)))))
        return pd.Series(parts, index=texts.index, dtype=object)

    def check_times(self, times: pd.Series) -> None:
        """Check that times, a column from :meth:`read`, tell which row is earlier.

        Raises:
            UserError: a time is missing, or float64 cannot tell it from another time.
        """
        name = str(times.name)
        missing = times.index[times.isna()]
        if len(missing):
            raise UserError(
                f"{self.path}: {rows_and_lines(missing)} without a time in {name!r}, which the rows are ordered by. "
                "Fill it in, or leave the rows out."
            )
        large = times.index[times.abs() >= _LARGEST_TIME]
        if len(large):
            raise self.refuse(name, large[0], "is too large to be told from the next time: give milliseconds, say")
        same = times[times.duplicated(keep=False) & (times % 1 != 0)]
        if len(same):
            texts = self._texts(name, same.index)
            exact: dict[float, Decimal] = {}
            for line, time in zip(same.index.tolist(), same.tolist(), strict=True):
                if exact.setdefault(time, Decimal(texts[line])) != Decimal(texts[line]):
                    raise self.refuse(name, line, "is too fine to be told from another time: give fewer decimals")

    def refuse(self, name: str, line: int, why: str) -> UserError:
        """The error for one field: file, column, line and value."""
        value = self._texts(name, [line])[line]
        if _DATE.match(value):
            why = f"{why}: convert dates to Unix seconds"
        return UserError(f"{self.path}: column {name!r}, line {line}: {_shown(value)} {why}.")

    def _wrong_encoding(self) -> UserError:
        return UserError(
            f"{self.path} is not text in the encoding {self.encoding}. Set encoding to the file's own, e.g. "
            "--encoding=latin-1 or --encoding=utf-16."
        )

    def _open(self, errors: str = "strict") -> Any:
        try:
            return self.path.open(encoding=self.encoding, errors=errors)
        except LookupError:
            raise UserError(f"encoding={self.encoding!r}: must be a text encoding of Python, e.g. latin-1.") from None
        except OSError as error:
            raise UserError(f"{self.path} cannot be read: {error.strerror}.") from error

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        """Line number and fields of every row. It is slow, so only for errors."""
        with self._open(errors="replace") as lines:
            next(lines)
            for number, line in enumerate(lines, start=2):
                yield number, line.rstrip("\n").split(self.separator)

    def _texts(self, name: str, lines: Collection[int]) -> dict[int, str]:
        place, wanted = list(self.columns).index(name), set(lines)
        return {number: fields[place] for number, fields in self._rows() if number in wanted}

    def _refuse_first(self, names: Sequence[str], is_wrong: Callable[[str], bool], otherwise: str = "") -> UserError:
        """The error for the first wrong field in these columns; ``otherwise`` if there is none."""
        places = {place: name for place, name in enumerate(self.columns) if name in names}
        for number, fields in self._rows():
            for place, name in places.items():
                if place < len(fields) and is_wrong(fields[place]):
                    return self.refuse(name, number, "is no finite number (a missing one is an empty field)")
        return UserError(f"{self.path} cannot be read: {otherwise}.")

    def _refuse_ragged_rows(self) -> None:
        """Refuse a row with more or fewer fields than the header. Blank lines and separators at the end are allowed."""
        width = len(self.columns)
        if may_be_ragged(self.path, self.separator, self.encoding, width):
            for number, fields in self._rows():
                if any(map(str.strip, fields)) and (len(fields) < width or any(fields[width:])):
                    raise UserError(
                        f"{self.path}: line {number} has {len(fields)} fields, the header has {width}. A missing one "
                        f"is empty; one cannot hold a line break or {self.separator!r}, not in quotation marks either."
                    )

    def _without_blank_lines(self, table: pd.DataFrame) -> pd.DataFrame:
        empty = np.flatnonzero(table.iloc[:, 0].isna())
        for name in table:
            empty = empty[table[name].iloc[empty].isna()]
        if not len(empty):
            return table
        lines = set(table.index[empty])
        blank = [number for number, fields in self._rows() if number in lines and not any(map(str.strip, fields))]
        return table.drop(index=blank)


def rows_and_lines(lines: Sequence[int] | pd.Index) -> str:
    """``2 rows (lines 4, 9)``, with the first few line numbers."""
    first = ", ".join(map(str, lines[:5]))
    return (
        f"{len(lines)} row{'s' * (len(lines) > 1)} (line{'s' * (len(lines) > 1)} {first}{', ...' * (len(lines) > 5)})"
    )


def _shown(text: str) -> str:
    return repr(text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}...")


def _is_no_number(text: str) -> bool:
    return text not in _NO_NUMBER and not _is_finite(text)


def _is_finite(text: str) -> bool:
    try:
        number = float(text)
    except ValueError:
        return False
    return abs(number) <= _LARGEST_NUMBER and text.isascii() and "_" not in text
