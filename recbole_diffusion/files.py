"""The one way to write a file: whole or not at all."""

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
    """A file beside ``path`` to write to; at the end it is flushed to disk and renamed into place.

    After an error, or when the process is told to end, ``path`` is what it was before.
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
    """Write a text in UTF-8 as a whole file (:func:`whole_file`)."""
    with whole_file(path) as file:
        file.write(text.encode())


def make_folder(key: str, path: str | Path) -> Path:
    """The folder ``path``, made where there is none.

    Raises:
        UserError: it cannot be made; ``key`` is what names it.
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
    """``parts``, the time and a token, joined by hyphens: runs that start in one second differ."""
    return "-".join([*map(str, parts), time.strftime("%Y%m%d-%H%M%S"), secrets.token_hex(3)])
