"""A file of tensors and plain data in the format of safetensors. There is no code in it, so reading it runs none.

The plain data is JSON in the header of the file, with the key ``data``. A tensor in it stands there as its name. The
header also has a SHA-256 of all content: a file with one changed bit is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors import safe_open
from torch import Tensor

from recbole_diffusion.config.settings import UserError
from recbole_diffusion.storage.files import whole_file

_TENSOR, _TEXTS, _PAIRS = "__tensor__", "__texts__", "__pairs__"
_MANY = 1000  # texts; more are stored as a tensor, because the size of a header is limited
_DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
_PICKLES = (b"PK\x03\x04", b"\x80")  # how files of torch.save and of pickle begin


class Pickled(UserError):
    """The file is a pickle. Opening it would run the code in it."""


def write(value: Mapping[str, Any], path: str | Path, form: str) -> None:
    """Write a mapping of numbers, texts, None, lists, mappings and tensors with :func:`whole_file`.

    Args:
        value: the content. Keys of inner mappings may also be numbers; a tuple is read back as a list.
        path: the file.
        form: name and number of the format, which :func:`read` expects.

    Raises:
        TypeError: a value of another kind.
    """
    tensors: dict[str, Tensor] = {}
    data = json.dumps(_encoded(value, "", tensors))
    # As in safetensors' own files: the widest numbers first, so that each tensor begins at a multiple of its width.
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, Any] = {"__metadata__": {"format": form, "data": data, "sha256": _digest(form, data, tensors)}}
    end = 0
    for name in order:
        tensor, start = tensors[name], end
        end += tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with whole_file(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            file.write(_bytes_of(tensors[name]))


def read(path: str | Path, form: str) -> dict[str, Any]:
    """What :func:`write` wrote. Its tensors are on the CPU.

    Raises:
        UserError: there is no such file, or it is damaged, of another format or too large for the memory.
    """
    return _read(Path(path), form, whole=True)


def read_data(path: str | Path, form: str) -> dict[str, Any]:
    """The same without tensors and long lists of texts, which are None. Only the header is read, and not checked.

    Raises:
        UserError: as :func:`read`.
    """
    return _read(Path(path), form, whole=False)


def _read(path: Path, form: str, whole: bool) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"there is no checkpoint {str(path)!r}{', only a folder' if path.is_dir() else ''}.")
    where, size = f"{str(path)!r} is not a checkpoint", path.stat().st_size
    if size == 0:
        raise UserError(f"{where}: the file is empty.")
    try:
        if whole and size > (free := psutil.virtual_memory().available):
            raise UserError(f"{str(path)!r}: needs {size / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free.")
        # The library refuses a header whose shapes, types and places do not add up to the size of the file.
        with safe_open(path, framework="pt", device="cpu") as file:
            header = file.metadata() or {}
            if header.get("format") != form:
                found = header.get("format")
                which = "" if found is None else f" (its format is {found!r})"
                raise UserError(f"{where} of this version, whose format is {form!r}{which}.")
            data, tensors = header["data"], {}
            if whole:
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (no mapping)
                if header["sha256"] != _digest(form, data, tensors):
                    raise UserError(f"{str(path)!r} is damaged: its content does not have the checksum in it.")
        return dict(_decoded(json.loads(data), tensors if whole else None))
    except UserError:
        raise
    except (Exception, RecursionError) as error:  # a damaged or foreign file can raise anything
        if _first_bytes(path).startswith(_PICKLES):  # only now: a good file may begin with these bytes too
            raise Pickled(
                f"{where} of this version: it is a pickle, of RecBole or of an earlier version. Opening it would run "
                "the code in it."
            ) from error
        reason = " ".join([type(error).__name__, *str(error).splitlines()[:1]])
        raise UserError(f"{where} of this package, or is damaged ({reason}).") from error


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(4)


def _digest(form: str, data: str, tensors: Mapping[str, Tensor]) -> str:
    found = hashlib.sha256(json.dumps([form, data]).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        found.update(json.dumps([name, _DTYPES[tensor.dtype], list(tensor.shape)]).encode())
        found.update(_bytes_of(tensor))
    return found.hexdigest()


def _bytes_of(tensor: Tensor) -> memoryview:
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def _encoded(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """``value`` as JSON data; its tensors are added to ``tensors``, with names that begin with ``name``."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Tensor):
        return {_TENSOR: _added(value, name, tensors)}
    if isinstance(value, dict):
        inner = [(key, _encoded(item, f"{name}.{key}".lstrip("."), tensors)) for key, item in value.items()]
        if all(isinstance(key, str) and key not in (_TENSOR, _TEXTS, _PAIRS) for key in value):
            return dict(inner)
        return {_PAIRS: [[_encoded(key, "", {}), item] for key, item in inner]}
    if isinstance(value, list | tuple):
        if len(value) > _MANY and all(type(item) is str for item in value):
            texts = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
            return {_TEXTS: _added(texts, name, tensors)}
        return [_encoded(item, f"{name}.{place}", tensors) for place, item in enumerate(value)]
    raise TypeError(f"{name}: a checkpoint cannot hold a {type(value).__name__}")


def _added(tensor: Tensor, name: str, tensors: dict[str, Tensor]) -> str:
    if tensor.dtype not in _DTYPES or tensor.layout != torch.strided:
        raise TypeError(f"{name}: a checkpoint cannot hold a tensor of {tensor.dtype}, {tensor.layout}")
    while name in tensors:
        name += "'"
    tensors[name] = tensor.detach().cpu().contiguous()
    return name


def _decoded(value: Any, tensors: Mapping[str, Tensor] | None) -> Any:
    """The inverse of :func:`_encoded`; without ``tensors`` they are None."""
    if isinstance(value, list):
        return [_decoded(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if _TENSOR in value:
        return None if tensors is None else tensors[value[_TENSOR]]
    if _TEXTS in value:
        return None if tensors is None else json.loads(bytes(_bytes_of(tensors[value[_TEXTS]])))
    if _PAIRS in value:
        return {key: _decoded(item, tensors) for key, item in value[_PAIRS]}
    return {key: _decoded(item, tensors) for key, item in value.items()}
