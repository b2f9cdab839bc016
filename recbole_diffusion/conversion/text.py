"""Text files: which encoding, and a copy in UTF-8 if they are in another."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from recbole_diffusion.config.settings import UserError
from recbole_diffusion.conversion.sources import Source, free_path

_BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
# Bytes that stand for no character in Windows's cp1252. In latin-1 every byte does.
_NOT_CP1252 = bytes((0x81, 0x8D, 0x8F, 0x90, 0x9D))
_HEAD = 1 << 16
_LINES = 200  # that are looked at for delimiter and header
SEPARATOR = "\x1f"  # ASCII's own separator of fields, instead of a delimiter of several characters


class Text(NamedTuple):
    """A text in UTF-8 on disk.

    Args:
        source: what it is the text of.
        path: the file.
        note: the encoding of the source, and how sure it is.
        has_quotes: whether it has any ``"``.
        first: its first lines.
    """

    source: Source
    path: Path
    note: str
    has_quotes: bool
    first: list[str]


def as_text(source: Source, scratch: Path, encoding: str | None) -> Text:
    """The text of a source. It is copied to ``scratch`` unless it is plain UTF-8.

    Raises:
        UserError: it is not text in this encoding, or in none that is known.
    """
    if encoding is None:
        encoding, note = _find_encoding(source)
    else:
        note = encoding
    plain = encoding in ("utf-8", "utf-8-sig") and source.is_plain
    if plain and note == encoding:  # it was given, not found
        for _ in _decoded(source, encoding):
            pass
    path = source.path if plain else free_path(scratch)
    if not plain:
        with path.open("w", encoding="utf-8", newline="") as copy:
            for part in _decoded(source, encoding):
                copy.write(part)
    has_quotes = False
    with path.open("rb") as file:
        while not has_quotes and (block := file.read(1 << 22)):
            has_quotes = b'"' in block
    return Text(source, path, note, has_quotes, _first_lines(path))


def _first_lines(path: Path) -> list[str]:
    with path.open(encoding="utf-8-sig", errors="replace", newline="\n") as file:
        lines = [line.rstrip("\r\n") for _, line in zip(range(_LINES), file, strict=False)]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _decoded(source: Source, encoding: str) -> Iterator[str]:
    try:
        decoder = codecs.getincrementaldecoder(encoding)()
        "".encode(encoding)
    except (LookupError, AttributeError):
        raise UserError(f"encoding={encoding!r}: must be a text encoding of Python, e.g. latin-1.") from None
    try:
        for block in source.blocks():
            yield decoder.decode(block).encode("utf-8", "replace").decode()
        yield decoder.decode(b"", final=True)
    except UnicodeError as error:
        raise UserError(f"{source.shown} is not text in the encoding {encoding} ({error}).") from error


def _find_encoding(source: Source) -> tuple[str, str]:
    """The encoding as Python names it, and a note for the user."""
    head = source.start()[:_HEAD]
    for mark, name in _BOMS:
        if head.startswith(mark):
            return name, "UTF-8 with a byte order mark" if name == "utf-8-sig" else "UTF-16"
    if b"\0" in head:  # UTF-16 without a mark: every other byte of plain letters is zero
        even, odd = head[::2].count(0), head[1::2].count(0)
        if max(even, odd) > 0.4 * len(head) / 2 and min(even, odd) < 0.1 * max(even, odd):
            return ("utf-16-le", "UTF-16") if odd > even else ("utf-16-be", "UTF-16")
        raise UserError(f"{source.shown} is not text: it has zero bytes. Give its encoding if it is (--encoding).")
    return _utf_8_or_older(source)


def _utf_8_or_older(source: Source) -> tuple[str, str]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    line, wrong, windows = 1, 0, True
    for block in chain(source.blocks(), [b""]):
        windows = windows and not any(byte in block for byte in _NOT_CP1252)
        if not wrong:
            try:
                decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                wrong = line + block[: error.start].count(b"\n")
            line += block.count(b"\n")
    if not wrong:
        return "utf-8", "UTF-8"
    name = "cp1252" if windows else "latin-1"
    return name, f"{name}, because line {wrong} is not UTF-8 (--encoding sets another)"


def replaced(text: Text, scratch: Path, delimiter: str) -> Text:
    """A copy with :data:`SEPARATOR` instead of a delimiter of several characters."""
    path = free_path(scratch)
    with (
        text.path.open(encoding="utf-8-sig", newline="\n") as lines,
        path.open("w", encoding="utf-8", newline="") as copy,
    ):
        for line in lines:
            copy.write(line.replace(delimiter, SEPARATOR))
    return text._replace(path=path, first=_first_lines(path))
