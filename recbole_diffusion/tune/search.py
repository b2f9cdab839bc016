"""Search with Optuna for the settings that validate best. The test split is never read."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna

from recbole_diffusion.config.reading import load_settings
from recbole_diffusion.config.settings import UserError
from recbole_diffusion.data.loaders import fetch_files
from recbole_diffusion.quick_start import request
from recbole_diffusion.tune.best import study_title
from recbole_diffusion.tune.log import study_log
from recbole_diffusion.tune.loop import Budget, Search
from recbole_diffusion.tune.space import check_space, read_space, space_file
from recbole_diffusion.tune.study import (
    SampleByNumber,
    check_data,
    claim,
    identity_of,
    open_storage,
    reading,
)

STARTUP_TRIALS = 5  # finished trials before the first one is pruned
WARMUP_VALIDATIONS = 5  # validations before a trial can be pruned


def tune(
    model: str | None = None,
    dataset: str | None = None,
    config_files: Sequence[str | Path] = (),
    settings: Mapping[str, Any] | None = None,
    preset: str | None = None,
    space: str | Path | None = None,
    trials: int | None = None,
    seconds: float | None = None,
    out: str | Path | None = None,
    storage: str | None = None,
) -> dict[str, Any]:
    """Train a model with one setting after the other, and keep the one that validates best.

    The first trial is the model's default setting, so the result never validates worse than the default. The value of a
    trial is the ``valid_metric`` of its best epoch. A trial is pruned if this stays below the median of the finished
    trials.

    Args:
        model, dataset, config_files, settings, preset: as in :func:`recbole_diffusion.quick_start.run`. These settings
            are the same for every trial.
        space: YAML file of the settings to search (:mod:`recbole_diffusion.tune.space`). Default: the shipped file of
            the model, without the settings that the user fixes.
        trials: the study ends after this number of trials, including those of earlier calls and other processes.
        seconds: the study ends after this number of seconds of training and validation. A trial that is running then
            is stopped at its next validation, unless it is the default setting.
        out: folder of results, logs and checkpoints; default ``tune/MODEL-DATASET``. The same folder resumes a study.
        storage: Optuna's storage: a database URL, or the path of a journal file, which may be on a shared disk. Default
            ``OUT/study.journal``. Several processes can work on one study.

    Returns:
        ``model``, ``dataset``, ``preset``, ``study`` (name in the storage), ``metric``, ``value`` (of the best trial),
        ``pop`` (Pop's value; None for Pop itself), ``trial`` (number of the best, from 1), ``settings`` (the searched
        ones of the best), ``trials`` (number of finished ones), ``seconds`` (of training and validation) and ``file``
        (``OUT/best.yaml``, for ``run --config_files``).

    Raises:
        UserError: there is no budget, settings or space do not fit, the folder holds another study, or no trial
            finished.
        KeyboardInterrupt: the running trial goes back to the study. Finished trials are kept.
    """
    budget = _budget(trials, seconds)
    wanted = request(model, dataset, load_settings(config_files, settings), preset)
    if "checkpoint_dir" in wanted.user:
        raise UserError("checkpoint_dir: tune keeps its checkpoints in the folder that --out names.")
    path = Path(space) if space is not None else space_file(wanted)
    searched = read_space(path)
    if space is None:
        searched = {key: entry for key, entry in searched.items() if key not in wanted.user}
        if not searched:
            raise UserError(f"every setting of {path} is fixed: there is nothing to search.")
    default = check_space(searched, path, wanted)
    title = study_title(wanted.model, wanted.dataset, wanted.preset)
    folder = Path(out) if out is not None else Path("tune", title)
    folder = folder.absolute()
    if folder.exists() and not folder.is_dir():
        raise UserError(f"out={str(folder)!r}: is no folder.")
    identity = identity_of(wanted, searched)
    name = f"{title}-{hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:10]}"
    config = wanted.config()
    opened = None if storage is None else open_storage(storage, folder)  # before anything is written
    fetch_files(config)
    claim(folder, name, identity)
    with study_log(folder) as log:
        with reading(storage, folder):
            study = optuna.create_study(
                storage=opened or open_storage(storage, folder),
                study_name=name,
                direction="maximize" if config["valid_metric_bigger"] else "minimize",
                sampler=SampleByNumber(config["seed"]),
                pruner=optuna.pruners.MedianPruner(STARTUP_TRIALS, WARMUP_VALIDATIONS * config["eval_step"]),
                load_if_exists=True,
            )
        check_data(study, config)
        return Search(wanted, searched, default, study, budget, folder, config["valid_metric"], log).run()


def _budget(trials: int | None, seconds: float | None) -> Budget:
    if trials is None and seconds is None:
        raise UserError("tune needs a budget: --trials=N, --seconds=S (of training and validation), or both.")
    if trials is not None and trials < 1:
        raise UserError(f"trials={trials}: must be a whole number >= 1.")
    if seconds is not None and not 0 < seconds < math.inf:
        raise UserError(f"seconds={seconds:g}: must be a finite number > 0.")
    return Budget(trials, seconds)
