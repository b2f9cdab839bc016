"""The processes compared with Bayes' rule, their definitions and Hugging Face diffusers."""

import pytest
import torch

from recbole_diffusion.diffusion.process import PREDICTIONS, GaussianDiffusion, StraightPath
from recbole_diffusion.diffusion.schedules import make_betas

DIFFUSERS_NAMES = {"x0": "sample", "eps": "epsilon", "v": "v_prediction"}
SCHEDULES = [("linear", 1000), ("cosine", 50), ("truncated_linear", 32), ("exp", 200), ("linear", 1)]


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def ddpm_scheduler(betas, **settings):
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DDPMScheduler(
        num_train_timesteps=len(betas), trained_betas=betas.tolist(), clip_sample=False, **settings
    )
    # It computes 1 - abar in float32, which leaves three digits of a beta of 1e-4: float64 makes it a reference.
    scheduler.alphas_cumprod = torch.cumprod(1 - betas, 0)
    scheduler.one = scheduler.one.double()
    return scheduler


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_posterior_is_bayes_rule(schedule, device):
    """q(x_{t-1} | x_t, x_0) is the product of q(x_t | x_{t-1}) and q(x_{t-1} | x_0), both Gaussian."""
    betas = make_betas(*schedule)
    process = GaussianDiffusion(betas).to(device)
    t = torch.arange(len(betas))
    abar = torch.cumprod(1 - betas, 0)
    x_0, x_t = normal(len(betas)).double(), normal(len(betas), seed=1).double()
    before = 1 - torch.cat([torch.ones(1), abar])[:-1].double()[1:]
    precision = (1 - betas[1:]) / betas[1:] + 1 / before
    mean = ((1 - betas[1:]).sqrt() * x_t[1:] / betas[1:] + abar[:-1].sqrt() * x_0[1:] / before) / precision

    got_mean, got_variance, got_log = (v.cpu() for v in process.posterior(x_0.to(device), x_t.to(device), t.to(device)))
    torch.testing.assert_close(got_mean[1:], mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(got_variance[1:].double(), 1 / precision, rtol=2e-6, atol=0)
    torch.testing.assert_close(got_log[1:].double(), -precision.log(), rtol=1e-6, atol=1e-6)
    assert got_mean[0] == x_0[0] and got_variance[0] == 0
    assert got_log[0] == (got_log[1] if len(betas) > 1 else betas[0].float().log())


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_marginals(schedule, device):
    betas = make_betas(*schedule)
    process = GaussianDiffusion(betas).to(device)
    assert process.timesteps == len(betas)
    t = torch.arange(len(betas))
    abar = torch.cumprod(1 - betas, 0)
    x_0, noise = normal(len(betas), 3), normal(len(betas), 3, seed=1)
    x_t = process.q_sample(x_0.to(device), t.to(device), noise.to(device)).cpu()
    torch.testing.assert_close(x_t.double(), abar.sqrt()[:, None] * x_0 + (1 - abar).sqrt()[:, None] * noise)
    exact = {"rtol": 2e-6, "atol": 0}
    torch.testing.assert_close(process.alpha_bar(t.to(device)).cpu().double(), abar, **exact)
    torch.testing.assert_close(process.snr(t.to(device)).cpu().double(), abar / (1 - abar), **exact)
    assert process.alpha_bar(-1) == 1 and process.alpha_bar(torch.tensor([-1, 0], device=device))[0] == 1
    assert process.snr(-1) == float("inf")


def test_beta_between(device):
    """Ratios stay exact near pure noise, where 1 - abar_t/abar_s loses its digits, and at the first steps."""
    betas = make_betas("linear", 1000, beta_end=0.5)  # abar ends near 1e-126, beyond float32
    process = GaussianDiffusion(betas).to(device)
    t = torch.arange(1000)
    torch.testing.assert_close(process.beta_between(t, t - 1).cpu().double(), betas, rtol=1e-3, atol=1e-7)
    abar = torch.cumprod(1 - betas, 0)
    torch.testing.assert_close(process.beta_between(t, -1).cpu().double(), 1 - abar, rtol=1e-6, atol=0)
    expected = 1 - abar[40].item() / abar[10].item()
    assert process.beta_between(40, 10).item() == pytest.approx(expected, rel=1e-5)
    assert process.alpha_bar(40, 10).item() == pytest.approx(1 - expected, rel=1e-5)
    assert process.alpha_bar(999, 900).item() == pytest.approx((abar[999] / abar[900]).item(), rel=1e-4)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_target_and_x0_are_inverse(prediction, device):
    process = GaussianDiffusion(make_betas("cosine", 20)[:15]).to(device)
    x_0, noise = normal(15, 2, 3).to(device), normal(15, 2, 3, seed=1).to(device)
    t = torch.arange(15, device=device)
    x_t = process.q_sample(x_0, t, noise)
    output = process.target(x_0, noise, t, prediction)
    torch.testing.assert_close(process.x0_from(output, x_t, t, prediction), x_0, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(process.eps_from(x_0, x_t, t), noise, rtol=1e-4, atol=1e-4)


def test_one_int_stands_for_all_rows_and_any_trailing_shape():
    process = GaussianDiffusion(make_betas("linear", 10))
    for shape in [(4,), (4, 3), (4, 3, 2, 5)]:
        x_0, x_t, noise = normal(*shape), normal(*shape, seed=1), normal(*shape, seed=2)
        t = torch.full((4,), 7)
        torch.testing.assert_close(process.q_sample(x_0, 7, noise), process.q_sample(x_0, t, noise), rtol=0, atol=0)
        torch.testing.assert_close(process.eps_from(x_0, x_t, 7), process.eps_from(x_0, x_t, t), rtol=0, atol=0)
        mean, variance, log_variance = process.posterior(x_0, x_t, t)
        assert mean.shape == shape and torch.broadcast_shapes(variance.shape, log_variance.shape, shape) == shape
    one_row = process.q_sample(normal(1, 3), torch.tensor([2]), normal(1, 3))
    assert one_row.shape == (1, 3)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_unknown_prediction(prediction):
    process, x = GaussianDiffusion(make_betas("linear", 10)), normal(2, 3)
    with pytest.raises(ValueError, match=r"prediction='score'.*x0, eps, v"):
        process.x0_from(x, x, 1, "score")
    with pytest.raises(ValueError, match="prediction='score'"):
        process.target(x, x, 1, "score")


def test_buffers_move_and_are_not_saved(device):
    process = GaussianDiffusion(make_betas("linear", 10)).to(device)
    assert process.state_dict() == {} and not list(process.parameters())
    assert all(b.device.type == torch.device(device).type and b.dtype == torch.float32 for b in process.buffers())


def test_nothing_is_read_from_the_device():
    """A meta tensor has no values: reading one on the host, or a coefficient left on the CPU, is an error."""
    process = GaussianDiffusion(make_betas("linear", 10)).to("meta")
    x, t = torch.empty(4, 3, device="meta"), torch.empty(4, dtype=torch.long, device="meta")
    results = [process.q_sample(x, t, x), *process.posterior(x, x, t), process.eps_from(x, x, t), process.snr(t)]
    results += [process.alpha_bar(t), process.beta_between(t, t)]
    results += [process.x0_from(x, x, t, p) for p in PREDICTIONS] + [process.target(x, x, t, p) for p in PREDICTIONS]
    assert {r.device.type for r in results} == {"meta"}


@pytest.mark.parametrize("schedule", SCHEDULES[:4], ids=str)
def test_forward_matches_diffusers(schedule, device):
    betas = make_betas(*schedule)
    process, scheduler = GaussianDiffusion(betas).to(device), ddpm_scheduler(betas)
    x_0, noise, t = normal(len(betas), 5), normal(len(betas), 5, seed=1), torch.arange(len(betas))
    ours = process.q_sample(x_0.to(device), t.to(device), noise.to(device)).cpu()
    torch.testing.assert_close(ours, scheduler.add_noise(x_0, noise, t), rtol=1e-5, atol=1e-5)
    velocity = process.target(x_0.to(device), noise.to(device), t.to(device), "v").cpu()
    torch.testing.assert_close(velocity, scheduler.get_velocity(x_0, noise, t), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("schedule", SCHEDULES[:4], ids=str)
def test_posterior_matches_diffusers(schedule, prediction, device):
    betas = make_betas(*schedule)
    process = GaussianDiffusion(betas).to(device)
    scheduler = ddpm_scheduler(betas, prediction_type=DIFFUSERS_NAMES[prediction])
    x_t, output = normal(8, 5), normal(8, 5, seed=1)
    for t in (0, 1, len(betas) // 2, len(betas) - 1):
        steps = torch.full((8,), t, device=device)
        x_0 = process.x0_from(output.to(device), x_t.to(device), steps, prediction)
        mean, variance, _ = process.posterior(x_0, x_t.to(device), steps)
        z = normal(8, 5, seed=2) * (t > 0)
        theirs = scheduler.step(output, t, x_t, generator=torch.Generator().manual_seed(2))
        torch.testing.assert_close(x_0.cpu(), theirs.pred_original_sample, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(
            (mean + variance.sqrt() * z.to(device)).cpu(), theirs.prev_sample, rtol=1e-5, atol=1e-5
        )


# --- the straight path


def test_the_straight_path_runs_from_the_data_to_pure_noise(device):
    path, (x_0, noise) = StraightPath(8).to(device), (normal(5, 3).to(device), normal(5, 3).to(device) + 1)
    assert path.timesteps == 8
    assert torch.equal(path.q_sample(x_0, -1, noise), x_0) and torch.equal(path.q_sample(x_0, 7, noise), noise)
    t = torch.tensor([0, 1, 3, 6, 7], device=device)
    share = torch.tensor([1, 2, 4, 7, 8], device=device) / 8
    expected = (1 - share)[:, None] * x_0 + share[:, None] * noise
    torch.testing.assert_close(path.q_sample(x_0, t, noise), expected)
    torch.testing.assert_close(path.noise_share(t), share)
    torch.testing.assert_close(path.alpha_bar(t), (1 - share) ** 2)
    assert path.alpha_bar(-1) == 1 and path.alpha_bar(7) == 0


@pytest.mark.parametrize("prediction", StraightPath.predictions)
def test_x0_from_inverts_the_target_of_the_straight_path_at_every_step(prediction, device):
    path = StraightPath(8).to(device)
    x_0, noise = normal(8, 3).to(device), normal(8, 3).to(device) + 1
    t = torch.arange(8, device=device)
    output = path.target(x_0, noise, t, prediction)
    torch.testing.assert_close(path.x0_from(output, path.q_sample(x_0, t, noise), t, prediction), x_0)


def test_v_is_the_velocity_along_the_straight_path():
    path, x_0, noise = StraightPath(8), normal(1, 3), normal(1, 3) + 1
    v = path.target(x_0, noise, 3, "v")
    torch.testing.assert_close((path.q_sample(x_0, 4, noise) - path.q_sample(x_0, 3, noise)) * 8, v)


def test_the_straight_path_has_no_eps():
    path, x = StraightPath(8), normal(2, 3)
    for call in (path.target, path.x0_from):
        with pytest.raises(ValueError, match="prediction='eps': must be one of x0, v"):
            call(x, x, 1, "eps")


def test_the_straight_path_has_no_state_to_save_and_reads_nothing_from_the_device():
    path = StraightPath(8).to("meta")
    assert path.state_dict() == {} and not list(path.parameters())
    x, t = torch.empty(3, 4, device="meta"), torch.zeros(3, dtype=torch.long, device="meta")
    for result in (path.q_sample(x, t, x), path.target(x, x, t, "v"), path.x0_from(x, x, t, "v")):
        assert result.device.type == "meta" and result.shape == (3, 4)


# --- data of any leading shape


@pytest.mark.parametrize("process", [GaussianDiffusion(make_betas("cosine", 10)), StraightPath(10)], ids=["g", "s"])
@pytest.mark.parametrize("of_each", ["row", "position"])
def test_a_step_for_each_row_or_for_each_position(process, of_each):
    x, noise = normal(2, 3, 4), normal(2, 3, 4) + 1
    t = torch.tensor([1, 7]) if of_each == "row" else torch.tensor([[0, 4, 9], [8, 2, 5]])
    every = t[:, None].expand(2, 3) if of_each == "row" else t
    for prediction in process.predictions:
        x_t, target = process.q_sample(x, t, noise), process.target(x, noise, t, prediction)
        x_0 = process.x0_from(target, x_t, t, prediction)
        for b in range(2):
            for n in range(3):
                one = x[b, n], int(every[b, n]), noise[b, n]
                torch.testing.assert_close(x_t[b, n], process.q_sample(*one))
                torch.testing.assert_close(target[b, n], process.target(one[0], one[2], one[1], prediction))
                torch.testing.assert_close(x_0[b, n], x[b, n], rtol=1e-3, atol=1e-3)
    if isinstance(process, GaussianDiffusion):
        mean, variance, _ = process.posterior(x, noise, t)
        for b in range(2):
            for n in range(3):
                one_mean, one_variance, _ = process.posterior(x[b, n], noise[b, n], int(every[b, n]))
                torch.testing.assert_close(mean[b, n], one_mean)
                assert variance.expand(2, 3, 4)[b, n, 0] == one_variance
