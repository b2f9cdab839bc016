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
import json
import os
from pathlib import Path
from typing import Any

import torch
import yaml
from filelock import FileLock, Timeout

from recbole_diffusion.quick_start import Prepared, prepare, request, train
from recbole_diffusion.storage.files import write_text
from recbole_diffusion.versions import versions

KEPT = ("valid", "best_epoch", "epochs", "train_seconds", "parameters", "history")


def read_plan(path: Path, only: str) -> list[dict[str, Any]]:
    runs = yaml.safe_load(os.path.expandvars(path.read_text(encoding="utf-8")))
    names = [run["name"] for run in runs]
    twice = {name for name in names if names.count(name) > 1}
    assert not twice, f"{path}: two runs are called {', '.join(sorted(twice))}"
    return [run for run in runs if only in run["name"]]


def prepare_run(run: dict[str, Any], **more: Any) -> Prepared:
    """Data, model and trainer of a run of a plan, with ``more`` settings."""
    settings = {key: value for key, value in run.items() if key not in ("name", "model", "dataset")}
    wanted = request(run["model"], run["dataset"], settings | more, preset=None)
    return prepare(wanted.resolved, wanted.config())


def record(run: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a training. The folder of the data is a place of this machine and does not belong to it."""
    described = {key: value for key, value in run.items() if key != "data_path"}
    return {"run": described, "threads": torch.get_num_threads(), "versions": versions()} | {k: result[k] for k in KEPT}


def measure(run: dict[str, Any]) -> dict[str, Any]:
    """One training, without its test."""
    result = train(
        prepare_run(run),
        lambda epoch, score: print(f"{epoch}: {score:.4f}", end=" ", flush=True),
    )
    print()
    return record(run, result)


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


def plan_parser(description: str | None) -> argparse.ArgumentParser:
    """The arguments of a command that works on a plan; a command can add its own."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--only", default="")
    return parser


def main() -> None:
    arguments = plan_parser(__doc__).parse_args()
    runs = read_plan(arguments.plan, arguments.only)
    if arguments.table:
        return table(runs, arguments.out)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for run in runs:
        path = arguments.out / f"{run['name']}.json"
        try:
            with FileLock(path.with_suffix(".lock"), blocking=False):
                if not path.exists():
                    print(f"=== {run['name']}", flush=True)
                    write_text(path, json.dumps(measure(run)))
        except Timeout:
            continue
    return None


if __name__ == "__main__":
    main()
