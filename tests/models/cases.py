"""The models under the contract of ``test_contract.py``; a new model is one row."""

from __future__ import annotations

from typing import Any, NamedTuple


class Case(NamedTuple):
    """A model, with what makes it small enough to test in seconds."""

    model: str
    small: dict[str, Any]
    preset: str = "default"
    learns: bool = True  # also held to the slow tests: overfits a batch, beats the floor on a Markov chain
    learning: dict[str, Any] = {}  # settings of the slow tests
    learns_order: bool = True  # also held to the Markov chain; else a test of its own says what the model learns

    @property
    def id(self) -> str:
        return f"{self.model}-{self.preset}"


_NETWORK = {"embedding_size": 16, "num_layers": 1, "num_heads": 2}
_LEARNING = {"embedding_size": 32, "learning_rate": 0.005, "dropout": 0.0}

CASES = [
    Case("DreamRec", {**_NETWORK, "sampling_steps": 3}, learning=_LEARNING),
    Case("DreamRec", {**_NETWORK, "sampling_steps": 3}, preset="paper", learns=False),
    Case(
        "DiffDiv",
        {**_NETWORK, "sampling_steps": 3, "latent_size": 8},
        learning={**_LEARNING, "learning_rate": 0.003, "latent_size": 32},
    ),
    Case("DiffDiv", {**_NETWORK, "sampling_steps": 3, "latent_size": 8}, preset="paper", learns=False),
    Case("ADIGRec", {**_NETWORK, "sampling_steps": 3, "num_interests": 3}, learning=_LEARNING),
    Case(
        "DiffuRec",
        {**_NETWORK, "sampling_steps": 3},
        learning={
            **_LEARNING,
            "embedding_dropout": 0.0,
            "train_batch_size": 64,
            "epochs": 6,
            "eval_step": 2,
        },
    ),
    # A set of items says little of what comes next, and a masked ranking leaves a chain's user nothing but the target.
    Case("DiffRec", {"hidden_size": 16}, learning={"hidden_size": 64}, learns_order=False),
    Case("WindowSASRec", {"hidden_size": 16, "inner_size": 32, "n_layers": 1}, learning={"hidden_dropout_prob": 0.0}),
]
