"""An Optuna study in ``tune``: its identity, its storage, and the facts of its trials."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import DBAPIError

from recbole_diffusion.config.roles import NO_RESULT, differences, that_count
from recbole_diffusion.config.settings import Settings, UserError
from recbole_diffusion.config.strict import Config
from recbole_diffusion.data.fingerprint import dataset_hash
from recbole_diffusion.data.loaders import fetch_files
from recbole_diffusion.quick_start import Request
from recbole_diffusion.storage import checkpoint
from recbole_diffusion.storage.files import make_folder, write_text
from recbole_diffusion.tune.best import INTERRUPTED, WAITING
from recbole_diffusion.tune.space import Choice, Range, Space

# --------------------------------------------------------------------------------------------------------------
# Which study


def identity_of(wanted: Request, space: Space) -> dict[str, Any]:
    """What all trials of a study share. Settings with other values make another study."""
    config = wanted.config()
    skipped = {*config.parameters["General"], *NO_RESULT, *space} - {"seed", "reproducibility"}
    settings = {key: value for key, value in config.final_config_dict.items() if key not in skipped}
    return {
        "model": wanted.model,
        "dataset": wanted.dataset,
        "preset": wanted.preset,
        "settings": checkpoint.plain(settings),
        "space": {key: checkpoint.plain(dataclasses.asdict(entry)) for key, entry in space.items()},
    }


def claim(folder: Path, name: str, identity: dict[str, Any]) -> None:
    """Make ``folder`` the folder of this study.

    Raises:
        UserError: it holds another study.
    """
    file = folder / "study.json"
    if file.is_file():
        there = json.loads(file.read_text(encoding="utf-8"))
        if there["study"] != name:
            raise UserError(
                f"{folder} holds another study: {_differences(there, identity)}. Set the same, or give another --out."
            )
        return
    make_folder("out", folder)
    write_text(file, json.dumps({"study": name, **identity}, indent=1) + "\n")


def check_data(study: Study, config: Config) -> None:
    """Note the hash of the data in a new study; check it in an old one.

    Raises:
        UserError: the study has learned from other data, or there are no data.
    """
    fetch_files(config)
    found = dataset_hash(config)
    noted = study.user_attrs.get("data_sha256")
    if noted is None:
        study.set_user_attr("data_sha256", found)
    elif noted != found:
        raise UserError(
            f"data_path: {config['data_path']} holds other data than study {study.study_name} has learned from. Give "
            f"another --out or --storage."
        )


def _differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    def flat(identity: Mapping[str, Any]) -> dict[str, Any]:
        names = {key: identity[key] for key in ("model", "dataset", "preset")}
        return that_count({**names, **identity["space"], **identity["settings"]})

    found = differences(flat(there), flat(here))
    # An earlier version made the name from other parts.
    reasons = [f"{key} is {then!r} there and {now!r} here" for key, (then, now) in found.items()]
    return "; ".join(reasons) or "it was made by an earlier version"


def open_storage(storage: str | None, folder: Path) -> BaseStorage:
    """Open a database by its URL, a journal file by its path, or ``folder/study.journal``.

    Raises:
        UserError: it cannot be opened. The message shows neither user nor password.
    """
    try:
        if storage is not None and "://" in storage:
            try:
                return _database(storage)
            except DBAPIError:  # another process made the tables at the same moment
                time.sleep(1)
                return _database(storage)
        # Absolute, because a trial works in another folder.
        path = Path(storage).absolute() if storage is not None else folder / "study.journal"
        path.parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(JournalFileBackend(str(path), JournalFileOpenLock(str(path))))
    except Exception as error:  # SQLAlchemy and the drivers can raise anything
        shown = str(storage).rpartition("@")[2]  # without user and password
        reason = str(error).splitlines()[0]
        raise UserError(f"storage={shown!r}: cannot be opened ({reason}).") from error


def _database(url: str) -> RDBStorage:
    # A server may close a connection that is idle during an epoch.
    return RDBStorage(url, engine_kwargs={"pool_pre_ping": True})


class SampleByNumber(BaseSampler):
    """Optuna's TPE, seeded anew for each trial by ``seed`` and the number of earlier trials that were not given back.

    A sampler that is seeded once would repeat its draws when a study is resumed, and in every process that shares it.
    A trial that is interrupted and run again has a second number; the later trials draw as if it had not.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._tpe = TPESampler(seed=seed)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        earlier = study.get_trials(deepcopy=False)[: trial.number]
        place = sum(not given_back(other) for other in earlier)
        seed = np.random.SeedSequence([self._seed, place]).generate_state(1)[0]
        self._tpe = TPESampler(seed=int(seed))
        self._tpe.before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._tpe.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._tpe.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._tpe.sample_independent(study, trial, param_name, param_distribution)


def distribution(entry: Choice | Range) -> BaseDistribution:
    """An entry of a search space as Optuna's distribution."""
    if isinstance(entry, Choice):
        return CategoricalDistribution(entry.values)
    if entry.whole:
        return IntDistribution(int(entry.low), int(entry.high), log=entry.log, step=int(entry.step or 1))
    return FloatDistribution(entry.low, entry.high, log=entry.log, step=entry.step)


# --------------------------------------------------------------------------------------------------------------
# The trials of a study. In addition to Optuna's states: a failed trial has a "reason". Without a reason it was
# interrupted: it does not count, and its settings are run again.


def given_back(trial: FrozenTrial) -> bool:
    """Whether a trial was interrupted and given back."""
    return trial.state == TrialState.FAIL and "reason" not in trial.user_attrs


def settings_of(trial: FrozenTrial) -> Settings:
    """The searched settings of a trial, also of a waiting one."""
    return trial.params or trial.system_attrs.get("fixed_params", {})


def seconds_of(trials: Sequence[FrozenTrial]) -> float:
    """Seconds of training and validation of all ``trials``."""
    seconds: float = sum(trial.user_attrs.get("seconds", 0.0) for trial in trials)
    return seconds


def cost_of(trials: Sequence[FrozenTrial]) -> str:
    """``30 trials and 1234 s``. The seconds include trials that do not count."""
    count = sum(trial.state != TrialState.WAITING and not given_back(trial) for trial in trials)
    return f"{count} trial{'s' if count != 1 else ''} and {seconds_of(trials):.0f} s"


def state_of(trial: FrozenTrial) -> str:
    """The outcome of a trial in one word."""
    names = {TrialState.FAIL: "failed", TrialState.WAITING: WAITING, TrialState.COMPLETE: "complete"}
    return INTERRUPTED if given_back(trial) else names.get(trial.state, trial.state.name.lower())


def this_process() -> list[Any]:
    """Machine, process id and start time of this process, by which others can tell whether it still runs."""
    machine = socket.gethostname()
    with contextlib.suppress(OSError):
        machine += " " + os.readlink("/proc/self/ns/pid")  # containers with the same name have separate process ids
    return [machine, os.getpid(), psutil.Process().create_time()]


def is_gone(owner: list[Any] | None) -> bool:
    """Whether the process that ran a trial has ended. Only known on its own machine; False elsewhere."""
    here = this_process()
    if owner is None or owner[0] != here[0]:
        return False
    try:
        return owner == here or psutil.Process(owner[1]).create_time() != owner[2]
    except psutil.NoSuchProcess:
        return True
