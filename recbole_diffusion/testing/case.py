"""A model that the contract tests."""

from __future__ import annotations

from typing import Any, NamedTuple


class Case(NamedTuple):
    """A model, with settings that make it small enough to test in seconds."""

    model: str
    small: dict[str, Any]
    preset: str = "default"
    learns: bool = True  # whether it must pass the slow tests too: overfit a batch, and learn a Markov chain
    learning: dict[str, Any] = {}  # settings of the slow tests
    # Whether it reads the order of the history. If not, it overfits only full histories, and the Markov chain is
    # skipped: the model needs its own test of what it learns.
    learns_order: bool = True

    @property
    def id(self) -> str:
        return f"{self.model}-{self.preset}"
