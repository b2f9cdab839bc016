"""Make the missing runs of a comparison, one after the other, and show progress.

Several processes can work on one folder. The process that makes a run holds its lock, and the process that writes the
report holds the lock of the report.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

import recbole_diffusion
from recbole_diffusion.compare import report
from recbole_diffusion.compare.run import RECORD_FORMAT, SHARED, Run
from recbole_diffusion.compare.summary import Record
from recbole_diffusion.compare.tables import metric_names
from recbole_diffusion.config.roles import described, differences, that_count
from recbole_diffusion.config.settings import UserError
from recbole_diffusion.console.progress import duration
from recbole_diffusion.evaluation.users import smaller_is_better
from recbole_diffusion.storage.files import make_folder, read_json, remove_partial_files
from recbole_diffusion.training.stopping import Stopped

_STOP_SECONDS = 30


def make(runs: Sequence[Run], out: Path, baseline: str, metric: str, png: bool = False) -> int:
    """Make every run that is not finished yet, and write tables and report after each.

    A run that another process is making is left to that process. The process that ends last reports all runs.

    Args:
        runs: all runs of the comparison.
        out: folder of everything that is written.
        baseline: label of the model that the others are tested against.
        metric: the tested metric, as results name it: ``ndcg@10``.
        png: write the figures as PNG files too, at the end.

    Returns:
        The number of runs that failed in this process and are not finished.

    Raises:
        UserError: a finished run had other settings or data.
    """
    # Check all before making any: a run with other settings is found at once.
    records: dict[Run, Record] = {}
    _read_finished(runs, records)
    if records:
        print(f"{len(records)} of {len(runs)} runs are finished and kept.", flush=True)
        _write_report(runs, records, out, baseline, metric)
    shown = metric_names(runs[0].resolved["metrics"])(metric)
    tried: list[Run] = []
    tries = -1
    try:
        while len(tried) > tries:  # once more: another process may have given a run up
            tries = len(tried)
            for place, run in enumerate(runs):
                if run in records or run in tried:
                    continue
                with _claimed(run, out) as ours:
                    if not ours or finished(run):  # another process makes it, or has made it
                        continue
                    title = f"run {place + 1} of {len(runs)}: {run.label} on {run.dataset}, seed {run.seed}"
                    print(f"{title} ... ", end="", flush=True)
                    status = start(run, out.absolute())
                    tried.append(run)
                    record = finished(run) if status == 0 else None
                if record is None:
                    print(f"FAILED: {_reason(run, status)}; log: {run.file('.log')}", flush=True)
                    continue
                _write_report(runs, records, out, baseline, metric)
                parts = [f"{shown} {_mean_test(record, metric):.4f}, {duration(record['seconds'])}"]
                left = _seconds_left([later for later in runs if later not in records and later not in tried], records)
                parts += [f"about {duration(left)} left"] if left else []
                print("; ".join([*parts, f"best so far {_best(run.dataset, records, metric)}"]), flush=True)
    except KeyboardInterrupt as stop:
        print()
        kept = f"{len(records)} of {len(runs)} runs are finished and kept; the same command continues"
        raise Stopped.like(stop, kept) from None
    if png:
        _write_report(runs, records, out, baseline, metric, png)
    _read_finished(runs, records)
    failed = [run for run in tried if run not in records]
    others = len(runs) - len(records) - len(failed)
    if others:
        print(
            f"{others} of {len(runs)} runs are being made by other processes. The process that ends last reports them. "
            "If one stops early, give the same command again."
        )
    written = ", ".join(str(out / name) for name in ("report.html", "results.md", "results.csv"))
    print(written if records else "No run has finished: there is no table.")
    return len(failed)


def finished(run: Run) -> Record | None:
    """The result of a run that is finished already, or None.

    Raises:
        UserError: it was made by a version with other numbers, with other settings or data, on another kind of device
            or with another number of threads.
    """
    if not run.is_finished:
        return None
    file = run.file(".json")
    again = "Remove it: the same command makes this run again."
    record: Record = read_json(file, ("settings", "tests", "seconds"), again)
    made_by = record.get("format", 1)
    if made_by != RECORD_FORMAT:
        which = "an earlier" if made_by < RECORD_FORMAT else "a later"
        raise UserError(
            f"{file}: was made by {which} version, whose numbers do not compare: take another --out, or remove it."
        )
    had = {**that_count(record["settings"]), **{name: record[name] for name in SHARED}}
    wanted = {**run.resolved, **{name: getattr(run, name) for name in SHARED}}
    other = differences(had, wanted)
    if other:
        hint = " OMP_NUM_THREADS sets the threads." if "threads" in other else ""
        raise UserError(f"{file}: was made with {described(other)}.{hint} Take another --out, or remove that file.")
    record["tuning"] = run.tuning  # a search may have found the default, or have gone on without a better one
    return record


def _read_finished(runs: Sequence[Run], records: dict[Run, Record]) -> None:
    """Add the finished runs to ``records``."""
    for run in runs:
        if run not in records and (record := finished(run)):
            records[run] = record


def _write_report(
    runs: Sequence[Run], records: dict[Run, Record], out: Path, baseline: str, metric: str, png: bool = False
) -> None:
    """Add what other processes have finished to ``records``, and write the report of all."""
    with FileLock(_lock_file(out, "report")):
        _read_finished(runs, records)
        remove_partial_files(out, "re")  # report.html and results.*, which only the holder of the lock writes
        if records:
            report.write(out, runs, records, baseline, metric, png)


@contextlib.contextmanager
def _claimed(run: Run, out: Path) -> Iterator[bool]:
    """Whether this process may make the run. If so, it holds the lock until the end of the block or of the process."""
    lock = FileLock(_lock_file(out, run.name))
    with contextlib.suppress(Timeout):
        lock.acquire(blocking=False)
    try:
        yield lock.is_locked
    finally:
        lock.release()


def _lock_file(out: Path, name: str) -> Path:
    """A file to lock. It is never removed: otherwise two processes could hold the lock."""
    folder = out / "locks"
    make_folder("out", folder)
    return folder / f"{name}.lock"


def start(run: Run, out: Path) -> int:
    """Make a run in its own process, which works in ``out``. Returns the exit status."""
    Path(run.folder).mkdir(parents=True, exist_ok=True)
    # The run is made in another folder, and imports models of other packages from where this process does.
    here = Path(recbole_diffusion.__file__).parents[1]
    path = os.pathsep.join(str(Path(folder).absolute()) for folder in [str(here), *sys.path])
    with run.file(".log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "recbole_diffusion.compare.worker"],
            cwd=out, env={**os.environ, "PYTHONPATH": path}, stdin=subprocess.PIPE, stdout=log, stderr=log,
        )  # fmt: skip
        try:
            process.communicate(json.dumps(vars(run)).encode())
        except BaseException:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            raise
    return process.returncode


def _reason(run: Run, status: int) -> str:
    """Why a run failed: the last line of its log, or the signal that ended it."""
    if status < 0:
        return f"ended by signal {-status}"
    lines = run.file(".log").read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), f"exit status {status}")


def _seconds_left(missing: Sequence[Run], records: Mapping[Run, Record]) -> float:
    """Estimated from runs of the same model and data set; else of the same data set; else from all runs."""
    closest: tuple[Callable[[Run, Run], bool], ...] = (
        lambda a, b: (a.dataset, a.label) == (b.dataset, b.label),
        lambda a, b: a.dataset == b.dataset,
        lambda a, b: True,
    )
    total = 0.0
    for run in missing:
        alike = ([r["seconds"] for done, r in records.items() if like(run, done)] for like in closest)
        total += float(np.mean(next(seconds for seconds in alike if seconds)))
    return total


def _mean_test(record: Record, metric: str) -> float:
    return float(np.mean([test[metric] for test in record["tests"]]))


def _best(dataset: str, records: Mapping[Run, Record], metric: str) -> str:
    """The model with the best mean over its finished seeds, and that mean."""
    tests: dict[str, list[float]] = {}
    for run, record in records.items():
        if run.dataset == dataset:
            tests.setdefault(run.label, []).append(_mean_test(record, metric))
    means = {label: float(np.mean(values)) for label, values in tests.items()}
    best = (min if smaller_is_better(metric) else max)(means, key=means.__getitem__)
    return f"{best} {means[best]:.4f}"
