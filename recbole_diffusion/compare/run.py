"""One run of a comparison: what to train and test, and where its files go."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from recbole_diffusion.storage.files import file_name

# The format of a result file. It goes up by one when the same settings give other numbers. The first had no number.
RECORD_FORMAT = 2
# What a finished run must share with the wanted one, in addition to the settings.
SHARED = ("eval_seeds", "curve_steps", "data_sha256", "device", "threads")
POP_VALUES = "pop_"  # prefix of a metric: Pop's values of the users


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """What to train and test, and where its files go.

    - ``settings``: the user's. ``resolved``: every setting that can change a result, as plain data.
    - ``eval_seeds``: generation seeds to test with; empty for a model that generates without noise.
    - ``curve_steps``: numbers of generation steps to validate with, after training.
    - ``tuning``: a text that says what the search for the settings cost.
    - ``device``, ``threads``: those of the process that plans.
    - ``folder``: an absolute path.
    """

    dataset: str
    model: str
    preset: str
    seed: int
    eval_seeds: list[int]
    curve_steps: list[int]
    settings: dict[str, Any]
    resolved: dict[str, Any]
    tuning: str
    data_sha256: str
    device: str
    threads: int
    folder: str

    @property
    def label(self) -> str:
        return label(self.model, self.preset)

    @property
    def name(self) -> str:
        """A name that is unique in the comparison, for file names."""
        return "-".join((self.dataset, file_name(self.model), self.preset, f"seed{self.seed}"))

    def file(self, suffix: str) -> Path:
        """The run's ``.json`` (its result), ``.npz`` (the users' values) or ``.log``."""
        return Path(self.folder) / f"seed{self.seed}{suffix}"

    @property
    def is_finished(self) -> bool:
        return self.file(".json").is_file() and self.file(".npz").is_file()


def label(model: str, preset: str) -> str:
    """``MODEL``, or ``MODEL:PRESET`` if the preset is not the default."""
    return model if preset == "default" else f"{model}:{preset}"
