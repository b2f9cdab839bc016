"""What torchrun tells each of the processes that it starts, by the environment."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import Any

from recbole_diffusion.config.settings import UserError

_NAMED = os.environ.get("CUDA_VISIBLE_DEVICES")  # before RecBole sets it

_LONGEST_WAIT = 30.0  # seconds


def launched() -> int:
    """How many processes torchrun has started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this process is the one that writes files and shows progress."""
    return launched() == 1 or os.environ.get("RANK", "0") == "0"


def left_to_first() -> None:
    """Wait until the first process has told an error that all have: torchrun ends the others when one has ended."""
    with suppress(KeyboardInterrupt):
        time.sleep(_LONGEST_WAIT)


def own_gpu(wanted: Any, default: str) -> str:
    """The number of this process's GPU: under torchrun the next one for each process, else ``default``.

    Args:
        wanted: the setting ``gpu_id`` of the user, or None.
        default: the setting as it is.

    Raises:
        UserError: the user chose a GPU for all processes, or ``CUDA_VISIBLE_DEVICES`` names too few.
    """
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if processes == 1:
        return default
    if wanted not in (None, ""):
        raise UserError(
            f"gpu_id={wanted!r}: torchrun has started {processes} processes, and each takes a GPU of its own. Choose "
            "the GPUs by CUDA_VISIBLE_DEVICES."
        )
    named = _NAMED
    gpus = [str(number) for number in range(processes)] if named is None else [gpu for gpu in named.split(",") if gpu]
    if not gpus:
        return ""
    if len(gpus) < processes:
        raise UserError(
            f"CUDA_VISIBLE_DEVICES={named}: torchrun has started {processes} processes, and each needs a GPU of its "
            f"own. Set --nproc_per_node={len(gpus)}, or use_gpu=False."
        )
    return gpus[int(os.environ["LOCAL_RANK"])]
