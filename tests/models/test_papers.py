"""What the models of single papers compute, by the formulas of the papers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import Built
from torch import Tensor, nn

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
