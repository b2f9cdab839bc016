"""How every file is written: whole, or not at all."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from recbole_diffusion.config.settings import UserError


@contextmanager
def whole_file(path: str | Path) -> Iterator[BinaryIO]:
    """Write to a temporary file in the same folder. At the end it is flushed to disk and renamed to ``path``.

    After an error or an interrupt, ``path`` is unchanged.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: str | Path, text: str) -> None:
    """Write a text in UTF-8 with :func:`whole_file`."""
    with whole_file(path) as file:
        file.write(text.encode())


def make_folder(key: str, path: str | Path) -> Path:
    """Make the folder ``path`` if it does not exist, and return it.

    Raises:
        UserError: it cannot be made. ``key`` is the setting that names it.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{key}={str(path)!r}: this folder cannot be made ({error.strerror}).") from error
    return Path(path)


def file_name(model: str) -> str:
    """A model as part of a file's name: ``package.module:Class`` and ``MODEL:paper`` have a colon, which some systems
    give a meaning to."""
    return model.replace(":", "-")


def unique_name(*parts: Any) -> str:
    """``parts``, the time and a random token, joined by hyphens. Runs that start in the same second differ."""
    return "-".join([*map(str, parts), time.strftime("%Y%m%d-%H%M%S"), secrets.token_hex(3)])
