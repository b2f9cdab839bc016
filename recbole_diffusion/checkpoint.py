"""Checkpoints of plain data and tensors, written whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import scipy.sparse
import torch

from recbole_diffusion.settings import UserError

FORMAT = 1
_KIND = "__kind__"


def save(state: dict[str, Any], path: str | Path) -> None:
    """Write ``state`` (see :func:`plain`) as a whole file (:func:`whole_file`)."""
    with whole_file(path) as file:
        torch.save({"format": FORMAT, **state}, file)


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
        reason = str(error).splitlines()[0]
        raise UserError(f"{str(path)!r} is not a checkpoint that can be read safely: {reason}") from error
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
    return value.item() if isinstance(value, np.generic) else str(value)


def pack(value: Any) -> Any:
    """What a model keeps outside its parameters, as plain data that :func:`unpack` gives back as it was.

    Raises:
        TypeError: a kind of value that cannot be written as plain data.
    """
    if isinstance(value, torch.Tensor) or value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return {_KIND: "array", "values": torch.from_numpy(np.ascontiguousarray(value))}
    if scipy.sparse.issparse(value):
        csr = value.tocsr()
        parts = {name: torch.from_numpy(getattr(csr, name)) for name in ("data", "indices", "indptr")}
        return {_KIND: "sparse", "format": value.format, "shape": list(value.shape), **parts}
    if isinstance(value, dict):
        return {key: pack(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return {_KIND: type(value).__name__, "values": [pack(item) for item in value]}
    raise TypeError(f"a checkpoint cannot hold a {type(value).__name__}")


def unpack(value: Any) -> Any:
    """The inverse of :func:`pack`."""
    if not isinstance(value, dict):
        return value
    kind = value.get(_KIND)
    if kind == "array":
        return value["values"].cpu().numpy()
    if kind == "sparse":
        parts = tuple(value[name].cpu().numpy() for name in ("data", "indices", "indptr"))
        return scipy.sparse.csr_matrix(parts, shape=tuple(value["shape"])).asformat(value["format"])
    if kind in ("list", "tuple"):
        return {"list": list, "tuple": tuple}[kind](unpack(item) for item in value["values"])
    return {key: unpack(item) for key, item in value.items()}
