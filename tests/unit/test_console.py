"""What a run shows: on a terminal, in a file, and if it ends early."""

from __future__ import annotations

import io
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_runlog import bare_root

from recbole_diffusion.__main__ import main
from recbole_diffusion.console import facts
from recbole_diffusion.console.log import run_log
from recbole_diffusion.console.progress import ShownProgress, shown_progress
from recbole_diffusion.console.screen import Screen, aligned
from recbole_diffusion.quick_start import run
from recbole_diffusion.training.finite import Diverged
from recbole_diffusion.training.trainer import SafeTrainer

SMALL = {"epochs": 2, "eval_step": 1, "hidden_size": 16, "n_layers": 1, "MAX_ITEM_LIST_LENGTH": 10}


class Terminal(io.StringIO):
    """Keeps what is written. :attr:`lines` is what a terminal of ``COLUMNS`` columns shows at the end."""

    encoding = "utf-8"  # type: ignore[assignment]

    def isatty(self) -> bool:
        return True

    @property
    def lines(self) -> list[str]:
        shown = []
        for line in self.getvalue().split("\n"):
            cells: list[str] = []
            for part in line.split("\r"):
                cells[: len(part)] = part
            shown.append("".join(cells).rstrip())
        return shown


@contextmanager
def on_terminal() -> Iterator[Terminal]:
    """Standard output and error are one terminal of 80 columns, and the program has no log of its own.

    No fixture: pytest sets both streams and the handlers of the log again after those.
    """
    screen = Terminal()
    with pytest.MonkeyPatch.context() as patch, bare_root():
        patch.setenv("COLUMNS", "80")
        patch.setattr(sys, "stdout", screen)
        patch.setattr(sys, "stderr", screen)
        yield screen


def _trainer(**changes: Any) -> Any:
    """The parts of a trainer that the progress reads."""
    settings = {"show_progress": False, "loss_decimal_place": 2}
    values = {
        "start_epoch": 0, "total_epochs": 10, "eval_step": 1, "stopping_step": 2, "valid_metric": "ndcg@10",
        "history": [], "best_valid_score": 0.0, "saved_epoch": None, "saved_model_file": "saved/model.pth",
        "train_loss_dict": {}, "model": SimpleNamespace(), "config": settings,
    }  # fmt: skip
    return SimpleNamespace(**{**values, **changes})


def _validate(trainer: Any, epoch: int, score: float) -> None:
    trainer.train_loss_dict[epoch] = 1 / (epoch + 1)
    trainer.history.append({"train_loss": 1 / (epoch + 1), "valid": {"ndcg@10": score}})
    if score > trainer.best_valid_score:
        trainer.best_valid_score, trainer.saved_epoch = score, epoch


def test_a_run_shows_a_person_what_counts_and_logs_the_rest(
    random_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with bare_root():
        result = run(
            "WindowSASRec",
            "random",
            settings={**SMALL, "data_path": str(random_data), "state": "INFO", "use_gpu": False},
        )
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert lines[0] == "WindowSASRec on random, preset default, seed 2020"
    labels = ("data set", "split", "model", "settings", "trained", "checkpoint", "log", "tensorboard")
    shown = {label: text for line in lines for label, text in [(line[:13].rstrip(), line[13:])] if label in labels}
    assert tuple(shown) == labels  # each, in this order
    assert shown["data set"].startswith("random: 40 users, 30 items, ") and " per user, " in shown["data set"]
    assert shown["split"].endswith(" interactions for training, 39 for validation, 40 for test")
    assert shown["model"].startswith(f"{result['parameters']:,} parameters, on cpu, {torch.get_num_threads()} thread")
    assert shown["settings"].startswith("epochs=2, eval_step=1, hidden_size=16, ")
    assert [line.partition(": loss")[0] for line in lines if line.startswith("epoch ")] == ["epoch 1/2", "epoch 2/2"]
    best = f"best ndcg@10 {result['valid']['ndcg@10']:.4f}, epoch {result['best_epoch'] + 1}"
    assert shown["trained"].startswith("2 of 2 epochs in ") and shown["trained"].endswith(best)
    for metric, value in result["test"].items():
        (row,) = [line.split() for line in lines if line.startswith(f"{metric} ")]
        figures = (result["valid"][metric], value, result["pop"]["valid"][metric], result["pop"]["test"][metric])
        assert row == [metric, *(f"{figure:.4f}" for figure in figures)]
    assert shown["checkpoint"] == result["checkpoint"] and Path(shown["tensorboard"]).is_dir()
    assert "\x1b" not in printed.out + printed.err and "\r" not in printed.out
    assert printed.err.splitlines() == [f"WARNING: {text}" for text in result["warnings"]]
    log = Path(shown["log"]).read_text(encoding="utf-8")
    for text in ("General Hyper Parameters", "hidden_size = 16", "Embedding(", "epoch 1 training", "valid: hit@5"):
        assert text in log and text not in printed.out, text


def test_verbose_shows_the_log_too(random_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["run", "--model=Pop", "--dataset=random", f"--data_path={random_data}", "--examples=1"]
    with bare_root():
        assert main([*arguments, "--verbose"]) == 0
    printed = capsys.readouterr()
    (log,) = Path("log/Pop").iterdir()
    messages = [
        line.partition("INFO  ")[2] for line in log.read_text(encoding="utf-8").splitlines() if "INFO  " in line
    ]
    assert messages and all(f"INFO  {message}" in printed.err for message in messages)
    assert "\n  1. i" in printed.out and "checkpoint " in printed.out


def test_a_terminal_has_a_bar_while_the_model_trains(random_data: Path) -> None:
    with on_terminal() as terminal:
        run("WindowSASRec", "random", settings={**SMALL, "data_path": str(random_data)})
    drawn = terminal.getvalue().partition("\ncheckpoint ")[0]  # warnings below have a colour
    assert "\repoch 1/2, ? left |" in drawn and "\x1b" not in drawn
    assert "epoch 1/2: loss" not in drawn  # no line for each validation
    assert not [line for line in terminal.lines if "|" in line]
    assert [line for line in terminal.lines if line.startswith("trained      2 of 2 epochs in ")]
    assert max(map(len, terminal.lines[: terminal.lines.index("")])) < 80


@pytest.mark.parametrize(
    ("stop", "in_epoch"),
    [
        (KeyboardInterrupt(), 0),
        (KeyboardInterrupt(), 1),
        (Diverged("a loss is inf"), 1),
        (RuntimeError("a mistake"), 1),
    ],
)
def test_what_ends_a_training_leaves_no_bar(
    stop: BaseException, in_epoch: int, random_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = SafeTrainer._after_batch

    def after_batch(trainer: Any, epoch: int, done: int, batches: int) -> None:
        before(trainer, epoch, done, batches)
        if epoch == in_epoch:
            trainer.progress._bar.refresh()
            sys.stdout.write("^C")
            raise stop

    monkeypatch.setattr(SafeTrainer, "_after_batch", after_batch)
    with on_terminal() as terminal, pytest.raises(type(stop)):
        run("WindowSASRec", "random", settings={**SMALL, "data_path": str(random_data)})
    assert f" {in_epoch + 1}/2, " in terminal.getvalue() and not [line for line in terminal.lines if "|" in line]
    *_, above, last = terminal.lines
    if isinstance(stop, KeyboardInterrupt):
        assert "^C" not in "".join(terminal.lines)
        checkpoints = [line.split()[1] for line in terminal.lines if line.startswith("checkpoint ")]
        assert checkpoints == [str(path) for path in Path("saved").glob("*-best.safetensors")]
        assert len(checkpoints) == in_epoch == above.endswith("(epoch 1, the best so far)")
    assert last.replace("^C", "").strip() == ""


def test_a_bar_tells_epoch_best_figure_loss_and_time_left() -> None:
    trainer = _trainer()
    with on_terminal() as terminal, shown_progress(Screen(), trainer) as progress:
        for epoch, score in enumerate((0.02, 0.01)):
            progress.batch(epoch, 4, 4)
            assert terminal.lines[-1].startswith(f"validating {epoch + 1:>2}/10, ")
            _validate(trainer, epoch, score)
            progress.validated(epoch)
        assert terminal.lines[-1].startswith("epoch  2/10, 00:00 left, best ndcg@10 0.0200, loss 0.50 |")
        assert 60 < len(terminal.lines[-1]) <= 80 - len("^C")


def test_lines_and_warnings_do_not_run_into_the_bar() -> None:
    config = {"model": "Pop", "dataset": "random", "state": "INFO"}
    with on_terminal() as terminal, run_log(config) as log, shown_progress(log.screen, _trainer()) as progress:
        progress.batch(0, 1, 4)
        logging.getLogger().warning("beware")
        log.screen.line("a line")
        warning, line, bar = terminal.lines
    assert (
        re.sub(r"\x1b\[\d+m", "", warning) == "WARNING: beware" and line == "a line" and bar.startswith("epoch  1/10, ")
    )  # drawn again


def test_recboles_own_bars_take_the_place_of_ours() -> None:
    trainer = _trainer(config={"show_progress": True, "loss_decimal_place": 2})
    with on_terminal() as terminal:
        progress = ShownProgress(Screen(), trainer)
        progress.batch(0, 4, 4)
        assert terminal.getvalue() == ""
        _validate(trainer, 0, 0.02)
        progress.validated(0)
    assert terminal.lines[0] == "epoch  1/10: loss 1.00, ndcg@10 0.0200 (best 0.0200, epoch 1), about 0 s left"


def test_an_early_stop_and_a_resumed_training_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    trainer = _trainer(start_epoch=2, train_loss_dict={0: 1.0, 1: 0.5})
    with shown_progress(Screen(), trainer) as progress:
        for epoch, score in enumerate((0.03, 0.02, 0.02, 0.01), start=2):
            _validate(trainer, epoch, score)
            progress.validated(epoch)
    assert capsys.readouterr().out.splitlines()[-1] == (
        "trained      6 of 10 epochs in 0 s; best ndcg@10 0.0300, epoch 3; stopped early after 3 validations "
        "without improvement"
    )


def test_a_stage_of_its_own_length_is_counted_by_it(capsys: pytest.CaptureFixture[str]) -> None:
    trainer = _trainer(total_epochs=3, train_loss_dict={0: 1, 1: 1, 2: 1})
    with shown_progress(Screen(), trainer):
        pass
    assert capsys.readouterr().out == "trained      3 of 3 epochs in 0 s\n"


def test_a_notebook_without_widgets_has_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ipykernel.zmqshell", SimpleNamespace())  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "ipywidgets", None)  # type: ignore[arg-type]
    trainer = _trainer()
    with shown_progress(Screen(), trainer) as progress:
        progress.batch(0, 4, 4)
        _validate(trainer, 0, 0.02)
        progress.validated(0)
    printed = capsys.readouterr()
    assert printed.out.startswith("epoch  1/10: loss 1.00, ") and "\r" not in printed.out and printed.err == ""


def test_a_title_without_letters_and_a_closed_pipe_end_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", plain)
    Screen().line("Amélie")
    assert plain.buffer.getvalue() == b"Am?lie\n"  # type: ignore[attr-defined]

    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Closed())
    screen = Screen()
    screen.line("once")
    screen.line("again")
    monkeypatch.setattr(sys, "stdout", None)  # as in a program without a console
    Screen().line("nowhere")


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        (874724710, 893286638, "1997-09-20 to 1998-04-22"),
        (874724710000, 893286638000, "1997-09-20 to 1998-04-22"),
        (0, 893286638, None),
        (1, 25, None),
        (874724710, 893286638000, None),
        (float("nan"), float("nan"), None),
    ],
)
def test_a_span_of_days_is_that_of_unix_times(first: float, last: float, expected: str | None) -> None:
    assert facts.days(first, last) == expected


def test_settings_are_told_with_where_they_come_from() -> None:
    user = {"epochs": 2, "lr": 0.1, "topk": [5, 10]}
    assert facts.settings({}, {}, [], "default") == "all: preset default"
    assert facts.settings(user, {"lr": 0.1, "epochs": 2}, ["a.yaml", Path("b.yaml")], "paper") == (
        "epochs=2, lr=0.1; from a.yaml, b.yaml: topk=[5, 10]; all others: preset paper"
    )
    many = facts.settings({f"k{n}": n for n in range(100)}, {}, ["all.yaml"], "default")
    assert many.endswith("k11=11, 88 more; all others: preset default")


def test_a_table_is_aligned() -> None:
    lines = aligned({"valid": {"hit@5": 0.5, "averagepopularity@10": 123.4}, "Pop valid": {"hit@5": 0.25}})
    assert lines == [
        "                         valid  Pop valid",
        "hit@5                   0.5000     0.2500",
        "averagepopularity@10  123.4000          -",
    ]
