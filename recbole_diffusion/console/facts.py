"""Facts about a run as texts: data set, split, size of the model, settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

_SHOWN = 12  # settings; a config file may have many more
# 1990 to 2100 as Unix times in seconds. Numbers outside are not dates.
_DATES = (631_152_000, 4_102_444_800)


def data_set(dataset: Any) -> str:
    """The counts of a data set, and the days of its first and last interaction if its times are Unix times."""
    span = days(*dataset.times) if dataset.times is not None else None
    return f"{dataset.dataset_name}: {dataset.counts}" + (f", {span}" if span else "")


def days(first: float, last: float) -> str | None:
    """``1997-09-20 to 1998-04-22`` (UTC) from Unix times in seconds or milliseconds; None for other numbers."""
    for unit in (1, 1000):
        if all(_DATES[0] <= time / unit < _DATES[1] for time in (first, last)):
            dates = (datetime.fromtimestamp(time / unit, UTC).date().isoformat() for time in (first, last))
            return " to ".join(dates)
    return None


def moment(time: float) -> str:
    """A time as a number, with its date and time of day (UTC) if it is a Unix time in seconds."""
    if not _DATES[0] <= time < _DATES[1]:
        return f"{time:g}"
    return f"{time:.0f} ({datetime.fromtimestamp(time, UTC):%Y-%m-%d %H:%M:%S} UTC)"


def splits(loaders: Sequence[Any]) -> str:
    """How many interactions are for training, validation and test."""
    train, valid, test = (len(loader._dataset) for loader in loaders)
    note = getattr(loaders[0]._dataset, "split_note", "")
    counts = f"{train:,} interactions for training, {valid:,} for validation, {test:,} for test"
    return f"{counts}; {note}" if note else counts


def parameters(model: Any) -> int:
    """How many numbers of the model are trained."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def settings(user: Mapping[str, Any], given: Mapping[str, Any], files: Sequence[Any], preset: str) -> str:
    """Which settings the user made, and where the others come from.

    Args:
        user: all settings that win over the preset.
        given: those of ``user`` that were given directly. The others are from ``files``.
        files: the config files.
        preset: name of the preset.
    """
    own = {key: value for key, value in user.items() if key in given}
    of_files = {key: value for key, value in user.items() if key not in given}
    parts = [_listed(own)] if own else []
    parts += [f"from {', '.join(map(str, files))}: {_listed(of_files)}"] if of_files else []
    return "; ".join([*parts, f"{'all others' if parts else 'all'}: preset {preset}"])


def _listed(values: Mapping[str, Any]) -> str:
    shown = [f"{key}={value}" for key, value in list(values.items())[:_SHOWN]]
    return ", ".join([*shown, *([f"{len(values) - _SHOWN} more"] if len(values) > _SHOWN else [])])
