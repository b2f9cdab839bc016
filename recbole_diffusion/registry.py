"""From the name of a model to its class. Importing this module registers our metrics with RecBole."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from recbole.model.abstract_recommender import AbstractRecommender, SequentialRecommender
from recbole.utils import InputType
from recbole.utils import get_trainer as recbole_trainer

from recbole_diffusion.config import outside
from recbole_diffusion.config.launch import launched
from recbole_diffusion.config.model_files import is_recboles, model_files, package_of
from recbole_diffusion.config.settings import UserError, check_name, did_you_mean
from recbole_diffusion.config.strict import Config
from recbole_diffusion.evaluation import metrics
from recbole_diffusion.names import OURS, PACKAGE, RECBOLE_PREFIX, recbole_models
from recbole_diffusion.training.trainer import DiffusionTrainer, safe_trainer

metrics.register()

# RecBole's sequential models whose scores and losses do not change if a batch is cut to its longest history. Other
# models have layers of size L (Caser, HGN, SINE, ...), read from the end of the padding, or mask a share of L.
SHORT_BATCHES = (
    "CORE", "FDSA", "FPMC", "GCSAN", "GRU4Rec", "GRU4RecF", "HRM", "NARM", "SASRec", "SASRecF", "SRGNN", "STAMP",
    "TransRec",
)  # fmt: skip
# RecBole's models whose loss of a batch is the mean over its rows, so that several processes can share a batch.
MEANS_OVER_ROWS = ("BPR", "GRU4Rec", "NARM", "SASRec", "STAMP")


class Resolved(NamedTuple):
    """A model's class. ``ours`` is True for our models and for those of other packages, False for RecBole's."""

    model_class: type[AbstractRecommender]
    ours: bool

    @property
    def origin(self) -> str:
        """``ours``, ``RecBole``, or the name of another package."""
        package = package_of(self.model_class)
        return {PACKAGE: "ours", "recbole": "RecBole"}.get(package, package)


def get_model(name: str) -> Resolved:
    """The class of a model: one of ours, one that a package registers, RecBole's, or ``package.module:Class``.

    If we and RecBole both have a model with this name, it means ours; ``recbole.<name>`` always means RecBole's. It is
    an error if a package registers the name of one of our models, of RecBole's, or of another package.

    Raises:
        UserError: no model has this name, several models have it, or the class cannot run here.
    """
    if ":" in name:
        return _outside(name, f"model={name!r}")
    theirs = recbole_models()
    claims = [claim for claim in outside.registered() if claim.name == name]
    if claims:
        return _outside(_only(name, claims, theirs), f"model={name!r}")
    if name in OURS:
        return Resolved(getattr(importlib.import_module(OURS[name]), name), ours=True)
    plain = name.removeprefix(RECBOLE_PREFIX)
    if plain in theirs:
        return Resolved(getattr(importlib.import_module(theirs[plain]), plain), ours=False)
    raise UserError(
        f"model={name!r}: there is no such model.{did_you_mean(name, [*OURS, *outside.names(), *theirs])} "
        "run --help lists the models; names are case-sensitive."
    )


def is_name(name: str) -> bool:
    """Whether a model has this name. ``package.module:Class`` is not a name."""
    return name in (*OURS, *outside.names()) or name.removeprefix(RECBOLE_PREFIX) in recbole_models()


def _only(name: str, claims: Sequence[outside.Registered], theirs: Mapping[str, str]) -> str:
    """The ``package.module:Class`` that the entry points ``claims`` register as ``name``.

    Raises:
        UserError: the name means another model too, or it cannot be used in a path.
    """
    owners = {claim.target: f"{claim.target} (package {claim.distribution})" for claim in claims}
    if name in OURS:
        owners[f"{OURS[name]}:{name}"] = f"{OURS[name]}:{name} (this package)"
    elif name in theirs:
        owners[RECBOLE_PREFIX + name] = f"{RECBOLE_PREFIX}{name} (RecBole)"
    if len(owners) > 1:
        raise UserError(
            f"model={name!r}: is the name of several: {', '.join(owners.values())}. Name one of them in full."
        )
    if not name.isidentifier():
        raise UserError(
            f"model={name!r}: is registered for {claims[0].target}; a name may have only letters, digits and _."
        )
    check_name("model", name)
    return claims[0].target


def _outside(target: str, where: str) -> Resolved:
    """The class ``package.module:Class``, given as ``target``.

    Raises:
        UserError: there is no such class, it is not a sequential recommender, it needs sampled negatives, or the YAML
            file of its settings is missing.
    """
    check_name("model", target.replace(":", "."))
    found = outside.load(target, where)
    if not isinstance(found, type) or not issubclass(found, SequentialRecommender):
        raise UserError(
            f"{where}: {target} must be a subclass of RecBole's SequentialRecommender, such as "
            "recbole_diffusion.model.base.DiffusionRecommender."
        )
    if is_recboles(found):
        raise UserError(f"{where}: is RecBole's own model. Name it {RECBOLE_PREFIX}{found.__name__}.")
    if getattr(found, "input_type", None) == InputType.PAIRWISE:
        raise UserError(f"{where}: its input_type is PAIRWISE, but only RecBole's own models get sampled negatives.")
    model_files(found)
    return Resolved(found, ours=True)


def get_trainer(resolved: Resolved) -> type:
    """The trainer of a model: ours, or RecBole's trainer for this model with our checkpoints and evaluation."""
    if resolved.ours:
        return DiffusionTrainer
    return safe_trainer(recbole_trainer(resolved.model_class.type, resolved.model_class.__name__))


def check_shares(resolved: Resolved) -> None:
    """Check that the processes that torchrun has started can share a batch: the loss must be a mean over its rows.

    Our models and those of other packages have to see to it themselves (docs/add_a_model.md).

    Raises:
        UserError: it is a model of RecBole whose loss is something else, or was not looked at.
    """
    if launched() > 1 and not resolved.ours and resolved.model_class.__name__ not in MEANS_OVER_ROWS:
        raise UserError(
            f"model={resolved.model_class.__name__}: several processes cannot train it, as its loss may not be a mean "
            f"over rows. Of RecBole's models they train {', '.join(MEANS_OVER_ROWS)}. Start it without torchrun."
        )


def training_rows(resolved: Resolved, config: Config) -> str:
    """``windows``, ``prefixes`` or ``users``: the class's ``train_on`` if it has one, otherwise the setting."""
    return getattr(resolved.model_class, "train_on", config["train_on"] or "prefixes")


def reads_ages(resolved: Resolved) -> bool:
    """Whether batches of the model have :data:`recbole_diffusion.names.AGE_LIST`."""
    return getattr(resolved.model_class, "reads_ages", False)


def takes_short_batches(resolved: Resolved) -> bool:
    """Whether a batch may be as short as its longest history. If not, the model needs the full L."""
    return resolved.ours or resolved.model_class.__name__ in SHORT_BATCHES
