"""Synthetic sequences whose best possible accuracy is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def markov_sequences(users: int, length: int, items: int, accuracy: float, seed: int = 0) -> np.ndarray:
    """First-order Markov chains [users, length] over items 1 ... ``items``.

    Each item has one likely successor. It comes with probability ``accuracy``; otherwise any item comes. So the best
    possible Hit@1 is ``accuracy + (1 - accuracy) / items``. With ``accuracy`` 0 there is nothing to learn. (A shuffled
    chain would not do as noise: items that are missing in the history are then more likely to be the target.)
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


def write_atomic(folder: Path, name: str, sequences: list | np.ndarray) -> Path:
    """Write sequences as RecBole's atomic file ``folder/name/name.inter``; returns ``folder``."""
    target = folder / name
    target.mkdir(parents=True)
    lines = ["user_id:token\titem_id:token\ttimestamp:float"]
    for user, sequence in enumerate(sequences):
        lines += [f"u{user}\ti{item}\t{time}" for time, item in enumerate(sequence)]
    (target / f"{name}.inter").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
