"""Converts files to a data set. The steps, in their order: find, read, clean, k-core, write."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from recbole_diffusion.config.settings import UserError
from recbole_diffusion.console.facts import days
from recbole_diffusion.conversion.core import k_core
from recbole_diffusion.conversion.interactions import Interactions, read_interactions
from recbole_diffusion.conversion.items import Items, read_items
from recbole_diffusion.conversion.request import Converted, Options, Say, counted, silent
from recbole_diffusion.conversion.sources import find_sources
from recbole_diffusion.conversion.write import check_out, write_data_set

_HELD_OUT = 2  # rows of a user that leave-one-out holds out


def convert_files(
    paths: Sequence[str | Path],
    out: str | Path,
    columns: Mapping[str, str],
    items: Sequence[str | Path] = (),
    item_columns: Mapping[str, str] | None = None,
    options: Options | None = None,
    say: Say = silent,
) -> Converted:
    """Convert files with the user's columns.

    Args:
        paths: files, folders and ZIP files with interactions.
        out: the folder of the data set. Its name is that of the data set.
        columns: ``user``, ``item``, ``time``, perhaps ``rating`` to a column.
        items: files with titles and categories.
        item_columns: ``item``, and ``title`` or ``category`` or both, to a column.
        options: how files are read, and which rows are kept.
        say: shows what was found.

    Raises:
        UserError: something cannot be read, or no row is left. Nothing is written then.
    """
    options = options or Options()
    if "time" not in columns:
        raise UserError(
            "time is not set: the rows of a user must have an order. Give --time=COLUMN, or --time=row if the rows are "
            "in the order of time already."
        )
    folder = check_out(out, options.overwrite)
    sources = find_sources(paths)
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        about = read_items(items, _new(place, "items"), options, item_columns or {}) if items else None
        rows = read_interactions(sources, _new(place, "rows"), options, columns)
    return finish(folder, rows, about, options, [str(path) for path in paths], say)


def _new(scratch: Path, name: str) -> Path:
    (scratch / name).mkdir()
    return scratch / name


def finish(
    folder: Path, rows: Interactions, items: Items | None, options: Options, paths: Sequence[str], say: Say
) -> Converted:
    """Make the k-core, write the data set, and show what was kept."""
    facts: list[tuple[str, str]] = []

    def tell(label: str, text: str) -> None:
        facts.append((label, text))
        say(label, text)

    for label, text in rows.facts:
        tell(label, text)
    frame, dropped = rows.frame, dict(rows.dropped)
    tell("read", counted(rows.rows_read, "row"))
    for reason, count in dropped.items():
        tell("dropped", f"{counted(count, 'row')}: {reason}")
    users, items_of = (frame[key].to_physical().to_numpy() for key in ("user", "item"))
    if options.min_interactions > 1:
        tell("before", _counts(users, items_of))
        left, rounds = k_core(users, items_of, options.min_interactions)
        if len(left) < len(frame):
            dropped[f"{options.min_interactions}-core"] = len(frame) - len(left)
            frame, users, items_of = frame[left], users[left], items_of[left]
        what = f"users and items with fewer than {options.min_interactions} rows, in {counted(rounds, 'round')}"
        tell("dropped", f"{counted(rows.frame.height - frame.height, 'row')}: {what}")
    if not len(frame):
        raise UserError("no row is left: nothing was written.")
    per_user = np.bincount(users)
    per_user = per_user[per_user > 0]
    short = int((per_user <= _HELD_OUT).sum())
    tell("kept", _counts(users, items_of) + _span(frame, rows))
    if short:
        tell("short", f"{counted(short, 'user')} with fewer than {_HELD_OUT + 1} rows: leave-one-out cannot test them")
    written = _matched(frame, items, tell) if items is not None else None
    about = [f"Written by recbole-diffusion convert from {', '.join(paths)}"]
    about += [f"{label}: {text}" for label, text in facts]
    files = write_data_set(folder, frame, written, about)
    tell("written", ", ".join(map(str, files)))
    place = f"--dataset={shlex.quote(folder.name)} --data_path={shlex.quote(str(folder.parent))}"
    return Converted(
        folder, tuple(files), rows.rows_read, dropped, len(frame), len(per_user), _different(items_of), short,
        tuple(facts), f"recbole-diffusion run --model=DiffDiv {place}",
    )  # fmt: skip


def _counts(users: np.ndarray, items: np.ndarray) -> str:
    counts = {"row": len(users), "user": _different(users), "item": _different(items)}
    return ", ".join(counted(count, what) for what, count in counts.items())


def _different(numbers: np.ndarray) -> int:
    return int(np.count_nonzero(np.bincount(numbers)))


def _span(frame: pl.DataFrame, rows: Interactions) -> str:
    first, last = frame["seconds"].min(), frame["seconds"].max()
    span = days(float(first), float(last))  # type: ignore[arg-type]
    return f", {span}" if span else ""


def _matched(frame: pl.DataFrame, items: Items, tell: Callable[[str, str], None]) -> pl.DataFrame:
    """The items that have rows."""
    for label, text in items.facts:
        tell(label, text)
    ids = frame["item"].unique().cast(pl.String)
    known = items.frame.filter(pl.col("item").is_in(ids.implode()))
    if len(known) < len(ids):
        missing = ids.filter(~ids.is_in(known["item"].implode())).sort()
        few = ", ".join(map(repr, missing[:3])) + (", ..." if len(missing) > 3 else "")
        tell("items", f"{len(missing):,} of {len(ids):,} without a row in {items.shown}: {few}")
    if not len(known):
        raise UserError(f"items: no item of the rows is in {items.shown}. Is it the right column?")
    if len(items.frame) > len(known):
        tell("items", f"{len(items.frame) - len(known):,} of {items.shown} without interactions left out")
    return known
