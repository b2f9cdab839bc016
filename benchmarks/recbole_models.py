"""Which of RecBole's sequential and general models run by our command, and what a user reads where one does not.

    python benchmarks/recbole_models.py [--only SASRec BPR ...] [--again] [--seconds 120]

Each model runs in a process of its own, one epoch on a small made data set with item columns, with the settings that
``--model`` alone gives. Results are kept in benchmarks/results/recbole_models.jsonl, one JSON object per line, and not
made again unless ``--again`` or with other versions; docs/recbole_models.md is written anew after each model.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from results_file import append_rows, read_rows

from recbole_diffusion.names import recbole_models
from recbole_diffusion.versions import versions

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "recbole_models.jsonl"
PAGE = ROOT / "docs" / "recbole_models.md"
KINDS = {"sequential": "sequential_recommender", "general": "general_recommender"}
USERS, ITEMS = 60, 40
ERROR = "recbole-diffusion: error: "
VERSIONS = {name: versions()[name] for name in ("python", "recbole", "torch", "numpy", "pandas", "scipy")}
HEAD = """\
# Which of RecBole's own models run

This page answers: does a model of RecBole run by this package's command? {running} of {count} do.

Each sequential and general model was run as `recbole-diffusion run --model=recbole.NAME --dataset=made --epochs=1`, on
{users} users and {items} items with the item columns `class`, `brand` and `price`. If a model does not run, the table
shows the error line of the command, which ends with exit status 2.

Versions: {versions}.

[benchmarks/recbole_models.py](../benchmarks/recbole_models.py) writes this page.
[models.md](models.md#recboles-own-models) says what some models need.

| model | kind | result |
|---|---|---|
"""


def write_data(folder: Path, name: str) -> None:
    """Made interactions and items as atomic files ``folder/name/name.inter`` and ``.item``."""
    rng = np.random.default_rng(0)
    events = ["user_id:token\titem_id:token\trating:float\ttimestamp:float"]
    for user in range(USERS):
        chosen = rng.permutation(ITEMS)[: rng.integers(8, 16)]
        events += [f"u{user}\ti{item}\t{rng.integers(1, 6)}\t{time}" for time, item in enumerate(chosen)]
    items = ["item_id:token\tclass:token_seq\tbrand:token\tprice:float"]
    for item in range(ITEMS):
        classes = " ".join(f"c{number}" for number in rng.permutation(5)[: rng.integers(1, 4)])
        items.append(f"i{item}\t{classes}\tb{rng.integers(6)}\t{rng.uniform(1, 50):.2f}")
    (folder / name).mkdir()
    for suffix, lines in (("inter", events), ("item", items)):
        (folder / name / f"{name}.{suffix}").write_text("\n".join(lines) + "\n", encoding="utf-8")


def run_model(model: str, folder: Path, seconds: float) -> dict[str, Any]:
    """Exit status of one run and, where it is not 0, the line that a user sees."""
    command = [sys.executable, "-m", "recbole_diffusion", "run", f"--model=recbole.{model}", "--dataset=made"]
    command += [f"--data_path={folder}", "--epochs=1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    try:
        ran = subprocess.run(
            command, cwd=folder, env=environment, timeout=seconds, capture_output=True, text=True, errors="replace"
        )
    except subprocess.TimeoutExpired:
        return {"status": None, "line": f"not finished within {seconds:g} seconds"}
    if ran.returncode == 0:
        return {"status": 0, "line": ""}
    lines = [line.strip() for line in ran.stderr.splitlines() if line.strip()] or [""]
    said = [line.removeprefix(ERROR) for line in lines if line.startswith(ERROR)]
    return {"status": ran.returncode, "line": (said or lines)[-1].replace(str(folder), "DIR")}


def write_page(rows: dict[str, dict[str, Any]]) -> None:
    """The table of ``rows`` (by model), with the versions at its head."""
    head = HEAD.format(
        users=USERS,
        items=ITEMS,
        running=sum(row["status"] == 0 for row in rows.values()),
        count=len(rows),
        versions=", ".join(f"{name} {version}" for name, version in VERSIONS.items()),
    )
    lines = []
    for model, row in sorted(rows.items(), key=lambda pair: (-list(KINDS).index(pair[1]["kind"]), pair[0].lower())):
        said = row["line"].replace("|", "\\|")
        status = "" if row["status"] in (0, 2) else f"exit status {row['status']}: "
        lines.append(f"| {model} | {row['kind']} | {'runs' if row['status'] == 0 else status + said} |")
    PAGE.write_text(head + "\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    models = {model: kind for kind, folder in KINDS.items() for model in recbole_models(folder)}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], metavar="MODEL", choices=models)
    parser.add_argument("--again", action="store_true", help="run what is in the results already, too")
    parser.add_argument("--seconds", type=float, default=120, help="time limit of a model")
    arguments = parser.parse_args()
    wanted = arguments.only or models
    found = [row for row in read_rows(RESULTS) if row["model"] in models and row["versions"] == VERSIONS]
    rows = {row["model"]: row for row in found}  # the last one of a model counts
    with tempfile.TemporaryDirectory() as temporary:
        write_data(Path(temporary), "made")
        for model in wanted:
            if model in rows and not arguments.again:
                continue
            result = run_model(model, Path(temporary), arguments.seconds)
            row = {"model": model, "kind": models[model], **result, "versions": VERSIONS}
            append_rows(RESULTS, row)
            rows[model] = row
            write_page(rows)
            print(f"{model}: {'runs' if row['status'] == 0 else row['line']}", flush=True)
    write_page(rows)


if __name__ == "__main__":
    main()
