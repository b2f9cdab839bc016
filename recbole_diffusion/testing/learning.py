"""Tests that a model learns: it overfits one batch, and learns a Markov chain whose best possible accuracy is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from recbole.data.interaction import Interaction

from recbole_diffusion.testing.case import Case
from recbole_diffusion.testing.fixtures import Built, ModelTests, training_loss
from recbole_diffusion.testing.markov import markov_sequences, write_atomic


class Learning(ModelTests):
    """The slow tests of the contract."""

    @pytest.mark.slow
    def test_overfits_one_batch(self, build: Callable[..., Built], case: Case) -> None:
        if not case.learns:
            pytest.skip("the literal recipe learns too little or collapses; the default preset is held to this")
        built = build(case.model, preset=case.preset, **{**case.small, **case.learning})
        dataset = built.loaders.train.dataset
        order = dataset.target_rows.argsort()
        if not case.learns_order:
            order = order[dataset.inter_feat[built.model.ITEM_SEQ_LEN][order] == dataset.max_item_list_len]
        rows = order[torch.arange(0, 8 * 10, 10)]
        prefixes = dataset[rows].to(built.config["device"])
        window = Interaction(
            {
                built.model.ITEM_SEQ: prefixes[built.model.ITEM_SEQ],
                built.model.ITEM_SEQ_LEN: prefixes[built.model.ITEM_SEQ_LEN],
                built.model.ITEM_ID: prefixes[built.model.ITEM_ID],
                built.config["TARGET_LIST_FIELD"]: torch.zeros_like(prefixes[built.model.ITEM_SEQ]).scatter(
                    1, prefixes[built.model.ITEM_SEQ_LEN].unsqueeze(-1) - 1, prefixes[built.model.ITEM_ID].unsqueeze(-1)
                ),
            }
        )
        optimizer = torch.optim.Adam(built.model.parameters(), lr=0.005)
        torch.manual_seed(0)
        for _ in range(400):
            optimizer.zero_grad()
            training_loss(built.model, window).backward()
            optimizer.step()
        built.model.eval()
        scores = built.model.full_sort_predict(window).view(8, -1)
        if built.config["mask_history"]:  # as in evaluation: items of the history are not ranked, except the target
            rows, seen = dataset.seen_items(dataset.target_rows[rows])
            scores[rows, seen] = -torch.inf
        best = scores[:, 1:].argmax(dim=-1) + 1
        assert (best == prefixes[built.model.ITEM_ID]).sum() >= 7

    @pytest.mark.slow
    def test_learns_a_markov_chain_and_stays_at_chance_on_noise(
        self, build: Callable[..., Built], case: Case, tmp_path: Path
    ) -> None:
        if not case.learns:
            pytest.skip("the literal recipe learns too little or collapses; the default preset is held to this")
        if not case.learns_order:
            pytest.skip("it does not read the order of its history: it has its own test of what it learns")
        items, accuracy, users = 12, 0.8, 200
        chains = markov_sequences(users, 18, items, accuracy)
        best = accuracy + (1 - accuracy) / items

        def hit_at_1(name: str, sequences: np.ndarray) -> float:
            folder = write_atomic(tmp_path, name, sequences)
            extra = {"data_path": str(folder), "MAX_ITEM_LIST_LENGTH": 20, "topk": [1], "valid_metric": "Hit@1"}
            extra |= {"epochs": 30, "eval_step": 10, "train_batch_size": 8, "metrics": ["Hit"]}
            built = build(case.model, dataset=name, preset=case.preset, **{**case.small, **extra, **case.learning})
            built.trainer.fit(built.loaders.train, built.loaders.valid)
            return built.trainer.evaluate(built.loaders.test)["hit@1"]

        assert hit_at_1("chain", chains) > 0.7 * best
        # chance is 1 / items; allowed are three standard errors above it
        chance = 1 / items
        noise = markov_sequences(users, 18, items, accuracy=0.0)
        assert hit_at_1("noise", noise) < chance + 3 * (chance * (1 - chance) / users) ** 0.5
