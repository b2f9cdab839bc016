"""The loop over trials that each process of a study runs."""

from __future__ import annotations

import contextlib
import logging
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna
import torch
from filelock import FileLock
from optuna.exceptions import StorageInternalError
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from recbole_diffusion.config.settings import Settings, UserError
from recbole_diffusion.console.progress import duration
from recbole_diffusion.quick_start import Request
from recbole_diffusion.training.finite import Diverged
from recbole_diffusion.training.stopping import Stopped
from recbole_diffusion.tune.log import OutOfTime
from recbole_diffusion.tune.results import Results
from recbole_diffusion.tune.space import Space
from recbole_diffusion.tune.study import (
    cost_of,
    distribution,
    given_back,
    is_gone,
    seconds_of,
    settings_of,
    state_of,
    this_process,
)
from recbole_diffusion.tune.trial import POP, train_trial

FAILURES_IN_A_ROW = 10  # after so many, the cause is not a few bad settings


class Budget(NamedTuple):
    """The limits of a study; None means no limit. ``seconds`` are of training and validation, over all trials."""

    trials: int | None
    seconds: float | None


class Search:
    """The loop over trials in one process."""

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
        self.lock = FileLock(folder / "results.lock")  # held while results are written or trials are taken back
        self.results = Results(folder, wanted, study, metric, list(space), self.lock)
        sizes = [entry.size() for entry in space.values()]
        self.size = None if None in sizes else int(np.prod([size for size in sizes if size is not None]))
        self.start, self.trained, self.failures = time.perf_counter(), 0, 0

    def run(self) -> dict[str, Any]:
        """Run trials until the budget is used up. Returns the result of :func:`tune`."""
        self._take_back()
        known = self._all()
        spent = f"{cost_of(known)} so far" if known else "new"
        self.log.info(f"study {self.study.study_name}: {spent}; results and logs in {self.folder}")
        if not any(settings_of(trial) == self.default for trial in self._all() if not given_back(trial)):
            self.study.enqueue_trial(self.default)
        while not self._used_up():
            with _signals_held():  # otherwise an interrupt could leave a running trial without an owner
                trial = self.study.ask(self.distributions)
                trial.set_user_attr("owner", this_process())
            try:
                if not self._run(trial):
                    break
            except KeyboardInterrupt as stop:
                self._give_back(trial)
                raise Stopped.like(
                    stop,
                    f"trial {trial.number + 1} is not finished. Finished trials are in {self.folder}; the same command "
                    "continues",
                ) from None
            except BaseException:
                self._give_back(trial)
                raise
        return self._result()

    def _all(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def _counted(self) -> list[FrozenTrial]:
        """The trials that the budget counts: finished and running ones."""
        return [t for t in self._all() if t.state != TrialState.WAITING and not given_back(t)]

    def _used_up(self) -> bool:
        counted = self._counted()
        if not any(settings_of(trial) == self.default for trial in counted):
            return False  # without the default, the study could end below it
        if self.size is not None and len({tuple(sorted(settings_of(t).items())) for t in counted}) >= self.size:
            self.log.info(f"every setting of the space has been tried ({self.size})")
            return True
        return self._left(counted) <= 0

    def _left(self, counted: list[FrozenTrial]) -> float:
        """Share of the budget that is left, the smaller of trials and seconds. At 0 or below it is used up."""
        left = []
        if self.budget.trials is not None:
            left.append(1 - len(counted) / self.budget.trials)
        if self.budget.seconds is not None:
            left.append(1 - seconds_of(self._all()) / self.budget.seconds)
        return min(left)

    # ---- one trial

    def _run(self, trial: Trial) -> bool:
        """Run one trial and tell the study. False if another process has begun the last trial of the budget."""
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
        except (optuna.TrialPruned, OutOfTime) as stop:
            self.failures = 0
            self.study.tell(trial, state=TrialState.PRUNED)
            self._report(trial, str(stop))
        except (Diverged, torch.OutOfMemoryError) as error:
            self._fail(trial, error)
        except (OSError, StorageInternalError):
            raise  # the machine or the storage fails, not the setting
        except Exception as error:  # RecBole's models too have settings that do not fit together
            if trial.params == self.default:
                raise  # if the default setting fails, every trial will
            self._fail(trial, error)
        else:
            self.failures = 0
            self.study.tell(trial, value)
            self._report(trial, f"{self.metric} {value:.4f}")
        return True

    def _train(self, trial: Trial) -> float:
        """Train one setting. Returns its best validation score."""

        def check(now: str) -> None:
            if self.budget.seconds is not None and seconds_of(self._all()) >= self.budget.seconds:
                raise OutOfTime(f"stopped {now}, the seconds are used up")
            if trial.should_prune():
                raise optuna.TrialPruned(f"pruned {now}")

        try:
            # The study must not end below the default, so the default is never stopped.
            check_it = None if trial.params == self.default else check
            return train_trial(trial, self.wanted, self.study, self.folder, self.metric, check_it)
        finally:
            self.trained += 1

    def _repeat(self, trial: Trial, twin: FrozenTrial) -> None:
        """Take over the result of an equal earlier setting: the same seed gives the same result."""
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
        """Give an unfinished trial back to the study: its settings wait for the next process."""
        if self._all()[trial.number].state == TrialState.RUNNING:
            self.study.tell(trial, state=TrialState.FAIL)
            if trial.params:
                self.study.enqueue_trial(trial.params)

    def _take_back(self) -> None:
        """Give back the trials of processes that have died."""
        with self.lock:
            for trial in self._all():
                if trial.state == TrialState.RUNNING and is_gone(trial.user_attrs.get("owner")):
                    self.study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
                    if settings_of(trial):
                        self.study.enqueue_trial(settings_of(trial))

    # ---- what the user sees

    def _report(self, trial: Trial, outcome: str) -> None:
        best, counted = self.results.best(self._all()), self._counted()
        number = str(trial.number + 1)
        if self.budget.trials is not None:
            number += f" of {self.budget.trials + sum(map(given_back, self._all()))}"
        so_far = f" (best {best.value:.4f}, trial {best.number + 1})" if best is not None else ""
        seconds = self._all()[trial.number].user_attrs.get("seconds", 0.0)
        self.log.info(f"trial {number}: {outcome}{so_far}, {duration(seconds)}{self._time_left(counted)}")
        self.results.write()

    def _time_left(self, counted: list[FrozenTrial]) -> str:
        """Estimated from this process's trials so far and the present number of processes."""
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

    def _result(self) -> dict[str, Any]:
        self.results.write()
        best, counted = self.results.best(self._all()), self._counted()
        if best is None or best.value is None:
            raise UserError(f"no trial finished; {self.folder / 'trials.csv'} says why.")
        running = sum(trial.state == TrialState.RUNNING for trial in counted)
        seconds, file = seconds_of(self._all()), self.folder / "best.yaml"
        elsewhere = f"; {running} still running in other processes" if running else ""
        spent = f"{cost_of(self._all())} of training and validation{elsewhere}"
        pop = self.study.user_attrs.get(POP)
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
    """Hold Ctrl-C and SIGTERM back until the end of the block, if the system can."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
