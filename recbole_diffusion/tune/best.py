"""Where ``tune`` writes its result, and how a comparison reads it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from recbole_diffusion.config.reading import load_settings
from recbole_diffusion.config.settings import Settings, UserError
from recbole_diffusion.storage.files import file_name

_NAMES = ("model", "dataset", "preset")
# States in trials.csv of trials that the budget does not count.
WAITING, INTERRUPTED = "waiting", "interrupted"


class Best(NamedTuple):
    """The setting that validated best, and the cost of its search: ``12 trials, 1800 s``; empty without a search."""

    settings: Settings
    cost: str


def study_title(model: str, dataset: str, preset: str) -> str:
    """The default folder of a study: ``DreamRec-ml-100k``, ``DreamRec-ml-100k-paper``."""
    return "-".join([file_name(model), dataset, *([preset] if preset != "default" else [])])


def read_best(folder: Path, model: str, dataset: str, preset: str) -> Best:
    """The best setting in ``folder/MODEL-DATASET`` (``-PRESET``), without the names of model, data set and preset.

    Raises:
        UserError: there is none, or it belongs to another model, data set or preset.
    """
    study = folder / study_title(model, dataset, preset)
    file, table = study / "best.yaml", study / "trials.csv"
    for needed in (file, table):
        if not needed.is_file():
            command = f"tune --model={model} --dataset={dataset} --preset={preset} --out={study}"
            raise UserError(f"tuned={str(folder)!r}: there is no {needed}. It is made by {command}.")
    settings = load_settings([file])
    named = tuple(settings.pop(name, None) for name in _NAMES)
    if named != (model, dataset, preset):
        raise UserError(f"tuned={str(folder)!r}: {file} is of {', '.join(map(str, named))}.")
    for seed in ("seed", "eval_seed"):
        settings.pop(seed, None)  # these belong to the search; a comparison has its own
    trials = pd.read_csv(table)
    count = int((~trials["state"].isin([WAITING, INTERRUPTED])).sum())
    return Best(settings, f"{count} trials, {trials['seconds'].sum():.0f} s")
