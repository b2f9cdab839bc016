"""The curves of a run for TensorBoard."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from logging import getLogger
from pathlib import Path
from typing import Any

from recbole.trainer import trainer as recbole_trainer
from torch.utils.tensorboard import SummaryWriter

from recbole_diffusion import compat
from recbole_diffusion.config.launch import is_first

compat.apply()

CURVES = "log_tensorboard"


class Curves:
    """What RecBole's trainers call of torch's ``SummaryWriter``. The folder is made when the first value is written.

    Where the folder cannot be written, as on a full disk, the curves end with a warning, and the run goes on.
    Of several processes of a training, only the first writes.
    """

    def __init__(self, name: str) -> None:
        self.log_dir = str(Path(CURVES, name.replace(".", "_")))
        self._writer: SummaryWriter | None = None
        self._broken = not is_first()

    def add_scalar(self, tag: str, value: Any, step: int) -> None:
        self._write("add_scalar", tag, value, step)

    def add_hparams(self, settings: dict[str, Any], metrics: dict[str, Any]) -> None:
        self._write("add_hparams", settings, metrics)

    def _write(self, method: str, *arguments: Any) -> None:
        if self._broken:
            return
        try:
            if self._writer is None:
                self._writer = SummaryWriter(self.log_dir)
            getattr(self._writer, method)(*arguments)
            self._writer.flush()  # a thread writes the file: only now does its error come here
        except OSError as error:
            self._end(error)

    def close(self) -> None:
        """Close the file and end its thread."""
        writer, self._writer = self._writer, None
        try:
            if writer is not None and not self._broken:
                writer.close()
        except OSError as error:
            self._end(error)

    def _end(self, error: OSError) -> None:
        self._broken = True
        getLogger().warning(f"{self.log_dir}: the curves end here ({error.strerror or error}); the run goes on.")


@contextmanager
def writes_nothing_yet(name: str) -> Iterator[None]:
    """A context in which RecBole's trainers, when they are built, make no folder.

    Their curves are :class:`Curves` called ``name``. RecBole names them after the first log handler that has a file.
    """
    curves, folder = recbole_trainer.get_tensorboard, recbole_trainer.ensure_dir
    recbole_trainer.get_tensorboard = lambda logger: Curves(name)
    recbole_trainer.ensure_dir = lambda path: None
    try:
        yield
    finally:
        recbole_trainer.get_tensorboard, recbole_trainer.ensure_dir = curves, folder
