"""One training by several processes, as ``torchrun`` starts them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import recbole_diffusion
from recbole_diffusion.testing.fixtures import write_random

ROOT = Path(recbole_diffusion.__file__).parents[1]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
SMALL = ["--embedding_size=16", "--num_layers=1", "--sampling_steps=2", "--epochs=2", "--MAX_ITEM_LIST_LENGTH=10"]


def _torchrun(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run([*TORCHRUN, *command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=600)


def test_two_processes_do_together_what_one_does(tmp_path: Path) -> None:
    """``together.py`` has the checks: gradients of every model, rankings, resuming."""
    data = write_random(tmp_path / "data")
    out = tmp_path / "out.json"
    done = _torchrun(str(Path(__file__).with_name("together.py")), str(data), str(out), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    failed = {check: message for check, message in json.loads(out.read_text()).items() if message}
    assert not failed, "\n\n".join(f"{check}\n{message}" for check, message in failed.items())


def test_the_first_process_alone_writes_and_shows(tmp_path: Path) -> None:
    data = write_random(tmp_path / "data")
    command = ["-m", "recbole_diffusion", "run", "--model=DreamRec", "--dataset=random", f"--data_path={data}", *SMALL]
    done = _torchrun(*command, "--use_gpu=False", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("DreamRec on random") == done.stdout.count("trained ") == 1
    assert "2 processes" in done.stdout
    assert done.stderr.count("WARNING") <= 1, done.stderr  # that it is not above Pop
    assert len(list((tmp_path / "log").rglob("*.log"))) == 1
    assert len(list((tmp_path / "saved").iterdir())) == 2
    assert len(list((tmp_path / "log_tensorboard").iterdir())) == 1


@pytest.mark.slow
def test_a_users_mistake_is_told_once(tmp_path: Path) -> None:
    data = write_random(tmp_path / "data")
    command = ["-m", "recbole_diffusion", "run", "--model=DreamRec", "--dataset=random", f"--data_path={data}", *SMALL]
    done = _torchrun(*command, "--use_gpu=False", "--topk=[10,50]", cwd=tmp_path)  # is seen when the data are read
    assert done.returncode != 0
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("recbole-diffusion:")]
    assert "topk=[10, 50]" in line and "exitcode  : 2" in done.stderr
    assert not (tmp_path / "log").exists() and not (tmp_path / "saved").exists()
