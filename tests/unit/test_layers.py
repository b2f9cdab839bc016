"""Dropout and the Transformer."""

from __future__ import annotations

import pytest
import torch

from recbole_diffusion.model.layers import CausalEncoder, Dropout, TransformerBlock


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


@pytest.mark.parametrize("input_norm", [True, False])
def test_input_norm_makes_the_scale_of_items_and_positions_irrelevant(device: str, input_norm: bool) -> None:
    encoder = CausalEncoder(9, 8, num_layers=1, num_heads=2, dropout=0.5, init_std=1.0, input_norm=input_norm)
    encoder.to(device).eval()
    x = torch.randn(2, 9, 8, device=device)
    before = encoder(x)
    encoder.position_embedding.weight.data.mul_(0.02)
    after = encoder(0.02 * x)
    assert torch.allclose(before, after, atol=1e-4) == input_norm


def test_a_block_at_one_position_is_that_of_all_positions_there(device: str) -> None:
    block = TransformerBlock(8, num_heads=2, dropout=0.5).to(device).eval()
    x, at = torch.randn(5, 7, 8, device=device), torch.tensor([0, 6, 3, 1, 5], device=device)
    mask = (torch.arange(7, device=device) <= at.unsqueeze(-1))[:, None, None, :]
    every = block(x, mask)
    torch.testing.assert_close(block(x, mask, at=at).squeeze(1), every[torch.arange(5), at])


def test_a_block_by_its_formula(device: str) -> None:
    block = TransformerBlock(6, num_heads=2, dropout=0.5).to(device).eval()
    x = torch.randn(1, 4, 6, device=device)
    normed = block.attention_norm(x)[0]
    q, k, v = (normed @ w.T + b for w, b in zip(
        block.attention.query_key_value.weight.chunk(3), block.attention.query_key_value.bias.chunk(3), strict=True,
    ))  # fmt: skip
    heads = []
    for head in (slice(0, 3), slice(3, 6)):
        scores = q[:, head] @ k[:, head].T / 3**0.5
        causal = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -torch.inf)
        heads.append(causal.softmax(dim=-1) @ v[:, head])
    y = x[0] + block.attention.out(torch.cat(heads, dim=-1))
    torch.testing.assert_close(block(x, causal=True)[0], y + block.feed_forward(block.feed_forward_norm(y)))
