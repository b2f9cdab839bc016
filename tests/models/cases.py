"""The models of this package that the contract of ``recbole_diffusion.testing`` tests. A new model needs one row."""

from __future__ import annotations

from recbole_diffusion.testing import Case

_NETWORK = {"embedding_size": 16, "num_layers": 1, "num_heads": 2}
_LEARNING = {"embedding_size": 32, "learning_rate": 0.005, "dropout": 0.0}
_DIFFUREC = {
    **_LEARNING,
    "embedding_dropout": 0.0,
    "train_batch_size": 64,
    "prefixes_per_user": None,
    "epochs": 6,
    "eval_step": 2,
}

CASES = [
    Case("DreamRec", {**_NETWORK, "sampling_steps": 3}, learning=_LEARNING),
    Case("DreamRec", {**_NETWORK, "sampling_steps": 3}, preset="paper", learns=False),
    Case("DiffDiv", {**_NETWORK, "sampling_steps": 3}, learning={**_LEARNING, "learning_rate": 0.003}),
    Case("DiffDiv", {**_NETWORK, "sampling_steps": 3, "latent_size": 8}, preset="paper", learns=False),
    Case("ADIGRec", {**_NETWORK, "sampling_steps": 3, "num_interests": 3}, learning=_LEARNING),
    Case("ADIGRec", {**_NETWORK, "sampling_steps": 3, "num_interests": 3}, preset="paper", learns=False),
    Case("DiffuRec", {**_NETWORK, "sampling_steps": 3}, learning=_DIFFUREC),
    Case("DiffuRec", {**_NETWORK, "sampling_steps": 3}, preset="paper", learning=_DIFFUREC),
    # DiffRec completes a set of items, which tests/unit/test_diffrec.py tests. On the Markov chain, users have seen
    # every item: a masked ranking contains only the target.
    Case("DiffRec", {"hidden_size": 16}, learning={"hidden_size": 256, "dropout": 0.2}, learns_order=False),
    Case("DiffRec", {"hidden_size": 16}, preset="paper", learns=False, learns_order=False),
    Case("WindowSASRec", {"hidden_size": 16, "inner_size": 32, "n_layers": 1}, learning={"hidden_dropout_prob": 0.0}),
    Case("eSASRec", _NETWORK, learning=_LEARNING),
    Case("HSTU", _NETWORK, learning=_LEARNING),
    Case("BSARec", _NETWORK, learning={**_LEARNING, "train_batch_size": 64, "prefixes_per_user": None, "epochs": 6}),
]
