"""The logs of a study: one line per trial, and one log file per trial."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import optuna
from recbole.utils.logger import RemoveColorFilter

from recbole_diffusion.config.settings import UserError


class OutOfTime(Exception):
    """The seconds of the study are used up."""


@contextlib.contextmanager
def study_log(folder: Path) -> Iterator[logging.Logger]:
    """Log one line per trial, to the console and to ``tune.log``, which also gets Optuna's messages."""
    log, optunas = logging.getLogger("recbole_diffusion.tune.search"), logging.getLogger("optuna")
    file = logging.FileHandler(folder / "tune.log", encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    console = logging.StreamHandler(sys.stdout)
    optuna.logging.disable_default_handler()
    log.setLevel(logging.INFO)
    log.propagate = False
    for logger, handler in ((log, file), (log, console), (optunas, file)):
        logger.addHandler(handler)
    try:
        yield log
    finally:
        for logger, handler in ((log, file), (log, console), (optunas, file)):
            logger.removeHandler(handler)
        file.close()


@contextlib.contextmanager
def trial_log(path: Path) -> Iterator[None]:
    """Log to the trial's own file: RecBole's messages, Python's warnings, and an error with its traceback."""
    path.parent.mkdir(parents=True, exist_ok=True)
    root = logging.getLogger()
    level, file = root.level, logging.FileHandler(path, encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s  %(message)s"))
    file.addFilter(RemoveColorFilter())
    root.addHandler(file)
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    try:
        yield
    except (optuna.TrialPruned, OutOfTime, UserError):
        raise
    except Exception:
        root.exception("The trial ended with an error.")
        raise
    finally:
        logging.captureWarnings(False)
        root.setLevel(level)
        root.removeHandler(file)
        file.close()
