"""A training step: what is drawn, in which order, and what padding counts."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from recbole_diffusion.diffusion.process import GaussianDiffusion, StraightPath
from recbole_diffusion.diffusion.schedules import make_betas
from recbole_diffusion.diffusion.step import draw_step
from recbole_diffusion.diffusion.timesteps import LossSecondMomentTimesteps, UniformTimesteps

PROCESSES = {"gaussian": GaussianDiffusion(make_betas("cosine", 10)), "straight": StraightPath(10)}


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("leading", [(7,), (3, 5), (3, 4, 5)])
def test_states_of_any_leading_shape_are_noised_one_by_one(process: str, leading: tuple[int, ...]) -> None:
    path = PROCESSES[process]
    x_0 = torch.randn(*leading, 4)
    step = draw_step(path, UniformTimesteps(10), x_0)
    assert step.t.shape == step.weight.shape == leading and len(step.t.unique()) > 1
    rows = zip(x_0.flatten(0, -2), step.t.flatten(), step.noise.flatten(0, -2), step.x_t.flatten(0, -2), strict=True)
    for x, t, noise, x_t in rows:
        torch.testing.assert_close(x_t, path.q_sample(x, int(t), noise))
    for prediction in path.predictions:
        output = path.target(x_0, step.noise, step.t, prediction)
        torch.testing.assert_close(path.x0_from(output, step.x_t, step.t, prediction), x_0, rtol=1e-3, atol=1e-3)


def test_t_is_drawn_before_the_noise() -> None:
    x_0 = torch.randn(6, 4)
    torch.manual_seed(3)
    step = draw_step(PROCESSES["gaussian"], UniformTimesteps(10), x_0)
    torch.manual_seed(3)
    assert torch.equal(step.t, torch.randint(10, (6,)))
    assert torch.equal(step.noise, torch.randn(6, 4))


def test_a_projection_is_what_the_denoiser_sees() -> None:
    step = draw_step(PROCESSES["gaussian"], UniformTimesteps(10), torch.randn(6, 4), project=torch.sign)
    assert torch.equal(step.x_t, PROCESSES["gaussian"].q_sample(step.x_0, step.t, step.noise).sign())


def test_a_weighted_mean_over_all_states_is_one_over_those_that_are_no_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = LossSecondMomentTimesteps(10)
    given = torch.linspace(0.5, 2, 15).view(3, 5)

    def draw(*shape: int, **_: Any) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros(shape, dtype=torch.long), given

    monkeypatch.setattr(sampler, "draw", draw)
    real = torch.arange(5) < torch.tensor([[2], [5], [1]])
    loss = torch.randn(3, 5)
    step = draw_step(PROCESSES["gaussian"], sampler, torch.randn(3, 5, 4), real)
    torch.testing.assert_close((step.weight * loss).mean(), (given * loss)[real].mean())
    assert torch.equal(draw_step(PROCESSES["gaussian"], sampler, torch.randn(3, 5, 4)).weight, given)
