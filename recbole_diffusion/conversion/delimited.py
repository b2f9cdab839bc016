"""Reads delimited text: CSV, TSV and their relatives, with or without quotation marks."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from recbole_diffusion.config.settings import UserError
from recbole_diffusion.conversion.request import Options
from recbole_diffusion.conversion.sources import Source
from recbole_diffusion.conversion.table import LINE, Bad, Table, Types, check_columns
from recbole_diffusion.conversion.text import SEPARATOR, Text, as_text, replaced

_DELIMITERS = ("\t", ",", ";", "|", "::")
_NAMES = {"\t": "tab", SEPARATOR: "::"}
_QUOTED = "\x1e"  # stands for a quoted field while delimiters are counted
_CHUNK = 200_000  # rows


class Layout(NamedTuple):
    """How the lines of a text are split.

    Args:
        text: the text.
        delimiter: one character.
        quote: the quotation mark, None if the text has none.
        names: of the columns.
        rows_from: the line of the first row.
    """

    text: Text
    delimiter: str
    quote: str | None
    names: list[str]
    rows_from: int

    @property
    def note(self) -> str:
        """Encoding and delimiter, for the user."""
        return f"{self.text.note}, delimiter {_NAMES.get(self.delimiter, repr(self.delimiter))}"

    def split(self, lines: Sequence[str]) -> Iterator[list[str]]:
        """The fields of some lines."""
        return _split(lines, self.delimiter, self.quote)


class _Lines(NamedTuple):
    """The lines of a text in which every row is one line.

    Args:
        first: the number of the first row; None if there is none.
        blank: the numbers of blank lines.
        wrong: those of lines with more or fewer fields than the header.
    """

    first: int | None
    blank: pl.Series
    wrong: pl.Series


def find_layout(source: Source, scratch: Path, options: Options, wanted: Sequence[str] = ()) -> Layout:
    """Encoding, delimiter and columns of a text file.

    Args:
        source: the file.
        scratch: a temporary folder.
        options: what the user says about the file.
        wanted: columns that the header should have; they help to find the delimiter.

    Raises:
        UserError: no delimiter fits.
    """
    text = as_text(source, scratch, options.encoding)
    quote = options.quotes if text.has_quotes or options.quotes != '"' else None
    delimiter = options.delimiter or _find_delimiter(text, quote, wanted)
    if len(delimiter.encode()) > 1:
        text, quote, delimiter = replaced(text, scratch, delimiter), None, SEPARATOR
    if options.header:
        names, rows_from = list(options.header), 1
        width = len(next(_split(text.first[:1], delimiter, quote)))
        if width != len(names):
            raise UserError(f"header: has {len(names)} names, but the first line of {source.shown} has {width} fields.")
    else:
        names, rows_from = [name.strip() for name in next(_split(text.first[:1], delimiter, quote))], 2
    return Layout(text, delimiter, quote, names, rows_from)


def _split(lines: Sequence[str], delimiter: str, quote: str | None) -> Iterator[list[str]]:
    if len(delimiter) > 1 or quote is None:
        return (line.split(delimiter) for line in lines)
    return csv.reader(lines, delimiter=delimiter, quotechar=quote)


def _find_delimiter(text: Text, quote: str | None, wanted: Sequence[str]) -> str:
    """The delimiter that splits most lines into as many fields as the first; of several, that with most fields."""
    best: tuple[Any, ...] = (False, 0.0, 1)
    found = ""
    for delimiter in _DELIMITERS:
        try:
            rows = [row for row in _split(text.first, delimiter, quote) if row]
        except csv.Error:
            continue
        widths = [len(row) for row in rows]
        alike = widths.count(widths[0]) / len(widths)
        score = (bool(wanted) and set(wanted) <= {name.strip() for name in rows[0]}, round(alike, 1), widths[0])
        if widths[0] > 1 and score > best:
            best, found = score, delimiter
    if not found:
        first = repr(text.first[0][:60])
        raise UserError(f"{text.source.shown}: no delimiter was found; it starts {first}. Give it: --delimiter=';'")
    return found


def read_delimited(source: Source, scratch: Path, options: Options, wanted: Mapping[str, str], types: Types) -> Table:
    """The rows of a delimited text.

    Args:
        source: the file.
        scratch: a temporary folder.
        options: what the user says about the file.
        wanted: role to column.
        types: the polars type of each role.

    Raises:
        UserError: it lacks a column, or has a quotation mark that is not closed.
    """
    layout = find_layout(source, scratch, options, list(wanted.values()))
    check_columns(source.shown, wanted, layout.names)
    lines = _lines(layout)
    if lines is None:
        frame, wrong = _by_csv_module(layout, wanted, types)
    else:
        frame, wrong = _by_polars(layout, lines, wanted, types), lines.wrong.to_list()
    width = len(layout.names)
    bad = [Bad(f"not {width} fields, as the header has, or a carriage return inside", wrong)] if wrong else []
    return Table(source.shown, frame, bad, layout.note)


def _lines(layout: Layout) -> _Lines | None:
    """Which lines are rows; None if a quoted field may go on in the next line."""
    delimiter, quote = re.escape(layout.delimiter), re.escape(layout.quote or "")
    line, opened = pl.col("line"), pl.lit(False)
    if layout.quote:
        fields = f"(^|{delimiter}){quote}(?:[^{quote}]|{quote}{quote})*{quote}"
        line = line.str.replace_all(fields, "${1}" + _QUOTED)
        # A quotation mark that opens a field and stays open, stands inside one (5" nails, where polars would lose its
        # way), or ends before the field does.
        opened = line.str.contains(f"{quote}|{_QUOTED}[^{delimiter}]")
    blank = pl.col("line").str.strip_chars() == ""
    right = line.str.count_matches(layout.delimiter, literal=True) == len(layout.names) - 1
    # polars would drop a carriage return at the end of a field in silence.
    right &= ~line.str.contains("\r", literal=True)
    kind = pl.when(blank).then(0).when(opened).then(1).when(right).then(2).otherwise(3).cast(pl.UInt8)
    lines = pl.scan_lines(layout.text.path, row_index_name="row", row_index_offset=1).slice(layout.rows_from - 1)
    kinds = lines.select("row", kind=kind).collect(engine="streaming")
    blanks, opens, rows, wrong = (kinds.filter(pl.col("kind") == number)["row"] for number in range(4))
    if len(opens):
        return None
    return _Lines(rows[0] if len(rows) else None, blanks, wrong)


def _by_polars(layout: Layout, lines: _Lines, wanted: Mapping[str, str], types: Types) -> pl.DataFrame:
    """The rows of a text in which every row is one line."""
    if lines.first is None:
        return pl.DataFrame(schema={LINE: pl.UInt32, **{role: types[role] for role in wanted}})
    places = {role: f"{layout.names.index(name)}" for role, name in wanted.items()}
    schema = {f"{place}": pl.String for place in range(len(layout.names))}
    schema |= {place: types[role] for role, place in places.items()}
    rows = pl.scan_csv(
        layout.text.path, has_header=False, skip_lines=lines.first - 1, schema=schema, separator=layout.delimiter,
        quote_char=layout.quote, row_index_name=LINE, row_index_offset=lines.first, truncate_ragged_lines=True,
    )  # fmt: skip
    rows = rows.select(LINE, *(pl.col(place).alias(role) for role, place in places.items()))
    others = pl.concat([lines.blank, lines.wrong])
    if len(others):
        rows = rows.filter(~pl.col(LINE).is_in(others.implode()))
    try:
        return rows.collect(engine="streaming")
    except pl.exceptions.PolarsError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{layout.text.source.shown} cannot be read: {reason}") from error


def _by_csv_module(layout: Layout, wanted: Mapping[str, str], types: Types) -> tuple[pl.DataFrame, list[int]]:
    """The rows of a text in which a field may hold line breaks, and the lines of those with other numbers of fields."""
    places = {role: layout.names.index(name) for role, name in wanted.items()}
    schema = {LINE: pl.UInt32, **{role: types[role] for role in places}}
    parts, rows, wrong = [pl.DataFrame(schema=schema)], [], []
    csv.field_size_limit(1 << 30)
    with layout.text.path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=layout.delimiter, quotechar=layout.quote, strict=True)
        start = 1
        try:
            for row in reader:
                if start >= layout.rows_from and any(map(str.strip, row)):
                    if len(row) == len(layout.names):
                        rows.append((start, *(row[place] for place in places.values())))
                    else:
                        wrong.append(start)
                    if len(rows) == _CHUNK:
                        parts.append(pl.DataFrame(rows, schema=schema, orient="row"))
                        rows = []
                start = reader.line_num + 1
        except csv.Error as error:
            raise UserError(
                f"{layout.text.source.shown}: the row from line {start} has a quotation mark in the wrong place "
                f"({error}). If quotation marks are ordinary characters, give --quote=none."
            ) from error
    parts.append(pl.DataFrame(rows, schema=schema, orient="row"))
    return pl.concat(parts), wrong
