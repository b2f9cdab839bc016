"""Lists for many users in a file: the verb ``recommend``."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import pandas as pd
import torch

from recbole_diffusion.config.settings import Settings, UserError
from recbole_diffusion.console.screen import Screen
from recbole_diffusion.recommend.histories import Histories
from recbole_diffusion.recommend.recommender import Recommender, load
from recbole_diffusion.storage.files import check_folder, whole_file

FORMATS = (".csv", ".jsonl", ".parquet")
_ROWS_AT_ONCE = 8192  # users whose lists are in memory at a time
_BAR = "{percentage:3.0f} %|{bar}| {n_fmt}/{total_fmt} users, {remaining} left"


class Wanted(NamedTuple):
    """Whose lists the command asks for; exactly one of them."""

    users: str | None = None  # a file with a user on each line
    every: bool = False
    history: str | None = None  # items, separated by commas
    histories: str | None = None  # a file, see :func:`read_histories`


def recommend(
    path: str, wanted: Wanted, k: int, out: str | None, filter_seen: bool, index: str, settings: Settings,
    model: str | None = None,
) -> Path | None:  # fmt: skip
    """Write the lists of users to a file, or show them if there is no file.

    Args:
        path: a checkpoint.
        wanted: whose lists.
        k: length of the lists.
        out: a file .csv, .jsonl or .parquet; with None, the lists are shown.
        filter_seen: leave out what a user has taken.
        index: as for :meth:`recbole_diffusion.recommend.recommender.Recommender.recommend`.
        settings, model: as for :func:`recbole_diffusion.recommend.recommender.load`.

    Returns:
        The file.

    Raises:
        UserError: an argument is not allowed, or a file cannot be read.
    """
    screen = Screen()
    check_out(out)
    recommender = load(path, model, **settings)
    rows = _rows(recommender, wanted)
    if out is None:
        screen.line(_shown(recommender.frame(rows, recommender.lists(rows, k, filter_seen, index=index))))
        return None
    start = time.perf_counter()
    bar = screen.bar(len(rows), 0, _BAR)
    listed = 0
    with writer(Path(out)) as write:
        for part in torch.arange(len(rows)).split(_ROWS_AT_ONCE):
            these = rows.part(part)
            done = None if bar is None else bar.update
            lists = recommender.lists(these, k, filter_seen, index=index, after_batch=done)
            frame = recommender.frame(these, lists)
            write(frame)
            listed += len(frame)
    if bar is not None:
        bar.close()
    seconds = time.perf_counter() - start
    screen.fact("lists", f"{len(rows):,} users, {listed:,} items, {len(rows) / max(seconds, 1e-9):,.0f} users a second")
    screen.fact("file", out)
    return Path(out)


def check_out(out: str | None) -> None:
    """Check the name of a file for lists before anything is computed.

    Raises:
        UserError: its end is not one of :data:`FORMATS`, or it cannot be written.
    """
    if out is None:
        return
    path = Path(out)
    if path.suffix not in FORMATS:
        raise UserError(f"out={out!r}: must end in {', '.join(FORMATS)}.")
    if path.is_dir():
        raise UserError(f"out={out!r}: is a folder.")
    check_folder("out", path.parent)
    if path.suffix == ".parquet" and find_spec("pyarrow") is None:
        raise UserError(f"out={out!r}: needs the package pyarrow. Install it (pip install pyarrow), or take .csv.")


def _rows(recommender: Recommender, wanted: Wanted) -> Histories:
    if wanted.every:
        return recommender.rows()
    if wanted.users is not None:
        return recommender.rows(users=_lines("users", wanted.users))
    if wanted.history is not None:
        items = [item.strip() for item in wanted.history.split(",")]
        return recommender.rows(histories=[[item for item in items if item]])
    assert wanted.histories is not None
    return recommender.rows(histories=read_histories(wanted.histories))


def _lines(key: str, name: str) -> list[str]:
    """The lines of a text file that are not empty."""
    lines = [line.strip() for line in _text(key, name).splitlines()]
    found = [line for line in lines if line]
    if not found:
        raise UserError(f"{key}: {name!r} is empty.")
    return found


def _text(key: str, name: str) -> str:
    path = Path(name)
    if not path.is_file():
        raise UserError(f"{key}: there is no file {name!r}.")
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error.reason
        raise UserError(f"{key}: {name!r} cannot be read as UTF-8 text ({reason}).") from error


def read_histories(name: str) -> pd.DataFrame | dict[str, list[Any]]:
    """Histories from a file: .csv with the columns ``user``, ``item`` and perhaps ``time``, in seconds; or .jsonl with
    a line ``{"user": ..., "items": [...]}`` for each user, the oldest item first.

    Raises:
        UserError: it cannot be read, or has other columns.
    """
    suffix = Path(name).suffix
    if suffix == ".jsonl":
        found: dict[str, list[Any]] = {}
        for number, line in enumerate(_text("histories", name).splitlines(), start=1):
            if not line.strip():
                continue
            try:
                entry = json.loads(line)
                user, items = str(entry["user"]), entry["items"]
                right = isinstance(items, list) and user not in found
            except (ValueError, KeyError, TypeError, RecursionError):
                right = False
            if not right:
                raise UserError(
                    f'histories: {name!r}, line {number}: must be {{"user": ..., "items": [...]}}, once for each user.'
                )
            found[user] = items
        return found
    if suffix != ".csv":
        raise UserError(f"histories={name!r}: must end in .csv or .jsonl.")
    _text("histories", name)  # says in one line what pandas would not
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # rows with more fields than the header
            frame = pd.read_csv(
                name, dtype={"user": str, "item": str}, encoding="utf-8-sig", keep_default_na=False, index_col=False
            )
    except (ValueError, pd.errors.ParserError, pd.errors.ParserWarning) as error:
        raise UserError(f"histories: {name!r} is no table ({' '.join(str(error).split())}).") from error
    return frame


@contextmanager
def writer(path: Path) -> Iterator[Callable[[pd.DataFrame], None]]:
    """A context with a function that adds rows to a file. The file has its name only when it is complete."""
    with whole_file(path) as file:
        if path.suffix == ".parquet":
            import pyarrow
            import pyarrow.parquet

            open_file: list[Any] = []

            def add(frame: pd.DataFrame) -> None:
                if len(frame):  # without rows, columns have no types
                    table = pyarrow.Table.from_pandas(frame, preserve_index=False)
                    if not open_file:
                        open_file.append(pyarrow.parquet.ParquetWriter(file, table.schema))
                    open_file[0].write_table(table)

            try:
                yield add
            finally:
                for parquet in open_file:
                    parquet.close()
            if not open_file:
                pyarrow.parquet.write_table(pyarrow.table({}), file)
        else:
            yield _adder(file, path.suffix)


def _adder(file: BinaryIO, suffix: str) -> Callable[[pd.DataFrame], None]:
    first = True

    def add(frame: pd.DataFrame) -> None:
        nonlocal first
        if suffix == ".jsonl":
            text = frame.to_json(orient="records", lines=True, force_ascii=False)
        else:
            text = frame.to_csv(index=False, header=first, lineterminator="\n")
        file.write(text.encode())
        first = False

    return add


def _shown(frame: pd.DataFrame) -> str:
    return frame.to_string(index=False) if len(frame) else "no item is left to recommend"
