"""Finds the files: folders, compressed files and the members of ZIP files."""

from __future__ import annotations

import gzip
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from recbole_diffusion.config.settings import UserError, did_you_mean

# Files of a folder or ZIP file that are read. A file that is named itself may have any name.
_SUFFIXES = (".csv", ".tsv", ".txt", ".dat", ".data", ".parquet", ".pq", ".jsonl", ".ndjson", ".json")
_BLOCK = 1 << 20


class Source(NamedTuple):
    """One file with rows: plain, compressed by gzip, or a member of a ZIP file."""

    path: Path
    member: str = ""

    @property
    def shown(self) -> str:
        """Its name in messages."""
        return f"{self.path}:{self.member}" if self.member else str(self.path)

    def open(self) -> IO[bytes]:
        """Its bytes, decompressed."""
        if self.member:
            return zipfile.ZipFile(self.path).open(self.member)
        with self.path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        return gzip.open(self.path) if packed else self.path.open("rb")  # type: ignore[return-value]

    @property
    def is_plain(self) -> bool:
        """Whether the file holds the bytes as they are."""
        with self.path.open("rb") as file:
            return not self.member and file.read(2) != b"\x1f\x8b"

    def blocks(self) -> Iterator[bytes]:
        """Its bytes, decompressed, a part at a time.

        Raises:
            UserError: it cannot be read or decompressed.
        """
        try:
            with self.open() as file:
                while block := file.read(_BLOCK):
                    yield block
        except (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            raise UserError(f"{self.shown} cannot be read: {reason}.") from error

    def start(self) -> bytes:
        """Its first bytes."""
        return next(self.blocks(), b"")

    def on_disk(self, scratch: Path) -> Path:
        """A path to its bytes: of the file itself, or of a copy in ``scratch``."""
        if self.is_plain:
            return self.path
        copy = free_path(scratch)
        with copy.open("wb") as file:
            for block in self.blocks():
                file.write(block)
        return copy


def free_path(scratch: Path) -> Path:
    """The path of a new file in a temporary folder."""
    return scratch / f"{sum(1 for _ in scratch.iterdir())}"


def find_sources(paths: Sequence[str | Path]) -> list[Source]:
    """The files behind ``paths``: files, the data files of folders in the order of their names, members of ZIP files.

    Raises:
        UserError: there is no such file, or a folder or ZIP file has no data file.
    """
    if not paths:
        raise UserError("convert: no file is given.")
    found = [source for path in paths for source in _behind(Path(path))]
    for source in found:
        if found.count(source) > 1:
            raise UserError(f"{source.shown} is given twice.")
    return found


def _behind(path: Path) -> list[Source]:
    if path.is_dir():
        inside = sorted(file for file in path.iterdir() if file.is_file() and _is_data(file.name))
        if not inside:
            raise UserError(f"{path}: this folder has no data file ({', '.join(_SUFFIXES)}, also with .gz).")
        return [source for file in inside for source in _behind(file)]
    if not path.is_file():
        there = sorted(other.name for other in path.parent.iterdir()) if path.parent.is_dir() else []
        raise UserError(f"there is no file {str(path)!r}.{did_you_mean(path.name, there)}")
    try:
        with path.open("rb") as file:
            if file.read(4) != b"PK\x03\x04":
                return [Source(path)]
        members = sorted(name for name in zipfile.ZipFile(path).namelist() if _is_data(name))
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} cannot be read: {error}.") from error
    if not members:
        raise UserError(f"{path}: this ZIP file has no data file ({', '.join(_SUFFIXES)}).")
    packed = [member for member in members if member.lower().endswith((".gz", ".zip"))]
    if packed:
        raise UserError(f"{path}: {packed[0]!r} is packed once more inside the ZIP file. Unpack the ZIP file first.")
    return [Source(path, member) for member in members]


def _is_data(name: str) -> bool:
    """Whether a name is that of a data file; systems such as Spark and macOS put others beside them."""
    parts = Path(name).parts
    hidden = any(part.startswith((".", "__")) for part in parts) or parts[-1].startswith("_")
    return not hidden and name.lower().removesuffix(".gz").endswith((*_SUFFIXES, ".zip"))


def unpack(path: Path, scratch: Path, names: Sequence[str]) -> dict[str, Path]:
    """The files ``names`` of a folder or ZIP file, at any depth, by their names. Those of a ZIP file are copied.

    Raises:
        UserError: there is no such folder or ZIP file.
    """
    if path.is_dir():
        inside = sorted(path.rglob("*"), key=lambda file: (len(file.parts), file))
        return {file.name: file for file in reversed(inside) if file.name in names}
    if not zipfile.is_zipfile(path):
        raise UserError(f"{str(path)!r}: must be a folder or a ZIP file.")
    found: dict[str, Path] = {}
    with zipfile.ZipFile(path) as archive:
        for member in sorted(archive.namelist(), key=lambda name: (name.count("/"), name)):
            name = member.rpartition("/")[2]
            if name in names and name not in found:
                found[name] = scratch / f"unpacked-{name}"
                with archive.open(member) as packed, found[name].open("wb") as file:
                    shutil.copyfileobj(packed, file)
    return found


def kind_of(source: Source) -> str:
    """``parquet``, ``json`` (an object in each line) or ``text``, by its first bytes.

    Raises:
        UserError: it is empty, or one JSON list.
    """
    start: Any = source.start()
    if not start.strip():
        raise UserError(f"{source.shown} is empty.")
    if start.startswith(b"PAR1"):
        return "parquet"
    if start.startswith(b"["):
        raise UserError(f"{source.shown} is one JSON list. One object in each line is needed: jq -c '.[]' writes that.")
    return "json" if start.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{") else "text"
