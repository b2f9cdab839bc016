"""The checkpoints of a run: their names, who may write them, and which one a command goes on from."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple

import torch
from filelock import FileLock, Timeout

from recbole_diffusion import processes
from recbole_diffusion.config.roles import differences, that_count
from recbole_diffusion.config.settings import UserError
from recbole_diffusion.storage import checkpoint
from recbole_diffusion.storage.files import file_name, make_folder, remove_partial_files, unique_name
from recbole_diffusion.storage.tensor_file import Pickled

AUTO = "auto"
_BEST, LAST = "-best.safetensors", "-last.safetensors"
_continued: ContextVar[Path | None] = ContextVar("continued", default=None)


class RunFiles(NamedTuple):
    """The checkpoints of a run: where they are, and how their names begin."""

    folder: Path
    name: str

    @classmethod
    def of(cls, config: Any) -> RunFiles:
        """The files of a new run, or inside :func:`continuing` those of the run that goes on."""
        last = _continued.get()
        if last is not None and last.name.endswith(LAST):
            return cls.of_last(last)
        parts = (file_name(config["model"]), config["dataset"], config["preset"])
        name = processes.from_first(lambda: unique_name(*parts, f"seed{config['seed']}"))
        return cls(Path(config["checkpoint_dir"]), name)

    @classmethod
    def of_last(cls, last: Path) -> RunFiles:
        """The files of the run that wrote ``last``.

        Raises:
            UserError: it does not have the name of such a file.
        """
        if not last.name.endswith(LAST):
            raise UserError(f"resume={str(last)!r}: training goes on from a file whose name ends in {LAST}.")
        return cls(last.parent, last.name.removesuffix(LAST))

    @classmethod
    def of_best(cls, best: Path) -> RunFiles:
        """The files of the run that wrote ``best``."""
        return cls(best.parent, best.name.removesuffix(_BEST))

    @property
    def best(self) -> Path:
        return self.folder / f"{self.name}{_BEST}"

    @property
    def last(self) -> Path:
        return self.folder / f"{self.name}{LAST}"

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """A context in which no other process trains this run. What a killed process left of its files is removed.

        Raises:
            UserError: another process trains it.
        """
        path = make_folder("checkpoint_dir", self.folder) / f".{self.name}.lock"
        lock = FileLock(path)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            raise UserError(f"{self.last}: another process is training this run.") from None
        try:
            remove_partial_files(self.folder, self.name)
            yield
            # Only a finished run has no use for the lock: whoever has opened it meanwhile finds nothing to train.
            path.unlink(missing_ok=True)
        finally:
            lock.release()

    def is_claimed(self) -> bool:
        """Whether a process trains it now."""
        path = self.folder / f".{self.name}.lock"
        if not path.exists():
            return False
        lock = FileLock(path)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return True
        lock.release()
        return False

    def remove_last(self) -> None:
        """Remove ``last``: nothing will go on from it."""
        self.last.unlink(missing_ok=True)
        (self.folder / f".{self.name}.lock").unlink(missing_ok=True)


class Found(NamedTuple):
    """The checkpoint to go on from, if there is one, and a text that says what was found."""

    last: Path | None
    text: str


def find(wanted: str, config: Any, data_sha256: str) -> Found:
    """Find the checkpoint that ``wanted`` means: its path, or ``auto``.

    ``auto`` is the newest ``last`` in ``checkpoint_dir`` of the same model, data, preset, seed and all other settings
    that can change a result, on the same device with the same number of threads, if no other process is training it.

    Raises:
        UserError: there is no file with this path.
    """
    if wanted != AUTO:
        try:
            checkpoint.load_data(wanted)
            RunFiles.of_last(Path(wanted))
        except Pickled:
            checkpoint.load_named("resume", wanted, config["trust_checkpoint"])
        except UserError as error:
            raise UserError(str(error) if str(error).startswith("resume") else f"resume: {error}") from error
        return Found(Path(wanted), f"going on from {wanted}")
    folder = Path(config["checkpoint_dir"])
    begin = "-".join([file_name(config["model"]), config["dataset"], config["preset"], f"seed{config['seed']}", ""])
    own = [path for path in folder.glob(f"*{LAST}") if path.name.startswith(begin)]
    here = checkpoint.plain(that_count(config.final_config_dict))
    skipped = ""
    for path in sorted(own, key=_changed, reverse=True):
        try:
            state = checkpoint.load_data(path)
        except UserError as error:
            skipped = f" ({error})"
            continue
        same = state.get("training", {}).get("where") == where(config, data_sha256)
        same = same and not differences(that_count(state["config"]), here)
        if same and not RunFiles.of_last(path).is_claimed():
            return Found(path, f"going on from {path}{skipped}")
    return Found(None, f"no checkpoint of this run in {folder}: it starts anew{skipped}")


def where(config: Any, data_sha256: str) -> dict[str, Any]:
    """What the bits of a result depend on, in addition to settings and versions."""
    several = {"processes": processes.count()} if processes.count() > 1 else {}
    device, threads = str(config["device"]), torch.get_num_threads()
    return {"data_sha256": data_sha256, "device": device, "threads": threads, **several}


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # another process has removed it
        return 0.0


@contextlib.contextmanager
def continuing(last: Path | None) -> Iterator[None]:
    """A context in which a trainer, when it is built, takes the name of the run that wrote ``last``."""
    token = _continued.set(last)
    try:
        yield
    finally:
        _continued.reset(token)
