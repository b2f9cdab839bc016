"""Many runs in one process, and large data: no growth of memory, files or threads, and a bound of the memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from recbole_diffusion.quick_start import run

BENCHMARK = Path(__file__).parents[2] / "benchmarks/load.py"


def figures(part: str) -> dict[str, Any]:
    """What benchmarks/load.py measures, in its own process."""
    paths = {"PYTHONPATH": str(BENCHMARK.parents[1])}
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), part], capture_output=True, text=True, check=True, env={**os.environ, **paths}
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("model", ["DreamRec", "BPR"])
def test_a_run_leaves_no_file_open_and_no_thread(random_data: Path, model: str) -> None:
    process, counts = psutil.Process(), []
    for seed in range(3):
        settings = {"data_path": str(random_data), "use_gpu": False, "epochs": 1, "embedding_size": 8, "seed": seed}
        run(model, "random", settings=settings, examples=1)
        counts.append((process.num_fds(), process.num_threads()))
    assert counts[1] == counts[2]  # the first loads what stays


@pytest.mark.slow
def test_two_hundred_runs_do_not_grow() -> None:
    found = figures("many-runs")
    assert found["after 200 files"] == found["after 40 files"]
    assert found["after 200 threads"] == found["after 40 threads"]
    assert found["after 200 GB"] < found["after 40 GB"] + 0.1


@pytest.mark.slow
@pytest.mark.parametrize("part", ["many-interactions", "long-user", "popular-item", "many-items"])
def test_large_data_need_a_bounded_memory(part: str) -> None:
    found = figures(part)
    assert found["ranked"] >= 1000 and found["beside the model GB"] < 3
