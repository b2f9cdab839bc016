"""The log of a run: it has its own file, and the logging of the program does not change."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import Built
from recbole.utils import get_tensorboard

from recbole_diffusion.config.settings import UserError
from recbole_diffusion.console.log import run_log, tensorboard_named
from recbole_diffusion.quick_start import run
from recbole_diffusion.storage import files


@contextmanager
def bare_root() -> Iterator[logging.Logger]:
    """The root logger of a program that sets up no logging. Not a fixture: pytest adds its handlers after fixtures."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    root.handlers.clear()
    root.setLevel(logging.WARNING)
    try:
        yield root
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


class _Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def _config(dataset: str = "random", state: str = "INFO") -> dict[str, Any]:
    return {"model": "Pop", "dataset": dataset, "state": state}


def test_each_run_of_a_process_has_its_own_log(random_data: Path) -> None:
    small = {"data_path": str(random_data), "epochs": 1}
    with bare_root() as root:
        for seed in (3, 4):
            run("Pop", "random", settings={**small, "seed": seed})
            assert root.handlers == [] and root.level == logging.WARNING
    logs = sorted(Path("log/Pop").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    assert len(logs) == 2
    for seed, file in zip((3, 4), logs, strict=True):
        text = file.read_text(encoding="utf-8")
        assert text.count("Pop: RecBole (") == 1 == text.count("test:  hit@5") and f"seed = {seed}\n" in text
        assert "\x1b" not in text
    assert len(list(Path("log_tensorboard").iterdir())) == 2


def test_handlers_and_level_are_what_they_were_also_after_an_error() -> None:
    own = _Kept()
    with bare_root() as root:
        root.addHandler(own)
        with pytest.raises(UserError, match="stop"), run_log(_config()) as log:
            root.info("of the run")
            root.warning("of both")
            (inside,) = (handler for handler in root.handlers if handler is not own)
            raise UserError("stop")
        assert root.handlers == [own] and root.level == logging.WARNING and own.filters == []
        root.warning("after")
    assert own.messages == ["of both", "after"]  # the same messages as without a run
    assert isinstance(inside, logging.FileHandler) and inside.stream is None  # closed
    text = log.path.read_text(encoding="utf-8")
    assert "INFO  of the run" in text and "WARNING  of both" in text and "after" not in text


def test_a_programs_own_loggers_are_heard_as_before() -> None:
    names = ("runlog_test", "runlog_test.below", "runlog_other")
    own = _Kept()
    loggers = [logging.getLogger(name) for name in names]
    loggers[0].setLevel(logging.INFO)  # the second inherits it; the third has the level of the root logger

    def say() -> list[str]:
        own.messages.clear()
        for logger in loggers:
            logger.debug(f"{logger.name} debug")
            logger.info(f"{logger.name} info")
            logger.error(f"{logger.name} error")
        return list(own.messages)

    with bare_root() as root:
        root.addHandler(own)
        for level in (logging.WARNING, logging.INFO):
            root.setLevel(level)
            heard = say()
            assert "runlog_test.below info" in heard and ("runlog_other info" in heard) is (level == logging.INFO)
            for state in ("DEBUG", "INFO", "ERROR"):
                with run_log(_config(state=state)) as log:
                    assert say() == heard, state
                    root.warning("of the run")
                    assert (own.messages[-1] == "of the run") is (state != "ERROR")
                text = log.path.read_text(encoding="utf-8")
                assert ("runlog_other debug" in text) is (state == "DEBUG") and "runlog_other error" in text
    loggers[0].setLevel(logging.NOTSET)


@pytest.mark.parametrize(
    ("state", "verbose", "shown"),
    [
        ("INFO", False, ["WARNING: beware"]),
        ("INFO", True, ["INFO  of the run", "WARNING  beware"]),
        ("DEBUG", False, ["WARNING: beware"]),
        ("DEBUG", True, ["DEBUG  a detail", "INFO  of the run", "WARNING  beware"]),
        ("WARNING", False, ["WARNING: beware"]),
        ("WARNING", True, ["WARNING  beware"]),
        ("ERROR", False, []),
        ("ERROR", True, []),
    ],
)
def test_the_console_shows_warnings_and_the_log_only_where_it_is_asked_for(
    state: str, verbose: bool, shown: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with bare_root() as root, run_log(_config(state=state), verbose) as log:
        root.debug("a detail")
        root.info("\x1b[1;35mof the run\x1b[0m")
        root.warning("beware")
        log.screen.line("for a person")
    printed = capsys.readouterr()
    assert len(printed.err.splitlines()) == len(shown)
    assert all(line.endswith(text) for line, text in zip(printed.err.splitlines(), shown, strict=True)), printed.err
    assert printed.out == ("for a person\n" if state in ("DEBUG", "INFO") else "")


@pytest.mark.parametrize("verbose", [False, True])
def test_the_console_shows_nothing_where_the_program_logs_itself(
    verbose: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    with bare_root() as root:
        root.addHandler(_Kept())
        with run_log(_config(), verbose) as log:
            root.warning("of the run")
            log.screen.line("for a person")
    assert capsys.readouterr() == ("", "")


def test_runs_of_one_second_share_no_file(build: Callable[..., Built], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files.time, "strftime", lambda *_: "20260101-000000")
    paths = []
    with bare_root() as root:
        root.addHandler(logging.FileHandler("user.log"))  # RecBole would name the curves after it
        for _ in range(2):
            with run_log(_config("films.v2")) as log:
                trainer = build("Pop").trainer
            paths += [log.path, Path(trainer.saved_model_file), Path(trainer.tensorboard.log_dir)]
            trainer.tensorboard.close()
        assert [handler.baseFilename for handler in root.handlers] == [str(Path("user.log").absolute())]
        root.handlers[0].close()
    assert len(set(paths)) == 6


def test_curves_of_a_name_with_dots_have_a_folder_of_their_own() -> None:
    with tensorboard_named("Pop-films.v2-1"):
        writer = get_tensorboard(logging.getLogger())
    writer.close()
    assert Path(writer.log_dir) == Path("log_tensorboard/Pop-films_v2-1")
