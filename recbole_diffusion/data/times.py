"""Times in the unit of the file, also if a setting scaled them."""

from __future__ import annotations

import datetime
from typing import Any

from torch import Tensor


def file_times(dataset: Any, times: Tensor) -> Tensor:
    """Times as they stand in the file, float64. ``normalize_field`` and ``normalize_all`` scale them to 0 ... 1.

    Args:
        dataset: whose column the times are of.
        times: of any shape.
    """
    config, times = dataset.config, times.double()
    if not config["normalize_all"] and dataset.time_field not in (config["normalize_field"] or []):
        return times
    first, last = dataset.times
    return first + times * (last - first)


def time_text(time: float) -> str:
    """A point in time, with its date if it is a Unix time from 1990 to 2100."""
    if 631_152_000 <= time < 4_102_444_800:
        date = datetime.datetime.fromtimestamp(time, datetime.UTC).isoformat(sep=" ", timespec="seconds")
        return f"{time:.0f} ({date[:19]} UTC)"
    return f"{time:g}"
