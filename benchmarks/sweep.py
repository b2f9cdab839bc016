"""Runs a plan of trainings, and goes on where it stopped.

    python benchmarks/sweep.py PLAN.yaml OUT_DIR [--table] [--only TEXT]

A plan is a YAML list of runs: ``name``, ``model``, ``dataset`` and any settings. ``${NAME}`` is replaced by an
environment variable, for folders. Each finished run is OUT_DIR/name.json: every validation with losses and diagnostics,
seconds, versions. The test split is not read. Several of these commands can share a plan: a run that another one holds
is skipped. ``--table`` prints the validation NDCG@10 of each finished run instead. ``--only`` takes only runs whose
name contains TEXT.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
from pathlib import Path
from typing import Any

import torch
import yaml

from recbole_diffusion.files import write_text
from recbole_diffusion.quick_start import prepare, request, train
from recbole_diffusion.trainer import versions


def read_plan(path: Path, only: str) -> list[dict[str, Any]]:
    runs = yaml.safe_load(os.path.expandvars(path.read_text(encoding="utf-8")))
    names = [run["name"] for run in runs]
    twice = {name for name in names if names.count(name) > 1}
    assert not twice, f"{path}: two runs are called {', '.join(sorted(twice))}"
    return [run for run in runs if only in run["name"]]


def measure(run: dict[str, Any]) -> dict[str, Any]:
    """One training, without its test."""
    settings = {key: value for key, value in run.items() if key not in ("name", "model", "dataset")}
    wanted = request(run["model"], run["dataset"], settings, preset=None)
    result = train(
        prepare(wanted.resolved, wanted.config()),
        lambda epoch, score: print(f"{epoch}: {score:.4f}", end=" ", flush=True),
    )
    print()
    kept = ("valid", "best_epoch", "epochs", "train_seconds", "parameters", "history")
    return {"run": run, "threads": torch.get_num_threads(), "versions": versions()} | {k: result[k] for k in kept}


def table(runs: list[dict[str, Any]], out: Path) -> None:
    print("| run | valid NDCG@10 by epoch | best | epoch | seconds an epoch |\n|---|---|---|---|---|")
    for run in runs:
        path = out / f"{run['name']}.json"
        if path.exists():
            result = json.loads(path.read_text(encoding="utf-8"))
            history = result["history"]
            curve = " ".join(f"{entry['valid']['ndcg@10']:.4f}"[1:] for entry in history)
            seconds = sum(entry["train_seconds"] for entry in history) / len(history)
            best = f"{result['valid']['ndcg@10']:.4f} | {result['best_epoch']}"
            print(f"| {run['name']} | {curve} | {best} | {seconds:.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    runs = read_plan(arguments.plan, arguments.only)
    if arguments.table:
        return table(runs, arguments.out)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for run in runs:
        path = arguments.out / f"{run['name']}.json"
        with open(path.with_suffix(".lock"), "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            if not path.exists():
                print(f"=== {run['name']}", flush=True)
                write_text(path, json.dumps(measure(run)))
    return None


if __name__ == "__main__":
    main()
