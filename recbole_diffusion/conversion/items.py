"""Reads titles and categories of items, as RecBole's ``token_seq`` columns: words with one space between them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import polars as pl

from recbole_diffusion.config.settings import UserError
from recbole_diffusion.conversion.interactions import read_table
from recbole_diffusion.conversion.request import Options, counted
from recbole_diffusion.conversion.sources import find_sources
from recbole_diffusion.conversion.table import LINE

_BREAKS = re.compile(r"[\s\x00-\x1f\x7f]+")
_SEPARATOR = "|"


class Items(NamedTuple):
    """Items in the order of their file.

    Args:
        shown: the file's name in messages.
        frame: ``item``, ``title`` and ``category``, as they are written.
        facts: what was found, as label and text.
    """

    shown: str
    frame: pl.DataFrame
    facts: list[tuple[str, str]]


def read_items(paths: Sequence[str | Path], scratch: Path, options: Options, wanted: Mapping[str, str]) -> Items:
    """Read the items of all files.

    Args:
        paths: the files.
        scratch: a temporary folder.
        options: how they are read; but delimiter and header are found.
        wanted: ``item_id``, ``title``, ``category`` to a column.

    Raises:
        UserError: a file cannot be read, lacks a column, or has rows that cannot be read.
    """
    sources = find_sources(paths)
    options = replace(options, header=(), delimiter=None)
    types = dict.fromkeys(wanted, pl.String)
    tables = [read_table(source, scratch, options, wanted, types) for source in sources]
    bad = [f"{table.shown}: {bad.shown(table.unit)}" for table in tables for bad in table.bad]
    if bad and not options.drop_bad_rows:
        raise UserError(f"{'; '.join(bad[:3])}. Mend them, or leave them out by --on_bad_rows=drop.")
    frame = pl.concat(table.frame for table in tables)
    shown = Path(tables[0].shown).name
    facts = [("items", f"{shown}: {counted(len(frame), 'row')}, {tables[0].note}")]
    if bad:
        left_out = sum(len(one.lines) for table in tables for one in table.bad)
        facts.append(("items", f"{counted(left_out, 'row')} that cannot be read left out"))
    return make_items(shown, frame.drop(LINE).rename({"item_id": "item"}), options.category_separator, facts)


def make_items(shown: str, frame: pl.DataFrame, separator: str | None, facts: list[tuple[str, str]]) -> Items:
    """Titles and categories as they are written, one row for each item: the first.

    Args:
        shown: the file's name in messages.
        frame: texts. A category may be a JSON list of texts.
        separator: between two categories of an item.
        facts: what was found so far.
    """
    frame = frame.filter(pl.col("item").is_not_null() & (pl.col("item") != ""))
    if len(frame) and frame["item"].str.contains(r"^-?\d+\.0+$").all():
        frame = frame.with_columns(pl.col("item").str.replace(r"\.0+$", ""))
    once = frame.unique("item", keep="first", maintain_order=True)
    if len(once) < len(frame):
        facts.append(("items", f"{counted(len(frame) - len(once), 'row')} of an earlier item left out"))
    columns = [once["item"]]
    if "title" in once.columns:
        columns.append(pl.Series("title", [one_line(title) for title in once["title"]], dtype=pl.String))
    if "category" in once.columns:
        texts = once["category"].to_list()
        if separator is None and any(_SEPARATOR in text for text in texts if text and not text.startswith("[")):
            separator = _SEPARATOR
        lists = [categories(text, separator) for text in texts]
        columns.append(pl.Series("category", [" ".join(names) for names in lists], dtype=pl.String))
        number = len({name for names in lists for name in names})
        how = f"separated by {separator!r}" if separator else "one for each item, or lists"
        facts.append(("categories", f"{number:,} different ones, {how}; spaces in their names became _"))
    return Items(shown, pl.DataFrame(columns), facts)


def one_line(title: str | None) -> str:
    """A title with one space between its words, and no line break."""
    return _BREAKS.sub(" ", title or "").strip()


def categories(text: str | None, separator: str | None) -> list[str]:
    """The names in a cell, each once and as one word.

    Args:
        text: names with ``separator`` between them, or a JSON list of names, or of lists of names.
        separator: None: the whole text is one name.
    """
    names: list[str]
    if not text:
        return []
    if text.startswith("["):
        try:
            names = list(_flat(json.loads(text)))
        except ValueError:
            names = text.split(separator) if separator else [text]
    else:
        names = text.split(separator) if separator else [text]
    words = (_BREAKS.sub("_", name.strip()) for name in names)
    return list(dict.fromkeys(word for word in words if word))


def _flat(value: object) -> list[str]:
    if isinstance(value, list):
        return [name for part in value for name in _flat(part)]
    return [] if value is None else [str(value)]
