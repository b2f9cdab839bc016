"""Ctrl-C and SIGTERM during training: the step is finished and the checkpoint ``last`` is written before it ends."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SAME = 1.0  # seconds: a second signal so soon is the same one, sent to the process and to its group


class Stopped(KeyboardInterrupt):
    """The user or a scheduler has stopped this process. Its text says how to go on.

    Args:
        number: the signal.
        text: how to go on.
    """

    def __init__(self, number: int, text: str = "") -> None:
        super().__init__(*([text] if text else []))
        self.number = int(number)

    @classmethod
    def like(cls, other: BaseException, text: str) -> Stopped:
        """The same stop with another text."""
        return cls(number_of(other), text)


def number_of(stop: BaseException) -> int:
    """The signal behind a ``KeyboardInterrupt``. The exit status of the process is 128 more."""
    return getattr(stop, "number", int(signal.SIGINT))


class Asked:
    """Whether a signal has asked this process to stop."""

    number: int | None = None
    _at_once = False
    _since = 0.0

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """A context in which a signal raises :class:`Stopped` immediately."""
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    def by_any(self) -> bool:
        """Whether a signal has asked this process to stop, or another one that trains the same model."""
        from recbole_diffusion import processes  # not before: the command line imports this module, and --help no torch

        (number,) = processes.largest(self.number or 0)
        if number and self.number is None:
            self.note(int(number))
        return number > 0

    def note(self, number: int) -> None:
        """A signal has arrived. A second one does not wait for the end of the step."""
        again = self.number is not None and time.monotonic() - self._since > _SAME
        if self.number is None:
            self.number, self._since = number, time.monotonic()
        if self._at_once or again:
            raise Stopped(number)


@contextmanager
def asked_to_stop() -> Iterator[Asked]:
    """A context in which SIGINT and SIGTERM only set ``Asked.number``. A signal that was ignored stays ignored."""
    asked, owner = Asked(), os.getpid()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def handle(number: int, _: Any) -> None:
        if os.getpid() == owner:
            asked.note(number)
        elif number == signal.SIGTERM:  # a process that loads batches
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, handle)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
