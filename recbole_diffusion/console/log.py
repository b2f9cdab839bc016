"""The log file of a run, and what the console shows of the log while the run lasts."""

from __future__ import annotations

import copy
import logging
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from colorlog import ColoredFormatter
from recbole.utils.logger import log_colors_config

from recbole_diffusion.config.launch import is_first
from recbole_diffusion.console.screen import Screen, around_bars
from recbole_diffusion.storage.files import check_folder, file_name, make_folder, no_space, unique_name

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class _Plain(logging.Formatter):
    """Removes the colours that RecBole writes into its messages."""

    def format(self, record: logging.LogRecord) -> str:
        return _COLOUR.sub("", super().format(record))


class _LogFile(logging.FileHandler):
    """A log that is written from :meth:`begin` on; what is logged before waits for it. A traceback begins it.

    On a full disk, the log ends there: it neither ends the run nor shows a traceback for each line.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8", delay=True)
        self._waiting: list[logging.LogRecord] | None = []
        self.setFormatter(_Plain("%(asctime)-15s %(levelname)s  %(message)s", "%a %d %b %Y %H:%M:%S"))

    def begin(self) -> None:
        """Make the file.

        Raises:
            UserError: its folder cannot be made.
        """
        if self._waiting is None:
            return
        make_folder("the log", Path(self.baseFilename).parent)
        waiting, self._waiting = self._waiting, None
        for record in waiting:
            super().emit(record)

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self.begin()
        if self._waiting is None:
            super().emit(record)
        else:
            try:
                self._waiting.append(_as_text(record))
            except Exception:  # as in every handler of logging
                self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not (isinstance(error, OSError) and no_space(error)):
            super().handleError(record)


def _as_text(record: logging.LogRecord) -> logging.LogRecord:
    """The record with its message as a text, so that what it is about may change."""
    record = copy.copy(record)
    record.msg, record.args = record.getMessage(), None
    return record


class _Console(logging.StreamHandler[TextIO]):
    """Writes to standard error, so that lines do not mix with a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        with around_bars(self.stream):
            super().emit(record)


class RunLog(NamedTuple):
    """The path of a run's log, the screen that shows the run to a person, and what makes the file of the log."""

    path: Path
    screen: Screen
    begin: Callable[[], None]


@contextmanager
def run_log(config: Any, verbose: bool = False) -> Iterator[RunLog]:
    """A context in which messages are logged to a file in ``log/MODEL/``. The console shows warnings.

    The file is made by ``begin``, with what was logged before: a run that is refused leaves none.

    Of several processes of a training only the first has a file, a console and a screen.

    With ``verbose`` the console shows all messages. If the program already has log handlers, there is no console, and
    the screen is off. The screen is also off if ``config["state"]`` is above INFO.

    RecBole logs to the root logger, so its level is set to ``config["state"]``. Existing handlers get the messages of
    other loggers as before. Of the run's messages they get those that both their old level and the state allow. At the
    end, level and handlers are as before, also after an error.
    """
    root = logging.getLogger()
    before, others = root.level, list(root.handlers)
    state = logging.getLevelNamesMapping()[config["state"]]
    model = file_name(config["model"])
    path = Path("log", model, f"{unique_name(model, config['dataset'])}.log")
    check_folder("the log", path.parent)
    file, first = _LogFile(path), is_first()
    own: list[logging.Handler] = [file] if first else [logging.NullHandler()]
    if first and not others:
        own.append(_console(verbose))

    def as_before(record: logging.LogRecord) -> bool:
        if record.name == root.name:  # messages of the run, and of a program that uses the root logger
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
        off = bool(others) or state > logging.INFO or not first
        yield RunLog(path, Screen(off), file.begin if first else lambda: None)


def _has_level(logger: logging.Logger) -> bool:
    """Whether a logger has its own level, or takes it from a parent other than the root logger."""
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
