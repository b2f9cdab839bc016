"""Noise by row: it is normal, independent where it should be, and depends only on the row."""

from __future__ import annotations

import pytest
import torch

from recbole_diffusion.diffusion.noise import GUIDANCE, START, STEP, RowNoise, history_keys, mix


def test_numbers_are_standard_normal_and_independent() -> None:
    n = 40_000
    drawn = RowNoise(torch.arange(n)).normal(START, 6)  # keys with a regular pattern
    error = n**-0.5
    assert (drawn.mean(dim=0).abs() < 4 * error).all()
    assert ((drawn.std(dim=0) - 1).abs() < 4 * error / 2**0.5).all()
    assert ((drawn**3).mean(dim=0).abs() < 4 * error * 15**0.5).all()
    assert (((drawn**4).mean(dim=0) - 3).abs() < 4 * error * 96**0.5).all()
    share = (drawn.flatten().sort().values * 0.5**0.5).erf().add(1).div(2)  # uniform, in order
    assert (share - torch.linspace(0, 1, share.numel())).abs().max() < 1.63 / share.numel() ** 0.5  # Kolmogorov, 1 %
    others = [
        RowNoise(torch.arange(n) + 1).normal(START, 6),
        RowNoise(torch.arange(n)).normal(STEP, 6),
        RowNoise(torch.arange(n)).normal(START, 6, t=1),
        *RowNoise(torch.arange(n)).channels(2).normal(START, 6).view(n, 2, 6).unbind(1),
    ]
    for one in (drawn, drawn.abs(), drawn.square()):  # also their sizes are independent
        table = torch.cat([one, *(other.abs() if one is not drawn else other for other in others)], dim=1)
        assert (torch.corrcoef(table.T) - torch.eye(36)).abs().max() < 5 * error


def test_a_row_has_its_noise_in_any_batch(device: str) -> None:
    keys = torch.randint(-(2**62), 2**62, (3000,), generator=torch.Generator().manual_seed(0)).to(device)
    whole = RowNoise(keys).channels(3).normal(STEP, 5, 7, t=4).view(3000, 3, 5, 7)
    for rows in ([17], [2999, 0, 17]):
        part = RowNoise(keys[rows]).channels(3).normal(STEP, 5, 7, t=4).view(-1, 3, 5, 7)
        assert torch.equal(part, whole[rows])
    assert torch.equal(RowNoise(keys).channels(3).normal(STEP, 2, 7, t=4).view(3000, 3, 2, 7), whole[:, :, :2])
    steps = torch.full((9000,), 4, device=device)  # one step per row equals one step for all rows
    assert torch.equal(RowNoise(keys).channels(3).normal(STEP, 5, 7, t=steps).view_as(whole), whole)
    on_cpu = RowNoise(keys.cpu()).channels(3).normal(STEP, 5, 7, t=4).view_as(whole)
    torch.testing.assert_close(whole.cpu(), on_cpu, rtol=1e-5, atol=1e-5)


def test_nothing_is_taken_from_the_global_generator_and_no_rows_are_allowed() -> None:
    state = torch.get_rng_state()
    assert RowNoise(torch.arange(0)).channels(2).normal(GUIDANCE, 3).shape == (0, 3)
    RowNoise(torch.arange(3)).normal(GUIDANCE, 3)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_numbers_stay_the_same() -> None:
    # Seeds of published results: a change of these numbers changes every ranking.
    assert mix(torch.tensor([1])).item() == 0x5692161D100B05E5  # SplitMix64's finalizer
    key = history_keys(torch.tensor([[3, 1, 2]]), torch.tensor([3]), 2024)
    expected = torch.tensor([[1.3011934, 1.8129123, 0.3359685]])
    torch.testing.assert_close(RowNoise(key).normal(START, 3), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("seed", [0, 2024, 2**63 - 1])
def test_the_key_is_of_items_their_order_and_the_seed_alone(seed: int) -> None:
    history = torch.tensor([[3, 1, 2, 0], [3, 1, 2, 9], [3, 2, 1, 0], [3, 1, 0, 0], [3, 1, 2, 2], [0, 0, 0, 0]])
    length = torch.tensor([3, 3, 3, 2, 4, 0])
    keys = history_keys(history, length, seed)
    assert keys[0] == keys[1] and len(set(keys.tolist())) == 5
    assert torch.equal(history_keys(history[:1, :3], length[:1], seed), keys[:1])  # a shorter batch
    assert keys[0] != history_keys(history[:1], length[:1], seed - 1 if seed else 1)
