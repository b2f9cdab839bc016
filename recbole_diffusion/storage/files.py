"""How every file is written: whole, or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from recbole_diffusion.config.settings import UserError

_PARTIAL = ".part"  # end of the name of a file that is being written
_OLD = 3600  # seconds without a write, after which a partial file is one that a killed process has left


class DiskFull(UserError, OSError):
    """There is no space for a file. What was there before is unchanged."""


@contextmanager
def whole_file(path: str | Path) -> Iterator[BinaryIO]:
    """Write to a temporary file in the same folder. At the end it is flushed to disk and renamed to ``path``.

    After an error, an interrupt or a power cut, ``path`` is either unchanged or complete. If the process is killed, the
    temporary file stays (:func:`remove_partial_files`).

    Raises:
        DiskFull: there is no space.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_PARTIAL}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            _sync_folder(path.parent)  # otherwise a power cut could undo the renaming
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        if no_space(error):
            raise DiskFull(f"{path}: there is no space for it on the disk; nothing was changed.") from error
        raise


def no_space(error: OSError) -> bool:
    """Whether the disk or the user's share of it is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # some systems cannot open a folder, and need not
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_partial_files(folder: str | Path, own: str = "") -> None:
    """Remove what killed processes have left of files in ``folder``.

    Args:
        folder: the folder.
        own: beginning of the names of files that only this process writes: their partial files are removed at once.
            Those of other files may still be written, and are removed after an hour without a write.
    """
    for partial in Path(folder).glob(f".*{_PARTIAL}"):
        mine = bool(own) and partial.name.startswith(f".{own}")
        with suppress(OSError):  # another process was first
            if mine or time.time() - partial.stat().st_mtime > _OLD:
                partial.unlink()


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
