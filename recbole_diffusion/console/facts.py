"""What is told of a run beside its figures, as texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

_SHOWN = 12  # settings; files may hold all there are
# Unix times from 1990 to 2100 in seconds; other numbers tell no date.
_DATES = (631_152_000, 4_102_444_800)


def data_set(dataset: Any) -> str:
    """Its counts, and the days of its first and last interaction where its times are Unix times."""
    span = days(*dataset.times) if dataset.times is not None else None
    return f"{dataset.dataset_name}: {dataset.counts}" + (f", {span}" if span else "")


def days(first: float, last: float) -> str | None:
    """``1997-09-20 to 1998-04-22`` in UTC, of Unix times in seconds or milliseconds; None for other numbers."""
    for unit in (1, 1000):
        if all(_DATES[0] <= time / unit < _DATES[1] for time in (first, last)):
            dates = (datetime.fromtimestamp(time / unit, UTC).date().isoformat() for time in (first, last))
            return " to ".join(dates)
    return None


def splits(loaders: Sequence[Any]) -> str:
    """How many interactions there are to train on, validate and test."""
    train, valid, test = (len(loader._dataset) for loader in loaders)
    return f"{train:,} interactions for training, {valid:,} for validation, {test:,} for test"


def parameters(model: Any) -> int:
    """How many numbers are trained."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def settings(user: Mapping[str, Any], given: Mapping[str, Any], files: Sequence[Any], preset: str) -> str:
    """Where settings come from.

    Args:
        user: what wins over the preset: those of ``files``, and those ``given`` beside them.
    """
    own = {key: value for key, value in user.items() if key in given}
    of_files = {key: value for key, value in user.items() if key not in given}
    parts = [_listed(own)] if own else []
    parts += [f"from {', '.join(map(str, files))}: {_listed(of_files)}"] if of_files else []
    return "; ".join([*parts, f"{'all others' if parts else 'all'}: preset {preset}"])


def _listed(values: Mapping[str, Any]) -> str:
    shown = [f"{key}={value}" for key, value in list(values.items())[:_SHOWN]]
    return ", ".join([*shown, *([f"{len(values) - _SHOWN} more"] if len(values) > _SHOWN else [])])
