"""Checkpoints of plain data and tensors, written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import torch

from recbole_diffusion.settings import UserError

FORMAT = 1


def save(state: dict[str, Any], path: str | Path) -> None:
    """Write ``state`` (see :func:`plain`) to a file beside ``path``, flush it to disk, and rename it into place."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            torch.save({"format": FORMAT, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def load(path: str | Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint without running any code in it.

    Raises:
        UserError: there is no such file, or it is not a checkpoint of this package.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no checkpoint {str(path)!r}.")
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # whatever a damaged or foreign file raises
        raise UserError(f"{str(path)!r} is not a checkpoint that can be read safely: {error}") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise UserError(f"{str(path)!r} is not a checkpoint of this version (format {FORMAT}).")
    return state


def plain(value: Any) -> Any:
    """``value`` as what :func:`load` can read back: tensors, numbers, text, lists, dictionaries; the rest as text."""
    if isinstance(value, torch.Tensor) or value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # a NumPy number
        return value.item()
    return str(value)
