"""Discrete diffusion against matrices: transitions, their inverse, Bayes' rule, score entropy, a whole chain."""

import math

import pytest
import torch

from recbole_diffusion.diffusion.discrete import ReplacementDiffusion, draw_states, score_entropy
from recbole_diffusion.diffusion.samplers import make_step, sample, select_timesteps

N = 5
LAWS = {
    "pairwise": torch.ones(N) / N,
    "pointwise": torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0]),
    "hybrid": torch.tensor([0.2, 0.1, 0.3, 0.1, 0.3]),
}
SIGMAS = (1e-3, 0.3, 5.0)


def matrix(sigma, law):
    """``P(y|x)``, row x, column y."""
    kept = math.exp(-sigma)
    return kept * torch.eye(N, dtype=torch.float64) + (1 - kept) * law.double().expand(N, N)


def test_the_schedule():
    process = ReplacementDiffusion(21)
    sigma = process.sigma(torch.arange(-1, 21)).double()
    u = torch.linspace(0.001, 1, 21, dtype=torch.float64)
    torch.testing.assert_close(sigma[1:], 1e-3 ** (1 - u) * 10**u, rtol=1e-5, atol=0)
    assert sigma[0] == 0 and sigma[-1] == 10
    torch.testing.assert_close(process.rate(20).item(), 10 * math.log(1e4), rtol=1e-5, atol=0)
    assert ReplacementDiffusion(1).sigma(0) == 10


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_a_noised_state_has_its_row_of_the_matrix(law):
    process, rows = ReplacementDiffusion(20), 40_000
    generator = torch.Generator().manual_seed(0)
    uniform, other = torch.rand(2, rows, generator=generator)
    x_t = process.q_sample(torch.full((rows,), 2), torch.full((rows,), 15), draw_states(law, other), uniform)
    expected = matrix(process.sigma(15).item(), law)[2]
    assert expected.sum().item() == pytest.approx(1)
    torch.testing.assert_close(torch.bincount(x_t, minlength=N).double() / rows, expected, rtol=0, atol=0.01)


def test_draws_of_rows_and_of_one_law_agree_and_never_have_probability_zero():
    p = torch.tensor([0.0, 0.25, 0.0, 0.75, 0.0])
    uniform = torch.tensor([0.0, 0.2499, 0.25, 0.9999, 1.0])
    for drawn in (draw_states(p, uniform[:4]), draw_states(p.expand(4, N), uniform[:4])):
        assert drawn.tolist() == [1, 1, 3, 3]
    assert draw_states(p[:4], uniform[4:]).tolist() == [3]


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
@pytest.mark.parametrize(("t", "s"), [(19, 12), (12, 0), (7, -1)])
def test_both_steps_are_bayes_rule_if_the_network_is_right(law, t, s):
    process, prior = ReplacementDiffusion(20), torch.tensor([0.4, 0.3, 0.1, 0.2, 0.0], dtype=torch.float64)
    after, between = (matrix(sigma.item(), law) for sigma in (process.sigma(t), process.sigma(t) - process.sigma(s)))
    before = matrix(process.sigma(s).item(), law)
    torch.testing.assert_close(before @ between, after, rtol=1e-5, atol=1e-6)
    for x_t in range(N):
        at_t = prior @ after
        if at_t[x_t] < 1e-9:
            continue
        expected = (prior @ before) * between[:, x_t] / at_t[x_t]
        p = prior * after[:, x_t] / at_t[x_t]
        where = torch.tensor([x_t])
        from_x0 = process.step_from_x0(p[None].float(), where, t, s, law)
        from_ratios = process.step_from_ratios(at_t[None].float() * 7, where, t, s, law)
        torch.testing.assert_close(from_x0[0].double(), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(from_ratios[0].double(), expected, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
@pytest.mark.parametrize("sigma", SIGMAS)
def test_score_entropy_by_its_sum_and_its_minimum(law, sigma):
    for x_0 in range(N):
        for x_t in range(N):
            row = matrix(sigma, law)[x_0]
            if row[x_t] == 0:
                continue
            r, s = row / row[x_t], torch.randn(N, generator=torch.Generator().manual_seed(x_t))
            terms = law.double()[x_t] * (s.double().exp() - r * s + torch.special.xlogy(r, r) - r)
            expected = terms.sum() - terms[x_t]
            given = torch.tensor([x_0]), torch.tensor([x_t]), torch.tensor([sigma]), law
            torch.testing.assert_close(score_entropy(s[None], *given)[0].double(), expected, rtol=1e-3, atol=1e-4)
            true = r.clamp(min=1e-12).log().float()[None].requires_grad_()
            (gradient,) = torch.autograd.grad(score_entropy(true, *given).sum(), true)
            size = 1 if law[x_t] == 0 else 1 / math.expm1(sigma) + 1
            assert gradient.abs().max() < 1e-5 * size


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
@pytest.mark.parametrize("prediction", ReplacementDiffusion.predictions)
def test_a_chain_with_a_perfect_network_ends_at_the_law_of_the_data(law, prediction):
    process, rows = ReplacementDiffusion(20), 20_000
    prior = torch.tensor([0.4, 0.3, 0.1, 0.2, 0.0])
    generator = torch.Generator().manual_seed(0)

    def answer(x_t, t):
        after = matrix(process.sigma(int(t[0])).item(), law).float()
        if prediction == "ratio":
            return (prior @ after).expand(len(x_t), N)
        joint = prior * after[:, x_t.squeeze(-1)].T
        return joint / joint.sum(dim=-1, keepdim=True)

    def step(process, x_t, x_0, t, s, noise):
        return make_step("bayes")(process, x_t, x_0, t, s, noise, law, prediction)

    def noise(x_t, t):
        return torch.rand(x_t.shape, generator=generator)

    start = draw_states(law, torch.rand(rows, generator=generator)).unsqueeze(-1)
    end = sample(answer, process, start, select_timesteps(20, 8), step, noise)
    found = torch.bincount(end.squeeze(-1), minlength=N) / rows
    torch.testing.assert_close(found, prior, rtol=0, atol=0.02)
