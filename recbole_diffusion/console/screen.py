"""What a person reads of a run, on standard output: lines, an aligned table and a bar."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, TextIO

from tqdm import tqdm

_INDENT = 13  # of what stands beside a label


@contextmanager
def around_bars(stream: Any) -> Iterator[None]:
    """What is written to ``stream`` meanwhile does not run into a bar: bars are cleared before, and drawn after."""
    with tqdm.external_write_mode(file=stream):
        yield


class Screen:
    """Standard output, for a person; it shows nothing where it is ``off``.

    Lines are as wide as the terminal, and are not broken where there is none. A terminal or a pipe that is gone ends
    the showing and not the run.
    """

    def __init__(self, off: bool = False) -> None:
        self._out: TextIO | None = None if off else sys.stdout

    def line(self, text: str = "") -> None:
        """One line, or several."""
        self._write(text + "\n")

    def fact(self, label: str, text: str) -> None:
        """A label and a text beside it."""
        if self._is_terminal:
            width = max(shutil.get_terminal_size().columns - 1, 2 * _INDENT)
            # Names of files stay whole, so that they can be copied.
            lines = textwrap.wrap(text, width - _INDENT, break_long_words=False, break_on_hyphens=False)
            text = f"\n{'':{_INDENT}}".join(lines)
        self.line(f"{label:<{_INDENT}}{text}")

    def table(self, columns: Mapping[str, Mapping[str, float]]) -> None:
        """Figures of several columns, ``title -> {row: figure}``; a column without figures is left out."""
        columns = {title: figures for title, figures in columns.items() if figures}
        for line in aligned(columns):
            self.line(line)

    def bar(self, total: int, initial: int, text: str) -> tqdm | None:
        """A bar that ends at ``total``; None where there is no place for one: neither a terminal nor a widget.

        ``text`` is tqdm's ``bar_format``.
        """
        bar_class = self._bar_class()
        if bar_class is None:
            return None
        # Each update may draw, but ten a second at most. Its time left is by the mean speed.
        return bar_class(
            total=total, initial=initial, file=self._out, leave=False, miniters=0, smoothing=0,
            ncols=self.bar_width, bar_format=text,
        )  # fmt: skip

    @property
    def bar_width(self) -> int | None:
        """How wide a bar is now; None where it is a widget, which knows."""
        # Room for the ^C that a terminal writes: on a line of its own it would leave the bar behind.
        return shutil.get_terminal_size().columns - len("^C ") if self._is_terminal else None

    def wipe(self) -> None:
        """Clear the line that a terminal's cursor is on."""
        if self._is_terminal:
            self._write("\r" + " " * (shutil.get_terminal_size().columns - 1) + "\r")

    def _write(self, text: str) -> None:
        out = self._out
        if out is None:
            return
        encoding = getattr(out, "encoding", None) or "utf-8"
        try:
            with around_bars(out):
                # A title that the terminal has no letters for is no reason to lose a run.
                out.write(text.encode(encoding, "replace").decode(encoding))
                out.flush()
        except (OSError, ValueError):
            self._out = None

    @property
    def _is_terminal(self) -> bool:
        return self._out is not None and getattr(self._out, "isatty", bool)()

    def _bar_class(self) -> type[tqdm] | None:
        if self._is_terminal:
            return tqdm
        if self._out is None or "ipykernel.zmqshell" not in sys.modules or find_spec("ipywidgets") is None:
            return None
        from tqdm.auto import tqdm as automatic
        from tqdm.notebook import tqdm as widget

        return automatic if issubclass(automatic, widget) else None  # a console of Jupyter shows no widgets


def aligned(columns: Mapping[str, Mapping[str, float]]) -> list[str]:
    """The lines of a table: titles, then a row for each name, figures below each other."""
    names = list(dict.fromkeys(name for figures in columns.values() for name in figures))
    cells = {
        title: [title, *(f"{figures[name]:.4f}" if name in figures else "-" for name in names)]
        for title, figures in columns.items()
    }
    first = max(map(len, ["", *names]))
    widths = {title: max(map(len, texts)) for title, texts in cells.items()}
    return [
        "  ".join([f"{name:<{first}}", *(f"{texts[row]:>{widths[title]}}" for title, texts in cells.items())])
        for row, name in enumerate(["", *names])
    ]
