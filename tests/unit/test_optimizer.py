"""The trainer's fused optimiser gives the weights of RecBole's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import Built
from recbole.trainer import Trainer

from recbole_diffusion.training.trainer import DiffusionTrainer

SMALL = {"hidden_size": 16, "inner_size": 32, "n_layers": 1, "epochs": 3, "eval_step": 3, "train_batch_size": 8}


@pytest.mark.parametrize("learner", ["adam", "adamw"])
@pytest.mark.parametrize("model", ["WindowSASRec", "DreamRec"])
def test_fused_steps_give_nearly_the_same_weights(
    build: Callable[..., Built], monkeypatch: pytest.MonkeyPatch, learner: str, model: str, device: str
) -> None:
    own = SMALL if model == "WindowSASRec" else {"embedding_size": 16, "num_layers": 1, "epochs": 3, "eval_step": 3}
    settings: dict[str, Any] = {**own, "learner": learner, "weight_decay": 0.01, "learning_rate": 0.01}

    def weights() -> tuple[bool, dict[str, torch.Tensor]]:
        built = build(model, use_gpu=device == "cuda", **settings)
        start = {name: value.clone() for name, value in built.model.state_dict().items()}
        built.trainer.fit(built.loaders.train, built.loaders.valid)
        end = built.model.state_dict()
        assert not torch.equal(end["item_embedding.weight"], start["item_embedding.weight"])
        return bool(built.trainer.optimizer.param_groups[0]["fused"]), end

    fused, ours = weights()
    monkeypatch.setattr(DiffusionTrainer, "_build_optimizer", Trainer._build_optimizer)
    plain, theirs = weights()
    assert fused and not plain
    for name, value in ours.items():
        # The true gradient of a bias of keys is 0. Adam scales up what rounding leaves of it, which changes no output.
        if "key" not in name or "bias" not in name:
            torch.testing.assert_close(
                value, theirs[name], rtol=1e-3, atol=2e-4, msg=lambda text, name=name: name + text
            )


def test_other_optimisers_are_recboles(build: Callable[..., Built]) -> None:
    optimizer = build("WindowSASRec", **SMALL, learner="sgd", learning_rate=0.5, weight_decay=0.25).trainer.optimizer
    assert isinstance(optimizer, torch.optim.SGD) and optimizer.param_groups[0]["weight_decay"] == 0.25
    optimizer = build("WindowSASRec", **SMALL, learner="adamw", weight_decay=0.25).trainer.optimizer
    assert isinstance(optimizer, torch.optim.AdamW) and optimizer.param_groups[0]["weight_decay"] == 0.25
