"""Finished measurements in a file: one JSON object per line, kept as they come."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_rows(path: Path | None) -> list[dict[str, Any]]:
    """The rows of a file; none where there is no file yet."""
    if path is None or not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def append_rows(path: Path, *new: dict[str, Any]) -> None:
    """Add rows, all at once."""
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(json.dumps(row) + "\n" for row in new))
