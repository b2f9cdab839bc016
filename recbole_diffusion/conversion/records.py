"""Reads JSON Lines and Parquet. Numbers become the texts that they would be in a CSV file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from recbole_diffusion.config.settings import UserError
from recbole_diffusion.conversion.request import Options
from recbole_diffusion.conversion.sources import Source, free_path
from recbole_diffusion.conversion.table import LINE, Bad, Table, Types, check_columns
from recbole_diffusion.conversion.text import as_text

_EXACT = 2**53  # from here on, some whole numbers have no exact 64-bit float


def json_names(first: list[str]) -> list[str]:
    """The keys of the first objects, in the order in which they come."""
    names: dict[str, None] = {}
    for line in first:
        try:
            value = json.loads(line) if line.strip() else {}
        except ValueError:
            continue
        names |= dict.fromkeys(value if isinstance(value, dict) else ())
    return list(names)


def read_json(source: Source, scratch: Path, options: Options, wanted: Mapping[str, str], types: Types) -> Table:
    """The objects of a JSON Lines file. Lists and objects inside stay JSON texts.

    Raises:
        UserError: none of the first lines has a wanted key.
    """
    text = as_text(source, scratch, options.encoding)
    check_columns(source.shown, wanted, json_names(text.first))
    path, wrong = text.path, list[int]()
    try:
        frame = _objects(path, wanted)
    except pl.exceptions.PolarsError as error:
        wrong = _no_objects(path)
        if not wrong:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{source.shown} cannot be read: {reason}") from error
        path = free_path(scratch)
        lines = pl.scan_lines(text.path, row_index_name="row").filter(~(pl.col("row") + 1).is_in(wrong))
        path.write_text("\n".join(lines.collect()["line"]), encoding="utf-8")
        frame = _objects(path, wanted)
    numbers = pl.scan_lines(text.path, row_index_name="row").filter(pl.col("line").str.strip_chars() != "")
    lines_of = numbers.select((pl.col("row") + 1).cast(pl.UInt32)).collect(engine="streaming")["row"]
    if wrong:
        lines_of = lines_of.filter(~lines_of.is_in(wrong))
    frame = frame.select(lines_of.alias(LINE), *(pl.col(role).cast(types[role]) for role in wanted))
    return Table(source.shown, frame, [Bad("no JSON object", wrong)] if wrong else [], text.note)


def _objects(path: Path, wanted: Mapping[str, str]) -> pl.DataFrame:
    names = dict.fromkeys(wanted.values(), pl.String)
    rows = pl.scan_ndjson(path, schema=names).select(pl.col(name).alias(role) for role, name in wanted.items())
    return rows.collect(engine="streaming")


def _no_objects(path: Path) -> list[int]:
    """The lines that are neither blank nor a JSON object."""
    wrong = []
    with path.open(encoding="utf-8-sig", newline="\n") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                good = not line.strip() or isinstance(json.loads(line), dict)
            except (ValueError, RecursionError):
                good = False
            if not good:
                wrong.append(number)
    return wrong


def read_parquet(source: Source, scratch: Path, wanted: Mapping[str, str], types: Types) -> Table:
    """The rows of a Parquet file.

    Raises:
        UserError: it is damaged, lacks a column, or a column has a type that makes no sense.
    """
    try:
        lazy = pl.scan_parquet(source.on_disk(scratch))
        schema = lazy.collect_schema()
        check_columns(source.shown, wanted, list(schema))
        frame = lazy.select(pl.col(name).alias(role) for role, name in wanted.items()).collect(engine="streaming")
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UserError(f"{source.shown} cannot be read: {' '.join(str(error).split())[:200]}") from error
    columns = [_as_text(frame[role], f"{role}={wanted[role]!r}: {source.shown}").cast(types[role]) for role in wanted]
    lines = pl.int_range(1, len(frame) + 1, dtype=pl.UInt32, eager=True).alias(LINE)
    return Table(source.shown, pl.DataFrame([lines, *columns]), [], "Parquet", unit="row")


def _as_text(values: pl.Series, where: str) -> pl.Series:
    kind = values.dtype
    if isinstance(kind, pl.List):
        inside = kind.inner
        if isinstance(inside, pl.List):
            values, inside = values.list.eval(pl.element().explode()), inside.inner
        if inside != pl.String:
            raise UserError(f"{where}: a column of {kind} cannot be used; lists must be of texts.")
        texts = [None if cell is None else json.dumps(cell.to_list()) for cell in values]
        return pl.Series(values.name, texts, dtype=pl.String)
    if isinstance(kind, pl.Datetime):
        text = values.dt.convert_time_zone("UTC") if kind.time_zone else values
        text = text.dt.strftime("%Y-%m-%d %H:%M:%S%.6f")
        return text + "Z" if kind.time_zone else text
    if kind in (pl.Float32, pl.Float64):
        return _numbers_as_text(values)
    if kind in (pl.String, pl.Categorical, pl.Boolean, pl.Date, pl.Null) or isinstance(kind, pl.Enum):
        return values.cast(pl.String)
    if kind.is_integer() or kind.is_decimal():
        return values.cast(pl.String)
    raise UserError(f"{where}: a column of type {kind} cannot be used.")


def _numbers_as_text(values: pl.Series) -> pl.Series:
    """Floats as texts: whole ones without ``.0``, if all of them are whole. A missing number is often NaN."""
    values = values.fill_nan(None)
    inside = values.drop_nulls()
    if len(inside) and (inside == inside.round()).all() and float(inside.abs().max()) < _EXACT:  # type: ignore[arg-type]
        return values.cast(pl.Int64).cast(pl.String)
    return values.cast(pl.String)
