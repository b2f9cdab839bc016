"""Names to classes: our models first, then RecBole's. Importing it makes our metrics known to RecBole."""

from __future__ import annotations

import importlib
from typing import NamedTuple

from recbole.model.abstract_recommender import AbstractRecommender
from recbole.utils import get_trainer as recbole_trainer

from recbole_diffusion.config.settings import UserError, did_you_mean
from recbole_diffusion.config.strict import Config
from recbole_diffusion.evaluation import metrics
from recbole_diffusion.names import OURS, RECBOLE_PREFIX, recbole_models
from recbole_diffusion.trainer import DiffusionTrainer, safe_trainer

metrics.register()

# RecBole's sequential models whose scores and losses are the same on batches cut to their longest history. The others
# have layers of size L (Caser, HGN, SINE, ...), read from the end of the padding, or mask a share of L.
SHORT_BATCHES = (
    "CORE", "FDSA", "FPMC", "GCSAN", "GRU4Rec", "GRU4RecF", "HRM", "NARM", "SASRec", "SASRecF", "SRGNN", "STAMP",
    "TransRec",
)  # fmt: skip


class Resolved(NamedTuple):
    """A model's class and whether it is ours or RecBole's."""

    model_class: type[AbstractRecommender]
    ours: bool


def get_model(name: str) -> Resolved:
    """The class called ``name``: ours if we have one; ``recbole.<name>`` always means RecBole's.

    Raises:
        UserError: nobody has a model of that name.
    """
    theirs = recbole_models()
    if name in OURS:
        return Resolved(getattr(importlib.import_module(OURS[name]), name), ours=True)
    plain = name.removeprefix(RECBOLE_PREFIX)
    if plain in theirs:
        return Resolved(getattr(importlib.import_module(theirs[plain]), plain), ours=False)
    raise UserError(
        f"model={name!r}: there is no such model.{did_you_mean(name, [*OURS, *theirs])} "
        "run --help lists the models; names are case-sensitive."
    )


def get_trainer(resolved: Resolved) -> type:
    """The trainer of a model: ours, or RecBole's for that model with our checkpoints and evaluation."""
    if resolved.ours:
        return DiffusionTrainer
    return safe_trainer(recbole_trainer(resolved.model_class.type, resolved.model_class.__name__))


def training_rows(resolved: Resolved, config: Config) -> str:
    """``windows``, ``prefixes`` or ``users``: the setting ``train_on``, or what the class itself says."""
    return getattr(resolved.model_class, "train_on", config["train_on"] or "prefixes")


def takes_short_batches(resolved: Resolved) -> bool:
    """Whether batches may be as long as their longest history, or the model's layers need the full L."""
    return resolved.ours or resolved.model_class.__name__ in SHORT_BATCHES
