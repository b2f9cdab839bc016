"""A training that is killed in the middle of an epoch, for tests that it goes on to the same numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recbole_diffusion.console.progress import Progress


class Killed(BaseException):
    """Ends training like a kill: nothing of ours catches it."""


class KillAt(Progress):
    """Kills training within a step. Epochs are counted from 0, batches from 1."""

    def __init__(self, epoch: int, batch: int) -> None:
        self._epoch, self._batch = epoch, batch

    def batch(self, epoch: int, done: int, batches: int) -> None:
        if epoch == self._epoch and done == min(self._batch, batches):
            raise Killed


def without_seconds(result: Any) -> Any:
    """A result without what no two runs have in common: seconds, and the names of files."""
    if isinstance(result, Mapping):
        apart = ("checkpoint", "peak_memory_gb")
        return {
            key: without_seconds(value)
            for key, value in result.items()
            if not str(key).endswith("seconds") and key not in apart
        }
    return [without_seconds(item) for item in result] if isinstance(result, list | tuple) else result
