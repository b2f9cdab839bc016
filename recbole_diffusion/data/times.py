"""Times in the unit of the file, also if a setting scaled them."""

from __future__ import annotations

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
