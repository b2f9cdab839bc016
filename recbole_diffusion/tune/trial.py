"""One trial: train and validate one setting."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from optuna.study import Study
from optuna.trial import Trial

from recbole_diffusion.config.roles import PATHS
from recbole_diffusion.config.settings import UserError
from recbole_diffusion.config.strict import Config
from recbole_diffusion.quick_start import Prepared, Request, prepare, train
from recbole_diffusion.storage.run_files import AUTO
from recbole_diffusion.tune.log import trial_log

POP = "pop"  # attribute of the study: Pop's value


def train_trial(
    trial: Trial, wanted: Request, study: Study, folder: Path, metric: str, check: Callable[[str], None] | None
) -> float:
    """Train the setting of a trial. Returns its best validation score.

    It goes on from the checkpoint of an interrupted trial of the same setting. ``seconds`` are those since then: the
    interrupted trial has its own.

    Args:
        trial: receives the score of each validation, and the attributes ``checkpoint``, ``seconds`` (of training and
            validation), ``epochs`` and ``best_epoch``.
        wanted: the model, the data set, and the settings that are the same for every trial.
        study: receives Pop's value.
        folder: working folder of the trial, with ``log/`` and ``saved/``.
        metric: the metric of the score, as the settings name it.
        check: called after each validation except the last, with a text about it. If it raises, the trial stops.

    Raises:
        UserError: the model's training does not validate.
    """
    config = wanted.config(**trial.params, checkpoint_dir=str(folder / "saved"))
    _absolute_paths(config)
    with contextlib.chdir(folder), trial_log(folder / "log" / f"{trial.number + 1:04}.log"):
        logging.getLogger().info(config)
        prepared = prepare(wanted.resolved, config, AUTO)
        logging.getLogger().info(f"resume: {prepared.trainer.resumed}")
        trial.set_user_attr("checkpoint", Path(prepared.trainer.saved_model_file).name)
        for entry in prepared.trainer.history:  # of the interrupted trial; pruning compares them
            trial.report(entry["valid"][metric.lower()], entry["epoch"])
        start = time.perf_counter()

        def spend() -> None:
            trial.set_user_attr("seconds", round(time.perf_counter() - start, 3))

        def after_validation(epoch: int, score: float) -> None:
            spend()
            trial.set_user_attr("epochs", epoch + 1)
            trial.report(score, epoch)
            if check is not None and epoch + 1 < config["epochs"]:  # after the last there is nothing left to save
                check(f"after {epoch + 1} epochs at {metric} {score:.4f}")

        try:
            result = train(prepared, after_validation)
        finally:
            spend()
        _note_pop(study, prepared, metric)
    if metric.lower() not in result["valid"]:
        raise UserError(f"model={wanted.model}: its training does not validate, so it cannot be tuned.")
    trial.set_user_attr("epochs", result["epochs"])
    trial.set_user_attr("best_epoch", result["best_epoch"] + 1)
    return float(result["valid"][metric.lower()])


def _note_pop(study: Study, prepared: Prepared, metric: str) -> None:
    """Note Pop's value on the validation split, once per study, because it is the same for every setting."""
    reference = prepared.trainer.reference
    if reference is not None and POP not in study.user_attrs:
        study.set_user_attr(POP, reference.valid.metrics[metric.lower()])


def _absolute_paths(config: Config) -> None:
    """Make settings that are paths absolute, because a trial works in another folder."""
    for key in PATHS:
        if isinstance(config.final_config_dict.get(key), str):
            config[key] = os.path.abspath(config[key])
