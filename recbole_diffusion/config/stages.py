"""Training in stages: the setting ``stages`` lists what to train, and for how many epochs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from recbole_diffusion.config.settings import UserError, did_you_mean


class Stage(NamedTuple):
    """A stage of training. By default, everything is trained by the model's own losses until training ends."""

    epochs: int | None = None  # None only in the last stage
    freeze: tuple[str, ...] = ()  # modules or parameters of the model that keep their values
    loss: str | None = None  # name of a loss to use instead of the model's own losses

    def freezes(self, parameter: str) -> bool:
        """Whether the parameter with this name keeps its values."""
        return any(parameter == part or parameter.startswith(f"{part}.") for part in self.freeze)


def read_stages(value: Sequence[Any] | None) -> tuple[Stage, ...]:
    """The stages in the value of the setting. None is one stage that trains everything.

    Raises:
        UserError: a stage is not a dictionary of ``epochs``, ``freeze`` and ``loss``, or a value has a wrong type.
    """
    if value is None:
        return (Stage(),)
    if not isinstance(value, list | tuple):
        raise UserError(f"stages={value!r}: must be a list of stages, or ~ to train everything in one stage.")
    if not value:
        raise UserError("stages=[]: must be a list of stages, or ~ to train everything in one stage.")
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
    """Check stages against the model and the number of epochs.

    Args:
        epochs: of the whole training.
        parameters: names of the model's parameters.
        losses: names of the losses that a stage can use instead of the model's own.

    Raises:
        UserError: the model has no such part or loss, a stage has nothing to train, or the last stage has no epoch.
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
        raise UserError(
            f"stages: those before the last take {before} epochs; epochs={epochs} leaves none for the last."
        )


def stage_at(stages: Sequence[Stage], epoch: int) -> Stage:
    """The stage of an epoch. Epochs are counted from 0, over all stages."""
    for stage in stages:
        if stage.epochs is None or epoch < stage.epochs:
            return stage
        epoch -= stage.epochs
    raise AssertionError("the last stage has no end")
