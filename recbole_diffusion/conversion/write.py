"""Writes a data set: all of its files, or none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import polars as pl

from recbole_diffusion.config.settings import UserError, check_name
from recbole_diffusion.storage.files import check_folder, whole_file

_TYPES = {
    "user": "user_id:token", "item": "item_id:token", "seconds": "timestamp:float", "rating": "rating:float",
    "title": "title:token_seq", "category": "category:token_seq",
}  # fmt: skip


def check_out(out: str | Path, overwrite: bool) -> Path:
    """The folder of the data set.

    Raises:
        UserError: its name cannot be that of a data set, it cannot be made, or it holds files that are to stay.
    """
    folder = Path(out)
    check_name("out", folder.name or str(out))
    check_folder("out", folder)
    if folder.is_dir() and not overwrite and any(folder.iterdir()):
        raise UserError(f"out={str(out)!r}: this folder has files. Give another, or --overwrite.")
    return folder


def write_data_set(folder: Path, rows: pl.DataFrame, items: pl.DataFrame | None, about: Sequence[str]) -> list[Path]:
    """Write ``NAME.inter``, ``NAME.item`` if there are items, and ``NAME.yaml``. NAME is that of the folder.

    Args:
        folder: where to.
        rows: ``user``, ``item``, ``seconds``, perhaps ``rating``.
        items: ``item`` and perhaps ``title`` and ``category``.
        about: lines about the source, for the YAML file.
    """
    name = folder.name
    comments = "".join(f"# {' '.join(line.split())}\n" for line in about)
    of_items = [] if items is None else items.columns
    settings = [f"{kind}_field: {kind}\n" for kind in ("title", "category") if kind in of_items]
    # The last one is renamed first, so that a data set without all of its files has no interactions either.
    contents: dict[Path, Callable[[Any], Any]] = {
        folder / f"{name}.inter": lambda file: _write(_plain_numbers(rows), file),
        folder / f"{name}.yaml": lambda file: file.write((comments + "".join(settings)).encode()),
    }
    if items is not None:
        contents[folder / f"{name}.item"] = lambda file: _write(items, file)
    is_new = not folder.exists()
    try:
        with ExitStack() as files:  # no file is renamed before all are written
            for path, write in contents.items():
                write(files.enter_context(whole_file(path)))
    except BaseException:
        if is_new:
            with suppress(OSError):
                folder.rmdir()
        raise
    if items is None:
        (folder / f"{name}.item").unlink(missing_ok=True)  # of a data set that was overwritten
    return sorted(contents)


def _write(frame: pl.DataFrame, file: Any) -> None:
    names = {role: title for role, title in _TYPES.items() if role in frame.columns}
    frame.select(pl.col(role).alias(title) for role, title in names.items()).write_csv(
        file, separator="\t", quote_style="never"
    )


def _plain_numbers(rows: pl.DataFrame) -> pl.DataFrame:
    """Times as whole numbers, if all of them are."""
    seconds = rows["seconds"]
    if seconds.dtype == pl.Float64 and (seconds == seconds.floor()).all():
        return rows.with_columns(pl.col("seconds").cast(pl.Int64))
    return rows
