"""Shows the progress of training, and durations as text."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from recbole_diffusion.console.screen import Screen


def duration(seconds: float) -> str:
    """``45 s``, ``4 min 10 s``, ``2 h 5 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class Progress:
    """Gets the progress of training. This class shows nothing. Epochs are counted from 0."""

    def batch(self, epoch: int, done: int, batches: int) -> None:
        """``done`` of the ``batches`` of the epoch are done."""

    def validated(self, epoch: int) -> None:
        """The model was validated after this epoch, and saved if it is the best so far."""


class ShownProgress(Progress):
    """Shows a progress bar, or one line per validation if no bar is possible. Shown epochs are counted from 1."""

    def __init__(self, screen: Screen, trainer: Any) -> None:
        self._screen, self._trainer = screen, trainer
        self._first, self._total = trainer.start_epoch, trainer.total_epochs
        self._start = time.perf_counter()
        self._facts = ""
        # If the user asked for RecBole's bars of batches, there is no bar of epochs.
        wanted = not trainer.config["show_progress"]
        self._bar = screen.bar(self._total, self._first, self._text("epoch", self._first + 1)) if wanted else None

    def batch(self, epoch: int, done: int, batches: int) -> None:
        if self._bar is None:
            return
        validates = done == batches and (epoch + 1) % self._trainer.eval_step == 0
        self._draw("validating" if validates else "epoch", epoch + 1, epoch + done / batches)

    def validated(self, epoch: int) -> None:
        trainer = self._trainer
        last, metric = trainer.history[-1], trainer.valid_metric
        loss = f"loss {last['train_loss']:.{trainer.config['loss_decimal_place']}f}"
        best = f"{trainer.best_valid_score:.4f}"
        if self._bar is not None:
            self._facts = (
                f", best {metric} {best}, {loss}"  # the loss comes last, because a narrow terminal cuts the end
            )
            self._draw("epoch", epoch + 1, epoch + 1)
            return
        left = (time.perf_counter() - self._start) / (epoch + 1 - self._first) * (self._total - epoch - 1)
        self._screen.line(
            f"{self._epoch('epoch', epoch + 1)}: {loss}, {metric} {last['valid'][metric]:.4f} "
            f"(best {best}, epoch {trainer.saved_epoch + 1})" + (f", about {duration(left)} left" if left else "")
        )

    def end(self) -> None:
        """Show how training ended, in the place of the bar."""
        self.clear()
        trainer = self._trainer
        epochs = len(trainer.train_loss_dict)
        took = f"{epochs} of {self._total} epochs in {duration(time.perf_counter() - self._start)}"
        if trainer.history:
            took += f"; best {trainer.valid_metric} {trainer.best_valid_score:.4f}, epoch {trainer.saved_epoch + 1}"
        if epochs < self._total:
            took += f"; stopped early after {trainer.stopping_step + 1} validations without improvement"
        self._screen.fact("trained", took)

    def clear(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.total = self._bar.n  # in a notebook, a bar that is not full would become red
            self._bar.close()
            self._bar = None

    def _draw(self, what: str, number: int, done: float) -> None:
        assert self._bar is not None
        self._bar.bar_format = self._text(what, number)
        self._bar.ncols = self._screen.bar_width
        self._bar.update(done - self._bar.n)
        if done == number:  # the next update may take long
            self._bar.refresh()

    def _text(self, what: str, number: int) -> str:
        """The text of the bar, as tqdm's ``bar_format``."""
        return f"{self._epoch(what, number)}, {{remaining}} left{self._facts} |{{bar}}|"

    def _epoch(self, what: str, number: int) -> str:
        return f"{what} {number:>{len(str(self._total))}}/{self._total}"


@contextmanager
def shown_progress(screen: Screen, trainer: Any) -> Iterator[Progress]:
    """A context that shows the progress of training. The bar is removed at the end, also after an error."""
    progress = ShownProgress(screen, trainer)
    try:
        yield progress
        progress.end()
    except KeyboardInterrupt:
        progress.clear()
        screen.wipe()
        if trainer.saved_epoch is not None:
            screen.fact("checkpoint", f"{trainer.saved_model_file} (epoch {trainer.saved_epoch + 1}, the best so far)")
        raise
    finally:
        progress.clear()
