"""Step rules compared with diffusers, each other and the exact law of 1-D Gaussian data; the sampling loop."""

from functools import partial
from itertools import pairwise

import pytest
import torch

from recbole_diffusion.diffusion.process import PREDICTIONS, GaussianDiffusion, StraightPath
from recbole_diffusion.diffusion.samplers import (
    VARIANCES,
    ancestral_step,
    ddim_step,
    make_step,
    sample,
    select_timesteps,
)
from recbole_diffusion.diffusion.schedules import make_betas

STEPS = [("ddpm", 0.0, variance) for variance in VARIANCES] + [("ddim", eta, "small") for eta in (0.0, 0.5, 1.0)]
DIFFUSERS_NAMES = {"x0": "sample", "eps": "epsilon", "v": "v_prediction"}
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def from_generator(generator):
    """The noise of every step from one generator."""
    return lambda x_t, t: torch.randn(x_t.shape, generator=generator).to(x_t)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def process_of(name, timesteps, device="cpu"):
    return GaussianDiffusion(make_betas(name, timesteps)).to(device)


def pairs(timesteps):
    return list(zip(timesteps, [*timesteps[1:], -1], strict=True))


def diffusers_scheduler(kind, schedule, prediction, **settings):
    betas = make_betas(*schedule)
    scheduler = getattr(pytest.importorskip("diffusers"), kind)(
        num_train_timesteps=len(betas),
        trained_betas=betas.tolist(),
        prediction_type=DIFFUSERS_NAMES[prediction],
        clip_sample=False,
        **settings,
    )
    # It computes 1 - abar in float32, which leaves three digits of a beta of 1e-4: float64 makes it a reference.
    scheduler.alphas_cumprod = torch.cumprod(1 - betas, 0)
    scheduler.one = scheduler.final_alpha_cumprod = torch.ones((), dtype=torch.float64)
    return scheduler


def mean_and_scale(step, process, x_t, x_0, t, s):
    """The parts of a rule that is linear in its noise."""
    mean = step(process, x_t, x_0, t, s, lambda: torch.zeros_like(x_t))
    return mean, step(process, x_t, x_0, t, s, lambda: torch.ones_like(x_t)) - mean


# --- the choice of steps


@pytest.mark.parametrize("timesteps", [1, 2, 3, 7, 50, 1000])
def test_chosen_steps(timesteps):
    for count in sorted({*range(1, min(timesteps, 60) + 1), max(timesteps // 4, 1), timesteps}):
        chosen = select_timesteps(timesteps, count)
        assert len(chosen) == count and chosen[0] == timesteps - 1
        assert count == 1 or chosen[-1] == 0
        gaps = [a - b for a, b in pairwise(chosen)]
        assert all(gap >= 1 for gap in gaps)
        assert not gaps or max(gaps) - min(gaps) <= 1
    assert select_timesteps(timesteps, timesteps) == list(reversed(range(timesteps)))


def test_chosen_steps_of_an_example():
    assert select_timesteps(1000, 5) == [999, 749, 500, 250, 0]


@pytest.mark.parametrize("count", [0, -1, 11])
def test_too_few_or_too_many_steps(count):
    with pytest.raises(ValueError, match=f"sampling_steps={count}.*1 to timesteps=10"):
        select_timesteps(10, count)


# --- the rules against diffusers


@pytest.mark.parametrize("schedule", [("linear", 100), ("cosine", 100), ("exp", 100)], ids=str)
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize("count", [100, 10])
def test_ancestral_step_matches_diffusers(schedule, prediction, variance, count, device):
    process = process_of(*schedule, device)
    theirs = diffusers_scheduler("DDPMScheduler", schedule, prediction, variance_type=f"fixed_{variance}")
    chosen = select_timesteps(process.timesteps, count)
    theirs.set_timesteps(timesteps=chosen)
    step = make_step("ddpm", variance=variance)
    x_t, output = normal(6, 4), normal(6, 4, seed=1)
    for t, s in pairs(chosen):
        expected = theirs.step(output, t, x_t, generator=torch.Generator().manual_seed(t)).prev_sample
        x_0 = process.x0_from(output.to(device), x_t.to(device), t, prediction)
        ours = step(process, x_t.to(device), x_0, t, s, lambda t=t: normal(6, 4, seed=t).to(device))
        torch.testing.assert_close(ours.cpu(), expected, **CLOSE)


@pytest.mark.parametrize("schedule", [("linear", 100), ("cosine", 100), ("exp", 100)], ids=str)
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("count", [100, 25])
def test_ddim_step_matches_diffusers(schedule, prediction, eta, count, device):
    process = process_of(*schedule, device)
    theirs = diffusers_scheduler("DDIMScheduler", schedule, prediction, timestep_spacing="trailing")
    theirs.set_timesteps(count)
    step = make_step("ddim", eta=eta)
    x_t, output = normal(6, 4), normal(6, 4, seed=1)
    for t, s in pairs(theirs.timesteps.tolist()):
        z = normal(6, 4, seed=t)
        expected = theirs.step(output, t, x_t, eta=eta, variance_noise=z if s >= 0 else 0 * z).prev_sample
        x_0 = process.x0_from(output.to(device), x_t.to(device), t, prediction)
        ours = step(process, x_t.to(device), x_0, t, s, lambda z=z: z.to(device))
        torch.testing.assert_close(ours.cpu(), expected, **CLOSE)


# --- the rules against each other


@pytest.mark.parametrize("schedule", [("linear", 200), ("cosine", 50), ("truncated_linear", 32)], ids=str)
@pytest.mark.parametrize("share", [1, 4])
def test_ddim_with_eta_1_is_ddpm(schedule, share, device):
    process = process_of(*schedule, device)
    x_t, x_0 = normal(5, 3).to(device), normal(5, 3, seed=1).to(device)
    for t, s in pairs(select_timesteps(process.timesteps, process.timesteps // share)):
        ancestral = mean_and_scale(make_step("ddpm"), process, x_t, x_0, t, s)
        implicit = mean_and_scale(make_step("ddim", eta=1.0), process, x_t, x_0, t, s)
        torch.testing.assert_close(implicit, ancestral, **CLOSE)


@pytest.mark.parametrize("count", [50, 13, 2, 1])
def test_fewer_ancestral_steps_are_the_process_of_the_respaced_betas(count, device):
    betas = make_betas("cosine", 50)
    process = GaussianDiffusion(betas).to(device)
    chosen = select_timesteps(50, count)
    abar = torch.cumprod(1 - betas, 0)[sorted(chosen)]
    respaced_betas = 1 - abar / torch.cat([abar.new_ones(1), abar[:-1]])
    respaced = GaussianDiffusion(respaced_betas).to(device)
    x_t, x_0 = normal(5, 3).to(device), normal(5, 3, seed=1).to(device)
    for index, (t, s) in zip(reversed(range(count)), pairs(chosen), strict=True):
        mean, variance, _ = respaced.posterior(x_0, x_t, index)
        ours = {v: mean_and_scale(make_step("ddpm", variance=v), process, x_t, x_0, t, s) for v in VARIANCES}
        torch.testing.assert_close(ours["small"][0], mean, **CLOSE)
        torch.testing.assert_close(ours["small"][1], variance.sqrt().expand_as(x_t), **CLOSE)
        large = respaced_betas[index].sqrt().item() if index > 0 else 0.0
        torch.testing.assert_close(ours["large"][0], mean, **CLOSE)
        torch.testing.assert_close(ours["large"][1], torch.full_like(x_t, large), **CLOSE)
        torch.testing.assert_close(ours["none"][0], mean, **CLOSE)
        assert not ours["none"][1].any()


@pytest.mark.parametrize("rule", STEPS, ids=str)
def test_rules_keep_the_marginal_of_the_oracle(rule, device):
    """From q(x_t | x_0), a step leads to the mean of q(x_s | x_0), and to its variance if the rule keeps it."""
    process = process_of("linear", 100, device)
    x_0, eps = normal(1, 3).to(device).double(), normal(1, 3, seed=1).to(device).double()
    for t, s in [(99, 98), (60, 20), (5, 0), (40, -1)]:
        zero, one = torch.zeros_like(x_0), torch.ones_like(x_0)
        step = make_step(rule[0], eta=rule[1], variance=rule[2])
        mean, _ = mean_and_scale(step, process, process.q_sample(x_0, t, zero), x_0, t, s)
        torch.testing.assert_close(mean, process.alpha_bar(s).sqrt() * x_0, **CLOSE)
        # The part of x_s that comes from the eps in x_t, and the part that is new.
        carried = mean_and_scale(step, process, process.q_sample(x_0, t, eps), x_0, t, s)[0] - mean
        carried, fresh = carried / eps, mean_and_scale(step, process, x_0, x_0, t, s)[1]
        if rule[0] == "ddim" or rule[2] == "small":
            total = process.beta_between(s, -1).double() * one
            torch.testing.assert_close(carried**2 + fresh**2, total, **CLOSE)


@pytest.mark.parametrize("rule", STEPS, ids=str)
@pytest.mark.parametrize(
    "schedule", [("linear", 1000), ("truncated_linear", 32), ("cosine", 20), ("linear", 1)], ids=str
)
def test_oracle_denoiser_gives_x0(rule, schedule, device):
    process = process_of(*schedule, device)
    x_0 = normal(4, 3).to(device)
    step = make_step(rule[0], eta=rule[1], variance=rule[2])
    for count in {1, min(2, process.timesteps), max(process.timesteps // 4, 1), process.timesteps}:
        x_T = normal(4, 3, seed=1).to(device)
        result = sample(lambda x, t: x_0, process, x_T, select_timesteps(process.timesteps, count), step)
        assert torch.equal(result, x_0)


def test_ddim_without_noise_inverts_to_a_partly_noised_start(device):
    """With eta = 0 and the true x_0 the path stays on x_s = sqrt(abar_s) x_0 + sqrt(1 - abar_s) eps."""
    process = process_of("linear", 100, device)
    x_0, eps = normal(4, 3).to(device), normal(4, 3, seed=1).to(device)
    x_s = ddim_step(process, process.q_sample(x_0, 70, eps), x_0, 70, 30, lambda: eps)
    torch.testing.assert_close(x_s, process.q_sample(x_0, 30, eps), **CLOSE)


@pytest.mark.parametrize(("t", "s"), [(999, 990), (999, 0), (600, 300)])
def test_ancestral_mean_is_right_where_almost_nothing_is_left_of_x_s(t, s):
    """The coefficient of x_t is near sqrt(abar_t/abar_s) there; 1 - beta in float32 would lose all its digits."""
    betas = make_betas("linear", 1000, beta_end=0.2)
    abar = torch.cumprod(1 - betas, 0).tolist()
    x_t = torch.ones(1, 1)
    mean, _ = mean_and_scale(make_step("ddpm"), GaussianDiffusion(betas), x_t, 0 * x_t, t, s)
    expected = (abar[t] / abar[s]) ** 0.5 * (1 - abar[s]) / (1 - abar[t])
    assert mean.item() == pytest.approx(expected, rel=1e-4)


# --- Gaussian data


def gaussian_denoiser(process, m, s):
    """E[x_0 | x_t] where x_0 is N(m, s^2)."""

    def predict(x_t, t):
        abar = process.alpha_bar(t[0])
        return m + s**2 * abar.sqrt() / (abar * s**2 + 1 - abar) * (x_t - abar.sqrt() * m)

    return predict


def exact_law(betas, chosen, eta, m, s):
    """Mean and variance of the samples with that denoiser, by Song et al.'s equation 12 in Python floats."""
    abar = torch.cumprod(1 - betas, 0).tolist()
    mean, variance = 0.0, 1.0
    for t, next_t in pairs(chosen):
        a, b = abar[t], abar[next_t] if next_t >= 0 else 1.0
        slope = s**2 * a**0.5 / (a * s**2 + 1 - a)  # x_0 = slope x_t + shift
        shift = m - slope * a**0.5 * m
        sigma = eta * ((1 - b) / (1 - a) * (1 - a / b)) ** 0.5
        to_eps = (max(1 - b - sigma**2, 0) / (1 - a)) ** 0.5
        factor = b**0.5 * slope + to_eps * (1 - a**0.5 * slope)
        mean = factor * mean + (b**0.5 - to_eps * a**0.5) * shift
        variance = factor**2 * variance + sigma**2
    return mean, variance


@pytest.mark.parametrize(("schedule", "m", "s"), [("linear", 1.5, 2.0), ("cosine", -0.7, 0.5)])
@pytest.mark.parametrize(
    ("rule", "eta", "count"),
    [("ddpm", 1.0, 1000), ("ddim", 1.0, 1000), ("ddim", 1.0, 250), ("ddim", 0.0, 1000), ("ddim", 0.0, 250)],
)
def test_gaussian_data(schedule, m, s, rule, eta, count, device):
    n = 10_000
    process = process_of(schedule, 1000, device)
    chosen = select_timesteps(1000, count)
    noise = from_generator(torch.Generator().manual_seed(1))
    x_T = noise(torch.empty(n, 1, device=device), 1000)
    x = sample(gaussian_denoiser(process, m, s), process, x_T, chosen, make_step(rule, eta=eta), noise).cpu().double()

    mean_error, variance_error = s / n**0.5, s**2 * (2 / n) ** 0.5  # one standard error of each
    assert abs(x.mean().item() - m) < 4 * mean_error
    assert abs(x.var().item() - s**2) < 4 * variance_error
    law_mean, law_variance = exact_law(make_betas(schedule, 1000), chosen, eta, m, s)
    assert abs(x.mean().item() - law_mean) < 3 * mean_error
    assert abs(x.var().item() - law_variance) < 3 * variance_error


# --- the loop


def shrink(x_t, t):
    return 0.5 * torch.tanh(x_t)


@pytest.mark.parametrize("rule", STEPS, ids=str)
def test_seed_decides_the_sample_and_the_global_generator_rests(rule, device):
    process = process_of("linear", 20, device)
    step = make_step(rule[0], eta=rule[1], variance=rule[2])
    state = torch.get_rng_state()

    def run(seed):
        return sample(
            shrink,
            process,
            normal(4, 3).to(device),
            select_timesteps(20, 7),
            step,
            from_generator(torch.Generator().manual_seed(seed)),
        )

    assert torch.equal(run(3), run(3))
    assert torch.equal(run(3), run(4)) == (rule in (("ddpm", 0.0, "none"), ("ddim", 0.0, "small")))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("rule", STEPS, ids=str)
def test_noise_is_drawn_only_where_it_is_added(rule):
    drawn = []

    def noise():
        drawn.append(1)
        return normal(4, 3)

    step = make_step(rule[0], eta=rule[1], variance=rule[2])
    process = process_of("linear", 20)
    for t, s in [(19, 12), (12, 0), (0, -1)]:
        step(process, normal(4, 3), normal(4, 3), t, s, noise)
    assert len(drawn) == (0 if rule in (("ddpm", 0.0, "none"), ("ddim", 0.0, "small")) else 2)


def test_global_generator_is_the_default():
    process = process_of("linear", 20)
    with torch.random.fork_rng():
        results = []
        for _ in range(2):
            torch.manual_seed(5)
            results.append(sample(shrink, process, normal(4, 3), select_timesteps(20, 7), make_step("ddpm")))
        assert torch.equal(*results)
    seeded = sample(
        shrink,
        process,
        normal(4, 3),
        select_timesteps(20, 7),
        make_step("ddpm"),
        from_generator(torch.Generator().manual_seed(5)),
    )
    assert torch.equal(results[0], seeded)


def test_loop_visits_the_steps_and_projects_before_each(device):
    process = process_of("linear", 20, device)
    seen = []

    def predict(x_t, t):
        assert t.dtype == torch.long and t.shape == (4, 2) and t.device == x_t.device
        torch.testing.assert_close(x_t.norm(dim=-1), torch.ones(4, 2, device=device))
        seen.append(t.unique().tolist())
        return 3 * x_t

    result = sample(
        predict,
        process,
        normal(4, 2, 5).to(device),
        [19, 8, 3],
        make_step("ddim"),
        project=lambda x: x / x.norm(dim=-1, keepdim=True),
    )
    assert seen == [[19], [8], [3]]
    torch.testing.assert_close(result.norm(dim=-1), torch.full((4, 2), 3.0, device=device))  # the end is not projected


def test_no_steps_return_the_start():
    x = normal(2, 3)
    assert sample(shrink, process_of("linear", 5), x, [], make_step("ddpm")) is x


def test_loop_reads_nothing_from_the_device():
    x = torch.empty(4, 3, device="meta")
    for rule in STEPS:
        step = make_step(rule[0], eta=rule[1], variance=rule[2])
        assert sample(shrink, process_of("linear", 20, "meta"), x, select_timesteps(20, 4), step).device.type == "meta"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("dpm", 0.0, "small"), "sampler='dpm'.*ddpm, ddim"),
        (("ddpm", 0.0, "learned"), "variance='learned'.*small, large, none"),
        (("ddim", 1.5, "small"), "eta=1.5.*0 to 1"),
        (("ddim", -0.1, "small"), "eta=-0.1"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        make_step(*settings)


def test_small_variance_is_the_default():
    process, x_t, x_0 = process_of("linear", 20), normal(4, 3), normal(4, 3, seed=1)
    scales = {v: mean_and_scale(make_step("ddpm", variance=v), process, x_t, x_0, 9, 4)[1].mean() for v in VARIANCES}
    assert scales["none"] == 0 < scales["small"] < scales["large"]
    assert mean_and_scale(ancestral_step, process, x_t, x_0, 9, 4)[1].mean() == scales["small"]


# --- the straight path


@pytest.mark.parametrize("count", [1, 2, 5, 20])
def test_euler_with_an_exact_denoiser_recovers_x0(count, device):
    path, x_0 = StraightPath(20).to(device), normal(4, 3).to(device)
    x_T = normal(4, 3, seed=1).to(device)
    assert torch.equal(sample(lambda x, t: x_0, path, x_T, select_timesteps(20, count), make_step("euler")), x_0)


def test_one_step_along_the_straight_path_is_the_prediction(device):
    path, x_T = StraightPath(20).to(device), normal(4, 3, seed=1).to(device)
    assert torch.equal(sample(shrink, path, x_T, [19], make_step("euler")), shrink(x_T, 19))


@pytest.mark.parametrize("prediction", StraightPath.predictions)
def test_euler_is_the_sum_of_velocities(prediction, device):
    """x_s = x_t + (s_s - s_t) v, whichever of x_0 and v the network predicts."""
    path = StraightPath(20).to(device)
    x_t, output = normal(4, 3).to(device), normal(4, 3, seed=1).to(device)
    x_0 = path.x0_from(output, x_t, 11, prediction)
    velocity = output if prediction == "v" else (x_t - output) / (12 / 20)
    x_s = make_step("euler")(path, x_t, x_0, 11, 5, torch.empty)
    torch.testing.assert_close(x_s, x_t + (6 / 20 - 12 / 20) * velocity, **CLOSE)


def test_steps_from_the_start_end_at_the_mean_of_the_predictions():
    path, x_T, seen = StraightPath(20), normal(4, 3), []
    step = partial(make_step("euler_start"), start=x_T)

    def predict(x_t, t):
        seen.append(x_t.sin())
        return seen[-1]

    x_0 = sample(predict, path, x_T, [19, 9, 4], step)
    torch.testing.assert_close(x_0, 0.5 * seen[0] + 0.25 * seen[1] + 0.25 * seen[2], **CLOSE)
    torch.testing.assert_close(sample(predict, path, x_T, [19], step), seen[0], **CLOSE)


def test_loop_gives_every_position_of_a_sequence_its_step():
    seen = []

    def predict(x_t, t):
        seen.append(t)
        return x_t

    sample(predict, StraightPath(20), normal(2, 3, 4), [19, 4], make_step("euler"))
    assert [t.unique().tolist() for t in seen] == [[19], [4]] and {t.shape for t in seen} == {(2, 3)}
