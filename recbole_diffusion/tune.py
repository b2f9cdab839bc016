"""Search for the settings that validate best, on Optuna. The test split is never read."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna
import torch
from filelock import FileLock
from optuna.exceptions import StorageInternalError
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState
from recbole.utils.logger import RemoveColorFilter

from recbole_diffusion.config import PATHS, Config
from recbole_diffusion.progress import duration
from recbole_diffusion.quick_start import Prepared, Request, prepare, request, train
from recbole_diffusion.settings import Settings, UserError, load_settings
from recbole_diffusion.space import Space, check_space, read_space, space_file
from recbole_diffusion.study import (
    SampleByNumber,
    check_data,
    claim,
    cost_of,
    distribution,
    given_back,
    identity_of,
    is_gone,
    open_storage,
    seconds_of,
    settings_of,
    state_of,
    this_process,
    write_text,
)
from recbole_diffusion.trainer import Diverged
from recbole_diffusion.tuned import study_title

STARTUP_TRIALS = 5  # finished trials before the first one is pruned
WARMUP_VALIDATIONS = 5  # validations before a trial can be pruned
_POP = "pop"  # in the study: Pop's figure
FAILURES_IN_A_ROW = 10  # then something is wrong with more than a few settings


class Budget(NamedTuple):
    """What a study may cost; None is no limit. ``seconds`` are those of training and validation, of all trials."""

    trials: int | None
    seconds: float | None


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
    """Train a model with one setting after the other and keep the one that validates best.

    The first trial is the model's default setting, so the result validates no worse than it. A trial counts with the
    ``valid_metric`` of its best epoch; it is pruned where that stays below the median of the finished trials.

    Args:
        model, dataset, config_files, settings, preset: as in :func:`recbole_diffusion.quick_start.run`; what they set
            is the same for every trial.
        space: YAML file of the settings to search (:mod:`recbole_diffusion.space`); default: the one that ships for
            the model, without the settings that the user fixes.
        trials: the study ends with so many trials, those of earlier calls and other processes included.
        seconds: the study ends with so many seconds of training and validation. The trial that they run out in is
            stopped at its next validation, except the default setting.
        out: folder of results, logs and checkpoints; default ``tune/MODEL-DATASET``. A study is resumed by its folder.
        storage: Optuna's storage, as a database URL or the path of a journal file, which may be on a shared disk;
            default ``OUT/study.journal``. Several processes can work on one study.

    Returns:
        ``model``, ``dataset``, ``preset``, ``study`` (name in the storage), ``metric``, ``value``, ``pop`` (what Pop
        has there; None for Pop itself), ``trial`` (number of the best, from 1), ``settings`` (its searched settings),
        ``trials`` (finished), ``seconds`` (of training and validation) and ``file`` (``OUT/best.yaml``, for
        ``run --config_files``).

    Raises:
        UserError: no budget, settings or a space that do not fit, a folder that holds another study, or no trial that
            finished.
        KeyboardInterrupt: the running trial is given back to the study; finished ones are kept.
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
    claim(folder, name, identity)
    config = wanted.config()
    with _study_log(folder) as log:
        study = optuna.create_study(
            storage=open_storage(storage, folder),
            study_name=name,
            direction="maximize" if config["valid_metric_bigger"] else "minimize",
            sampler=SampleByNumber(config["seed"]),
            pruner=optuna.pruners.MedianPruner(STARTUP_TRIALS, WARMUP_VALIDATIONS * config["eval_step"]),
            load_if_exists=True,
        )
        check_data(study, config)
        return _Search(wanted, searched, default, study, budget, folder, config["valid_metric"], log).run()


def _budget(trials: int | None, seconds: float | None) -> Budget:
    if trials is None and seconds is None:
        raise UserError("tune needs a budget: --trials=N, --seconds=S (of training and validation), or both.")
    if trials is not None and trials < 1:
        raise UserError(f"trials={trials}: must be a whole number >= 1.")
    if seconds is not None and not seconds > 0:
        raise UserError(f"seconds={seconds:g}: must be a number > 0.")
    return Budget(trials, seconds)


class _OutOfTime(Exception):
    """The study's seconds are used up."""


class _Search:
    """The loop over trials of one process."""

    def __init__(
        self,
        wanted: Request,
        space: Space,
        default: Settings,
        study: Study,
        budget: Budget,
        folder: Path,
        metric: str,
        log: logging.Logger,
    ) -> None:
        self.wanted, self.default, self.study, self.budget = wanted, default, study, budget
        self.folder, self.metric, self.log = folder, metric, log
        self.distributions = {key: distribution(entry) for key, entry in space.items()}
        sizes = [entry.size() for entry in space.values()]
        self.size = None if None in sizes else int(np.prod([size for size in sizes if size is not None]))
        self.maximize = study.direction == optuna.study.StudyDirection.MAXIMIZE
        self.start, self.trained, self.failures = time.perf_counter(), 0, 0
        self.lock = FileLock(folder / "results.lock")  # held to write the results, and to take trials back

    def run(self) -> dict[str, Any]:
        """Run trials until the budget is used up; the result is :func:`tune`'s."""
        self._take_back()
        known = self._all()
        spent = f"{cost_of(known)} so far" if known else "new"
        self.log.info(f"study {self.study.study_name}: {spent}; results and logs in {self.folder}")
        if not any(settings_of(trial) == self.default for trial in self._all() if not given_back(trial)):
            self.study.enqueue_trial(self.default)
        while not self._used_up():
            with _signals_held():  # or it would stay a running trial that is nobody's
                trial = self.study.ask(self.distributions)
                trial.set_user_attr("owner", this_process())
            try:
                if not self._run(trial):
                    break
            except KeyboardInterrupt:
                self._give_back(trial)
                raise KeyboardInterrupt(
                    f"trial {trial.number + 1} is not finished. What is finished is in {self.folder}; the same command "
                    "goes on"
                ) from None
            except BaseException:
                self._give_back(trial)
                raise
        return self._result()

    def _all(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def _counted(self) -> list[FrozenTrial]:
        """The trials that the budget counts: finished or running."""
        return [t for t in self._all() if t.state != TrialState.WAITING and not given_back(t)]

    def _best(self, trials: list[FrozenTrial]) -> FrozenTrial | None:
        complete = [t for t in trials if t.state == TrialState.COMPLETE]
        sign = 1 if self.maximize else -1
        return max(complete, key=lambda t: (sign * (t.value or 0.0), -t.number), default=None)

    def _used_up(self) -> bool:
        counted = self._counted()
        if not any(settings_of(trial) == self.default for trial in counted):
            return False  # without it the study could end below the default
        if self.size is not None and len({tuple(sorted(settings_of(t).items())) for t in counted}) >= self.size:
            self.log.info(f"every setting of the space has had its trial ({self.size})")
            return True
        return self._left(counted) <= 0

    def _left(self, counted: list[FrozenTrial]) -> float:
        """Share of the budget that is left, of trials or of seconds, whichever is less; 0 or below: it is used up."""
        left = []
        if self.budget.trials is not None:
            left.append(1 - len(counted) / self.budget.trials)
        if self.budget.seconds is not None:
            left.append(1 - seconds_of(self._all()) / self.budget.seconds)
        return min(left)

    # ---- one trial

    def _run(self, trial: Trial) -> bool:
        """Run one trial and tell the study; False if another process had begun the last one that the budget allows."""
        earlier = [t for t in self._counted() if t.number < trial.number]
        if self.budget.trials is not None and len(earlier) >= self.budget.trials:
            self.study.tell(trial, state=TrialState.FAIL)
            return False
        twin = next((t for t in earlier if settings_of(t) == trial.params), None)
        if twin is not None:
            self._repeat(trial, twin)
            return True
        try:
            value = self._train(trial)
        except (optuna.TrialPruned, _OutOfTime) as stop:
            self.failures = 0
            self.study.tell(trial, state=TrialState.PRUNED)
            self._report(trial, str(stop))
        except (Diverged, torch.OutOfMemoryError) as error:
            self._fail(trial, error)
        except (OSError, StorageInternalError):
            raise  # of the machine or the storage, not of the setting
        except Exception as error:  # of RecBole's models too, whose settings do not all go together
            if trial.params == self.default:
                raise  # what the default setting cannot do, no trial can
            self._fail(trial, error)
        else:
            self.failures = 0
            self.study.tell(trial, value)
            self._report(trial, f"{self.metric} {value:.4f}")
        return True

    def _train(self, trial: Trial) -> float:
        """Train one setting; returns its best validation score."""
        config = self.wanted.config(**trial.params, checkpoint_dir=str(self.folder / "saved"))
        _absolute_paths(config)
        is_default = trial.params == self.default
        with contextlib.chdir(self.folder), _trial_log(self.folder / "log" / f"{trial.number + 1:04}.log"):
            logging.getLogger().info(config)
            prepared = prepare(self.wanted.resolved, config)
            trial.set_user_attr("checkpoint", Path(prepared.trainer.saved_model_file).name)
            start = time.perf_counter()

            def spend() -> None:
                trial.set_user_attr("seconds", round(time.perf_counter() - start, 3))

            def after_validation(epoch: int, score: float) -> None:
                spend()
                trial.set_user_attr("epochs", epoch + 1)
                trial.report(score, epoch)
                if is_default or epoch + 1 == config["epochs"]:
                    return  # the study must not end below the default, and there is nothing left to save
                now = f"after {epoch + 1} epochs at {self.metric} {score:.4f}"
                if self.budget.seconds is not None and seconds_of(self._all()) >= self.budget.seconds:
                    raise _OutOfTime(f"stopped {now}, the seconds are used up")
                if trial.should_prune():
                    raise optuna.TrialPruned(f"pruned {now}")

            try:
                result = train(prepared, after_validation)
            finally:
                spend()
                self.trained += 1
            self._note_pop(prepared)
        if self.metric.lower() not in result["valid"]:
            raise UserError(f"model={self.wanted.model}: its training does not validate, so it cannot be tuned.")
        trial.set_user_attr("epochs", result["epochs"])
        trial.set_user_attr("best_epoch", result["best_epoch"] + 1)
        return result["valid"][self.metric.lower()]

    def _note_pop(self, prepared: Prepared) -> None:
        """What Pop has on the validation split, once a study: it is the same for every setting."""
        reference = prepared.trainer.reference
        if reference is not None and _POP not in self.study.user_attrs:
            self.study.set_user_attr(_POP, reference.valid.metrics[self.metric.lower()])

    def _repeat(self, trial: Trial, twin: FrozenTrial) -> None:
        """A setting that was drawn before is not trained again: the same seed gives the same result."""
        if twin.state == TrialState.RUNNING:
            self.study.tell(trial, state=TrialState.FAIL)  # does not count
        elif twin.state == TrialState.COMPLETE and twin.value is not None:
            self.study.tell(trial, twin.value)
            self._report(trial, f"{self.metric} {twin.value:.4f}, the setting of trial {twin.number + 1}")
        else:
            reason = f"the setting of trial {twin.number + 1}, {state_of(twin)}"
            trial.set_user_attr("reason", reason)
            self.study.tell(trial, state=TrialState.FAIL)
            self._report(trial, reason)

    def _fail(self, trial: Trial, error: Exception) -> None:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        trial.set_user_attr("reason", reason)
        self.study.tell(trial, state=TrialState.FAIL)
        self._report(trial, f"failed: {reason.rstrip('.')}")
        self.failures += 1
        if self.failures == FAILURES_IN_A_ROW:
            raise UserError(f"{FAILURES_IN_A_ROW} trials in a row failed, the last with: {reason}")

    def _give_back(self, trial: Trial) -> None:
        """A trial that was not run to its end: its settings wait for the next process."""
        if self._all()[trial.number].state == TrialState.RUNNING:
            self.study.tell(trial, state=TrialState.FAIL)
            if trial.params:
                self.study.enqueue_trial(trial.params)

    def _take_back(self) -> None:
        """Give back the trials of processes that ended without a word."""
        with self.lock:
            for trial in self._all():
                if trial.state == TrialState.RUNNING and is_gone(trial.user_attrs.get("owner")):
                    self.study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
                    if settings_of(trial):
                        self.study.enqueue_trial(settings_of(trial))

    # ---- what the user sees

    def _report(self, trial: Trial, outcome: str) -> None:
        best, counted = self._best(self._all()), self._counted()
        number = str(trial.number + 1)
        if self.budget.trials is not None:
            number += f" of {self.budget.trials + sum(map(given_back, self._all()))}"
        so_far = f" (best {best.value:.4f}, trial {best.number + 1})" if best is not None else ""
        seconds = self._all()[trial.number].user_attrs.get("seconds", 0.0)
        self.log.info(f"trial {number}: {outcome}{so_far}, {duration(seconds)}{self._time_left(counted)}")
        self._write_results()

    def _time_left(self, counted: list[FrozenTrial]) -> str:
        """From this process's trials so far, and as many processes as there are now."""
        if self._left(counted) <= 0:
            return ""
        processes = 1 + sum(trial.state == TrialState.RUNNING for trial in counted)
        left = []
        if self.budget.trials is not None and self.trained:
            each = (time.perf_counter() - self.start) / self.trained
            left.append((self.budget.trials - len(counted)) * each / processes)
        if self.budget.seconds is not None:
            left.append((self.budget.seconds - seconds_of(self._all())) / processes)
        return f", about {duration(min(left))} left" if left else ""

    def _write_results(self) -> None:
        """``trials.csv``, ``best.yaml``, and no checkpoint but the best and those of running trials."""
        with self.lock:
            trials = self._all()
            best = self._best(trials)
            write_text(self.folder / "trials.csv", self._table(trials))
            if best is not None:
                write_text(self.folder / "best.yaml", self._best_yaml(best, trials))
            for trial in trials:
                name = trial.user_attrs.get("checkpoint")
                if name is not None and trial.state.is_finished() and (best is None or trial.number != best.number):
                    (self.folder / "saved" / name).unlink(missing_ok=True)

    def _table(self, trials: list[FrozenTrial]) -> str:
        text = io.StringIO()
        columns = ["trial", "state", self.metric, "seconds", "epochs", "best_epoch", *self.distributions, "reason"]
        table = csv.DictWriter(text, columns, lineterminator="\n")
        table.writeheader()
        for trial in trials:
            curve = trial.intermediate_values.values()
            reached = (max(curve) if self.maximize else min(curve)) if curve else None
            facts = {key: trial.user_attrs.get(key) for key in ("seconds", "epochs", "best_epoch", "reason")}
            value = trial.value if trial.state == TrialState.COMPLETE else reached
            row = {"trial": trial.number + 1, "state": state_of(trial), self.metric: value, **facts}
            table.writerow(row | settings_of(trial))
        return text.getvalue()

    def _best_yaml(self, best: FrozenTrial, trials: list[FrozenTrial]) -> str:
        names = {"model": self.wanted.model, "dataset": self.wanted.dataset, "preset": self.wanted.preset}
        # JSON is YAML, and keeps a text that looks like a number a text.
        lines = [f"{key}: {json.dumps(v, default=str)}" for key, v in {**names, **self.wanted.user}.items()]
        lines += [f"{key}: {json.dumps(value)}" for key, value in settings_of(best).items()]
        return (
            f"# {self.metric} {best.value:.4f} on the validation split, trial {best.number + 1}: the best of "
            f"{cost_of(trials)} of training and validation.\n"
            f"# Study {self.study.study_name}. recbole-diffusion run --config_files best.yaml\n"
        ) + "".join(line + "\n" for line in lines)

    def _result(self) -> dict[str, Any]:
        self._write_results()
        best, counted = self._best(self._all()), self._counted()
        if best is None or best.value is None:
            raise UserError(f"no trial finished; {self.folder / 'trials.csv'} says why.")
        running = sum(trial.state == TrialState.RUNNING for trial in counted)
        seconds, file = seconds_of(self._all()), self.folder / "best.yaml"
        elsewhere = f"; {running} still running in other processes" if running else ""
        spent = f"{cost_of(self._all())} of training and validation{elsewhere}"
        pop = self.study.user_attrs.get(_POP)
        beside = "" if pop is None else f" (Pop {pop:.4f})"
        self.log.info(f"best: {self.metric} {best.value:.4f}{beside}, trial {best.number + 1}: {file} ({spent})")
        return {
            "model": self.wanted.model,
            "dataset": self.wanted.dataset,
            "preset": self.wanted.preset,
            "study": self.study.study_name,
            "metric": self.metric,
            "value": best.value,
            "pop": pop,
            "trial": best.number + 1,
            "settings": settings_of(best),
            "trials": len(counted) - running,
            "seconds": seconds,
            "file": str(file),
        }


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Ctrl-C and SIGTERM are answered at the end of the block, where the system can hold them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _absolute_paths(config: Config) -> None:
    """Settings that are paths, made absolute: a trial works in another folder."""
    for key in PATHS:
        if isinstance(config.final_config_dict.get(key), str):
            config[key] = os.path.abspath(config[key])


@contextlib.contextmanager
def _study_log(folder: Path) -> Iterator[logging.Logger]:
    """One line a trial, to the console and to ``tune.log``; there Optuna's own messages go too."""
    log, optunas = logging.getLogger("recbole_diffusion.tune"), logging.getLogger("optuna")
    file = logging.FileHandler(folder / "tune.log", encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    console = logging.StreamHandler(sys.stdout)
    optuna.logging.disable_default_handler()
    log.setLevel(logging.INFO)
    log.propagate = False
    for logger, handler in ((log, file), (log, console), (optunas, file)):
        logger.addHandler(handler)
    try:
        yield log
    finally:
        for logger, handler in ((log, file), (log, console), (optunas, file)):
            logger.removeHandler(handler)
        file.close()


@contextlib.contextmanager
def _trial_log(path: Path) -> Iterator[None]:
    """What RecBole logs, Python's warnings, and an error with its traceback, in a file of the trial's own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    root = logging.getLogger()
    level, file = root.level, logging.FileHandler(path, encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s  %(message)s"))
    file.addFilter(RemoveColorFilter())
    root.addHandler(file)
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    try:
        yield
    except (optuna.TrialPruned, _OutOfTime, UserError):
        raise
    except Exception:
        root.exception("The trial ended with an error.")
        raise
    finally:
        logging.captureWarnings(False)
        root.setLevel(level)
        root.removeHandler(file)
        file.close()
