"""Shows a run to a person, on standard output: lines, aligned tables and a progress bar."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, TextIO

from tqdm import tqdm

_INDENT = 13  # of the text after a label


@contextmanager
def around_bars(stream: Any) -> Iterator[None]:
    """A context for writing to ``stream``: progress bars are cleared before, and drawn again after."""
    with tqdm.external_write_mode(file=stream):
        yield


class Screen:
    """Standard output for a person. It shows nothing if it is ``off``.

    On a terminal, long texts are wrapped at its width. If the terminal or pipe is closed, the run continues and shows
    nothing more.
    """

    def __init__(self, off: bool = False) -> None:
        self._out: TextIO | None = None if off else sys.stdout

    def line(self, text: str = "") -> None:
        """Show one line, or several."""
        self._write(text + "\n")

    def fact(self, label: str, text: str) -> None:
        """Show a label and a text after it."""
        if self._is_terminal:
            width = max(shutil.get_terminal_size().columns - 1, 2 * _INDENT)
            # File names are not broken, so that they can be copied.
            lines = textwrap.wrap(text, width - _INDENT, break_long_words=False, break_on_hyphens=False)
            text = f"\n{'':{_INDENT}}".join(lines)
        self.line(f"{label:<{_INDENT}}{text}")

    def table(self, columns: Mapping[str, Mapping[str, float]]) -> None:
        """Show a table with columns ``title -> {row: figure}``. A column without figures is left out."""
        columns = {title: figures for title, figures in columns.items() if figures}
        for line in aligned(columns):
            self.line(line)

    def bar(self, total: int, initial: int, text: str) -> tqdm | None:
        """A progress bar up to ``total``; None if there is neither a terminal nor a notebook with widgets.

        Args:
            total: value at the end.
            initial: value at the start.
            text: tqdm's ``bar_format``.
        """
        bar_class = self._bar_class()
        if bar_class is None:
            return None
        # miniters=0: each update may draw, but tqdm draws at most ten times per second.
        # smoothing=0: the remaining time comes from the mean speed.
        return bar_class(
            total=total, initial=initial, file=self._out, leave=False, miniters=0, smoothing=0,
            ncols=self.bar_width, bar_format=text,
        )  # fmt: skip

    @property
    def bar_width(self) -> int | None:
        """The present width of a bar; None for a widget, which finds its own width."""
        # Leaves room for the ^C that a terminal shows. On the next line, it would leave the bar on the screen.
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
                # A run must not fail because the terminal cannot show a letter of a title.
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

        return automatic if issubclass(automatic, widget) else None  # a Jupyter console shows no widgets


def aligned(columns: Mapping[str, Mapping[str, float]]) -> list[str]:
    """The lines of a table: one with the titles, then one per row name, with aligned figures."""
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
