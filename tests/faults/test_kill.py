"""kill -9 at any moment: nothing is lost but the step, and what goes on ends in the same numbers."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import recbole_diffusion
from recbole_diffusion.console.progress import Progress, ShownProgress
from recbole_diffusion.quick_start import run
from recbole_diffusion.storage import checkpoint
from recbole_diffusion.testing.resuming import without_seconds
from recbole_diffusion.training.trainer import SafeTrainer
from recbole_diffusion.tune.search import tune

pytestmark = pytest.mark.slow
_PROCESSES = multiprocessing.get_context("forkserver")  # each child starts with the imports done
# The last two are what torch imports late.
_IMPORTS = ["recbole_diffusion.tune.search", "recbole_diffusion.model.diffurec", "recbole.model.sequential_recommender"]
_PROCESSES.set_forkserver_preload([*_IMPORTS, "torch._dynamo", "torch.utils.tensorboard"])

SMALL: dict[str, dict[str, Any]] = {
    "DreamRec": {"embedding_size": 16, "num_layers": 1, "num_heads": 2, "timestep_sampler": "loss_second_moment"},
    "DiffuRec": {"embedding_size": 16, "num_layers": 1, "num_heads": 2, "prefixes_per_user": 3},
    "SASRec": {"hidden_size": 16, "inner_size": 16},
    "BPR": {"embedding_size": 16},
}
TRAINING = {
    "train_batch_size": 16, "epochs": 6, "eval_step": 2, "seed": 1, "use_gpu": False, "MAX_ITEM_LIST_LENGTH": 10,
    "checkpoint_minutes": 0, "metric_decimal_place": 10,
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def _same_package() -> Iterator[None]:
    """The server of processes imports the package that is tested, not an installed one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(recbole_diffusion.__file__).parents[1]))
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


def _train(
    model: str,
    settings: dict[str, Any],
    folder: str,
    resume: str | None,
    kill_at: tuple[int, int] = (-1, -1),
    begun: Any = None,
) -> None:
    """Run in its own process. ``kill_at`` (epoch from 0, batch from 1) kills it, and ``begun`` is set in training."""
    torch.set_num_threads(1)
    os.chdir(folder)

    def batch(self: Progress, epoch: int, done: int, batches: int) -> None:
        if begun is not None:
            begun.set()
        if (epoch, done) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    ShownProgress.batch = batch  # type: ignore[method-assign]
    result = run(model, "random", settings=settings, resume=resume)
    weights = checkpoint.load(result["checkpoint"])["state_dict"]
    last = checkpoint.load(result["checkpoint"].replace("-best.", "-last."))["state_dict"]
    torch.save({"result": checkpoint.plain(without_seconds(result)), "best": weights, "last": last}, "done.pt")


def _start(*arguments: Any) -> Any:
    process = _PROCESSES.Process(target=_train, args=arguments)
    process.start()
    return process


def _same(folder: Path, other: Path) -> None:
    found, expected = (torch.load(path / "done.pt", weights_only=True) for path in (folder, other))
    assert found["result"] == expected["result"]
    for part in ("best", "last"):
        assert found[part].keys() == expected[part].keys()
        assert all(torch.equal(value, expected[part][name]) for name, value in found[part].items())


@pytest.mark.parametrize("model", SMALL)
def test_six_epochs_equal_three_a_kill_in_the_fourth_and_the_rest(
    model: str, random_data: Path, tmp_path: Path
) -> None:
    settings = {**TRAINING, **SMALL[model], "data_path": str(random_data)}
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    whole = _start(model, settings, str(tmp_path / "whole"), None)
    whole.join()
    killed = _start(model, settings, str(tmp_path / "killed"), None, (3, 2))
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    rest = _start(model, settings, str(tmp_path / "killed"), "auto")
    rest.join()
    assert rest.exitcode == 0
    _same(tmp_path / "killed", tmp_path / "whole")


def _kill_at_batch(number: int) -> None:
    """Kill this process in the step with this number, over all epochs and trainings; 0 is never."""
    seen = itertools.count(1)

    def after_batch(*_: Any) -> None:
        if next(seen) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    SafeTrainer._after_batch = after_batch  # type: ignore[method-assign]


def _tune(settings: dict[str, Any], folder: str, kill_at: int) -> None:
    torch.set_num_threads(1)
    os.chdir(folder)
    Path("space.yaml").write_text("learning_rate: {low: 1e-4, high: 1e-2, log: true}\ndropout: [0.1, 0.3, 0.5]\n")
    _kill_at_batch(kill_at)
    tune("DreamRec", "random", settings=settings, space="space.yaml", trials=5, out="out")


def test_a_killed_study_goes_on_in_its_trial_and_draws_the_same(random_data: Path, tmp_path: Path) -> None:
    settings = {**TRAINING, **SMALL["DreamRec"], "data_path": str(random_data), "epochs": 4, "eval_step": 1}
    tables = {}
    for name, kills in (("whole", []), ("killed", [14, 9, 3])):
        folder = tmp_path / name
        folder.mkdir()
        for kill_at in [*kills, 0]:
            process = _PROCESSES.Process(target=_tune, args=(settings, str(folder), kill_at))
            process.start()
            process.join()
            assert process.exitcode == (-signal.SIGKILL if kill_at else 0)
        table = pd.read_csv(folder / "out" / "trials.csv")
        tables[name] = table[table.state != "interrupted"].drop(columns=["trial", "seconds"]).reset_index(drop=True)
        best = [line for line in (folder / "out" / "best.yaml").read_text().splitlines() if not line.startswith("#")]
        tables[f"{name} best"] = pd.DataFrame(best)
        assert len(list((folder / "out" / "saved").glob("*-best.safetensors"))) == 1
        assert not list((folder / "out" / "saved").glob("*-last.safetensors"))
    pd.testing.assert_frame_equal(tables["killed"], tables["whole"], check_dtype=False)
    pd.testing.assert_frame_equal(tables["killed best"], tables["whole best"])
    interrupted = pd.read_csv(tmp_path / "killed" / "out" / "trials.csv").state.value_counts()["interrupted"]
    logs = "".join(file.read_text() for file in (tmp_path / "killed" / "out" / "log").glob("*.log"))
    assert interrupted == 3 and logs.count("resume: going on from") >= 2


def test_a_killed_worker_of_a_comparison_goes_on(random_data: Path, tmp_path: Path) -> None:
    models = ["--models=Pop,WindowSASRec", "--datasets=random", f"--data_path={random_data}", "--seeds=0", "--out=out"]
    small = ["--WindowSASRec.hidden_size=16", "--WindowSASRec.epochs=30", "--WindowSASRec.stopping_step=100"]
    command = [sys.executable, "-m", "recbole_diffusion", "compare", *models, *small, "--checkpoint_minutes=0"]
    command += ["--MAX_ITEM_LIST_LENGTH=10", "--use_gpu=False", "--train_batch_size=16"]
    here = dict(os.environ)
    records = {}
    for name in ("whole", "killed"):
        folder = tmp_path / name
        folder.mkdir()
        if name == "killed":
            _kill_a_worker(command, folder, here)
        assert subprocess.run(command, cwd=folder, env=here, capture_output=True).returncode == 0
        run_folder = folder / "out" / "runs" / "random" / "WindowSASRec"
        records[name] = without_seconds(json.loads((run_folder / "seed0.json").read_text()))
        log = (run_folder / "seed0.log").read_text()
        assert ("resume: going on from saved/WindowSASRec" in log) == (name == "killed")
        assert not list((folder / "out" / "saved").glob("*-last.safetensors"))
    assert records["killed"] == records["whole"]


def _kill_a_worker(command: list[str], folder: Path, environment: dict[str, str]) -> None:
    """Start a comparison, and kill it with its worker when the worker is in the middle of training."""
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        until = time.monotonic() + 300
        while True:
            assert process.poll() is None and time.monotonic() < until
            for last in (folder / "out" / "saved").glob("WindowSASRec*-last.safetensors"):
                if checkpoint.load_data(last)["epoch"] >= 3:
                    return
            time.sleep(0.01)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_fifty_kills_at_random_moments(random_data: Path, tmp_path: Path) -> None:
    """The newest file always loads, no run trips over what was left, and the numbers are those of one run."""
    settings = {**TRAINING, **SMALL["DreamRec"], "data_path": str(random_data), "epochs": 40, "stopping_step": 100}
    (tmp_path / "whole").mkdir()
    whole = _start("DreamRec", settings, str(tmp_path / "whole"), None)
    whole.join()
    draw, kills, loaded, attempt = random.Random(0), 0, 0, 0
    folder = tmp_path / "0"
    folder.mkdir()
    while kills < 50:
        begun = _PROCESSES.Event()
        process = _start("DreamRec", settings, str(folder), "auto", (-1, -1), begun)
        if draw.random() < 0.2:  # perhaps before training
            process.join(draw.uniform(0.0, 1.0))
        else:
            while process.exitcode is None and not begun.wait(0.01):
                pass
            process.join(draw.uniform(0.0, 0.5))
        if process.exitcode is None:
            process.kill()
            process.join()
            kills += 1
            for path in (folder / "saved").glob("*-last.safetensors"):
                assert "training" in checkpoint.load(path)
                loaded += 1
            assert len(list((folder / "saved").glob("*-last.safetensors"))) <= 1
        else:
            assert process.exitcode == 0
            _same(folder, tmp_path / "whole")
            attempt += 1
            folder = tmp_path / str(attempt)
            folder.mkdir()
    print(f"{loaded} files loaded after {kills} kills; {attempt} runs came to their end between them")
    final = _start("DreamRec", settings, str(folder), "auto")
    final.join()
    assert final.exitcode == 0 and loaded >= 20
    _same(folder, tmp_path / "whole")
    assert not list((folder / "saved").glob(".*.part"))


def test_a_kill_during_a_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a-last.safetensors"
    checkpoint.save({"number": 0, "tensor": torch.zeros(1_000_000)}, path)
    draw = random.Random(1)
    for _ in range(15):
        begun = _PROCESSES.Event()
        process = _PROCESSES.Process(target=_write_forever, args=(str(path), begun))
        process.start()
        assert begun.wait(60)
        time.sleep(draw.uniform(0.0, 0.3))
        process.kill()
        process.join()
        state = checkpoint.load(path)
        assert (state["tensor"] == state["number"]).all()
    assert checkpoint.load(path)["number"] > 0


def _write_forever(path: str, begun: Any) -> None:
    """Write one number after the other, and set ``begun`` after the first."""
    number = checkpoint.load(path)["number"]
    while True:
        number += 1
        checkpoint.save({"number": number, "tensor": torch.full((1_000_000,), float(number))}, path)
        begun.set()
