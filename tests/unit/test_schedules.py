"""Every schedule compared with its closed form in Python floats."""

import math
from itertools import pairwise

import pytest
import torch

from recbole_diffusion.diffusion.schedules import SCHEDULES, make_betas


def spaced(first, last, count):
    return [first + (last - first) * i / max(count - 1, 1) for i in range(count)]


def from_curve(abar, count):
    return [min(1 - abar((t + 1) / count) / abar(t / count), 0.999) for t in range(count)]


def squared_cosine(offset):
    return lambda u: math.cos((u + offset) / (1 + offset) * math.pi / 2) ** 2


def truncated_linear(T):
    s = 1000 / T
    end = 0.02 * s + 0.01
    return spaced(1e-4 * s + 0.01, end if end <= 1 else 0.001 * s + 0.01, T)


def truncated_cosine(T):
    abar = squared_cosine(0.1)
    return [1 - abar(0)] + [min(1 - abar((t + 1) / T) / abar(t / T), 0.999) for t in range(T - 1)]


def exp(T):
    return [1 - math.exp(-0.1 / T - x * (10 - 0.1) / (2 * T * T)) for x in spaced(1, 2 * T + 1, T)]


def linear_variance(T):
    abar = [1 - v for v in spaced(0.01 * 0.1, 0.01 * 5, T)]
    return [1 - abar[0]] + [min(1 - b / a, 0.999) for a, b in pairwise(abar)]


VARIANCE = {"noise_scale": 0.01, "noise_min": 0.1, "noise_max": 5}
CLOSED_FORMS = {
    "linear": (lambda T: spaced(1e-4, 0.02, T), {}),
    "scaled_linear": (lambda T: spaced(0.1 / T, 20 / T, T), {}),
    "truncated_linear": (truncated_linear, {}),
    "cosine": (lambda T: from_curve(squared_cosine(0.008), T), {}),
    "truncated_cosine": (truncated_cosine, {}),
    "sqrt": (lambda T: from_curve(lambda u: 1 - math.sqrt(u + 1e-4), T), {}),
    "exp": (exp, {}),
    "linear_variance": (linear_variance, VARIANCE),
    "binomial": (lambda T: [1 / (T - t + 1) for t in range(T)], {}),
}


def test_every_schedule_has_a_closed_form():
    assert set(CLOSED_FORMS) == set(SCHEDULES)


# scaled_linear ends at 20/T: below T = 21 it is an error, tested further down.
CASES = [(name, T) for name in CLOSED_FORMS for T in (1, 2, 5, 15, 32, 1000) if name != "scaled_linear" or T > 20]


@pytest.mark.parametrize(("name", "timesteps"), CASES)
def test_closed_form(name, timesteps):
    closed_form, params = CLOSED_FORMS[name]
    betas = make_betas(name, timesteps, **params)
    assert betas.dtype == torch.float64 and betas.shape == (timesteps,)
    torch.testing.assert_close(betas, torch.tensor(closed_form(timesteps), dtype=torch.float64), rtol=0, atol=1e-12)


def test_known_values():
    diffurec = make_betas("truncated_linear", 32)
    assert diffurec[0].item() == pytest.approx(0.013125, abs=1e-12)
    assert diffurec[-1].item() == pytest.approx(0.635, abs=1e-12)
    # Below T = 21 the plain end, 0.02 * 1000/T + 0.01, exceeds 1.
    assert make_betas("truncated_linear", 20)[-1].item() == pytest.approx(0.06, abs=1e-12)
    assert make_betas("truncated_linear", 21)[-1].item() == pytest.approx(20 / 21 + 0.01, abs=1e-12)
    ddpm = make_betas("linear", 1000)
    assert torch.cumprod(1 - ddpm, 0)[-1].item() == pytest.approx(4.0358e-5, rel=1e-4)
    assert make_betas("sqrt", 10)[-1] == make_betas("cosine", 10)[-1] == 0.999
    assert make_betas("binomial", 5).tolist() == pytest.approx([1 / 6, 1 / 5, 1 / 4, 1 / 3, 1 / 2])


def test_parameters():
    assert make_betas("linear", 3, beta_start=0.1, beta_end=0.3).tolist() == pytest.approx([0.1, 0.2, 0.3])
    first = -math.expm1(-0.2 / 4 - (5 - 0.2) / 32)
    assert make_betas("exp", 4, beta_min=0.2, beta_max=5.0)[0].item() == pytest.approx(first, abs=1e-12)
    free, fixed = (
        make_betas("linear_variance", 5, **VARIANCE),
        make_betas("linear_variance", 5, **VARIANCE, first_beta=1e-5),
    )
    assert fixed[0] == 1e-5 and torch.equal(fixed[1:], free[1:])
    variances = 1 - torch.cumprod(1 - free, 0)
    assert variances.tolist() == pytest.approx(spaced(0.001, 0.05, 5), abs=1e-12)


@pytest.mark.parametrize(
    ("name", "timesteps", "params", "words"),
    [
        ("quadratic", 10, {}, ["noise_schedule='quadratic'", "linear, scaled_linear", "binomial"]),
        ("linear", 0, {}, ["timesteps=0", ">= 1"]),
        ("cosine", -3, {}, ["timesteps=-3"]),
        ("exp", 2.5, {}, ["timesteps=2.5"]),
        ("cosine", 10, {"beta_end": 0.1}, ["noise_schedule='cosine'", "beta_end", "allowed none"]),
        ("linear", 10, {"beta_max": 0.1}, ["noise_schedule='linear'", "beta_max", "beta_start, beta_end"]),
        ("linear_variance", 5, {"noise_scale": 0.1}, ["noise_schedule='linear_variance'", "noise_min, noise_max"]),
        ("linear", 10, {"beta_end": 1.0}, ["noise_schedule='linear'", "beta_end=1.0", "(0, 1)"]),
        ("linear", 10, {"beta_start": 0.0}, ["noise_schedule='linear'", "beta_start=0.0", "not 0"]),
        ("linear", 10, {"beta_end": math.nan}, ["noise_schedule='linear'", "beta_end=nan"]),
        ("scaled_linear", 20, {}, ["noise_schedule='scaled_linear'", "timesteps=20", "(0, 1)"]),
        ("linear_variance", 5, VARIANCE | {"noise_scale": 0.2}, ["noise_scale=0.2", "(0, 1)"]),
        ("linear_variance", 5, VARIANCE | {"noise_min": 0}, ["noise_schedule='linear_variance'", "noise_min=0"]),
        ("linear_variance", 5, VARIANCE | {"noise_min": 9}, ["noise_schedule='linear_variance'", "noise_min=9"]),
    ],
)
def test_errors_name_setting_value_and_range(name, timesteps, params, words):
    with pytest.raises(ValueError) as error:
        make_betas(name, timesteps, **params)
    for word in words:
        assert word in str(error.value)


def test_fixed_first_beta_allows_a_noiseless_minimum():
    assert make_betas("linear_variance", 5, noise_scale=0.1, noise_min=0, noise_max=1, first_beta=1e-5)[0] == 1e-5
