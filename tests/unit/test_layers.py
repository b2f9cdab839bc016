"""Dropout and the Transformer."""

from __future__ import annotations

import pytest
import torch

from recbole_diffusion.model.layers import CausalEncoder, Dropout


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, 0.9])
def test_dropout_drops_its_share_keeps_the_mean_and_passes_the_same_gradient(p: float, device: str) -> None:
    torch.manual_seed(0)
    x = torch.ones(1001, 101, device=device, requires_grad=True)
    y = Dropout(p)(x)
    assert (y == 0).float().mean().item() == pytest.approx(p, abs=0.006)
    kept = y[y != 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - p)), rtol=1e-4, atol=0)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())
    # neighbours share a random number: their masks must not
    mask = (y.detach().flatten() != 0).float()
    for lag in (1, 2, 3, 4):
        assert abs(torch.corrcoef(torch.stack([mask[:-lag], mask[lag:]]))[0, 1]) < 0.015


def test_dropout_is_seeded_and_off_in_evaluation(device: str) -> None:
    x, dropout = torch.randn(64, 7, device=device), Dropout(0.4)
    torch.manual_seed(3)
    first = dropout(x)
    second = dropout(x)
    torch.manual_seed(3)
    assert torch.equal(dropout(x), first) and not torch.equal(first, second)
    assert dropout.eval()(x) is x and Dropout(0.0)(x) is x
    assert torch.isfinite(Dropout(0.999999)(x)).all()


def test_causal_encoder_states_depend_on_their_past_only(device: str) -> None:
    encoder = CausalEncoder(9, 8, num_layers=2, num_heads=2, dropout=0.5, init_std=1.0).to(device).eval()
    x = torch.randn(2, 9, 8, device=device)
    changed = x.clone()
    changed[:, 5:] = 7.0
    before, after = encoder(x), encoder(changed)
    torch.testing.assert_close(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5:], after[:, 5:])
    torch.testing.assert_close(encoder(x[:, :4]), before[:, :4])
