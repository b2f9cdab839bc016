"""The k-core: the rows that are left when every user and every item has at least k of them."""

from __future__ import annotations

import numpy as np


def k_core(users: np.ndarray, items: np.ndarray, least: int) -> tuple[np.ndarray, int]:
    """Drop the rows of users and of items with fewer than ``least`` rows, until all that are left have as many.

    Args:
        users, items: the number of the user and of the item of each row, [n].
        least: how many rows each user and each item must have.

    Returns:
        The places of the rows that are left, in their order, and how many rounds dropped any.
    """
    left, rounds = np.arange(len(users)), 0
    while len(left):
        enough = (np.bincount(users[left]) >= least)[users[left]] & (np.bincount(items[left]) >= least)[items[left]]
        if enough.all():
            break
        left, rounds = left[enough], rounds + 1
    return left, rounds
