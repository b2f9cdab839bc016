"""Training in stages: frozen weights do not change, losses change with the stage, and the epoch decides the stage."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import Built

from recbole_diffusion.config.settings import UserError
from recbole_diffusion.config.stages import Stage, read_stages, stage_at

SMALL = {"embedding_size": 8, "num_layers": 1, "num_heads": 2, "train_batch_size": 8}
FROZEN_ENCODER = {"epochs": 2, "freeze": ["encoder"]}


def _values(model: Any) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def _moved(model: Any, before: dict[str, torch.Tensor]) -> set[str]:
    """The parts of the model that have changed since ``before``."""
    return {
        name.split(".")[0] for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])
    }


def test_the_stage_follows_from_the_epoch() -> None:
    stages = read_stages([{"epochs": 2, "loss": "next_item"}, {"epochs": 1, "freeze": ["a"]}, {}])
    assert [stage_at(stages, epoch) for epoch in range(5)] == [stages[0]] * 2 + [stages[1]] + [Stage()] * 2
    assert stages[1] == Stage(1, ("a",), None)
    assert read_stages(None) == (Stage(),)


def test_a_part_is_a_module_or_a_parameter() -> None:
    stage = Stage(freeze=("encoder.blocks", "item_embedding.weight"))
    frozen = ["encoder.blocks.0.query.weight", "item_embedding.weight"]
    assert all(stage.freezes(name) for name in frozen)
    assert not any(stage.freezes(name) for name in ("encoder.blocks_of.weight", "encoder.final_norm.bias", "encoder"))


@pytest.mark.parametrize("learner", ["adam", "sgd"])
def test_what_is_frozen_does_not_move_and_then_learns(build: Callable[..., Built], learner: str) -> None:
    built = build(
        "DreamRec", stages=[FROZEN_ENCODER, {}], epochs=4, learner=learner, weight_decay=0.1, learning_rate=0.01,
        **SMALL,
    )  # fmt: skip
    everything = {name.split(".")[0] for name, _ in built.model.named_parameters()}
    for epoch in range(3):
        before = _values(built.model)
        built.trainer._train_epoch(built.loaders.train, epoch)
        assert _moved(built.model, before) == everything - ({"encoder"} if epoch < 2 else set())


def test_what_learned_before_it_is_frozen_does_not_drift_on(build: Callable[..., Built]) -> None:
    """Adam's moments from earlier steps must not change a frozen weight."""
    stages = [{"epochs": 1}, {"epochs": 1, "freeze": ["item_embedding"]}, {}]
    built = build("DreamRec", stages=stages, epochs=3, weight_decay=0.1, **SMALL)
    built.trainer._train_epoch(built.loaders.train, 0)
    before = _values(built.model)
    built.trainer._train_epoch(built.loaders.train, 1)
    assert "item_embedding" not in _moved(built.model, before)


def test_a_stage_can_pre_train_encoder_and_items_by_plain_cross_entropy(build: Callable[..., Built]) -> None:
    settings = {"epochs": 3, "eval_step": 1, "num_negatives": None, "negative_sampler": None, **SMALL}
    built = build("DreamRec", stages=[{"epochs": 2, "loss": "next_item"}, {}], **settings)
    before = _values(built.model)
    built.trainer._train_epoch(built.loaders.train, 0)
    assert _moved(built.model, before) == {"item_embedding", "encoder"}
    batch = next(iter(built.loaders.train))
    built.model.eval()
    (loss,) = built.model.next_item_loss(batch)
    targets = batch[built.model.TARGET_SEQ]
    logits = built.model.encode(batch[built.model.ITEM_SEQ]) @ built.model.item_embedding.weight[1:].T
    real = targets != 0
    expected = -logits[real].log_softmax(dim=-1).gather(1, targets[real].unsqueeze(-1) - 1).mean()
    torch.testing.assert_close(loss, expected)
    built.trainer.fit(built.loaders.train, built.loaders.valid)
    assert [list(entry["losses"]) for entry in built.trainer.history] == [["next_item"], ["next_item"], ["mse", "ce"]]


def test_resumed_training_is_in_the_stage_of_its_epoch(build: Callable[..., Built]) -> None:
    stages = [{"epochs": 1, "loss": "next_item"}, {"epochs": 1, "freeze": ["encoder"]}, {}]
    settings = {"stages": stages, "epochs": 3, "eval_step": 1, **SMALL}
    first = build("DreamRec", **settings)
    first.trainer.epochs = 1
    first.trainer.fit(first.loaders.train, first.loaders.valid)
    again = build("DreamRec", **settings)
    again.trainer.resume_checkpoint(first.trainer.files.last)
    seen: list[set[str]] = []
    plain = again.trainer._train_epoch

    def watched(*arguments: Any, **named: Any) -> Any:
        before = _values(again.model)
        result = plain(*arguments, **named)
        seen.append(_moved(again.model, before))
        return result

    again.trainer._train_epoch = watched
    again.trainer.fit(again.loaders.train, again.loaders.valid)
    assert [list(entry["losses"]) for entry in again.trainer.history] == [["next_item"], *[["mse", "ce"]] * 2]
    assert seen == [{"item_embedding", "denoiser"}, {"item_embedding", "denoiser", "encoder"}]


@pytest.mark.parametrize("stopping_step", [0, 1])
def test_only_the_last_stage_is_ended_by_validation(build: Callable[..., Built], stopping_step: int) -> None:
    settings = {"epochs": 20, "eval_step": 1, "stopping_step": stopping_step, **SMALL}
    epochs = {}
    for name, stages in (("one", None), ("two", [{"epochs": 6, "loss": "next_item"}, {}])):
        built = build("DreamRec", stages=stages, **settings)
        falling = itertools.count(0, -1)
        built.trainer._valid_epoch = lambda *_, falling=falling, **__: (next(falling), {})
        built.trainer.fit(built.loaders.train, built.loaders.valid)
        epochs[name] = len(built.trainer.train_loss_dict)
    assert epochs == {
        "one": 2 + stopping_step,
        "two": 6 + 1 + stopping_step,
    }  # the first validation is always the best so far


def test_after_training_nothing_is_frozen(build: Callable[..., Built]) -> None:
    built = build("DreamRec", stages=[{"epochs": 1}, {"freeze": ["encoder"]}], epochs=2, eval_step=1, **SMALL)
    built.trainer.fit(built.loaders.train, built.loaders.valid)
    assert all(parameter.requires_grad for parameter in built.model.parameters())


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ("all", r"stages='all': must be a list of stages, or ~"),
        ([], r"stages=\[\]: must be a list of stages, or ~"),
        (["encoder"], r"stage 1 of 1 is 'encoder': must be a dictionary of epochs, freeze, loss"),
        ([{"epochs": 1, "freez": []}, {}], r"stage 1 of 2: unknown key 'freez'. Did you mean 'freeze'\? Allowed:"),
        ([{}, {}], r"stage 1 of 2: epochs=None: must be a whole number >= 1"),
        ([{"epochs": 0}, {}], r"stage 1 of 2: epochs=0: must be"),
        ([{"epochs": True}, {}], r"stage 1 of 2: epochs=True: must be"),
        ([{"epochs": 1}], r"stage 1 of 1: epochs=1 cannot be set; the last stage ends when training does"),
        ([{"freeze": "encoder"}], r"freeze='encoder': must be a list of parts"),
        ([{"freeze": ["encodr"]}], r"freeze='encodr': the model has no such part. Did you mean 'encoder'"),
        ([{"freeze": ["nothing"]}], r"It has denoiser, encoder, item_embedding, and their parts"),
        ([{"freeze": ["denoiser", "encoder"]}, {}], r"stage 1 of 2: epochs=None"),
        ([{}, {"loss": "next_item"}], r"stage 1 of 2: epochs=None"),
        ([{"loss": 3}], r"loss=3: must be the name of a loss"),
        ([{"loss": "next_itm"}], r"loss='next_itm': must be one of next_item. Did you mean 'next_item'\?"),
        ([{"epochs": 3}, {"epochs": 2}, {}], r"stages: those before the last take 5 epochs; epochs=5 leaves none for"),
        ([{"epochs": 1, "freeze": ["item_embedding"]}, {}], r"freezes item_embedding, which needs a pretrained_item"),
    ],
)  # fmt: skip
def test_stages_without_a_meaning_are_refused_before_training(
    build: Callable[..., Built], stages: Any, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        build("DreamRec", stages=stages, epochs=5, **SMALL)


def test_a_stage_that_freezes_all_that_learns_is_refused(build: Callable[..., Built]) -> None:
    everything = [{"epochs": 1}, {"freeze": ["item_embedding", "encoder", "denoiser"]}]
    with pytest.raises(UserError, match=r"stage 2 of 2: freeze=\['item_embedding', .* leaves nothing to train"):
        build("DreamRec", stages=everything, **SMALL)
    stages = [{"epochs": 1}, {"loss": "next_item", "freeze": ["item_embedding", "encoder"]}]
    built = build("DreamRec", stages=stages, **SMALL)
    with pytest.raises(UserError, match=r"stages: epoch 2, batch 1 of \d+: the loss depends only on what this stage"):
        built.trainer._train_epoch(built.loaders.train, 1)


def test_a_model_without_other_losses_says_so(build: Callable[..., Built]) -> None:
    with pytest.raises(UserError, match="loss='next_item': the model has no such loss"):
        build("ADIGRec", stages=[{"epochs": 1, "loss": "next_item"}, {}], num_interests=3, **SMALL)


def test_the_name_of_earlier_versions_says_what_to_use(build: Callable[..., Built]) -> None:
    with pytest.raises(UserError, match=r"freeze_epochs=3: cannot be set; use stages, e.g. \[{epochs: 10, freeze:"):
        build("DreamRec", freeze_epochs=3, **SMALL)


def test_what_the_model_itself_froze_stays_frozen(build: Callable[..., Built]) -> None:
    built = build("DreamRec", stages=[{"epochs": 1, "freeze": ["encoder"]}, {}], epochs=2, **SMALL)
    built.model.item_embedding.weight.requires_grad_(False)
    stages = [{"epochs": 1, "freeze": ["encoder"]}, {"freeze": ["item_embedding"]}]
    built.model.stages = read_stages(stages)
    trainer = type(built.trainer)(built.config, built.model)
    trainer.vocabulary = built.trainer.vocabulary
    before = _values(built.model)
    trainer.fit(built.loaders.train, built.loaders.valid, verbose=False)
    assert "item_embedding" not in _moved(built.model, before)
    assert not built.model.item_embedding.weight.requires_grad and built.model.encoder.final_norm.weight.requires_grad
