"""Times in the unit of the file, also if a setting scaled them."""

from __future__ import annotations

from typing import Any

import torch
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


def ages_of(times: Tensor, inside: Tensor) -> Tensor:
    """From each time to the last one of its history, 0 at padding, float32 [batch, width].

    Times themselves are too large for 32 bits: neighbours of one minute would be equal.

    Args:
        times: float64 [batch, width], in any unit.
        inside: which positions are not padding, [batch, width].
    """
    last = times.masked_fill(~inside, -torch.inf).amax(dim=1, keepdim=True)
    return torch.where(inside, last - times, 0.0).float()
