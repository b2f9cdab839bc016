"""The log of a run, in a file of its own, and what of it the console shows, for as long as the run lasts."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from colorlog import ColoredFormatter
from recbole.utils.logger import log_colors_config

from recbole_diffusion.console.screen import Screen, around_bars
from recbole_diffusion.files import file_name, make_folder, unique_name

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class _Plain(logging.Formatter):
    """Without the colours that RecBole writes into its messages."""

    def format(self, record: logging.LogRecord) -> str:
        return _COLOUR.sub("", super().format(record))


class _Console(logging.StreamHandler[TextIO]):
    """Standard error, where lines do not run into the bar."""

    def emit(self, record: logging.LogRecord) -> None:
        with around_bars(self.stream):
            super().emit(record)


class RunLog(NamedTuple):
    """Where a run is logged, and the screen for what a person reads of it."""

    path: Path
    screen: Screen


@contextmanager
def run_log(config: Any, verbose: bool = False) -> Iterator[RunLog]:
    """What is logged meanwhile goes to ``log/MODEL/``, and of it warnings to the console; ``verbose``: all of it.

    A program that has a log of its own has no other console: there nothing is shown, and the screen is off. It is off
    too where ``config["state"]`` hides information.

    RecBole logs to the root logger, whose level is that of ``config["state"]`` meanwhile. Handlers that are there
    already are given what they were given before, and of what the run logs no more than its state lets through; level
    and handlers are what they were at the end, also after an error.
    """
    root = logging.getLogger()
    before, others = root.level, list(root.handlers)
    state = logging.getLevelNamesMapping()[config["state"]]
    model = file_name(config["model"])
    path = Path("log", model, f"{unique_name(model, config['dataset'])}.log")
    make_folder("the log", path.parent)
    file = logging.FileHandler(path, encoding="utf-8")
    file.setFormatter(_Plain("%(asctime)-15s %(levelname)s  %(message)s", "%a %d %b %Y %H:%M:%S"))
    own: list[logging.Handler] = [file]
    if not others:
        own.append(_console(verbose))

    def as_before(record: logging.LogRecord) -> bool:
        if record.name == root.name:  # what the run logs, and a program that names no logger
            return record.levelno >= max(before, state)
        return record.levelno >= before or _has_level(logging.getLogger(record.name))

    with ExitStack() as undo:
        for handler in own:
            handler.setLevel(max(state, handler.level))
            root.addHandler(handler)
            undo.callback(handler.close)
            undo.callback(root.removeHandler, handler)
        for handler in others:
            handler.addFilter(as_before)
            undo.callback(handler.removeFilter, as_before)
        undo.callback(root.setLevel, before)
        root.setLevel(min(before, state))
        yield RunLog(path, Screen(off=bool(others) or state > logging.INFO))


def _has_level(logger: logging.Logger) -> bool:
    """Whether a logger has a level of its own, or has that of one below the root."""
    while logger.parent is not None:
        if logger.level != logging.NOTSET:
            return True
        logger = logger.parent
    return False


def _console(verbose: bool) -> logging.Handler:
    console = _Console()
    if not verbose:
        console.setLevel(logging.WARNING)
    form = "%(asctime)-15s %(levelname)s  %(message)s" if verbose else "%(levelname)s: %(message)s"
    date = "%d %b %H:%M"
    coloured = getattr(console.stream, "isatty", bool)()
    console.setFormatter(
        ColoredFormatter(f"%(log_color)s{form}", date, log_colors=log_colors_config) if coloured else _Plain(form, date)
    )
    return console


@contextmanager
def tensorboard_named(name: str) -> Iterator[None]:
    """RecBole's trainers built meanwhile write their curves to ``log_tensorboard/NAME``.

    RecBole names the folder after the first handler with a file, up to the first dot: the user's own, or that of a data
    set with a dot in its name, would be shared by all runs.
    """
    root = logging.getLogger()
    handler = logging.NullHandler()
    handler.__dict__["baseFilename"] = name.replace(".", "_")
    root.handlers.insert(0, handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
