"""Reads the interactions of all files, and leaves out what is missing, unreadable or there twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from recbole_diffusion.config.settings import UserError, shown
from recbole_diffusion.conversion.delimited import read_delimited
from recbole_diffusion.conversion.records import read_json, read_parquet
from recbole_diffusion.conversion.request import FILE_ORDER, Options, counted
from recbole_diffusion.conversion.sources import Source, kind_of
from recbole_diffusion.conversion.table import LINE, Bad, Table, Types
from recbole_diffusion.conversion.times import BAD, SECONDS, is_missing, read_times

_FILE = "file"  # column with the number of a row's file
_KEYS = ("user", "item")
# What would break an atomic file, and RecBole's own name of the padding.
_UNWRITABLE = r"[\x00-\x1f\x7f\u{85}\u{2028}\u{2029}]|^\[PAD\]$"
_AS_FLOAT = r"^-?\d+\.0+$"
_FLOAT_LARGEST = float(np.finfo(np.float32).max)  # models compute in 32 bits


class Interactions(NamedTuple):
    """Interactions in the order of the files.

    Args:
        frame: ``user`` and ``item`` (categories), and ``seconds`` and ``rating`` if there are any.
        rows_read: rows of the files.
        dropped: how many rows were left out, by reason.
        facts: what was found, as label and text.
    """

    frame: pl.DataFrame
    rows_read: int
    dropped: dict[str, int]
    facts: list[tuple[str, str]]


def read_table(source: Source, scratch: Path, options: Options, wanted: Mapping[str, str], types: Types) -> Table:
    """The rows of one file of any kind."""
    kind = kind_of(source)
    if kind == "parquet":
        return read_parquet(source, scratch, wanted, types)
    reader = read_json if kind == "json" else read_delimited
    return reader(source, scratch, options, wanted, types)


def read_interactions(
    sources: Sequence[Source], scratch: Path, options: Options, wanted: Mapping[str, str]
) -> Interactions:
    """Read all files.

    Args:
        sources: the files.
        scratch: a temporary folder.
        options: how they are read.
        wanted: ``user``, ``item``, ``time``, ``rating`` to a column. The time may be ``row``, the order of the rows.

    Raises:
        UserError: a file cannot be read, lacks a column, or has rows that cannot be read.
    """
    columns = {role: name for role, name in wanted.items() if (role, name) != ("time", FILE_ORDER)}
    types = {
        **{key: pl.Categorical(pl.Categories.random()) for key in _KEYS},
        "time": pl.String,
        "rating": pl.String,
    }
    tables = [read_table(source, scratch, options, columns, types) for source in sources]
    facts = [("file", f"{table.shown}: {counted(_rows(table), 'row')}, {table.note}") for table in tables[:3]]
    if len(tables) > 3:
        facts.append(("file", f"and {counted(len(tables) - 3, 'more file')}"))
    if not sum(len(table.frame) for table in tables):
        raise UserError(f"{tables[0].shown}: no row can be read.")
    frame = pl.concat(
        table.frame.with_columns(pl.lit(number, pl.UInt16).alias(_FILE)) for number, table in enumerate(tables)
    )
    checked = _Checked(tables, frame)
    if "time" in columns:
        times = read_times(frame, columns["time"], options.time_format, _where(tables))
        facts.append(("times", times.note))
        checked.frame = times.frame
        checked.refuse(pl.col(BAD), "time", f"{columns['time']!r} is no time that is known")
        checked.drop("time", BAD)
    else:
        facts.append(("times", "none: the rows are taken in the order of the files, and numbered"))
    if "rating" in columns:
        checked.read_ratings(columns["rating"], options.decimal)
    for key in _KEYS:
        facts += checked.check_ids(key, columns[key])
    bad = checked.bad_rows(options.drop_bad_rows)
    dropped = {"cannot be read": bad} if bad else {}
    rows_read = sum(map(_rows, tables))
    frame = _without_missing(checked.frame, columns, dropped, facts)
    frame = _without_duplicates(frame, dropped, facts)
    return Interactions(frame.drop(LINE, _FILE), rows_read, dropped, facts)


def _rows(table: Table) -> int:
    return len(table.frame) + sum(len(bad.lines) for bad in table.bad)


def _where(tables: Sequence[Table]) -> pl.Expr:
    """For each row ``line 7``, or ``b.csv line 7`` if there are several files."""
    if len(tables) == 1:
        return pl.format(f"{tables[0].unit} {{}}", pl.col(LINE))
    names = pl.Series([f"{Path(table.shown).name} {table.unit}" for table in tables])
    return pl.format("{} {}", pl.col(_FILE).replace_strict(list(range(len(names))), names), pl.col(LINE))


class _Checked:
    """Interactions, with what is wrong in them."""

    def __init__(self, tables: Sequence[Table], frame: pl.DataFrame) -> None:
        self.frame = frame
        self._tables = tables
        self._bad = {number: list(table.bad) for number, table in enumerate(tables)}

    def refuse(self, wrong: pl.Expr, column: str, reason: str) -> None:
        """Take out the rows that are ``wrong``, and remember them with the reason and the first value of ``column``."""
        wrong = wrong.fill_null(False)
        found = self.frame.lazy().filter(wrong).select(_FILE, LINE, pl.col(column).cast(pl.String))
        groups = found.collect(engine="streaming").group_by(_FILE, maintain_order=True).agg(LINE, column)
        for number, lines, values in groups.iter_rows():
            self._bad[number].append(Bad(f"{reason}: {shown(values[0])}", lines))
        if len(groups):
            self.frame = self.frame.lazy().filter(~wrong).collect(engine="streaming")

    def drop(self, *columns: str) -> None:
        self.frame = self.frame.drop(columns)

    def read_ratings(self, name: str, decimal: str) -> None:
        """Make the ratings numbers, null if missing."""
        text = pl.col("rating").str.strip_chars()
        if decimal == ",":
            text = text.str.replace_all(".", "x", literal=True).str.replace(",", ".", literal=True)
        number = text.cast(pl.Float64, strict=False).fill_nan(None)
        self.frame = self.frame.lazy().with_columns(number=number).collect(engine="streaming")
        number = pl.col("number")
        bad = (number.is_null() & ~is_missing(text)) | (number.abs() > _FLOAT_LARGEST)  # inf too
        # Most texts are numbers, and need no look at their letters.
        suspects = self.frame.filter(number.is_null() | (number.abs() > _FLOAT_LARGEST))
        if len(suspects):
            hint = f"{name!r} is no number"
            if decimal == "." and len(suspects.filter(bad & text.str.contains(r"^-?\d+,\d+$"))):
                hint += " (--decimal=, reads 3,5 as three and a half)"
            self.refuse(bad, "rating", hint)
        self.frame = self.frame.drop("rating").rename({"number": "rating"})

    def check_ids(self, key: str, name: str) -> list[tuple[str, str]]:
        """Check the different ids of a column, and write whole numbers without ``.0``."""
        kind = self.frame[key].dtype
        ids = self.frame[key].unique().drop_nulls()
        texts = ids.cast(pl.String)
        wrong = texts.str.contains(_UNWRITABLE)
        if wrong.any():
            reason = f"{name!r} has a tab, a line break or another control character, or is '[PAD]'"
            self.refuse(pl.col(key).is_in(ids.filter(wrong).implode()), key, reason)
        facts = []
        filled = texts.filter(texts.str.strip_chars() != "")
        if len(filled) and filled.str.contains(_AS_FLOAT).all():
            self.frame = self.frame.with_columns(pl.col(key).cast(pl.String).str.replace(r"\.0+$", "").cast(kind))
            facts.append((f"{key}s", f"all of {name!r} end in .0, as in 42.0: they are written without it"))
        outer = int((filled != filled.str.strip_chars()).sum())
        if outer:
            facts.append((f"{key}s", f"{outer:,} of {name!r} begin or end with a space; they are kept as they are"))
        return facts

    def bad_rows(self, drop: bool) -> int:
        """The number of rows that cannot be read.

        Raises:
            UserError: there are some, and they are not to be dropped.
        """
        count = sum(len(bad.lines) for found in self._bad.values() for bad in found)
        if count and not drop:
            texts = [
                f"{self._tables[number].shown}: {bad.shown(self._tables[number].unit)}"
                for number, found in self._bad.items()
                for bad in found
            ]
            more = f"; and {len(texts) - 3} more kinds" if len(texts) > 3 else ""
            raise UserError(f"{'; '.join(texts[:3])}{more}. Mend them, or leave them out by --on_bad_rows=drop.")
        return count


def _without_missing(
    frame: pl.DataFrame, columns: Mapping[str, str], dropped: dict[str, int], facts: list[tuple[str, str]]
) -> pl.DataFrame:
    for key in _KEYS:
        ids = frame[key].unique().drop_nulls()
        empty = ids.filter(ids.cast(pl.String).str.strip_chars() == "")
        kept = frame.filter(pl.col(key).is_not_null() & ~pl.col(key).is_in(empty.implode()))
        if len(kept) < len(frame):
            dropped[f"without {key} ({columns[key]})"] = len(frame) - len(kept)
            frame = kept
    if SECONDS in frame.columns:
        kept = frame.filter(pl.col(SECONDS).is_not_null())
        if len(kept) < len(frame):
            dropped[f"without time ({columns['time']})"] = len(frame) - len(kept)
            frame = kept
    if "rating" in columns and (without := frame["rating"].null_count()):
        facts.append(("ratings", f"{counted(without, 'row')} without a rating kept"))
    return frame


def _without_duplicates(frame: pl.DataFrame, dropped: dict[str, int], facts: list[tuple[str, str]]) -> pl.DataFrame:
    """The first of several rows with the same user, item and time. Without times nobody can tell them apart."""
    if SECONDS not in frame.columns:
        return frame.with_row_index(SECONDS, 1)
    order = pl.int_range(pl.len(), dtype=pl.UInt32).alias("n")
    physical = frame.lazy().select(pl.col("user").to_physical(), pl.col("item").to_physical(), SECONDS, order)
    first = physical.group_by("user", "item", SECONDS).agg(pl.col("n").min()).select(pl.col("n").sort())
    kept = first.collect(engine="streaming")["n"]
    if len(kept) < len(frame):
        dropped["the same user, item and time again"] = len(frame) - len(kept)
        frame = frame[kept]
    user, item = (pl.col(key).to_physical().cast(pl.UInt64) for key in _KEYS)
    pairs = frame.lazy().select((user * 2**32 + item).n_unique())
    repeated = len(frame) - int(pairs.collect(engine="streaming").item())
    if repeated:
        facts.append(("repeats", f"{counted(repeated, 'row')} with the user and item of an earlier row kept"))
    return frame
