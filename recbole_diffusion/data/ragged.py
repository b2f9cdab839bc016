"""A fast look at the bytes of an atomic file, before its rows are read one by one."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from recbole_diffusion.config.settings import UserError

_BLOCK = 1 << 24  # bytes


def may_be_ragged(path: Path, separator: str, encoding: str, columns: int) -> bool:
    """Whether a non-empty line has another number of separators than the header. True if bytes cannot tell.

    Args:
        columns: number of columns in the header.

    Raises:
        UserError: the file has a NUL character.
    """
    try:
        if len(separator.encode()) > 1 or b"\t\n".decode(encoding) != "\t\n":
            return True
    except UnicodeError:
        return True
    byte, right = ord(separator), columns - 1
    count = size = 0  # separators and bytes of the unfinished line at the end of the last block
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            data = np.frombuffer(block, np.uint8)
            if not data.all():
                raise UserError(f"{path}: has a NUL character: it is damaged, or no text.")
            marks = np.flatnonzero((data == byte) | (data == ord("\n")) | (data == ord("\r")))
            ends = np.flatnonzero(data[marks] != byte)
            counts = np.diff(ends, prepend=-1, append=len(marks)) - 1
            sizes = np.diff(marks[ends], prepend=-1, append=len(data)) - 1
            counts[0] += count
            sizes[0] += size
            if np.any((counts != right) & (sizes > 0), where=np.arange(len(counts)) < len(ends)):
                return True
            count, size = counts[-1], sizes[-1]
    return size > 0 and count != right
