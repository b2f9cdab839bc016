"""Turns errors of RecBole and torch that a user can mend into one line. Errors of this package stay as they are."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from recbole_diffusion.config.settings import UserError
from recbole_diffusion.names import PACKAGE

_NO_MEMORY = ("can't allocate memory", "not enough memory", "Storage size calculation overflowed")
# Types that RecBole raises when it checks something. With our models, any other type may be our own mistake.
_CHECKS = (ValueError, KeyError, NotImplementedError, AssertionError, ImportError)


@contextmanager
def setting_up(what: str, ours: bool) -> Iterator[None]:
    """While data and a model are set up: turn checks that fail, and a lack of memory, into one line.

    With RecBole's own models, this includes everything that RecBole's code raises. The log has the traceback.

    Args:
        what: the beginning of the line, e.g. model and data set.
        ours: whether the model is not one of RecBole's own.

    Raises:
        UserError: instead of the other exception.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        place, message = _place_in_recbole(error), _message(error)
        if _is_out_of_memory(error):
            line = "there is not enough memory. Smaller sizes need less, such as embedding_size, hidden_size or "
            line += f"MAX_ITEM_LIST_LENGTH ({message})"
        elif type(error) is ValueError and _raised_by_us_or_recbole(error):  # diffusion/ raises plain ValueErrors
            line = message
        elif place is None or (ours and not isinstance(error, _CHECKS)):
            raise
        else:
            line = f"{message} (RecBole's {place})"
        _log_traceback(error)
        raise UserError(f"{what}: {line}") from error


@contextmanager
def using(model: Any) -> Iterator[None]:
    """While one of RecBole's own models trains or ranks: turn errors of RecBole's code into one line that says where.

    Errors of our models, of this package, of the disk and of the GPU's memory stay as they are.

    Raises:
        UserError: instead of the other exception.
    """
    try:
        yield
    except (UserError, OSError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        place = _place_in_recbole(error)
        if place is None or not type(model).__module__.startswith("recbole."):
            raise
        _log_traceback(error)
        raise UserError(f"{type(model).__name__} failed in RecBole's code at {place}: {_message(error)}") from error


def _place_in_recbole(error: BaseException) -> str | None:
    """``FILE:LINE`` in RecBole where the error comes from; None if it does not come from RecBole."""
    place = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        package = _package(frame)
        if package == "recbole":
            place = f"{Path(frame.f_globals['__file__']).name}:{line}"
        elif package == PACKAGE:
            place = None
    return place


def _raised_by_us_or_recbole(error: BaseException) -> bool:
    """Whether a line of RecBole or of this package raised the error itself, and not a library that it called.

    Such an error has a message for users.
    """
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return _package(frame) in ("recbole", PACKAGE)


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__")).partition(".")[0]  # a repaired method counts as RecBole's


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, RuntimeError) and any(text in str(error) for text in _NO_MEMORY):
        return True
    return isinstance(error, MemoryError | torch.OutOfMemoryError)


def _message(error: Exception) -> str:
    """The error on one line: its type and message. An assertion without a message shows its code.

    The type is left out for a ValueError with a message for users.
    """
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"it needs the package {error.name!r}, which is not installed"
    frames = traceback.extract_tb(error.__traceback__)
    text = " ".join(str(error).split()) or (frames[-1].line or "")
    return text if type(error) is ValueError and _raised_by_us_or_recbole(error) else f"{type(error).__name__}: {text}"


def _log_traceback(error: Exception) -> None:
    """Write the traceback to the log files, at any level. The terminal shows only one line."""
    logger = logging.getLogger()
    where = (type(error), error, error.__traceback__)
    record = logger.makeRecord(logger.name, logging.DEBUG, __file__, 0, "refused", (), where)
    for handler in logger.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)
