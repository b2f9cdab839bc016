"""Embeddings and networks compared with their equations; guidance, by counted calls and by arithmetic."""

import math

import pytest
import torch
from torch import nn

from recbole_diffusion.diffusion.denoiser import (
    ClassifierFreeGuidance,
    MLPDenoiser,
    TimestepEmbedding,
    sinusoidal_embedding,
)
from recbole_diffusion.diffusion.process import GaussianDiffusion
from recbole_diffusion.diffusion.schedules import make_betas


class Recorder(nn.Module):
    """A denoiser that keeps what it was called with: ``tanh(x_t + sum of cond + t)``."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def forward(self, x_t, t, cond):
        self.calls.append((x_t, t, cond))
        return torch.tanh(x_t + cond.sum(dim=-1, keepdim=True) + t[:, None])


def batch(device="cpu", rows=6):
    generator = torch.Generator().manual_seed(0)
    x_t, cond = torch.randn(rows, 4, generator=generator), torch.randn(rows, 3, generator=generator)
    return x_t.to(device), torch.arange(rows, device=device), cond.to(device)


def guidance(p_uncond, device="cpu"):
    torch.manual_seed(0)
    return ClassifierFreeGuidance(Recorder(), cond_dim=3, p_uncond=p_uncond).to(device)


@pytest.mark.parametrize("dim", [8, 7, 2, 1])
def test_sinusoidal_embedding(dim, device):
    t = torch.tensor([0.0, 1.0, 37.0, 62.5, 999.0], device=device)
    half = dim // 2
    expected = [
        [math.sin(v * 10000 ** (-i / half)) for i in range(half)]
        + [math.cos(v * 10000 ** (-i / half)) for i in range(half)]
        + [0.0] * (dim % 2)
        for v in t.tolist()
    ]
    torch.testing.assert_close(sinusoidal_embedding(t, dim).cpu(), torch.tensor(expected), rtol=0, atol=2e-4)
    assert sinusoidal_embedding(t.long().view(5, 1), dim).shape == (5, 1, dim)


def test_sinusoidal_embedding_period():
    slow = sinusoidal_embedding(torch.tensor([3]), 4, max_period=100.0)
    assert slow[0].tolist() == pytest.approx([math.sin(3), math.sin(0.3), math.cos(3), math.cos(0.3)], abs=1e-6)


def test_timestep_embedding(device):
    tau = TimestepEmbedding(6, 24, nn.SiLU()).to(device)
    t = torch.arange(5, device=device)
    first, activation, last = tau.mlp
    assert first.weight.shape == (24, 6) and last.weight.shape == (6, 24) and isinstance(activation, nn.SiLU)
    hidden = nn.functional.silu(sinusoidal_embedding(t, 6) @ first.weight.T + first.bias)
    torch.testing.assert_close(tau(t), hidden @ last.weight.T + last.bias)


@pytest.mark.parametrize("kind", MLPDenoiser.KINDS)
def test_mlp_denoiser(kind, device):
    f = MLPDenoiser(4, 3, kind).to(device)
    x_t, t, cond = batch(device)
    out = torch.cat([x_t, cond, f.tau(t)], dim=-1)
    layers = [module for module in f.f.modules() if isinstance(module, nn.Linear)]
    assert [tuple(layer.weight.shape) for layer in layers] == ([(4, 11)] if kind == "mlp1" else [(8, 11), (4, 8)])
    for layer in layers[:-1]:
        out = nn.functional.gelu(out @ layer.weight.T + layer.bias)
    out = out @ layers[-1].weight.T + layers[-1].bias
    torch.testing.assert_close(f(x_t, t, cond), out)
    assert f.tau.mlp[0].weight.shape == (8, 4) and isinstance(f.tau.mlp[1], nn.GELU)


def test_positions_and_channels_are_denoised_as_rows_are(device):
    torch.manual_seed(0)
    model = ClassifierFreeGuidance(MLPDenoiser(4, 3, "mlp2"), 3, 0.1).to(device)
    x_t, t, cond = batch(device)
    shaped = x_t.view(2, 3, 4), t.view(2, 3), cond.view(2, 3, 3)
    torch.testing.assert_close(model(*shaped), model(x_t, t, cond).view(2, 3, 4))
    torch.testing.assert_close(model.guided(*shaped, 2.0), model.guided(x_t, t, cond, 2.0).view(2, 3, 4))


def test_unknown_mlp():
    with pytest.raises(ValueError, match=r"denoiser='mlp3'.*mlp1, mlp2"):
        MLPDenoiser(4, 4, "mlp3")


def test_a_skip_needs_a_condition_of_the_size_of_x_t():
    with pytest.raises(ValueError, match=r"skip: the condition has size 3, but x_t has size 4"):
        MLPDenoiser(4, 3, "mlp2", skip=True)


@pytest.mark.parametrize("p_uncond", [-0.1, 1.0, 2])
def test_p_uncond_out_of_range(p_uncond):
    with pytest.raises(ValueError, match=f"p_uncond={p_uncond}"):
        ClassifierFreeGuidance(Recorder(), 3, p_uncond)


def test_share_of_dropped_conditions(device):
    model, rows = guidance(0.1, device), 20_000
    _, _, cond = batch(device, rows)
    kept = model.drop(cond)
    dropped = (kept == model.null).all(dim=1)
    assert abs(dropped.float().mean().item() - 0.1) < 4 * (0.09 / rows) ** 0.5
    assert torch.equal(kept[~dropped], cond[~dropped])  # a row is dropped as a whole or not at all


def test_each_position_of_a_sequence_is_dropped_by_itself(device):
    model = guidance(0.5, device)
    cond = batch(device, 600)[2].view(20, 30, 3)
    dropped = (model.drop(cond) == model.null).all(dim=-1)
    assert dropped.shape == (20, 30) and (dropped.any(dim=1) & ~dropped.all(dim=1)).all()


def test_nothing_is_drawn_without_a_null_condition():
    model, (_, _, cond) = guidance(0.0).train(), batch()
    state = torch.get_rng_state()
    assert model.drop(cond) is cond
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("training", [True, False])
def test_a_call_drops_nothing(training):
    x_t, t, cond = batch()
    model = guidance(0.9).train(training)
    state = torch.get_rng_state()
    model(x_t, t, cond)
    ((seen_x, seen_t, seen_cond),) = model.denoiser.calls
    assert seen_x is x_t and seen_t is t and seen_cond is cond
    assert torch.equal(torch.get_rng_state(), state)


def test_dropping_follows_the_global_generator():
    _, _, cond = batch()
    model = guidance(0.5)
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(model.drop(cond))
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


def test_null_condition_learns(device):
    x_t, t, cond = batch(device)
    model = guidance(0.5, device).train()
    cond.requires_grad_()
    kept = model.drop(cond)
    model(x_t, t, kept).sum().backward()
    dropped = (kept == model.null).all(dim=1)
    assert 0 < dropped.sum() < len(cond)
    assert model.null.grad is not None and (model.null.grad != 0).all()
    assert torch.equal((cond.grad != 0).all(dim=1), ~dropped)
    assert "null" in model.state_dict()


@pytest.mark.parametrize("w", [2.0, 0.5, -1.0])
def test_guided_is_one_doubled_call(w, device):
    x_t, t, cond = batch(device)
    model = guidance(0.1, device).train()  # nothing is dropped at generation, also in training mode
    result = model.guided(x_t, t, cond, w)
    assert len(model.denoiser.calls) == 1 and len(model.denoiser.calls[0][0]) == 2 * len(x_t)
    conditional = model.denoiser(x_t, t, cond)
    unconditional = model.denoiser(x_t, t, model.null.expand(6, 3))
    torch.testing.assert_close(result, (1 + w) * conditional - w * unconditional)
    assert not torch.allclose(result, conditional)


def test_guided_without_strength_is_one_plain_call():
    x_t, t, cond = batch()
    model = guidance(0.1).train()
    result = model.guided(x_t, t, cond, 0)
    assert len(model.denoiser.calls) == 1 and model.denoiser.calls[0][2] is cond
    assert torch.equal(result, model.denoiser(x_t, t, cond))


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_guidance_is_the_same_on_every_prediction(prediction):
    """Guiding the output and converting it to x0 is converting both outputs and guiding x0."""
    x_t, t, cond = batch()
    process, model, w = GaussianDiffusion(make_betas("cosine", 20)), guidance(0.1), 3.0
    guided = process.x0_from(model.guided(x_t, t, cond, w), x_t, t, prediction)
    outputs = [model.denoiser(x_t, t, c) for c in (cond, model.null.expand(6, 3))]
    conditional, unconditional = (process.x0_from(out, x_t, t, prediction) for out in outputs)
    torch.testing.assert_close(guided, (1 + w) * conditional - w * unconditional, rtol=1e-4, atol=1e-4)
