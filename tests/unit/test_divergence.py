"""A loss or weight that is not finite stops training; the message says where, and which checkpoint there is."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import Built

from recbole_diffusion.storage import checkpoint
from recbole_diffusion.training.finite import Diverged

SMALL = {"embedding_size": 8, "num_layers": 1, "num_heads": 1, "epochs": 3, "eval_step": 1, "train_batch_size": 8}


def _losses(built: Built, change: Callable[[int, Any], Any], name: str = "calculate_loss") -> None:
    """Replace the model's losses by ``change(step, losses)`` at each training step, counted from 1."""
    original, step = getattr(built.model, name), 0

    def changed(interaction: Any) -> Any:
        nonlocal step
        step += 1
        return change(step, original(interaction))

    setattr(built.model, name, changed)


def _fit(built: Built) -> None:
    built.trainer.fit(built.loaders.train, built.loaders.valid)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("term", ["mse", "ce"])
def test_the_term_that_is_not_finite_is_named_and_the_last_checkpoint_stays(
    build: Callable[..., Built], term: str, value: float
) -> None:
    built = build("DreamRec", **SMALL)
    batches = len(built.loaders.train)
    assert batches > 2

    def change(step: int, losses: tuple) -> tuple:
        factors = [value if name == term and step == batches + 2 else 1.0 for name in built.model.loss_names]
        return tuple(loss * factor for loss, factor in zip(losses, factors, strict=True))

    _losses(built, change)
    path = built.trainer.saved_model_file
    message = (
        f"epoch 2, batch 2 of {batches}: the term '{term}' of the training loss is {value}; learning_rate=0.001 may be "
        f"too large. The best epoch before, 1, is in {path}."
    )
    with pytest.raises(Diverged, match=f"^{re.escape(message)}$"):
        _fit(built)
    assert checkpoint.load(path)["epoch"] == 0
    assert all(torch.isfinite(weight).all() for weight in built.model.parameters())  # no step was made with it


def test_before_the_first_validation_no_checkpoint_is_promised(build: Callable[..., Built]) -> None:
    built = build("SASRec", hidden_size=16, epochs=1)
    _losses(built, lambda step, loss: loss * math.inf)
    with pytest.raises(
        Diverged, match=r"^epoch 1, batch 1 of \d+: the training loss is inf; .* No checkpoint was written"
    ):
        _fit(built)


def test_terms_without_names_are_told_by_their_place(build: Callable[..., Built]) -> None:
    built = build("BPR", epochs=1)
    _losses(built, lambda step, loss: (loss, loss * math.nan))
    with pytest.raises(Diverged, match="the term 'loss 2' of the training loss is nan"):
        _fit(built)


def test_terms_that_are_finite_and_their_sum_is_not(build: Callable[..., Built]) -> None:
    built = build("BPR", epochs=1)
    _losses(built, lambda step, loss: (loss * 0 + 3e38, loss * 0 + 3e38))
    with pytest.raises(Diverged, match="the training loss is inf"):
        _fit(built)


def test_losses_of_recboles_other_trainers_are_checked(build: Callable[..., Built]) -> None:
    """RecBole's other trainers call the training loop with their own loss functions, here that of the decoder."""
    built = build("RecVAE", epochs=1)

    def broken(rating: Any, encoder_flag: bool) -> Any:
        return original(rating, encoder_flag) * (1.0 if encoder_flag else math.nan)

    original = built.model.calculate_loss
    built.model.calculate_loss = broken
    with pytest.raises(Diverged, match="the training loss is nan"):
        _fit(built)


def test_a_weight_that_the_last_step_ruined_is_found_before_it_is_validated(build: Callable[..., Built]) -> None:
    built = build("SASRec", hidden_size=16, epochs=1)
    step = built.trainer.optimizer.step

    def ruinous(*arguments: Any, **named: Any) -> Any:
        result = step(*arguments, **named)
        with torch.no_grad():
            built.model.item_embedding.weight[3] = math.nan
        return result

    built.trainer.optimizer.step = ruinous
    assert len(built.loaders.train) == 1
    with pytest.raises(Diverged, match=r"^epoch 1: the weight item_embedding.weight is not finite after it; "):
        _fit(built)
    assert built.trainer.history == []
