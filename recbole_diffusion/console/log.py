"""The log of a run: on the console and in a file of its own, for as long as the run lasts."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from colorlog import ColoredFormatter
from recbole.utils.logger import log_colors_config

from recbole_diffusion.files import file_name, make_folder, unique_name

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class _Plain(logging.Formatter):
    """Without the colours that RecBole writes into its messages."""

    def format(self, record: logging.LogRecord) -> str:
        return _COLOUR.sub("", super().format(record))


@contextmanager
def run_log(config: Any) -> Iterator[Path]:
    """What is logged meanwhile goes to ``log/MODEL/``, and to the console unless the program has a log of its own.

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
        own.append(_console())

    def as_before(record: logging.LogRecord) -> bool:
        if record.name == root.name:  # what the run logs, and a program that names no logger
            return record.levelno >= max(before, state)
        return record.levelno >= before or _has_level(logging.getLogger(record.name))

    with ExitStack() as undo:
        for handler in own:
            handler.setLevel(state)
            root.addHandler(handler)
            undo.callback(handler.close)
            undo.callback(root.removeHandler, handler)
        for handler in others:
            handler.addFilter(as_before)
            undo.callback(handler.removeFilter, as_before)
        undo.callback(root.setLevel, before)
        root.setLevel(min(before, state))
        yield path


def _has_level(logger: logging.Logger) -> bool:
    """Whether a logger has a level of its own, or has that of one below the root."""
    while logger.parent is not None:
        if logger.level != logging.NOTSET:
            return True
        logger = logger.parent
    return False


def _console() -> logging.StreamHandler:
    console = logging.StreamHandler()
    form, date = "%(asctime)-15s %(levelname)s  %(message)s", "%d %b %H:%M"
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
