"""A synthetic shop: customers whose baskets follow one another.

python tests/shop.py DIR    writes DIR/shop/shop.inter, for --data_path=DIR --dataset=shop
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from recbole_diffusion.testing.markov import write_atomic

SHELVES, ITEMS_PER_SHELF = 20, 20


def shop_sequences(customers: int = 2000, seed: int = 0) -> list[list[int]]:
    """Purchases of each customer in the order of time, of 400 items on 20 shelves.

    A customer buys 3 to 10 baskets of 1 to 4 items. A basket is from one shelf. The next basket is with probability 0.6
    from the shelf that follows this one, with 0.15 from the same shelf, and otherwise from a shelf by its popularity.
    Some shelves, and some items of a shelf, are more popular than others. Nobody buys an item twice in one basket.
    """
    rng = np.random.default_rng(seed)
    cycle, follows = rng.permutation(SHELVES), np.empty(SHELVES, dtype=int)
    follows[cycle] = np.roll(cycle, 1)
    shelves = 1 / np.arange(1, SHELVES + 1) ** 0.7
    shelves /= shelves.sum()
    items = 1 / np.arange(1, ITEMS_PER_SHELF + 1) ** 0.7
    items /= items.sum()
    purchases = []
    for _ in range(customers):
        shelf, bought = rng.choice(SHELVES, p=shelves), []
        for _ in range(rng.integers(3, 11)):
            basket = rng.choice(ITEMS_PER_SHELF, size=rng.integers(1, 5), replace=False, p=items)
            bought += [int(shelf * ITEMS_PER_SHELF + item + 1) for item in basket]
            kind = rng.random()
            if kind < 0.6:
                shelf = follows[shelf]
            elif kind > 0.75:
                shelf = rng.choice(SHELVES, p=shelves)
        purchases.append(bought)
    return purchases


if __name__ == "__main__":
    write_atomic(Path(sys.argv[1]), "shop", shop_sequences())
