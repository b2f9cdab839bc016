"""Checkpoints: plain data and tensors, written whole or not at all, bound to the settings and data of a run."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
import torch

from recbole_diffusion.config.roles import ABSENT, RECBOLE_SOURCES, described, differences, new_name, that_bind
from recbole_diffusion.config.settings import UserError
from recbole_diffusion.storage import tensor_file
from recbole_diffusion.storage.parts import check_model_parts

FORMAT = "recbole_diffusion 3"  # 2 and 1 were files of torch.save; 1 had neither users nor fields
RECBOLES = "is_recboles"  # a part of what is read from RecBole's own checkpoint
_KIND = "__kind__"
_SPARSE = ("csr", "csc", "coo", "lil", "dok")  # formats of matrices; others may take much more memory than the file
_MOST_COLUMNS = 100_000_000


def save(state: dict[str, Any], path: str | Path) -> None:
    """Write ``state`` (see :func:`plain` and :func:`pack`) with :func:`recbole_diffusion.storage.tensor_file.write`."""
    tensor_file.write(state, path, FORMAT)


def load(path: str | Path, trust: bool | None = None) -> dict[str, Any]:
    """Read a checkpoint without running any code in it. Its tensors are on the CPU.

    Args:
        path: the file.
        trust: also read RecBole's own checkpoints, which are pickles: **this runs the code in them**. They have neither
            ``items`` nor ``users``, so nobody can check that they are of the same data. With False, the error says how
            the user can allow it.

    Raises:
        UserError: there is no such file, it is damaged, or it is not a checkpoint of this package.
    """
    try:
        return tensor_file.read(path, FORMAT)
    except tensor_file.Pickled as error:
        if trust is None:
            raise
        if not trust:
            raise tensor_file.Pickled(
                f"{error} If you trust whoever made it, and RecBole did: --trust_checkpoint=True."
            ) from error
    return _load_pickle(Path(path))


def load_data(path: str | Path) -> dict[str, Any]:
    """The settings and numbers of a checkpoint, without its tensors. Only its header is read.

    Raises:
        UserError: as :func:`load`.
    """
    return tensor_file.read_data(path, FORMAT)


def _load_pickle(path: Path) -> dict[str, Any]:
    """RecBole's own checkpoint. Opening it runs the code in it."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:  # torch.save compresses nothing
            if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
                raise UserError(f"{str(path)!r} is not a checkpoint: unpacked it is larger than the file.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=False)
        settings = state["config"] if isinstance(state["config"], dict) else state["config"].final_config_dict
        dict(state["state_dict"])
    except Exception as error:
        reason = " ".join([type(error).__name__, *str(error).splitlines()[:1]])
        raise UserError(f"{str(path)!r} is not a checkpoint of RecBole, or is damaged ({reason}).") from error
    return {
        **state,
        RECBOLES: True,
        "config": plain({key: value for key, value in settings.items() if key != "device"}),
    }


@contextmanager
def read_by_recbole(trust: bool) -> Iterator[None]:
    """A context in which RecBole's models that start from a checkpoint read ours, which ``torch.load`` cannot.

    Args:
        trust: as for :func:`load`.
    """
    before = torch.load
    torch.load = lambda path, *_, **__: load(path, trust)
    try:
        yield
    finally:
        torch.load = before


class Vocabulary(NamedTuple):
    """The meaning of a model's ids: the tokens of items and users, and a hash of the tokens of each other field."""

    items: list[str]
    users: list[str]
    fields: dict[str, str]

    @classmethod
    def of(cls, dataset: Any) -> Vocabulary:
        """The vocabulary of a RecBole data set."""
        tokens = {str(field): [str(token) for token in of_field] for field, of_field in dataset.field2id_token.items()}
        items, users = (tokens.pop(field, []) for field in (dataset.iid_field, dataset.uid_field))
        return cls(items, users, {field: _hash(of_field) for field, of_field in sorted(tokens.items())})

    @classmethod
    def read(cls, state: Mapping[str, Any]) -> Vocabulary | None:
        """The vocabulary in a checkpoint; None in one of RecBole, which has none."""
        return None if RECBOLES in state else cls(*(state[name] for name in cls._fields))


def _hash(tokens: list[str]) -> str:
    return hashlib.sha256("\0".join(tokens).encode()).hexdigest()


def check(
    state: Mapping[str, Any], where: str, vocabulary: Vocabulary, config: Mapping[str, Any], resume: bool
) -> None:
    """Refuse a checkpoint that was made with other settings, or from other data, than the model that loads it.

    Args:
        state: from :func:`load`.
        where: name of the checkpoint in the error.
        vocabulary, config: those of the model that loads it.
        resume: to continue its training. Otherwise settings of training, generation and measuring may differ.

    Raises:
        UserError: settings, items or users differ; the error names the settings, or the first item or user.
    """
    written = {new_name(key) or key: value for key, value in state["config"].items()}
    recboles = RECBOLES in state
    there, here = (that_bind(settings, resume and not recboles) for settings in (written, plain(dict(config))))
    if recboles:  # it does not have the settings of this package
        there = {**here, **{key: value for key, value in there.items() if key in here}}
    if there.get("model") != here["model"]:
        raise UserError(f"{where}: is of {there.get('model')} and not of {here['model']}.")
    other = differences(there, here)
    if other:
        unknown = any(ABSENT in pair for pair in other.values())
        hint = "An earlier version made it: train again." if unknown else "Set each as its run had it."
        raise UserError(f"{where}: was made with {described(other)}. {hint}")
    check_vocabulary(Vocabulary.read(state), where, vocabulary)


def check_vocabulary(there: Vocabulary | None, where: str, here: Vocabulary) -> None:
    """Refuse a checkpoint whose ids mean other items, users or values than here. None cannot be checked.

    Raises:
        UserError: with the first item or user that differs, or with the counts.
    """
    if there is None:
        return
    for kind, known, wanted in (("item", there.items, here.items), ("user", there.users, here.users)):
        if len(known) != len(wanted):  # the first is padding
            raise UserError(f"{where}: was made from {len(known) - 1} {kind}s and not {len(wanted) - 1}.")
        for index, (token, other) in enumerate(zip(known, wanted, strict=True)):
            if token != other:
                raise UserError(
                    f"{where}: was made from other data: its {kind} {index} is {token!r} and not {other!r}."
                )
    for field in sorted(there.fields.keys() & here.fields.keys()):  # one side may have loaded more fields
        if there.fields[field] != here.fields[field]:
            raise UserError(f"{where}: was made from other data: the values of {field!r} differ.")


def restore(model: Any, state: Mapping[str, Any], device: torch.device | str, resume: bool = False) -> None:
    """Put the weights of a checkpoint into a model, and what it keeps outside its parameters.

    Args:
        resume: to go on with training. Otherwise what only training reads may differ, such as the timestep sampler: it
            keeps its own values.

    Raises:
        UserError, RuntimeError: they do not fit the model.
    """
    weights = state["state_dict"]
    if not resume:
        unread = getattr(model, "read_in_training", ())
        own = {name: value for name, value in model.state_dict().items() if name.startswith(unread)}
        weights = {name: value for name, value in weights.items() if not name.startswith(unread)} | own
    model.load_state_dict(weights)
    others = state["other_parameter"]
    if not set(others or {}) <= set(model.other_parameter()):
        raise UserError(f"the model keeps {sorted(model.other_parameter())}, and the file has {sorted(others)}.")
    model.load_other_parameter(unpack(others, device))


def check_sources(config: Any, vocabulary: Vocabulary) -> None:
    """Check the files that RecBole's models start from (``pre_model_path``, ...). The models do not check them.

    Raises:
        UserError: a file is not our checkpoint, or is about other items or users.
    """
    for key in RECBOLE_SOURCES:
        if config[key]:
            there = Vocabulary.read(load_named(key, config[key], config["trust_checkpoint"]))
            check_vocabulary(there, f"{key}={config[key]!r}", vocabulary)


def load_named(key: str, path: str | Path, trust: bool | None = None) -> dict[str, Any]:
    """:func:`load` the file that the setting ``key`` names.

    Raises:
        UserError: as :func:`load`, or it does not have the parts of a checkpoint; the error names the setting.
    """
    try:
        state = load(path, trust)
        if RECBOLES not in state:
            check_model_parts(state, repr(str(path)))
        return state
    except UserError as error:
        raise UserError(f"{key}: {error}") from error


def plain(value: Any) -> Any:
    """``value`` as data that :func:`load` can read: tensors, numbers, text, lists, dictionaries; the rest as text."""
    if isinstance(value, torch.Tensor) or value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else str(value)


def pack(value: Any) -> Any:
    """What a model keeps outside its parameters, as plain data; :func:`unpack` restores it.

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


def unpack(value: Any, device: torch.device | str = "cpu") -> Any:
    """The inverse of :func:`pack`; tensors go to ``device``."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if not isinstance(value, dict):
        return value
    kind = value.get(_KIND)
    if kind == "array":
        return value["values"].numpy()
    if kind == "sparse":
        parts = tuple(value[name].numpy() for name in ("data", "indices", "indptr"))
        rows, columns = value["shape"]
        if value["format"] not in _SPARSE or columns > _MOST_COLUMNS:
            raise UserError(f"a sparse matrix of {columns:,} columns as {value['format']!r} is not read.")
        matrix = scipy.sparse.csr_matrix(parts, shape=(rows, columns))
        matrix.check_format(full_check=True)  # scipy does not look at indices, and its C code would follow wrong ones
        return matrix.asformat(value["format"])
    if kind in ("list", "tuple"):
        return {"list": list, "tuple": tuple}[kind](unpack(item, device) for item in value["values"])
    return {key: unpack(item, device) for key, item in value.items()}
