"""Sampled losses of the next item, compared with closed forms and with the whole softmax."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Built

from recbole_diffusion.config.settings import UserError
from recbole_diffusion.model.losses import catalogue_cross_entropy
from recbole_diffusion.model.negatives import (
    Draws,
    Negatives,
    gbce_beta,
    generalised_bce,
    sampled_cross_entropy,
)
from recbole_diffusion.testing.fixtures import training_loss
from recbole_diffusion.testing.markov import markov_sequences, write_atomic

SMALL = {"embedding_size": 8, "num_layers": 1, "num_heads": 2, "dropout": 0.0}
WINDOW = {"hidden_size": 16, "inner_size": 32, "n_layers": 1, "hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0}
COUNTS = torch.tensor([0, 5, 1, 0, 20, 3, 1])  # of items 0 ... 6
LOSSES: list[dict[str, Any]] = [
    {"num_negatives": 5, "negative_sampler": "uniform"},
    {"num_negatives": 5, "negative_sampler": "popularity"},
    {"num_negatives": 64, "negative_sampler": "in_batch"},
    {"num_negatives": 5, "negative_sampler": None, "catalogue_loss": "gbce"},
]
WHOLE = {"num_negatives": None, "negative_sampler": None}
NAMES = ["uniform", "popularity", "in_batch", "gbce"]


def _rows(device: str = "cpu") -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A table of items 0 ... 6, three predictions and their items."""
    generator = torch.Generator().manual_seed(0)
    table, prediction = torch.randn(7, 4, generator=generator), torch.randn(3, 4, generator=generator)
    return table.to(device), prediction.to(device), torch.tensor([2, 5, 2], device=device)


def test_sampled_softmax_by_hand() -> None:
    table, prediction, items = _rows()
    draws = Draws(torch.tensor([2, 3, 6]), torch.tensor([0.5, 2.0, 0.25]).log())
    scores = (prediction @ table.T).exp()
    for row, weights in enumerate(({3: 2.0, 6: 0.25}, {2: 0.5, 3: 2.0, 6: 0.25}, {3: 2.0, 6: 0.25})):
        own = scores[row, items[row]]
        z = own + sum(weight * scores[row, item] for item, weight in weights.items())
        got = sampled_cross_entropy(prediction, table, items, draws, 100)[row]
        torch.testing.assert_close(got, -torch.log(own / z))


def test_as_many_uniform_negatives_as_items_are_the_whole_softmax(device: str) -> None:
    table, prediction, items = _rows(device)
    table.requires_grad_()
    whole = catalogue_cross_entropy(prediction, table, items, 0.5, 100)
    for count in (6, 60):
        draws = Negatives("uniform", count, COUNTS.to(device))(items)
        assert draws.items.tolist() == [1, 2, 3, 4, 5, 6]
        sampled = sampled_cross_entropy(prediction / 0.5, table, items, draws, 100)
        torch.testing.assert_close(sampled, whole)
        torch.testing.assert_close(
            *(torch.autograd.grad(x.sum(), table, retain_graph=True)[0] for x in (sampled, whole))
        )


@pytest.mark.parametrize("max_cells", [1, 6])
def test_parts_have_the_loss_and_the_gradients_of_the_whole(max_cells: int) -> None:
    table, prediction, items = _rows()
    draws = Draws(torch.tensor([2, 3, 6]), torch.tensor([0.5, 2.0, 0.25]).log())
    for loss in (
        lambda e, x, cells: sampled_cross_entropy(x, e, items, draws, cells),
        lambda e, x, cells: generalised_bce(x, e, items, draws.items, 0.4, cells),
    ):
        results = []
        for cells in (max_cells, 9):
            e, x = table.clone().requires_grad_(), prediction.clone().requires_grad_()
            losses = loss(e, x, cells)
            (losses * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
            results.append((losses.detach(), e.grad, x.grad))
        torch.testing.assert_close(*results)


@pytest.mark.parametrize("sampler", ["uniform", "popularity", "in_batch"])
def test_the_partition_function_is_estimated_without_bias(sampler: str) -> None:
    """Over many draws, the mean of Z_hat is Z. With in_batch, the other targets are drawn as in training."""
    table, prediction, _ = _rows()
    scores, item, repeats = (prediction[0] @ table.T).exp(), 5, 10_000
    counts = COUNTS if sampler != "in_batch" else COUNTS + torch.tensor([0, 1, 1, 1, 1, 1, 1])  # each can be a target
    negatives = Negatives(sampler, 3, counts)
    torch.manual_seed(0)
    share = counts.double() / counts.sum()
    found = []
    for _ in range(repeats):
        others = torch.multinomial(share, 4, replacement=True) if sampler == "in_batch" else torch.tensor([1])
        draws = negatives(torch.cat([torch.tensor([item]), others]))
        kept = draws.items != item
        found.append((scores[draws.items[kept]] * draws.log_weight[kept].exp()).sum())
    estimate = torch.stack(found)
    z = scores[[1, 2, 3, 4, 6]].sum()
    assert abs(estimate.mean() - z) < 4 * estimate.std() / repeats**0.5
    assert estimate.std() > 0.05 * z


def test_popular_items_are_drawn_as_often_as_they_are_expected() -> None:
    torch.manual_seed(0)
    draws = Negatives("popularity", 60_000, COUNTS)(torch.tensor([1]))
    assert draws.items.tolist() == [1, 2, 3, 4, 5, 6]
    torch.testing.assert_close(draws.log_weight, torch.zeros(6), rtol=0, atol=0.06)  # the counts are as expected
    few = Negatives("popularity", 2, COUNTS)(torch.tensor([1]))
    share = (COUNTS + 1.0)[few.items] / 36
    times = (few.log_weight.exp() * 2 * share).round()
    assert times.sum() == 2


def test_in_batch_negatives_are_targets_of_the_step() -> None:
    torch.manual_seed(0)
    targets = torch.tensor([4, 1, 4, 5])
    draws = Negatives("in_batch", 10, COUNTS)(targets)
    assert draws.items.tolist() == [1, 4, 5]
    expected = 4 * 3 / 4 * torch.tensor([5, 20, 3]) / 30  # each row has three others
    torch.testing.assert_close(draws.log_weight.exp(), torch.tensor([1, 2, 1]) / expected)
    few = Negatives("in_batch", 2, COUNTS)(targets)
    assert set(few.items.tolist()) <= {1, 4, 5} and len(few.items) <= 2


def test_a_step_whose_only_negative_is_the_target_has_no_loss_and_no_gradient(device: str) -> None:
    table, prediction, _ = _rows(device)
    prediction = prediction[:1].requires_grad_()
    items = torch.tensor([4], device=device)
    draws = Negatives("in_batch", 10, COUNTS.to(device))(items)
    for loss in (
        sampled_cross_entropy(prediction, table, items, draws, 100),
        generalised_bce(prediction, table, items, draws.items, 0.0, 100),
    ):
        (gradient,) = torch.autograd.grad(loss.sum(), prediction)
        assert loss.item() == 0 and (gradient == 0).all()


def test_gbce_by_hand() -> None:
    table, prediction, items = _rows()
    negatives, beta = torch.tensor([2, 3, 6]), 0.3
    scores = prediction @ table.T
    got = generalised_bce(prediction, table, items, negatives, beta, 100)
    for row, others in enumerate(([3, 6], [2, 3, 6], [3, 6])):
        positive = torch.sigmoid(scores[row, items[row]]) ** beta
        expected = -positive.log() - sum(torch.log(1 - torch.sigmoid(scores[row, item])) for item in others)
        torch.testing.assert_close(got[row], expected)


def test_beta_of_gbce() -> None:
    assert gbce_beta(256, 12_101, 0.0) == pytest.approx(1)
    assert gbce_beta(256, 12_101, 1.0) == pytest.approx(256 / 12_100)
    alpha = 256 / 12_100
    assert gbce_beta(256, 12_101, 0.75) == pytest.approx(alpha * (0.75 * (1 - 1 / alpha) + 1 / alpha))
    assert gbce_beta(30, 20, 1.0) == pytest.approx(1)  # the whole catalogue needs no calibration


@pytest.mark.parametrize("model", ["DreamRec", "DiffDiv", "ADIGRec", "DiffuRec", "ADRec", "PreferGrow", "WindowSASRec"])
@pytest.mark.parametrize("loss", LOSSES, ids=NAMES)
def test_every_model_learns_from_every_loss(
    build: Callable[..., Built], model: str, loss: dict[str, Any], device: str
) -> None:
    loss = {"negative_sampler": None, **loss}
    built = build(model, use_gpu=device == "cuda", **(WINDOW if model == "WindowSASRec" else SMALL), **loss)
    batch = next(iter(built.loaders.train)).to(built.config["device"])
    assert len(built.model.sampled_loss.negatives.state_dict()) == 0  # a checkpoint loads with and without it
    training_loss(built.model, batch).backward()
    table = built.model.item_embedding.weight
    assert torch.isfinite(table.grad).all() and (table.grad[1:] != 0).any() and (table.grad[0] == 0).all()


@pytest.mark.parametrize("model", ["DreamRec", "WindowSASRec"])
def test_the_whole_catalogue_draws_nothing_and_a_temperature_of_1_changes_nothing(
    build: Callable[..., Built], model: str
) -> None:
    built = build(model, **WHOLE, **(WINDOW if model == "WindowSASRec" else SMALL))
    assert built.model.sampled_loss is None
    if model == "WindowSASRec":
        torch.manual_seed(3)
        built.model.calculate_loss(next(iter(built.loaders.train)))
        after = torch.rand(1)
        torch.manual_seed(3)
        assert after == torch.rand(1)


def test_the_temperature_divides_the_scores_of_windowsasrec(build: Callable[..., Built]) -> None:
    built = build("WindowSASRec", ce_temperature=0.5, **WINDOW)
    batch = next(iter(built.loaders.train))
    real = batch["target_list"] != 0
    scores = built.model.states(batch["item_id_list"])[real] @ built.model.item_embedding.weight.T / 0.5
    expected = torch.nn.functional.cross_entropy(scores, batch["target_list"][real])
    torch.testing.assert_close(built.model.calculate_loss(batch), expected)


def test_next_item_loss_has_the_negatives_too(build: Callable[..., Built]) -> None:
    settings = {"stages": [{"epochs": 1, "loss": "next_item"}, {}], "epochs": 2, **SMALL}
    built = build("DreamRec", num_negatives=30, negative_sampler="uniform", **settings)
    whole = build("DreamRec", **WHOLE, **settings)
    few = build("DreamRec", num_negatives=3, negative_sampler="uniform", **settings)
    batch = next(iter(built.loaders.train))
    losses = [x.model.next_item_loss(batch)[0].item() for x in (built, whole, few)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5) and losses[2] != pytest.approx(losses[1], rel=1e-5)


_REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"num_negatives": None, "negative_sampler": "uniform"}, "negative_sampler=uniform with num_negatives=~"),
    ({"catalogue_loss": "gbce", **WHOLE}, "catalogue_loss=gbce with num_negatives=~"),
    ({"gbce_t": 0.5, "num_negatives": 5}, "gbce_t=0.5: only catalogue_loss=gbce"),
    ({"catalogue_loss": "gbce", "num_negatives": 5, "negative_sampler": "in_batch"}, "negative_sampler=in_batch"),
    ({"num_negatives": 0}, "num_negatives=0: must be a whole number >= 1 and <= 10000000 or ~"),
    ({"negative_sampler": "popular", "num_negatives": 5}, "negative_sampler='popular': must be one of"),
    ({"gbce_t": 1.5, "num_negatives": 5, "catalogue_loss": "gbce"}, "gbce_t=1.5: must be a number >= 0 and <= 1"),
]


@pytest.mark.parametrize(("settings", "message"), _REFUSED)
@pytest.mark.parametrize("model", ["DreamRec", "WindowSASRec"])
def test_what_would_be_ignored_is_refused(
    build: Callable[..., Built], model: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as caught:
        build(model, **settings)
    assert message in str(caught.value)


def test_negatives_that_no_loss_reads_are_refused(build: Callable[..., Built]) -> None:
    with pytest.raises(UserError, match="num_negatives=5: no loss reads it with ce_weight=0"):
        build("DreamRec", ce_weight=0.0, num_negatives=5, **SMALL)
    build("ADIGRec", ce_weight=0.0, num_negatives=5, **SMALL)  # L_G1 reads it
    stages = [{"epochs": 1, "loss": "next_item"}, {}]
    build("DreamRec", ce_weight=0.0, num_negatives=5, stages=stages, epochs=2, **SMALL)


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES, ids=NAMES)
@pytest.mark.parametrize("model", ["DreamRec", "WindowSASRec"])
def test_learns_a_markov_chain(build: Callable[..., Built], tmp_path: Path, model: str, loss: dict[str, Any]) -> None:
    items, accuracy = 40, 0.8
    folder = write_atomic(tmp_path, "chain", markov_sequences(200, 18, items, accuracy))
    network = {"hidden_size": 32, "inner_size": 64, "n_layers": 1, "hidden_dropout_prob": 0.0}
    if model == "DreamRec":
        network = {"embedding_size": 32, "num_layers": 1, "dropout": 0.0, "sampling_steps": 3}
    built = build(
        model, dataset="chain", data_path=str(folder), MAX_ITEM_LIST_LENGTH=20, topk=[1], valid_metric="Hit@1",
        metrics=["Hit"], epochs=20, eval_step=20, train_batch_size=8, learning_rate=0.005, **network, **loss,
    )  # fmt: skip
    built.trainer.fit(built.loaders.train, built.loaders.valid)
    assert built.trainer.evaluate(built.loaders.test)["hit@1"] > 0.7 * (accuracy + (1 - accuracy) / items)
