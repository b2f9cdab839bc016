"""The function for Python: ``recbole_diffusion.convert``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recbole_diffusion.config.settings import UserError, did_you_mean
from recbole_diffusion.conversion.request import Converted, Options, Say, require_polars, silent

Paths = str | Path | Sequence[str | Path]


def convert(
    files: Paths,
    out: str | Path,
    user: str,
    item: str,
    time: str | None = None,
    rating: str | None = None,
    items: Paths = (),
    item_id: str | None = None,
    title: str | None = None,
    category: str | None = None,
    say: Say | None = None,
    **options: Any,
) -> Converted:
    """Make a data set of CSV, TSV, JSON Lines or Parquet files.

    Args:
        files: one file or folder, or several.
        out: the folder of the data set. Its name is that of the data set.
        user, item, time, rating: columns. ``time="row"``: the rows are in the order of time already.
        items: one file with titles and categories, or several.
        item_id, title, category: columns of ``items``; ``item_id`` is ``item`` if it is not given.
        say: called with a label and a text for each thing that was found, e.g. ``print``.
        **options: as of :class:`recbole_diffusion.conversion.request.Options`.

    Raises:
        UserError: something cannot be read, or no row is left. Nothing is written then.
    """
    require_polars()
    from recbole_diffusion.conversion.convert import convert_files

    columns = {"user": user, "item": item, "time": time, "rating": rating}
    of_items = {"item_id": item_id or item, "title": title, "category": category}
    if not items and any((item_id, title, category)):
        raise UserError("item_id, title and category are columns of the file of items: give items too.")
    if items and not (title or category):
        raise UserError("items: give the column of titles (title), of categories (category), or both.")
    for role, name in columns.items():
        if name is not None and list(columns.values()).count(name) > 1:
            raise UserError(f"{role}={name!r}: the same column is given for something else too.")
    for name in options:
        if name not in vars(Options()):
            raise UserError(f"convert has no argument {name!r}.{did_you_mean(name, vars(Options()))}")
    return convert_files(
        _listed(files), out, _given(columns), _listed(items), _given(of_items), Options(**options), say or silent
    )


def _given(columns: dict[str, str | None]) -> dict[str, str]:
    return {role: name for role, name in columns.items() if name is not None}


def _listed(paths: Paths) -> list[str | Path]:
    return [paths] if isinstance(paths, str | Path) else list(paths)
