"""Training in stages: the setting ``stages``, a list of what to train for how long."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from recbole_diffusion.config.settings import UserError, did_you_mean


class Stage(NamedTuple):
    """A part of the training; by default everything learns, from the model's own losses, until training ends."""

    epochs: int | None = None  # None for the last stage alone
    freeze: tuple[str, ...] = ()  # modules or parameters of the model that keep their values
    loss: str | None = None  # another loss of the model than its own

    def freezes(self, parameter: str) -> bool:
        """Whether a parameter of this name keeps its values."""
        return any(parameter == part or parameter.startswith(f"{part}.") for part in self.freeze)


def read_stages(value: Sequence[Any] | None) -> tuple[Stage, ...]:
    """The stages of the setting; None is one stage of everything.

    Raises:
        UserError: a stage is no dictionary of ``epochs``, ``freeze`` and ``loss``, or of other types.
    """
    if value is None:
        return (Stage(),)
    if not isinstance(value, list | tuple):
        raise UserError(f"stages={value!r}: must be a list of stages, or ~ for one of everything.")
    if not value:
        raise UserError("stages=[]: must be a list of stages, or ~ for one of everything.")
    return tuple(_read(stage, place, len(value)) for place, stage in enumerate(value, start=1))


def _read(value: Any, place: int, count: int) -> Stage:
    where = f"stages: stage {place} of {count}"
    if not isinstance(value, dict):
        raise UserError(f"{where} is {value!r}: must be a dictionary of {', '.join(Stage._fields)}.")
    for key in value:
        if key not in Stage._fields:
            raise UserError(
                f"{where}: unknown key {key!r}.{did_you_mean(str(key), Stage._fields)} "
                f"Allowed: {', '.join(Stage._fields)}."
            )
    stage = Stage(**value)
    if place == count:
        if stage.epochs is not None:
            raise UserError(f"{where}: epochs={stage.epochs!r} cannot be set; the last stage ends when training does.")
    elif not isinstance(stage.epochs, int) or isinstance(stage.epochs, bool) or stage.epochs < 1:
        raise UserError(f"{where}: epochs={stage.epochs!r}: must be a whole number >= 1.")
    if not isinstance(stage.freeze, list | tuple) or not all(isinstance(part, str) for part in stage.freeze):
        raise UserError(f"{where}: freeze={stage.freeze!r}: must be a list of parts of the model.")
    if stage.loss is not None and not isinstance(stage.loss, str):
        raise UserError(f"{where}: loss={stage.loss!r}: must be the name of a loss.")
    return stage._replace(freeze=tuple(stage.freeze))


def check_stages(stages: Sequence[Stage], epochs: int, parameters: Iterable[str], losses: Sequence[str]) -> None:
    """Refuse stages that a model, or training of so many ``epochs``, cannot have.

    Args:
        parameters: names of the model's parameters.
        losses: names of what a stage can be trained by beside the model's own losses.

    Raises:
        UserError: a part or a loss that the model has not, nothing left to train, or no epoch left for the last stage.
    """
    names = list(parameters)
    parts = sorted({name.rsplit(".", depth)[0] for name in names for depth in range(name.count(".") + 1)})
    for place, stage in enumerate(stages, start=1):
        where = f"stages: stage {place} of {len(stages)}"
        for part in stage.freeze:
            if part not in parts:
                shown = ", ".join(part for part in parts if "." not in part)
                raise UserError(
                    f"{where}: freeze={part!r}: the model has no such part.{did_you_mean(part, parts)} "
                    f"It has {shown}, and their parts."
                )
        if all(stage.freezes(name) for name in names):
            raise UserError(f"{where}: freeze={list(stage.freeze)!r} leaves nothing to train.")
        if stage.loss is not None and stage.loss not in losses:
            allowed = f"must be one of {', '.join(losses)}" if losses else "the model has no such loss"
            raise UserError(f"{where}: loss={stage.loss!r}: {allowed}.{did_you_mean(stage.loss, losses)}")
    before = sum(stage.epochs or 0 for stage in stages)
    if len(stages) > 1 and 0 < epochs <= before:
        raise UserError(f"stages: those before the last take {before} epochs; epochs={epochs} leaves it none.")


def stage_at(stages: Sequence[Stage], epoch: int) -> Stage:
    """The stage of an epoch, counted from 0 over all stages."""
    for stage in stages:
        if stage.epochs is None or epoch < stage.epochs:
            return stage
        epoch -= stage.epochs
    raise AssertionError("the last stage has no end")
