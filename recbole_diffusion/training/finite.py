"""Training stops at the first loss or weight that is not a finite number."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from recbole.trainer import Trainer

from recbole_diffusion import compat
from recbole_diffusion.config.settings import UserError
from recbole_diffusion.training.place import Batches
from recbole_diffusion.training.processes import over_processes

compat.apply()


class Diverged(UserError):
    """The training loss or a weight is no longer a finite number."""


class FiniteLosses(Trainer):
    """RecBole's training loop, which stops at the first loss that is inf or nan and names it; epochs count from 1.

    RecBole's other trainers call the loop with their own losses. So this class must be the last base before RecBole's
    ``Trainer``.
    """

    saved_epoch: int | None  # of the checkpoint
    saved_model_file: str

    def _train_epoch(self, train_data: Any, epoch_idx: int, loss_func: Any = None, show_progress: bool = False) -> Any:
        target_field = self.config["TARGET_LIST_FIELD"]
        loss_func = over_processes(loss_func or self.model.calculate_loss, self.model, target_field)
        batches = self._batches(train_data)
        numbers = itertools.count(batches.done + 1)

        def checked(interaction: Any) -> Any:
            losses, number = loss_func(interaction), next(numbers)
            self._check_losses(losses, f"epoch {epoch_idx + 1}, batch {number} of {len(train_data)}")
            batches.add(losses)
            self._after_batch(epoch_idx, number, len(train_data))
            return losses

        losses = super()._train_epoch(batches, epoch_idx, checked, show_progress)
        if batches.is_resumed:  # RecBole has added up only the batches since then
            sums = batches.sums() or []
            losses = tuple(sums) if isinstance(losses, tuple) or len(sums) > 1 else sums[0]
        for name, weight in self.model.named_parameters():
            if not torch.isfinite(weight).all():  # the last step can break a weight, and no loss is computed after it
                raise self._diverged(f"epoch {epoch_idx + 1}", f"the weight {name} is not finite after it")
        return losses

    def _batches(self, train_data: Any) -> Batches:
        """The batches of one pass over the training data."""
        return Batches(train_data)

    def _after_batch(self, epoch: int, done: int, batches: int) -> None:
        """Called with each batch whose losses are finite."""

    def _check_losses(self, losses: Any, where: str) -> None:
        terms = losses if isinstance(losses, tuple) else (losses,)
        total = _number(sum(terms))
        if math.isfinite(total):
            return
        if len(terms) > 1:
            for name, term in zip(loss_names(self.model, terms), terms, strict=True):
                if not math.isfinite(_number(term)):
                    raise self._diverged(where, f"the term {name!r} of the training loss is {_number(term)}")
        raise self._diverged(where, f"the training loss is {total}")

    def _diverged(self, where: str, what: str) -> Diverged:
        kept = (
            "No checkpoint was written before."
            if self.saved_epoch is None
            else f"The best epoch before, {self.saved_epoch + 1}, is in {self.saved_model_file}."
        )
        return Diverged(f"{where}: {what}; learning_rate={self.learning_rate:g} may be too large. {kept}")


def loss_names(model: Any, terms: tuple[Any, ...]) -> tuple[str, ...]:
    """Names of the terms of a model's loss: its ``loss_names``, else ``loss 1``, ``loss 2``, ..."""
    names = getattr(model, "loss_names", None) or ()
    if len(names) == len(terms):
        return tuple(names)
    return ("loss",) if len(terms) == 1 else tuple(f"loss {place}" for place in range(1, len(terms) + 1))


def _number(term: Any) -> float:
    return term.detach().item() if isinstance(term, torch.Tensor) else float(term)
