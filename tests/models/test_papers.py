"""What the models of single papers compute, by the formulas of the papers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import Built
from recbole.data.interaction import Interaction
from torch import Tensor, nn

from recbole_diffusion.diffusion.noise import RowNoise

SMALL = {"embedding_size": 16, "num_layers": 1, "num_heads": 2, "dropout": 0.0}


class Recorded(nn.Module):
    """A denoiser that remembers its arguments and answers."""

    def __init__(self, denoiser: nn.Module) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.calls: list[tuple[Any, ...]] = []

    def forward(self, x_t: Tensor, t: Tensor, cond: Any) -> Tensor:
        output = self.denoiser(x_t, t, cond)
        self.calls.append((x_t, t, cond, output))
        return output


def _losses(model: Any, batch: Any) -> dict[str, Tensor]:
    losses = model.calculate_loss(batch)
    return dict(zip(model.loss_names, losses, strict=True))


# --- PreferDiff


@pytest.mark.parametrize("of", ["row", "batch"])
def test_preferdiffs_losses_by_their_formula(build: Callable[..., Built], of: str) -> None:
    settings = {"mse_weight": 0.4, "preference_weight": 0.6, "preference_of": of, "stop_gradient_target": False}
    built = build("PreferDiff", **settings, **SMALL, p_uncond=0.5, num_negatives=None, negative_sampler=None)
    model = built.model
    batch = next(iter(built.loaders.train))
    recorded = model.denoiser.denoiser = Recorded(model.denoiser.denoiser)
    terms = _losses(model, batch)
    (x_t, t, cond, positive), (other_x_t, other_t, other_cond, negative) = recorded.calls
    assert other_t is t and other_cond is cond  # one timestep, and the same rows without a condition
    dropped = (cond == model.denoiser.null).all(dim=-1)
    assert dropped.any() and not dropped.all()
    targets = batch[model.TARGET_SEQ]
    targets = targets[targets != 0]
    x_0 = model.item_embedding(targets)
    goods, bads, centroids = [], [], []

    def error(a: Tensor, b: Tensor) -> Tensor:
        return (1 - a @ b / (a.norm() * b.norm())) ** 2

    for row in range(len(x_0)):
        others = torch.stack([x_0[other] for other in range(len(x_0)) if other != row]).mean(dim=0)
        centroids.append(others)
        goods.append(error(positive[row], x_0[row]))
        bads.append(error(negative[row], others))
    good, bad = torch.stack(goods), torch.stack(bads)
    if of == "batch":
        preference = torch.log(1 + torch.exp(-5.0 * (bad.mean() - good.mean())))
    else:
        preference = torch.log(1 + torch.exp(-5.0 * (bad - good))).mean()
    logits = positive @ model.item_embedding.weight[1:].T
    expected = {
        "error": 0.4 * good.mean(),
        "preference": 0.6 * preference,
        "ce": nn.functional.cross_entropy(logits, targets - 1),
    }
    assert terms.keys() == expected.keys()
    for name, term in terms.items():
        torch.testing.assert_close(term, expected[name])
    # The noise of the two is independent, and each has the size that its step says.
    noises = [
        (noised - model.process.q_sample(data, t, torch.zeros_like(data))).detach()
        / model.process.beta_between(t, -1).sqrt().unsqueeze(-1)
        for noised, data in ((x_t, x_0), (other_x_t, torch.stack(centroids)))
    ]
    assert all(noise.std().item() == pytest.approx(1, abs=0.05) for noise in noises)
    assert abs((noises[0] * noises[1]).mean().item()) < 0.05


def test_a_preference_is_low_where_the_target_is_met_and_its_rival_is_not(build: Callable[..., Built]) -> None:
    """With x0_hat = x_0 for the target and -x_0 for the rival, the errors are 0 and 4."""
    built = build("PreferDiff", mse_weight=1.0, preference_weight=1.0, ce_weight=0.0, preference_scale=0.5, **SMALL,
                  num_negatives=None, negative_sampler=None)  # fmt: skip
    model, answers = built.model, []

    class Perfect(nn.Module):
        def forward(self, x_t: Tensor, t: Tensor, cond: Tensor) -> Tensor:
            answers.append(x_t)
            return targets if len(answers) == 1 else -(targets.sum(dim=0) - targets)

    batch = next(iter(built.loaders.train))
    targets = model.item_embedding(batch[model.TARGET_SEQ][batch[model.TARGET_SEQ] != 0]).detach()
    model.denoiser.denoiser = Perfect()
    terms = _losses(model, batch)
    assert terms["error"].item() == pytest.approx(0, abs=1e-6)
    assert terms["preference"].item() == pytest.approx(torch.log1p(torch.exp(torch.tensor(-2.0))).item(), rel=1e-4)


# --- FMRec


def _histories(*rows: list[int], width: int = 6) -> Interaction:
    padded = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    return Interaction({"item_id_list": padded, "item_length": torch.tensor([len(row) for row in rows])})


def test_the_decoder_of_fmrec_is_held_to_the_history_and_to_items_outside_it(
    build: Callable[..., Built], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build("FMRec", reconstruction_weight=0.5, **SMALL).model
    history = _histories([3, 5, 3, 7], [9])
    drawn = torch.tensor([[3, 20, 21, 21, 8, 8], [11, 9, 2, 2, 2, 2]])  # 3 is in the first history
    monkeypatch.setattr(torch, "randint_like", lambda *given: drawn)
    h, table = torch.randn(2, 16), model.item_embedding.weight
    scores = model.decoder.mlp(h) @ table.T
    expected = [
        ((1 - scores[0, [3, 5, 7]]) ** 2).sum() + (scores[0, [20, 21, 21]] ** 2).sum(),
        (1 - scores[1, 9]) ** 2 + scores[1, 11] ** 2,
    ]
    found = model.decoder(h, history["item_id_list"], history["item_length"], table)
    torch.testing.assert_close(found, torch.stack(expected) / 30)


def test_the_middle_of_fmrec_is_the_last_items_state_after_half_of_the_blocks(build: Callable[..., Built]) -> None:
    model = build("FMRec", **{**SMALL, "num_layers": 4, "uncertainty": 0.0}).model.eval()
    guidance = model.last_state(_histories([3, 5, 3, 7], [9]))
    middle = model.denoiser.with_middle(torch.zeros(2, 16), torch.zeros(2, dtype=torch.long), guidance)[1]
    real = torch.arange(6) < guidance.length.unsqueeze(-1)
    z = guidance.items
    for block in model.denoiser.blocks[:2]:
        z = block(z, real[:, None, None, :])
    torch.testing.assert_close(middle, z[[0, 1], guidance.length - 1])


@pytest.mark.parametrize("keep", [0.25, 1 - 1e-9])
def test_a_path_from_the_history_begins_at_a_part_of_one_of_its_items(build: Callable[..., Built], keep: float) -> None:
    model = build("FMRec", prior="history", prior_keep=keep, item_init_std=1.0, **SMALL).model.eval()
    history = _histories(*[[3, 5, 7]] * 2000)
    guidance, table = model.last_state(history), model.item_embedding.weight.detach()
    torch.manual_seed(0)
    trained = model.training_noise(torch.zeros(2000, 16), guidance)
    generated = model.chain_start(RowNoise(torch.arange(2000)), guidance)
    for start in (trained, generated):
        kept = start != 0
        assert kept.float().mean().item() == pytest.approx(keep, abs=0.02)
        is_item = torch.stack([(start == table[item]) | ~kept for item in (3, 5, 7)]).all(dim=-1)  # [3, rows]
        assert is_item.any(dim=0).all()
        if keep > 0.5:
            torch.testing.assert_close(is_item.float().mean(dim=1), torch.full((3,), 1 / 3), atol=0.05, rtol=0)


def test_the_one_step_term_compares_the_path_with_its_beginning(build: Callable[..., Built]) -> None:
    settings = {"one_step_weight": 2.0, "reconstruction_weight": 0.0, "mse_weight": 1.0, "ce_weight": 0.0}
    built = build("FMRec", prior="history", **settings, **SMALL)
    model, steps = built.model, []
    model.denoiser.with_middle = lambda x_t, t, history: (x_t * 3 + t.unsqueeze(-1), x_t)
    plain = model.denoising_losses
    model.denoising_losses = lambda step, *others: steps.append(step) or plain(step, *others)
    terms = _losses(model, next(iter(built.loaders.train)))
    (step,) = steps
    share = ((step.t + 1) / 1000).unsqueeze(-1)
    torch.testing.assert_close(step.x_t, (1 - share) * step.x_0 + share * step.noise)
    difference = 3 * (step.x_t - step.noise) + (step.t - 999).unsqueeze(-1)
    torch.testing.assert_close(terms["one_step"], 2.0 * difference.square().mean())


def test_fmrec_generates_the_mean_of_its_predictions(build: Callable[..., Built]) -> None:
    built = build("FMRec", sampling_steps=4, timesteps=20, **SMALL)
    model, seen = built.model.eval(), []
    model.denoiser.forward = lambda x_t, t, history: seen.append((x_t, t)) or x_t.sin() + t.unsqueeze(-1) / 7
    x_0 = model.generate(built.loaders.valid.dataset[[0, 1, 2]])[:, 0]
    assert [int(t[0]) for _, t in seen] == [19, 13, 6, 0]
    lengths = [6 / 20, 7 / 20, 6 / 20, 1 / 20]
    answers = [x_t.sin() + t.unsqueeze(-1) / 7 for x_t, t in seen]
    torch.testing.assert_close(x_0, sum(a * length for a, length in zip(answers, lengths, strict=True)))
