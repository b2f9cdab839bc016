"""kill -9 at any moment: nothing is lost but the step, and what goes on ends in the same numbers."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from recbole_diffusion import checkpoint
from recbole_diffusion.console.progress import Progress, ShownProgress
from recbole_diffusion.quick_start import run
from recbole_diffusion.testing.resuming import without_seconds

pytestmark = pytest.mark.slow
_PROCESSES = multiprocessing.get_context("forkserver")  # each child starts with the imports done
_PROCESSES.set_forkserver_preload(["recbole_diffusion.quick_start", "recbole_diffusion.testing.resuming"])

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


def _train(model: str, settings: dict[str, Any], folder: str, resume: str | None, kill_at: tuple[int, int]) -> None:
    """Run in a process of its own, which ``kill_at`` (epoch from 0, batch from 1) kills."""
    torch.set_num_threads(1)
    os.chdir(folder)

    def batch(self: Progress, epoch: int, done: int, batches: int) -> None:
        if (epoch, done) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    ShownProgress.batch = batch  # type: ignore[method-assign]
    result = run(model, "random", settings=settings, resume=resume)
    weights = checkpoint.load(result["checkpoint"])["state_dict"]
    last = checkpoint.load(result["checkpoint"].replace("-best.", "-last."))["state_dict"]
    torch.save({"result": without_seconds(result), "best": weights, "last": last}, "done.pt")


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
    whole = _start(model, settings, str(tmp_path / "whole"), None, (-1, -1))
    whole.join()
    killed = _start(model, settings, str(tmp_path / "killed"), None, (3, 2))
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    rest = _start(model, settings, str(tmp_path / "killed"), "auto", (-1, -1))
    rest.join()
    assert rest.exitcode == 0
    _same(tmp_path / "killed", tmp_path / "whole")


def test_fifty_kills_at_random_moments(random_data: Path, tmp_path: Path) -> None:
    """The newest file always loads, no run trips over what was left, and the numbers are those of one run."""
    settings = {**TRAINING, **SMALL["DreamRec"], "data_path": str(random_data), "epochs": 40, "stopping_step": 100}
    (tmp_path / "whole").mkdir()
    whole = _start("DreamRec", settings, str(tmp_path / "whole"), None, (-1, -1))
    whole.join()
    draw, kills, loaded, attempt = random.Random(0), 0, 0, 0
    folder = tmp_path / "0"
    folder.mkdir()
    while kills < 50:
        process = _start("DreamRec", settings, str(folder), "auto", (-1, -1))
        process.join(draw.uniform(0.3, 3.0))
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
    final = _start("DreamRec", settings, str(folder), "auto", (-1, -1))
    final.join()
    assert final.exitcode == 0 and loaded >= 20
    _same(folder, tmp_path / "whole")
    assert not list((folder / "saved").glob(".*.part"))


def test_a_kill_during_a_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a-last.safetensors"
    checkpoint.save({"number": 0, "tensor": torch.zeros(1_000_000)}, path)
    draw = random.Random(1)
    for _ in range(15):
        process = _PROCESSES.Process(target=_write_forever, args=(str(path),))
        process.start()
        time.sleep(draw.uniform(0.1, 0.5))
        process.kill()
        process.join()
        state = checkpoint.load(path)
        assert (state["tensor"] == state["number"]).all()
    assert checkpoint.load(path)["number"] > 0


def _write_forever(path: str) -> None:
    number = checkpoint.load(path)["number"]
    while True:
        number += 1
        checkpoint.save({"number": number, "tensor": torch.full((1_000_000,), float(number))}, path)
