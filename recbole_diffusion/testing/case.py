"""A model under the contract."""

from __future__ import annotations

from typing import Any, NamedTuple


class Case(NamedTuple):
    """A model, with what makes it small enough to test in seconds."""

    model: str
    small: dict[str, Any]
    preset: str = "default"
    learns: bool = True  # also held to the slow tests: overfits a batch, beats the floor on a Markov chain
    learning: dict[str, Any] = {}  # settings of the slow tests
    # Whether it can tell what comes next from the order of the history. Else it overfits full histories only, and in
    # place of the Markov chain a test of its own says what it learns.
    learns_order: bool = True

    @property
    def id(self) -> str:
        return f"{self.model}-{self.preset}"
