"""One run of a comparison: what to train and test, where its files go, and what marks its result."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from recbole_diffusion.files import file_name

# Of the file of a finished run; one more whenever the same settings come to other numbers. The first had none.
RECORD_FORMAT = 2
# What a finished run must have in common with one that is wanted, beside the settings.
SHARED = ("eval_seeds", "curve_steps", "data_sha256", "device", "threads")
POP_VALUES = "pop_"  # before a metric: Pop's values of the users, beside the model's


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """What to train and test, and where its files go.

    ``settings`` are the user's, ``resolved`` every setting that can change a result, as plain data; ``eval_seeds`` are
    the generation seeds to test with, none for a model that draws no noise to generate; ``curve_steps`` the numbers of
    steps of generation to validate in, once it is trained; ``tuning`` is what the search for the settings cost, to be
    shown; ``device`` and ``threads`` are those of the process that plans, ``folder`` is an absolute path.
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
        """Of the run in its comparison, as part of a file's name."""
        return "-".join((self.dataset, file_name(self.model), self.preset, f"seed{self.seed}"))

    def file(self, suffix: str) -> Path:
        """The run's ``.json`` (its result), ``.npz`` (the users' values) or ``.log``."""
        return Path(self.folder) / f"seed{self.seed}{suffix}"

    @property
    def is_finished(self) -> bool:
        return self.file(".json").is_file() and self.file(".npz").is_file()


def label(model: str, preset: str) -> str:
    """A model as the user names it: with its preset, unless that is the default."""
    return model if preset == "default" else f"{model}:{preset}"
