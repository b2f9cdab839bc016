"""What RecBole and torch refuse, as one line for the user: never what is wrong in this package."""

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

_OURS = __name__.partition(".")[0]
_NO_MEMORY = ("can't allocate memory", "not enough memory", "Storage size calculation overflowed")
# What RecBole raises where it checks something; another type from under one of our own models may be our mistake.
_CHECKS = (ValueError, KeyError, NotImplementedError, AssertionError, ImportError)


@contextmanager
def setting_up(what: str, ours: bool) -> Iterator[None]:
    """What is refused while data and a model are set up, and a lack of memory, as one line; the log has the traceback.

    From RecBole's own models that is whatever their code raises.

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
        elif type(error) is ValueError and _raised_by_us_or_recbole(error):  # diffusion/ knows no UserError
            line = message
        elif place is None or (ours and not isinstance(error, _CHECKS)):
            raise
        else:
            line = f"{message} (RecBole's {place})"
        _log_traceback(error)
        raise UserError(f"{what}: {line}") from error


@contextmanager
def using(model: Any) -> Iterator[None]:
    """While a model trains or ranks: what the code of a model of RecBole raises, as one line that says where.

    Our own models' errors stay what they are, and so do those of this package, of the disk and of the GPU's memory.

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
    """``FILE:LINE`` of RecBole where it comes from; None if it comes from this package, or from neither."""
    place = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        package = _package(frame)
        if package == "recbole":
            place = f"{Path(frame.f_globals['__file__']).name}:{line}"
        elif package == _OURS:
            place = None
    return place


def _raised_by_us_or_recbole(error: BaseException) -> bool:
    """Whether it was raised by a line of RecBole or of this package, in words for a user, and not below one."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return _package(frame) in ("recbole", _OURS)


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__")).partition(".")[0]  # a mended method's is RecBole's


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, RuntimeError) and any(text in str(error) for text in _NO_MEMORY):
        return True
    return isinstance(error, MemoryError | torch.OutOfMemoryError)


def _message(error: Exception) -> str:
    """What it says, on one line: its type, unless that is ValueError, and what a bare assertion asserts."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"it needs the package {error.name!r}, which is not installed"
    frames = traceback.extract_tb(error.__traceback__)
    text = " ".join(str(error).split()) or (frames[-1].line or "")
    return text if type(error) is ValueError and _raised_by_us_or_recbole(error) else f"{type(error).__name__}: {text}"


def _log_traceback(error: Exception) -> None:
    """To the log's files, whatever their level; on the terminal one line is enough."""
    logger = logging.getLogger()
    where = (type(error), error, error.__traceback__)
    record = logger.makeRecord(logger.name, logging.DEBUG, __file__, 0, "refused", (), where)
    for handler in logger.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)
