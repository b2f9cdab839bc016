"""Timestep samplers: what they draw and remember, and that importance sampling is unbiased."""

from collections import deque

import pytest
import torch

from recbole_diffusion.diffusion.timesteps import TIMESTEP_SAMPLERS, LossSecondMomentTimesteps


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def frequencies(sampler, timesteps, draws=40_000):
    t, _ = sampler.draw(draws, generator=seeded())
    return torch.bincount(t.cpu(), minlength=timesteps) / draws


def assert_frequencies(got, expected, draws=40_000):
    expected = torch.as_tensor(expected, dtype=torch.float)
    assert ((got - expected).abs() < 4 * (expected * (1 - expected) / draws).sqrt() + 1e-9).all()


def filled(timesteps, history, device="cpu", seed=0, **settings):
    """A sampler that has seen ``history`` random losses of every step, and those losses [T, history]."""
    sampler = LossSecondMomentTimesteps(timesteps, history, **settings).to(device)
    losses = torch.rand(timesteps, history, generator=seeded(seed)) * torch.arange(1, timesteps + 1)[:, None]
    for column in losses.T:
        sampler.update(torch.arange(timesteps, device=device), column.to(device))
    return sampler, losses


@pytest.mark.parametrize("name", TIMESTEP_SAMPLERS)
@pytest.mark.parametrize("timesteps", [1, 2, 32])
def test_interface(name, timesteps, device):
    sampler = TIMESTEP_SAMPLERS[name](timesteps).to(device)
    t, weight = sampler.draw(500)
    assert t.shape == weight.shape == (500,) and t.dtype == torch.long and weight.dtype == torch.float
    assert {t.device.type, weight.device.type} == {torch.device(device).type}
    assert t.min() >= 0 and t.max() < timesteps
    torch.testing.assert_close(weight, torch.ones_like(weight))  # loss_second_moment has seen nothing yet
    sampler.update(t, torch.ones(500, device=device))


@pytest.mark.parametrize("name", TIMESTEP_SAMPLERS)
def test_generator_decides_and_the_global_one_rests(name):
    sampler = TIMESTEP_SAMPLERS[name](100)
    state = torch.get_rng_state()
    first, again, other = (sampler.draw(50, generator=seeded(seed))[0] for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        assert torch.equal(sampler.draw(50)[0], first)


def test_uniform(device):
    assert_frequencies(frequencies(TIMESTEP_SAMPLERS["uniform"](8).to(device), 8), [1 / 8] * 8)


def test_high_noise(device):
    """t = T - 1 - k where k <= T u^3 < k + 1."""
    expected = [((k + 1) / 8) ** (1 / 3) - (k / 8) ** (1 / 3) for k in reversed(range(8))]
    assert expected[-1] == pytest.approx(0.5)
    assert_frequencies(frequencies(TIMESTEP_SAMPLERS["high_noise"](8).to(device), 8), expected)


def test_mode_is_most_often_in_the_middle(device):
    u = torch.linspace(0, 1, 100_001, dtype=torch.float64)
    share = 2 * u - (torch.pi / 2 * u).sin() ** 2  # from the law of t = 1 - share: 1 - u - (cos^2(pi u/2) - 1 + u)
    torch.testing.assert_close(1 - share, 1 - u - ((torch.pi / 2 * u).cos() ** 2 - 1 + u))
    expected = torch.histc(share, 8, 0, 1) / len(u)
    got = frequencies(TIMESTEP_SAMPLERS["mode"](8).to(device), 8)
    assert_frequencies(got, expected)
    assert got[3] > 1.5 * got[0] and got[4] > 1.5 * got[7]


def test_high_noise_where_u_rounds_to_one(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda shape, **_: torch.tensor([0.0, 1.0]))
    assert TIMESTEP_SAMPLERS["high_noise"](5).draw(2)[0].tolist() == [4, 0]


def test_probabilities_follow_the_second_moment(device):
    sampler, losses = filled(6, 10, device)
    moments = losses.square().mean(dim=1).sqrt()
    expected = (1 - 1e-3) * moments / moments.sum() + 1e-3 / 6
    torch.testing.assert_close(sampler.probabilities().cpu(), expected)
    assert sampler.probabilities().sum().item() == pytest.approx(1, abs=1e-6)
    assert_frequencies(frequencies(sampler, 6), expected)


def test_weights_keep_the_mean_unbiased(device):
    """sum over t of p_t w_t f(t) is the mean of f, for any f."""
    sampler, losses = filled(6, 10, device, uniform_share=0.1)
    moments = losses.square().mean(dim=1).sqrt()
    p = 0.9 * moments / moments.sum() + 0.1 / 6
    t, drawn_weight = (v.cpu() for v in sampler.draw(2000, generator=seeded()))
    weight = torch.zeros(6).index_copy_(0, t, drawn_weight)
    assert set(t.tolist()) == set(range(6)) and torch.equal(weight[t], drawn_weight)
    for seed in range(3):
        f = torch.randn(6, generator=seeded(seed))
        assert (p * weight * f).sum().item() == pytest.approx(f.mean().item(), abs=1e-6)
    assert weight.max() > 2 * weight.min()  # it was not uniform


def test_uniform_until_every_step_is_known(device):
    sampler = LossSecondMomentTimesteps(4, history=3).to(device)
    rows = torch.tensor([0, 1, 2, 3] * 3)[:-1]  # step 3 lacks one loss
    sampler.update(rows.to(device), torch.arange(1.0, 12.0).to(device))
    torch.testing.assert_close(sampler.probabilities().cpu(), torch.full((4,), 0.25))
    sampler.update(torch.tensor([3], device=device), torch.tensor([9.0], device=device))
    assert sampler.probabilities().unique().numel() == 4


@pytest.mark.parametrize("name", TIMESTEP_SAMPLERS)
def test_a_step_for_every_position_is_a_step_for_every_row(name, device):
    flat, shaped = (TIMESTEP_SAMPLERS[name](6).to(device) for _ in range(2))
    for round_ in range(20):  # until loss_second_moment is no longer uniform
        t, weight = flat.draw(60, generator=seeded(round_))
        of_positions = shaped.draw(4, 15, generator=seeded(round_))
        assert torch.equal(of_positions[0], t.view(4, 15)) and torch.equal(of_positions[1], weight.view(4, 15))
        losses = t.float() + torch.arange(60, device=device)
        flat.update(t, losses)
        shaped.update(t.view(4, 15), losses.view(4, 15))
    assert (weight.unique().numel() > 1) is (name == "loss_second_moment")


def test_losses_of_zero_leave_it_uniform():
    sampler = LossSecondMomentTimesteps(4, history=1)
    sampler.update(torch.arange(4), torch.zeros(4))
    torch.testing.assert_close(sampler.probabilities(), torch.full((4,), 0.25))


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_history_keeps_the_last_losses_in_their_order(batch, device):
    """Compared with one queue per step, filled row by row. Batches repeat steps, some more often than ``history``."""
    timesteps, history = 5, 4
    sampler = LossSecondMomentTimesteps(timesteps, history).to(device)
    queues = [deque([0.0] * history, maxlen=history) for _ in range(timesteps)]
    for seed in range(12):
        t = torch.randint(timesteps, (batch,), generator=seeded(seed))
        losses = torch.rand(batch, generator=seeded(100 + seed))
        sampler.update(t.to(device), losses.to(device))
        for step, loss in zip(t.tolist(), losses.tolist(), strict=True):
            queues[step].append(loss)
        for step, queue in enumerate(queues):
            oldest = sampler.seen[step].item() % history
            kept = sampler.losses[step].roll(-oldest)
            assert kept.tolist() == list(queue)


def test_no_slot_of_the_history_is_written_twice(monkeypatch):
    """On a GPU, it is undefined which of two writes to one slot stays."""
    written, index_copy = [], torch.Tensor.index_copy_

    def record(self, dim, index, source):
        written.append(index)
        return index_copy(self, dim, index, source)

    monkeypatch.setattr(torch.Tensor, "index_copy_", record)
    sampler = LossSecondMomentTimesteps(3, history=4)
    sampler.update(torch.tensor([1] * 11 + [0] * 4 + [2]), torch.arange(16.0))
    slots = written[0][written[0] < sampler.losses.numel()]
    assert len(slots) == len(slots.unique()) == 4 + 4 + 1


def test_history_is_saved(device):
    sampler, _ = filled(6, 10, device)
    sampler.update(torch.tensor([2, 2], device=device), torch.tensor([5.0, 6.0], device=device))
    restored = LossSecondMomentTimesteps(6, 10).to(device)
    restored.load_state_dict(sampler.state_dict())
    assert torch.equal(restored.probabilities(), sampler.probabilities())
    for each in (sampler, restored):
        each.update(torch.tensor([2], device=device), torch.tensor([7.0], device=device))
    assert torch.equal(restored.losses, sampler.losses)
    for name in ("uniform", "high_noise", "mode"):
        assert TIMESTEP_SAMPLERS[name](6).state_dict() == {}


def test_update_does_not_hold_the_graph():
    sampler, loss = LossSecondMomentTimesteps(3, 2), torch.ones(3, requires_grad=True)
    sampler.update(torch.arange(3), loss * 2)
    assert not sampler.losses.requires_grad and sampler.losses[:, 0].tolist() == [2.0] * 3


@pytest.mark.parametrize("name", TIMESTEP_SAMPLERS)
def test_nothing_is_read_from_the_device(name):
    """A meta tensor has no values: reading one on the host is an error."""
    sampler = TIMESTEP_SAMPLERS[name](10).to("meta")
    t, weight = sampler.draw(4)
    sampler.update(t, weight)
    assert t.device.type == weight.device.type == "meta"
