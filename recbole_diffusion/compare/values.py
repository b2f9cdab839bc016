"""The users' values in the files of finished runs."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from recbole_diffusion.compare.run import Run
from recbole_diffusion.config.settings import UserError


def by_label(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """The runs of each model."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(run.label, []).append(run)
    return found


def user_means(runs: Sequence[Run], metric: str) -> pd.Series:
    """The metric of each user, indexed by token: the mean over training seeds, generation seeds and the user's rows."""
    seeds = []
    for run in runs:
        path = run.file(".npz")
        try:
            with np.load(path, allow_pickle=False) as file:
                seeds.append(pd.Series(file[metric].mean(axis=0), index=file["users"]))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            other = path.with_suffix(".json").name
            raise UserError(
                f"{path}: is damaged ({error}). Remove it and {other}: the same command makes this run again."
            ) from error
    return pd.concat(seeds).groupby(level=0).mean()
