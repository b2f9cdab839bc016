"""The files of a study: ``trials.csv``, ``best.yaml`` and the checkpoint of the best trial."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from filelock import BaseFileLock
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from recbole_diffusion.quick_start import Request
from recbole_diffusion.storage.files import remove_partial_files, write_text
from recbole_diffusion.storage.run_files import RunFiles
from recbole_diffusion.tune.study import cost_of, given_back, settings_of, state_of


class Results:
    """The result files in the folder of a study.

    Args:
        folder: the folder.
        wanted: the model, the data set, and the settings that are the same for every trial.
        study: the study.
        metric: the metric of trials, as the settings name it.
        searched: names of the searched settings.
        lock: held while files are written, because several processes share the folder.
    """

    def __init__(
        self, folder: Path, wanted: Request, study: Study, metric: str, searched: Sequence[str], lock: BaseFileLock
    ) -> None:
        self.folder, self.wanted, self.study, self.metric = folder, wanted, study, metric
        self.searched, self.lock = searched, lock
        self.maximize = study.direction == StudyDirection.MAXIMIZE

    def best(self, trials: list[FrozenTrial]) -> FrozenTrial | None:
        """The complete trial with the best value; the first of equal ones."""
        complete = [t for t in trials if t.state == TrialState.COMPLETE]
        sign = 1 if self.maximize else -1
        return max(complete, key=lambda t: (sign * (t.value or 0.0), -t.number), default=None)

    def write(self) -> None:
        """Write ``trials.csv`` and ``best.yaml``. Keep only checkpoints of the best and of unfinished trials."""
        with self.lock:
            remove_partial_files(self.folder, "trials.csv")
            remove_partial_files(self.folder, "best.yaml")
            trials = self.study.get_trials(deepcopy=False)
            best = self.best(trials)
            write_text(self.folder / "trials.csv", self._table(trials))
            if best is not None:
                write_text(self.folder / "best.yaml", self._best_yaml(best, trials))
            for trial in trials:
                name = trial.user_attrs.get("checkpoint")
                if name is None or not trial.state.is_finished() or given_back(trial):  # another trial goes on from it
                    continue
                file = self.folder / "saved" / name
                RunFiles.of_best(file).remove_last()
                if best is None or trial.number != best.number:
                    file.unlink(missing_ok=True)

    def _table(self, trials: list[FrozenTrial]) -> str:
        text = io.StringIO()
        columns = ["trial", "state", self.metric, "seconds", "epochs", "best_epoch", *self.searched, "reason"]
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
        # JSON is valid YAML, and quotes a text that looks like a number.
        lines = [f"{key}: {json.dumps(v, default=str)}" for key, v in {**names, **self.wanted.user}.items()]
        lines += [f"{key}: {json.dumps(value)}" for key, value in settings_of(best).items()]
        return (
            f"# {self.metric} {best.value:.4f} on the validation split, trial {best.number + 1}: the best of "
            f"{cost_of(trials)} of training and validation.\n"
            f"# Study {self.study.study_name}. recbole-diffusion run --config_files best.yaml\n"
        ) + "".join(line + "\n" for line in lines)
