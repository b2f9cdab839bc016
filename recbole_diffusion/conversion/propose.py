"""Shows the first rows of a file, and guesses which column is what."""

from __future__ import annotations

import re
import shlex
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import polars as pl

from recbole_diffusion.config.settings import UserError
from recbole_diffusion.conversion.delimited import find_layout
from recbole_diffusion.conversion.records import json_names, read_json, read_parquet
from recbole_diffusion.conversion.request import Options
from recbole_diffusion.conversion.sources import Source, find_sources, kind_of
from recbole_diffusion.conversion.text import as_text
from recbole_diffusion.conversion.times import BAD, SECONDS, read_times

_ROWS = 3  # that are shown
_WIDEST = 28  # letters of a cell
_UNKNOWN = "COL"
# Usual names of columns, without case and punctuation. Earlier ones are better.
_NAMES = {
    "user": (
        "userid", "user", "uid", "customerid", "customer", "reviewerid", "visitorid", "clientid", "memberid",
        "accountid", "buyerid", "playerid", "readerid", "client", "member", "account", "buyer", "sessionid", "session",
    ),
    "item": (
        "itemid", "item", "iid", "parentasin", "asin", "productid", "product", "sku", "articleid", "movieid", "isbn",
        "bookid", "trackid", "songid", "newsid", "gameid", "businessid", "contentid", "article", "movie", "book",
    ),
    "time": (
        "timestamp", "time", "datetime", "date", "unixreviewtime", "createdat", "eventtime", "ts", "tdat",
        "orderdate", "purchasedate", "ordertime", "created", "unixtime", "invoicedate",
    ),
    "rating": ("rating", "overall", "stars", "score", "rate", "ratings"),
}  # fmt: skip


class Proposal(NamedTuple):
    """What was guessed.

    Args:
        lines: the first rows as a table, and what each column is.
        command: the command to type.
        complete: whether users, items and times were found.
    """

    lines: list[str]
    command: str
    complete: bool


def propose(
    paths: Sequence[str | Path], options: Options, given: dict[str, str], out: str | None, others: Sequence[str] = ()
) -> Proposal:
    """Guess the columns of the first file.

    Args:
        paths: the files.
        options: how they are read.
        given: columns that the user has named, by role.
        out: the folder of the data set, if the user has named one.
        others: further arguments of the command.

    Raises:
        UserError: it cannot be read.
    """
    source = find_sources(paths)[0]
    with tempfile.TemporaryDirectory() as scratch:
        frame, note = _first_rows(source, Path(scratch), options)
    guessed = guess(frame) | given
    roles = {name: role for role, name in guessed.items()}
    lines = [f"{source.shown}: {note}", ""]
    lines += _table(frame, roles)
    found = {role: guessed.get(role, _UNKNOWN) for role in ("user", "item", "time")}
    if "rating" in guessed:
        found["rating"] = guessed["rating"]
    name = re.sub(r"[^\w.-]+", "-", Path(paths[0]).name.partition(".")[0]).strip("-.") or "mine"
    parts = [*map(str, paths), *(f"--{role}={column}" for role, column in found.items()), *others]
    parts.append(f"--out={out or f'dataset/{name}'}")
    command = "recbole-diffusion convert " + " ".join(map(shlex.quote, parts))
    return Proposal(lines, command, _UNKNOWN not in found.values())


def guess(frame: pl.DataFrame) -> dict[str, str]:
    """Role to column, by the names of columns and by their values. A role that is not clear is left out."""
    found: dict[str, str] = {}
    plain = {name: re.sub(r"[^a-z0-9]", "", name.lower()) for name in frame.columns}
    for exact in (True, False):
        for role, known in _NAMES.items():
            left = [name for name in frame.columns if name not in found.values()]
            fits = {name: _fits(frame, role, name) for name in left}
            fitting = [
                (known.index(word), place, name)
                for place, name in enumerate(left)
                for word in known
                if (plain[name] == word if exact else len(word) > 3 and word in plain[name]) and fits[name]
            ]
            if role not in found and fitting:
                found[role] = min(fitting)[2]
    if "time" not in found:
        left = [name for name in frame.columns if name not in found.values() and _fits(frame, "time", name, dates=True)]
        if len(left) == 1:
            found["time"] = left[0]
    return found


def _fits(frame: pl.DataFrame, role: str, name: str, dates: bool = False) -> bool:
    """Whether the first values of a column can be times or ratings. ``dates``: only dates, no plain numbers."""
    values = frame[name].drop_nulls()
    if role == "rating":
        numbers = values.str.replace(",", ".", literal=True).cast(pl.Float64, strict=False)
        return len(values) > 0 and numbers.null_count() == 0
    if role != "time":
        return True
    try:
        times = read_times(pl.DataFrame({"time": values}), name, None, pl.lit(""))
    except UserError:
        return False
    good = len(values) > 0 and not times.frame[BAD].any() and times.frame[SECONDS].null_count() == 0
    return good and not (dates and "no dates" in times.note)


def _first_rows(source: Source, scratch: Path, options: Options) -> tuple[pl.DataFrame, str]:
    """The first rows as texts, and what was found out about the file."""
    kind = kind_of(source)
    if kind == "parquet":
        path = source.on_disk(scratch)
        try:
            head = pl.scan_parquet(path).head(100).collect()
        except pl.exceptions.PolarsError as error:
            raise UserError(f"{source.shown} cannot be read: {' '.join(str(error).split())[:200]}") from error
        small = scratch / "head.parquet"
        head.write_parquet(small)
        names = {name: name for name in head.columns if not head[name].dtype.is_nested()}
        table = read_parquet(Source(small), scratch, names, dict.fromkeys(names, pl.String))
        return table.frame.drop("line"), "Parquet"
    if kind == "json":
        text = as_text(source, scratch, options.encoding)
        names = {name: name for name in json_names(text.first)}
        small = scratch / "head.jsonl"
        small.write_text("\n".join(text.first), encoding="utf-8")
        table = read_json(
            Source(small), scratch, replace(options, encoding="utf-8"), names, dict.fromkeys(names, pl.String)
        )
        return table.frame.drop("line"), f"JSON Lines, {text.note}"
    layout = find_layout(source, scratch, options)
    rows = [row for row in layout.split(layout.text.first[layout.rows_from - 1 :]) if len(row) == len(layout.names)]
    names_once = list(dict.fromkeys(layout.names))
    columns = {
        name: pl.Series([row[layout.names.index(name)] or None for row in rows], dtype=pl.String) for name in names_once
    }
    return pl.DataFrame(columns), layout.note


def _table(frame: pl.DataFrame, roles: dict[str, str]) -> list[str]:
    """The columns, one a line: name, what it is, first values."""
    rows = []
    for name in frame.columns:
        texts = [" ".join(text.split()) for text in frame[name].head(_ROWS).fill_null("")]
        texts = [text if len(text) <= _WIDEST else f"{text[:_WIDEST]}..." for text in texts]
        rows.append((name, roles.get(name, ""), " | ".join(texts)))
    widths = [max(len(row[place]) for row in [("column", "taken as", ""), *rows]) for place in (0, 1)]
    head = ("column", "taken as", "first values")
    return [f"{name:<{widths[0]}}  {role:<{widths[1]}}  {values}".rstrip() for name, role, values in [head, *rows]]
