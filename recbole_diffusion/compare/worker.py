"""One run of a comparison in its own process: ``python -m recbole_diffusion.compare.worker``.

It reads a :class:`~recbole_diffusion.compare.run.Run` as JSON from standard input. In a fresh process a run has its own
peak memory and log, and a crash ends only that run.
"""

from __future__ import annotations

import dataclasses
import json
import platform
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from filelock import FileLock

from recbole_diffusion.compare.run import POP_VALUES, RECORD_FORMAT, SHARED, Run
from recbole_diffusion.config.roles import described, differences
from recbole_diffusion.config.settings import UserError
from recbole_diffusion.data.fingerprint import describe_split
from recbole_diffusion.evaluation.users import ranked_users
from recbole_diffusion.quick_start import Prepared, request, run, settings_of
from recbole_diffusion.storage.files import remove_partial_files, whole_file
from recbole_diffusion.storage.run_files import AUTO, RunFiles
from recbole_diffusion.training.stopping import Stopped


def execute(task: Run) -> None:
    """Train and test. Then write the users' values and, last, the result: a run with a result is finished.

    Training goes on from the checkpoint of an earlier worker that was stopped or killed.

    The ``.npz`` file holds ``users``, the sorted user token of each ranked row. Each metric that has values of single
    users is an array [generation seeds or 1, rows]; Pop's values on the same rows are ``pop_METRIC`` [1, rows].

    Raises:
        UserError: settings, device or threads differ from the plan, or do not fit together.
    """
    _check_planned(task)
    facts: dict[str, Any] = {}
    values: dict[str, np.ndarray] = {}

    def test_model(prepared: Prepared) -> Mapping[str, float]:
        evaluations = _evaluate(prepared, task.eval_seeds)
        facts["peak_memory_gb"] = _peak_memory()
        facts["steps_curve"] = _steps_curve(prepared, task.curve_steps)
        facts["rank_seconds"] = [evaluation.seconds for evaluation in evaluations]
        facts["tests"] = [evaluation.metrics for evaluation in evaluations]
        facts.update(describe_split(prepared.dataset, prepared.loaders))
        tokens = prepared.dataset.field2id_token[prepared.dataset.uid_field].astype(str)
        users = tokens[ranked_users(prepared.loaders.test)]
        order = np.argsort(users, kind="stable")
        values["users"] = users[order]
        facts["rows"] = len(users)
        for name in evaluations[0].values:
            values[name] = np.stack([evaluation.values[name][order] for evaluation in evaluations])
        if (reference := prepared.trainer.reference) is not None:
            facts["pop_test"] = reference.test.exact
            for name, of_rows in reference.test.values.items():
                values[POP_VALUES + name] = of_rows[order][None]
        return evaluations[0].reported

    result = run(
        task.model, task.dataset, settings=task.settings, preset=task.preset, test_model=test_model, verbose=True,
        resume=AUTO,
    )  # fmt: skip
    record = {
        "format": RECORD_FORMAT,
        **result,
        **facts,
        **{name: getattr(task, name) for name in SHARED},
        "tuning": task.tuning,
        "cpu": _cpu_name(),
        "seconds": time.time() - psutil.Process().create_time(),  # imports included
    }
    with whole_file(task.file(".npz")) as file:
        np.savez_compressed(file, allow_pickle=False, **values)
    with whole_file(task.file(".json")) as file:
        file.write(json.dumps(record, indent=1).encode())
    RunFiles.of_best(Path(result["checkpoint"])).remove_last()  # nothing will go on from it


def _check_planned(task: Run) -> None:
    """Check, before training, that this process would make the planned run."""
    config = request(task.model, task.dataset, dict(task.settings), task.preset).config()
    planned = {**task.resolved, "device": task.device, "threads": task.threads}
    here = {**settings_of(config), "device": str(config["device"]), "threads": torch.get_num_threads()}
    other = differences(here, planned)
    if other:
        raise UserError(f"{task.name}: this process has {described(other)} as planned.")


@dataclasses.dataclass(frozen=True)
class _Evaluation:
    reported: dict[str, float]  # as RecBole rounds them
    metrics: dict[str, float]  # the same, not rounded if users have values
    values: dict[str, np.ndarray]
    seconds: float


def _evaluate(prepared: Prepared, eval_seeds: list[int]) -> list[_Evaluation]:
    """Evaluate the test split once with each generation seed."""
    if not eval_seeds:
        return [_evaluate_once(prepared, load_best_model=True)]
    model, own = prepared.model, prepared.model.settings
    done: list[_Evaluation] = []
    for eval_seed in eval_seeds:
        model.settings = dataclasses.replace(own, eval_seed=eval_seed)
        done.append(_evaluate_once(prepared, load_best_model=not done))
    model.settings = own
    return done


def _evaluate_once(prepared: Prepared, load_best_model: bool) -> _Evaluation:
    trainer = prepared.trainer
    result = trainer.evaluate(prepared.loaders.test, load_best_model=load_best_model)
    reported = {name: float(value) for name, value in result.items()}
    values = trainer.evaluator.user_values()
    means = {name: float(of_users.mean()) for name, of_users in values.items()}
    return _Evaluation(reported, {**reported, **means}, values, trainer.evaluate_seconds)


def _steps_curve(prepared: Prepared, curve_steps: list[int]) -> list[dict[str, Any]]:
    """Validation metrics and seconds for each number of steps. The test split is not read, for a choice may follow."""
    trainer, curve = prepared.trainer, []
    for steps in curve_steps:
        with prepared.model.generating_in(steps):
            result = trainer.evaluate(prepared.loaders.valid, load_best_model=False)
        valid = {name: float(value) for name, value in result.items()}
        curve.append({"steps": steps, "valid": valid, "seconds": trainer.evaluate_seconds})
    return curve


def _peak_memory() -> float:
    """Peak resident memory of this process, in GB."""
    status = Path("/proc/self/status")
    if status.is_file():
        # Not getrusage: on Linux a child starts from the peak of the process that started it.
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) * 1024 / 1e9
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset / 1e9
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def main() -> int:
    """Make the run that standard input describes. If it fails, the last line of standard error says why."""
    # Ctrl-C reaches every process of the terminal. The parent decides, and ends this process by SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stop)
    try:
        task = Run(**json.load(sys.stdin))
        # If the parent is killed, this process lives on. A second worker for the same run waits and finds the result.
        with FileLock(Path("locks", f"{task.name}.worker.lock")):
            if not task.is_finished:
                remove_partial_files(task.folder, f"seed{task.seed}.")
                execute(task)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except Stopped as stop:
        print(stop, file=sys.stderr)
        return 128 + stop.number
    return 0


def _stop(number: int, _: Any) -> None:
    raise Stopped(number, "stopped")


if __name__ == "__main__":
    sys.exit(main())
