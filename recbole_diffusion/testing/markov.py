"""Synthetic sequences whose best possible accuracy is known."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np


def markov_sequences(users: int, length: int, items: int, accuracy: float, seed: int = 0) -> np.ndarray:
    """First-order Markov chains [users, length] over items 1 ... ``items``.

    Each item has one likely successor, taken with probability ``accuracy``, and else any item: the best possible Hit@1
    is ``accuracy + (1 - accuracy) / items``. With ``accuracy`` 0 there is nothing to learn. A chain in random order is
    no such noise: an item that has not been seen is then more likely to be the one left out.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(items)
    follows = np.empty(items, dtype=int)
    follows[order] = np.roll(order, 1)  # one random cycle
    chains = np.empty((users, length), dtype=int)
    chains[:, 0] = rng.integers(items, size=users)
    for step in range(1, length):
        likely = rng.random(users) < accuracy
        chains[:, step] = np.where(likely, follows[chains[:, step - 1]], rng.integers(items, size=users))
    return chains + 1


def write_atomic(folder: Path, name: str, sequences: Iterable[Iterable[int]]) -> Path:
    """Write sequences as RecBole's atomic file ``folder/name/name.inter``; returns ``folder``."""
    target = folder / name
    target.mkdir(parents=True)
    lines = ["user_id:token\titem_id:token\ttimestamp:float"]
    for user, sequence in enumerate(sequences):
        lines += [f"u{user}\ti{item}\t{time}" for time, item in enumerate(sequence)]
    (target / f"{name}.inter").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
