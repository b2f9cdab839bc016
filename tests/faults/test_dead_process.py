"""A training by several processes, one of which is killed or gets a signal: the job ends, and goes on later."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import recbole_diffusion
from recbole_diffusion.storage import checkpoint

pytestmark = pytest.mark.slow
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
TRAINING = [
    "--embedding_size=16", "--num_layers=1", "--sampling_steps=2", "--MAX_ITEM_LIST_LENGTH=10", "--use_gpu=False",
    "--train_batch_size=16", "--stopping_step=1000", "--checkpoint_minutes=0", "--resume=auto",
]  # fmt: skip
_LONGEST = 60  # seconds


def _start(folder: Path, data: Path, epochs: int) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    run = ["-m", "recbole_diffusion", "run", "--model=DreamRec", "--dataset=random", f"--data_path={data}"]
    return subprocess.Popen(
        [*TORCHRUN, *run, *TRAINING, f"--epochs={epochs}"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(recbole_diffusion.__file__).parents[1]), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _last(folder: Path) -> Path:
    (last,) = (folder / "saved").glob("*-last.safetensors")
    return last


def _wait_for_epoch(job: subprocess.Popen[str], folder: Path, epoch: int) -> None:
    until = time.monotonic() + 300
    while not any(
        checkpoint.load_data(path)["epoch"] >= epoch for path in (folder / "saved").glob("*-last.safetensors")
    ):
        assert job.poll() is None and time.monotonic() < until
        time.sleep(0.05)


def _workers(job: subprocess.Popen[str]) -> list[int]:
    """The processes that train, in the order of their numbers."""
    children = Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()
    ranks = {}
    for child in map(int, children):
        for setting in Path(f"/proc/{child}/environ").read_text().split("\0"):
            if setting.startswith("RANK="):
                ranks[int(setting.removeprefix("RANK="))] = child
    return [ranks[number] for number in sorted(ranks)]


@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes in /proc")
@pytest.mark.parametrize("dead", [0, 1])
def test_a_killed_process_ends_the_job_which_goes_on_to_the_same_bits(
    dead: int, random_data: Path, tmp_path: Path
) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    job = _start(killed, random_data, epochs=30)
    _wait_for_epoch(job, killed, 3)
    workers = _workers(job)
    os.kill(workers[dead], signal.SIGKILL)
    _, errors = job.communicate(timeout=_LONGEST)
    assert job.returncode != 0
    (line,) = [line for line in errors.splitlines() if line.startswith("recbole-diffusion:")]
    assert "another process of this training has ended" in line and "--resume=auto" in line
    assert "Traceback" not in errors.partition("torch/distributed/elastic")[0]
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
    last = _last(killed)
    assert 3 <= checkpoint.load(last)["epoch"] < 30
    for folder in (killed, whole):
        job = _start(folder, random_data, epochs=30)
        output, errors = job.communicate(timeout=600)
        assert job.returncode == 0, errors
        assert ("going on from" in output) == (folder is killed)
    found, expected = (checkpoint.load(_last(folder))["state_dict"] for folder in (killed, whole))
    assert _last(killed) == last
    assert all(torch.equal(value, expected[name]) for name, value in found.items())


@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes in /proc")
def test_a_signal_to_one_process_stops_all_after_the_same_step(random_data: Path, tmp_path: Path) -> None:
    job = _start(tmp_path / "run", random_data, epochs=1000)
    _wait_for_epoch(job, tmp_path / "run", 2)
    os.kill(_workers(job)[1], signal.SIGTERM)
    _, errors = job.communicate(timeout=_LONGEST)
    (line,) = [line for line in errors.splitlines() if line.startswith("recbole-diffusion:")]
    assert "interrupted" in line and "--resume=auto goes on" in line
    assert checkpoint.load(_last(tmp_path / "run"))["training"]["others"]
