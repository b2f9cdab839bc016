"""Ctrl-C and SIGTERM: the step is finished, ``last`` is written, the last line says how to go on."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Built

from recbole_diffusion.__main__ import main
from recbole_diffusion.console import progress
from recbole_diffusion.console.progress import Progress
from recbole_diffusion.quick_start import Prepared, run, train
from recbole_diffusion.storage import checkpoint
from recbole_diffusion.testing.resuming import without_seconds
from recbole_diffusion.training.stopping import Stopped, asked_to_stop

SETTINGS = {"epochs": 4, "eval_step": 1, "train_batch_size": 32, "hidden_size": 16, "inner_size": 16, "seed": 3}


def _command(random_data: Path, *more: str) -> list[str]:
    settings = {**SETTINGS, "data_path": random_data, "use_gpu": False, "MAX_ITEM_LIST_LENGTH": 10}
    return ["run", "--model=WindowSASRec", "--dataset=random", *(f"--{k}={v}" for k, v in settings.items()), *more]


class _Signal(Progress):
    """Sends a signal to this process within a step. Epochs are counted from 0, batches from 1."""

    def __init__(self, number: int, epoch: int, batch: int) -> None:
        self.number, self.at = number, (epoch, batch)

    def batch(self, epoch: int, done: int, batches: int) -> None:
        if (epoch, done) == self.at:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_step_is_finished_and_the_same_command_goes_on(
    random_data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    number: int,
    status: int,
) -> None:
    caplog.set_level("INFO")
    expected = run(
        "WindowSASRec", "random",
        settings={**SETTINGS, "data_path": str(random_data), "use_gpu": False, "MAX_ITEM_LIST_LENGTH": 10},
    )  # fmt: skip
    sender = _Signal(number, 2, 1)
    with monkeypatch.context() as patch:
        patch.setattr(progress.ShownProgress, "batch", lambda self, *at: sender.batch(*at))
        assert main(_command(random_data)) == status
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("recbole-diffusion: interrupted: saved/WindowSASRec-random-default-seed3-")
    assert error.endswith("-last.safetensors has all that was done; the same command with --resume=auto goes on.")
    last = max(Path("saved").glob("*-last.safetensors"), key=lambda path: path.stat().st_mtime)
    state = checkpoint.load(last)
    assert state["epoch"] == 2 and checkpoint.unpack(state["training"])["place"]["done"] == 1
    result = run(
        "WindowSASRec", "random", resume="auto",
        settings={**SETTINGS, "data_path": str(random_data), "use_gpu": False, "MAX_ITEM_LIST_LENGTH": 10},
    )  # fmt: skip
    assert without_seconds(result) == without_seconds(expected)
    assert f"resume: going on from {last}: epoch 3 of 4, after batch 1\n" in caplog.text
    assert main(_command(random_data, "--resume=auto")) == 0
    assert f"from {last}: this run is finished, after 4 epochs; nothing is left to train" in caplog.text


DREAMREC = {
    "epochs": 4, "eval_step": 1, "train_batch_size": 32, "embedding_size": 16, "num_layers": 1, "num_heads": 2,
}  # fmt: skip


@pytest.mark.parametrize(
    ("model", "settings"), [("WindowSASRec", SETTINGS), ("DreamRec", DREAMREC), ("SASRec", SETTINGS)]
)
def test_a_signal_in_validation_loses_nothing(
    build: Callable[..., Built], monkeypatch: pytest.MonkeyPatch, model: str, settings: dict[str, Any]
) -> None:
    def trained(resume: str | None = None) -> tuple[Built, Any]:
        built = build(model, resume=resume, **settings)
        return built, without_seconds(train(Prepared(None, *built[1:])))

    _, expected = trained()
    seen = 0

    def evaluate(self: Any, *arguments: Any, **named: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(self, *arguments, **named)

    from recbole.trainer import Trainer

    plain = Trainer.evaluate
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "evaluate", evaluate)
        with pytest.raises(Stopped, match="has all that was done"):
            trained()
    built = build(model, resume="auto", **settings)
    assert "epoch 2 of 4, after batch" in built.trainer.resumed
    assert without_seconds(train(Prepared(None, *built[1:]))) == expected


def test_a_schedule_of_the_learning_rate_goes_on(build: Callable[..., Built]) -> None:
    """No trainer here has one; that of a model of another package may."""

    def scheduled(resume: str | None = None) -> Built:
        built = build("WindowSASRec", **SETTINGS)
        built.trainer.schedule = torch.optim.lr_scheduler.StepLR(built.trainer.optimizer, 3, gamma=0.1)
        if resume is not None:
            built.trainer.resume_checkpoint(resume)
        return built

    first = scheduled()
    for _ in range(4):
        first.trainer.schedule.step()
    first.trainer.fit(first.loaders.train, first.loaders.valid)
    again = scheduled(first.trainer.files.last)
    assert again.trainer.schedule.last_epoch == 4
    assert again.trainer.optimizer.param_groups[0]["lr"] == pytest.approx(1e-4)


def test_without_a_checkpoint_of_the_same_run_it_starts_anew(build: Callable[..., Built]) -> None:
    built = build("WindowSASRec", **SETTINGS)
    built.trainer.epochs = 1
    train(Prepared(None, *built[1:]))
    assert build("WindowSASRec", resume="auto", **SETTINGS).trainer.resumed.startswith("going on from saved/")
    for other in ({"seed": 4}, {"learning_rate": 0.5}, {"epochs": 5}, {"stopping_step": 1}, {"topk": [10]}):
        again = build("WindowSASRec", resume="auto", **{**SETTINGS, **other})
        assert again.trainer.resumed == "no checkpoint of this run in saved: it starts anew"
        assert again.trainer.start_epoch == 0
    again = build("WindowSASRec", resume="auto", eval_batch_size=7, **SETTINGS)
    assert again.trainer.start_epoch == 1
    content = built.trainer.files.last.read_bytes()
    built.trainer.files.last.write_bytes(content[:-100])
    assert "or is damaged" in build("WindowSASRec", resume="auto", **SETTINGS).trainer.resumed


def test_a_second_signal_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 10.1, 20.0])
    monkeypatch.setattr("recbole_diffusion.training.stopping.time.monotonic", lambda: next(clock))
    before = signal.getsignal(signal.SIGTERM)
    with asked_to_stop() as asked:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)  # the same one, sent to the group too
        assert asked.number == signal.SIGTERM
        with pytest.raises(Stopped):
            os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_processes_that_load_batches_do_not_swallow_it(build: Callable[..., Built], number: int) -> None:
    settings = {**SETTINGS, "worker": 1, "epochs": 50, "stopping_step": 100}
    built = build("WindowSASRec", **settings)
    with pytest.raises(Stopped):
        train(Prepared(None, *built[1:]), progress=_Signal(number, 1, 2))
    assert checkpoint.load(built.trainer.files.last)["epoch"] == 1
