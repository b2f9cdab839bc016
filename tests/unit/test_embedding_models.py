"""The shared training step and generation of the embedding models, and DiffDiv's latent and channels."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import Built
from recbole.data.interaction import Interaction

from recbole_diffusion.config.settings import UserError
from recbole_diffusion.diffusion.noise import RowNoise
from recbole_diffusion.diffusion.step import Step
from recbole_diffusion.model.losses import gaussian_kl, robust_divergence
from recbole_diffusion.model.settings import DiffusionConfig

SMALL = {"embedding_size": 8, "num_layers": 1, "num_heads": 2, "dropout": 0.0}
WHOLE = {"num_negatives": None, "negative_sampler": None}  # the softmax is over the whole catalogue


class Oracle(torch.nn.Module):
    """Answers with the true x0, eps or v of the step, and remembers its arguments."""

    def __init__(self, model: Any, items: torch.Tensor, noise: torch.Tensor, prediction: str) -> None:
        super().__init__()
        self.model, self.items, self.noise, self.prediction = model, items, noise, prediction
        self.t = self.x_t = torch.empty(0)

    def forward(self, x_t: torch.Tensor, t: torch.Tensor, guidance: torch.Tensor) -> torch.Tensor:
        self.t, self.x_t = t, x_t
        x_0, process = self.model.item_embedding(self.items), self.model.process
        return process.target(x_0, self.noise, t, self.prediction)


class Answer(torch.nn.Module):
    """A denoiser that answers with a function of x_t."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x_t: torch.Tensor, t: torch.Tensor, guidance: torch.Tensor) -> torch.Tensor:
        return self.function(x_t)


class Given(torch.nn.Module):
    """A timestep sampler that draws known steps with known weights."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.t, self.weight = torch.arange(rows) * 7 % 1000, torch.linspace(0.5, 2, rows)
        self.updates: list[tuple[torch.Tensor, torch.Tensor]] = []

    def draw(self, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.t[:rows], self.weight[:rows]

    def update(self, t: torch.Tensor, losses: torch.Tensor) -> None:
        self.updates.append((t, losses))


def _targets(built: Built, batch: Interaction) -> torch.Tensor:
    targets = batch[built.model.TARGET_SEQ]
    return targets[targets != 0]


@pytest.mark.parametrize("prediction", ["x0", "eps", "v"])
def test_a_perfect_denoiser_has_no_squared_error(
    build: Callable[..., Built], monkeypatch: pytest.MonkeyPatch, prediction: str
) -> None:
    built = build(
        "DreamRec",
        prediction=prediction,
        denoiser_skip=False,
        sampling_steps=2,
        ce_weight=0.0,
        item_init_std=1.0,
        **SMALL,
    )
    batch = next(iter(built.loaders.train))
    items = _targets(built, batch)
    noise = torch.randn(len(items), 8)
    monkeypatch.setattr(torch, "randn_like", lambda x: noise)
    oracle = built.model.denoiser.denoiser = Oracle(built.model, items, noise, prediction)
    steps = built.model.timestep_sampler = Given(len(items))
    (mse,) = built.model.calculate_loss(batch)
    assert mse.item() == pytest.approx(0, abs=1e-10)
    assert torch.equal(oracle.t, steps.t[: len(items)])
    expected = built.model.process.q_sample(built.model.item_embedding(items), oracle.t, noise)
    torch.testing.assert_close(oracle.x_t, expected)


def test_losses_are_weighted_and_told_to_the_timestep_sampler(build: Callable[..., Built]) -> None:
    built = build("DreamRec", mse_weight=0.3, ce_weight=2.0, ce_temperature=0.5, **WHOLE, **SMALL)
    batch = next(iter(built.loaders.train))
    items = _targets(built, batch)
    x_0_hat = torch.randn(len(items), 8)
    steps = built.model.timestep_sampler = Given(len(items))
    built.model.denoiser.denoiser = Answer(lambda x_t: x_0_hat)
    losses = dict(zip(("mse", "ce"), built.model.calculate_loss(batch), strict=True))
    assert built.model.loss_names == ("mse", "ce")
    table, weight = built.model.item_embedding.weight, steps.weight
    mse = 0.3 * ((x_0_hat - table[items]) ** 2).mean(dim=-1)
    logits = x_0_hat @ table[1:].T / 0.5
    ce = 2.0 * (torch.logsumexp(logits, dim=-1) - logits.gather(1, (items - 1).unsqueeze(-1)).squeeze(-1))
    torch.testing.assert_close(losses["mse"], (weight * mse).mean())
    torch.testing.assert_close(losses["ce"], (weight * ce).mean())
    ((t, told),) = steps.updates
    assert torch.equal(t, steps.t)
    torch.testing.assert_close(told, mse + ce)  # before the weights


@pytest.mark.parametrize(
    ("model", "own"), [("DiffDiv", ("divergence", "kl")), ("ADIGRec", ("interest", "penalty")), ("DreamRec", ())]
)
def test_a_models_own_losses_stand_beside_those_of_its_denoiser(
    build: Callable[..., Built], monkeypatch: pytest.MonkeyPatch, model: str, own: tuple[str, ...]
) -> None:
    extra = {"penalty_weight": 0.5, "interest_weight": 0.5} if model == "ADIGRec" else {}
    built = build(model, **extra, **SMALL)
    batch = next(iter(built.loaders.train))
    told = torch.empty(0)

    def update(t: torch.Tensor, losses: torch.Tensor) -> None:
        nonlocal told
        told = losses

    monkeypatch.setattr(built.model.timestep_sampler, "update", update)
    found: dict[str, torch.Tensor] = {}
    guidance = built.model.training_guidance
    monkeypatch.setattr(
        built.model, "training_guidance", lambda *given: found.update((result := guidance(*given))[1]) or result
    )
    losses = built.model.calculate_loss(batch)
    assert built.model.loss_names == (*own, "mse", "ce")
    assert all(torch.equal(loss, found[name]) for name, loss in zip(own, losses, strict=False))
    torch.testing.assert_close(told.mean(), sum(losses[len(own) :]).detach())  # these weights are 1


@pytest.mark.parametrize("stop", [True, False])
def test_stop_gradient_target_keeps_the_squared_error_from_moving_the_target(
    build: Callable[..., Built], stop: bool
) -> None:
    built = build("DreamRec", ce_weight=0.0, stop_gradient_target=stop, **SMALL)
    batch = next(iter(built.loaders.train))
    built.model.denoiser.denoiser = Answer(lambda x_t: 0.5 * x_t.detach())
    if stop:
        (loss,) = built.model.calculate_loss(batch)
        assert not loss.requires_grad
    else:
        sum(built.model.calculate_loss(batch)).backward()
        assert built.model.item_embedding.weight.grad[_targets(built, batch)].abs().sum() > 0


@pytest.mark.parametrize(("sampler", "steps"), [("ddim", 1), ("ddim", 7), ("ddpm", 4)])
def test_generation_asks_once_a_step_at_the_chosen_steps(build: Callable[..., Built], sampler: str, steps: int) -> None:
    built = build("DreamRec", sampler=sampler, sampling_steps=steps, **SMALL)
    built.model.eval()
    asked: list[int] = []
    plain = built.model.denoiser.guided

    def counting(x_t: torch.Tensor, t: torch.Tensor, guidance: torch.Tensor, w: float) -> torch.Tensor:
        assert len(set(t.tolist())) == 1 and w == 0
        asked.append(int(t[0]))
        return plain(x_t, t, guidance, w)

    built.model.denoiser.guided = counting
    built.model.generate(built.loaders.valid.dataset[[0, 1]])
    assert len(asked) == steps and asked[0] == 999 and asked == sorted(set(asked), reverse=True)
    assert steps == 1 or asked[-1] == 0


def test_valid_sampling_steps_are_those_of_validation_alone(build: Callable[..., Built]) -> None:
    built = build("DreamRec", sampling_steps=5, valid_sampling_steps=2, epochs=1, eval_step=1, **SMALL)
    asked: list[int] = []
    plain = built.model.denoiser.guided
    built.model.denoiser.guided = lambda x_t, t, g, w: asked.append(int(t[0])) or plain(x_t, t, g, w)
    built.model.diagnose = lambda batch: {}
    built.trainer.fit(built.loaders.train, built.loaders.valid)
    assert asked == [999, 0]
    asked.clear()
    built.trainer.evaluate(built.loaders.test)
    assert len(asked) == 5 and asked[0] == 999 and asked[-1] == 0
    with pytest.raises(UserError, match="valid_sampling_steps=1001: must be from 1 to timesteps=1000"):
        build("DreamRec", valid_sampling_steps=1001, **SMALL)


@pytest.mark.parametrize("model", ["DreamRec", "DiffuRec"])
def test_bf16_is_the_precision_of_the_matrix_products_alone(build: Callable[..., Built], model: str) -> None:
    results = {}
    for precision in ("fp32", "bf16"):
        built = build(model, precision=precision, epochs=1, **SMALL)
        kinds: set[torch.dtype] = set()
        for module in built.model.modules():
            if isinstance(module, torch.nn.Linear):
                module.register_forward_hook(lambda _, inputs, output, kinds=kinds: kinds.add(output.dtype))
        torch.manual_seed(0)
        losses = built.trainer._train_epoch(built.loaders.train, 0)
        assert {p.dtype for p in built.model.parameters()} == {torch.float32}
        built.model.eval()
        scores = built.model.full_sort_predict(built.loaders.valid.dataset[[0, 1, 2]])
        assert scores.dtype == torch.float32
        assert kinds == {torch.bfloat16 if precision == "bf16" else torch.float32}
        results[precision] = (sum(losses), scores[:, 1:])
    (loss, scores), (other_loss, other_scores) = results.values()
    assert loss != other_loss and loss == pytest.approx(other_loss, rel=0.02)
    assert torch.corrcoef(torch.stack([scores.flatten(), other_scores.flatten()]))[0, 1] > 0.98


SAMPLERS = [
    {"sampler": "ddpm", "variance": "small"},
    {"sampler": "ddpm", "variance": "large"},
    {"sampler": "ddpm", "variance": "none"},
    {"sampler": "ddim", "eta": 0.0},
    {"sampler": "ddim", "eta": 0.5},
    {"sampler": "ddim", "eta": 1.0},
]


@pytest.mark.parametrize("prediction", ["x0", "v", "eps"])
@pytest.mark.parametrize("model", ["DreamRec", "DiffDiv", "DiffuRec", "ADIGRec"])
def test_every_model_generates_by_every_sampler(build: Callable[..., Built], model: str, prediction: str) -> None:
    if model == "ADIGRec" and prediction != "x0":
        with pytest.raises(UserError, match=f"prediction='{prediction}': must be x0"):
            build(model, prediction=prediction, **SMALL)
        return
    loss = {"ce_weight": 0.0, "mse_weight": 1.0} if prediction == "eps" else {}
    if model in ("DreamRec", "DiffDiv"):
        loss |= {"denoiser_skip": prediction == "x0"}
    loss |= {"uncertainty": 0.5} if model == "DiffuRec" else {}  # so that x_t matters
    scores = []
    for settings in SAMPLERS:
        for steps in (2, 20):
            built = build(
                model, timesteps=20, noise_schedule="truncated_linear", sampling_steps=steps, prediction=prediction,
                    chain_start="noise",
                **settings, **loss, **SMALL,
            )  # fmt: skip
            batch = built.loaders.valid.dataset[[0, 1, 2]]
            first, second = (built.model.eval().full_sort_predict(batch)[:, 1:] for _ in range(2))
            assert torch.equal(first, second) and torch.isfinite(first).all()
            scores.append(first)
    *others, two, twenty = scores  # ddim with eta = 1 is ddpm with the small variance
    torch.testing.assert_close(two, scores[0], rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(twenty, scores[1], rtol=1e-3, atol=1e-5)
    for i, a in enumerate(others):  # every other sampler and number of steps makes a difference
        assert not any(torch.allclose(a, b, rtol=1e-4, atol=0) for b in others[:i])


STRAIGHT = {"process": "straight", "noise_schedule": None, "sampler": "euler", "timesteps": 20}


@pytest.mark.parametrize(
    ("model", "prediction"),
    [(model, prediction) for model in ("DreamRec", "DiffDiv", "DiffuRec", "ADRec") for prediction in ("x0", "v")]
    + [("ADIGRec", "x0")],
)
def test_every_model_trains_and_generates_along_a_straight_path(
    build: Callable[..., Built], model: str, prediction: str, caplog: pytest.LogCaptureFixture
) -> None:
    extra = {"DiffuRec": {"uncertainty": 0.5}, "ADRec": {}}.get(model, {"denoiser_skip": prediction == "x0"})
    built = build(model, prediction=prediction, sampling_steps=4, epochs=1, **STRAIGHT, **extra, **SMALL)
    asked: list[int] = []
    built.model.denoiser.register_forward_pre_hook(lambda _, inputs: asked.append(int(inputs[1].unique()[0])))
    assert not any("abar_T" in record.getMessage() for record in caplog.records)  # it ends at pure noise
    batch = built.loaders.valid.dataset[[0, 1, 2]]
    first, second = (built.model.eval().full_sort_predict(batch)[:, 1:] for _ in range(2))
    assert torch.equal(first, second) and torch.isfinite(first).all()
    if model in ("DiffuRec", "ADIGRec"):
        assert asked == [19, 13, 6, 0] * 2
    built.trainer.fit(built.loaders.train, built.loaders.valid)
    gaussian = build(model, prediction=prediction, sampling_steps=4, timesteps=20, **extra, **SMALL).model.eval()
    gaussian.load_state_dict(built.model.state_dict())
    scores = (m.eval().full_sort_predict(batch)[:, 1:] for m in (built.model, gaussian))
    assert not torch.allclose(*scores)


def test_the_losses_of_a_straight_path_by_hand(build: Callable[..., Built], monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"prediction": "v", "denoiser_skip": False, "mse_weight": 0.3, "ce_weight": 2.0, **WHOLE}
    built = build("DreamRec", **settings, **STRAIGHT, **SMALL)
    batch = next(iter(built.loaders.train))
    items = _targets(built, batch)
    noise, output = torch.randn(len(items), 8), torch.randn(len(items), 8)
    monkeypatch.setattr(torch, "randn_like", lambda x: noise)
    steps = built.model.timestep_sampler = Given(len(items))
    steps.t = steps.t % 20
    seen: list[torch.Tensor] = []
    built.model.denoiser.denoiser = Answer(lambda x_t: seen.append(x_t) or output)
    mse, ce = built.model.calculate_loss(batch)
    table, share = built.model.item_embedding.weight, ((steps.t + 1) / 20).unsqueeze(-1)
    x_t = (1 - share) * table[items] + share * noise
    torch.testing.assert_close(seen[0], x_t)
    torch.testing.assert_close(mse, (steps.weight * 0.3 * (output - (noise - table[items])).square().mean(-1)).mean())
    logits = (x_t - share * output) @ table[1:].T
    expected = 2.0 * -logits.log_softmax(dim=-1).gather(1, items.unsqueeze(-1) - 1).squeeze(-1)
    torch.testing.assert_close(ce, (steps.weight * expected).mean())


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        ("DreamRec", {**STRAIGHT, "noise_schedule": "cosine"}, "noise_schedule=cosine with process=straight: .* Set "),
        ("DreamRec", {**STRAIGHT, "beta_end": 0.1}, "beta_end=0.1 with process=straight"),
        ("DreamRec", {**STRAIGHT, "sampler": "ddim"}, "sampler=ddim with process=straight: must be one of euler"),
        ("DreamRec", {**STRAIGHT, "eta": 0.5}, "eta=0.5: only sampler=ddim reads it, not sampler=euler"),
        ("DreamRec", {"sampler": "euler"}, "sampler=euler with process=gaussian: must be one of ddpm, ddim"),
        ("DreamRec", {"noise_schedule": None}, "noise_schedule=~: is allowed only with process=straight"),
        (
            "DreamRec",
            {**STRAIGHT, "prediction": "eps", "ce_weight": 0.0, "sampling_steps": 2},
            "prediction=eps with process=straight: must be one of x0, v",
        ),
        ("DreamRec", {"process": "strait"}, "process='strait': must be one of gaussian, straight.*Did you mean"),
        ("DreamRec", {"sampling_steps": 1001}, "sampling_steps=1001: must be from 1 to timesteps=1000"),
        ("DreamRec", {"sampler": "ddpm", "eta": 0.5}, "eta=0.5: only sampler=ddim reads it"),
        ("DreamRec", {"prediction": "eps", "ce_weight": 0.0}, "sampling_steps=1 with prediction=eps: .* divides"),
        (
            "DiffuRec",
            {"prediction": "eps", "sampling_steps": 2},
            "ce_weight=1 with prediction=eps: x0_hat is then divided",
        ),
        ("DiffuRec", {"ce_weight": 0.0}, "mse_weight=0 and ce_weight=0: .* no loss to learn"),
        ("DiffuRec", {"train_on": "windows", "prefixes_per_user": None}, "train_on='windows': must be prefixes"),
        ("DreamRec", {"guidance_strength": 2.0, "p_uncond": 0.0}, "guidance_strength=2 needs p_uncond above 0"),
        ("DiffDiv", {"divergence": "alpha", "divergence_order": 1.5}, "divergence_order=1.5: the alpha divergence"),
        (
            "DiffDiv",
            {"latent_residual": True, "latent_size": 4},
            "latent_residual=True with latent_size=4: .* must be ~ or embedding_size=8",
        ),
        ("DreamRec", {"denoiser_skip": True, "prediction": "v"}, "denoiser_skip=True with prediction=v: .* of x0 only"),
        (
            "ADIGRec",
            {"denoiser_skip": True, "use_dynamic_interest": False},
            "denoiser_skip=True with use_dynamic_interest=False",
        ),
        ("DreamRec", {"ablate": "state", "prediction": "v"}, "ablate=state with prediction=v: .* Set prediction=x0"),
        (
            "DreamRec",
            {"ablate": "noise", "prediction": "eps", "ce_weight": 0.0, "sampling_steps": 2},
            "ablate=noise with prediction=eps: there is no noise",
        ),
        ("DreamRec", {"ablate": "guidance"}, "ablate='guidance': must be one of state, noise or ~"),
        ("ADIGRec", {"noise_schedule": "linear_variance"}, "noise_schedule='linear_variance': must be one of linear,"),
        ("ADIGRec", {"beta_end": 0.5, "noise_schedule": "cosine"}, "beta_end"),
    ],
)
def test_combinations_without_a_meaning_are_refused_with_a_reason(
    build: Callable[..., Built], model: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        build(model, **{**SMALL, **settings})


@pytest.mark.parametrize("model", ["DreamRec", "DiffDiv", "ADIGRec"])
def test_the_skip_adds_the_guidance_to_what_the_denoiser_predicts(build: Callable[..., Built], model: str) -> None:
    plain, skipping = (build(model, denoiser_skip=skip, **SMALL).model.eval() for skip in (False, True))
    skipping.load_state_dict(plain.state_dict())
    x_t, t = torch.randn(5, 8), torch.arange(5)
    guidance = torch.randn(5, 1, 16).expand(5, 4, 16) if model == "ADIGRec" else torch.randn(5, 8)
    added = guidance[:, 0, 8:] if model == "ADIGRec" else guidance
    torch.testing.assert_close(skipping.predict_x0(x_t, t, guidance), plain.predict_x0(x_t, t, guidance) + added)


def test_guidance_strength_and_prediction_reach_generation(build: Callable[..., Built]) -> None:
    scores = {}
    for name, extra in (("plain", {}), ("guided", {"guidance_strength": 2.0}), ("v", {"prediction": "v"})):
        built = build("DreamRec", sampling_steps=3, denoiser_skip=False, **extra, **SMALL)
        built.model.eval()
        scores[name] = built.model.full_sort_predict(built.loaders.valid.dataset[[0, 1]])[:, 1:]
    assert not torch.allclose(scores["plain"], scores["guided"])
    assert not torch.allclose(scores["plain"], scores["v"])


@pytest.mark.parametrize("rescale", [True, False])
def test_rescale_x0_keeps_the_chain_at_the_items_scale_and_the_answer_as_it_is(
    build: Callable[..., Built], rescale: bool
) -> None:
    built = build("DreamRec", sampling_steps=10, rescale_x0=rescale, **SMALL)
    model = built.model.eval()
    far = torch.zeros(2, 8)
    far[:, 0] = 100.0
    seen: list[torch.Tensor] = []

    def answer(x_t: torch.Tensor) -> torch.Tensor:
        seen.append(x_t)
        return far

    model.denoiser.guided = lambda x_t, t, guidance, w: answer(x_t)
    x_0 = model.generate(built.loaders.valid.dataset[[0, 1]])
    torch.testing.assert_close(x_0.squeeze(1), far)
    scale = model.item_embedding.weight[1:].norm(dim=-1).mean().item()
    assert (seen[-1].norm(dim=-1).max().item() < 10 * scale + 1) is rescale


def test_score_is_the_largest_inner_product_over_channels(build: Callable[..., Built]) -> None:
    built = build("DiffDiv", num_channels=3, **SMALL)
    x_0 = torch.randn(2, 3, 8)
    table = built.model.item_embedding.weight
    by_hand = torch.stack([torch.stack([(x_0[b] @ e).max() for e in table]) for b in range(2)])
    torch.testing.assert_close(built.model.score(x_0), by_hand)


def test_channels_belong_to_their_user_and_differ(build: Callable[..., Built]) -> None:
    built = build("DiffDiv", num_channels=4, latent_residual=False, **SMALL)
    model = built.model.eval()
    state = torch.stack([torch.zeros(8), torch.full((8,), 5.0)])
    mean, _ = model.latent(state)
    noise = RowNoise(torch.arange(2)).channels(4)
    with torch.no_grad():  # no noise: each channel's guidance is psi of its own user's mean
        model.latent.posterior[-1].bias[8:] = -60.0
        model.latent.posterior[-1].weight[8:] = 0.0
        each = state.repeat_interleave(4, dim=0)
        quiet = model.generation_guidance(each, noise).view(2, 4, 8)
        torch.testing.assert_close(quiet, model.latent.psi(mean).unsqueeze(1).expand(2, 4, 8))
        model.latent.posterior[-1].bias[8:] = 0.0
        loud = model.generation_guidance(each, noise).view(2, 4, 8)
    assert min((loud[b, i] - loud[b, j]).norm() for b in range(2) for i in range(4) for j in range(i)) > 0.01
    x_0 = model.generate(built.loaders.valid.dataset[[0, 1, 2]])
    assert x_0.shape == (3, 4, 8)
    assert min((x_0[b, i] - x_0[b, j]).norm() for b in range(3) for i in range(4) for j in range(i)) > 1e-6


def test_a_latent_of_known_noise_has_its_variance(build: Callable[..., Built]) -> None:
    latent = build("DiffDiv", latent_residual=False, **SMALL).model.latent
    latent.psi = torch.nn.Identity()
    mean, log_variance = torch.full((20000, 1), 2.0), torch.full((20000, 1), 0.25).log()
    draws = latent.draw(mean, log_variance, torch.randn(mean.shape, generator=torch.Generator().manual_seed(0)))
    assert draws.mean().item() == pytest.approx(2.0, abs=0.02)
    assert draws.std().item() == pytest.approx(0.5, abs=0.02)


def test_residual_maps_of_the_latent_start_from_c(build: Callable[..., Built]) -> None:
    latent = build("DiffDiv", latent_size=8, latent_residual=True, **SMALL).model.latent
    for layer in (latent.posterior[-1], latent.psi[-1]):
        layer.weight.data.zero_()
        layer.bias.data.fill_(0.5)
    c = torch.randn(5, 8)
    mean, log_variance = latent(c)
    assert torch.equal(mean, c + 0.5) and (log_variance == 0.5).all()
    torch.testing.assert_close(latent.draw(mean, log_variance, torch.zeros_like(c)), c + 1.0)


@pytest.mark.parametrize("variance", [None, 0.25])
@pytest.mark.parametrize("divergence", ["alpha", "beta", "gamma", "none"])
def test_latent_losses_by_their_closed_form(
    build: Callable[..., Built], divergence: str, variance: float | None
) -> None:
    order = 0.5
    settings = {"divergence": divergence, "divergence_order": order, "w_dagl": 0.7, "kl_weight": 0.2, "latent_size": 8}
    settings["divergence_variance"] = variance
    model = build("DiffDiv", **settings, **SMALL).model
    c = torch.randn(6, 8)
    torch.manual_seed(0)
    c_hat, terms = model.training_guidance(c, torch.ones(6, dtype=torch.long))
    mean, log_variance = model.latent(c)
    squared = (c - c_hat).square().mean(dim=-1)
    sigma_c_squared = log_variance.exp().mean(dim=-1) if variance is None else torch.full((6,), variance)
    expected = robust_divergence(divergence, squared, sigma_c_squared, order).mean()
    torch.testing.assert_close(terms["divergence"], 0.7 * expected)
    torch.testing.assert_close(terms["kl"], 0.7 * 0.2 * gaussian_kl(mean, log_variance).sum(dim=-1).mean())
    assert build("DiffDiv", **{**settings, "w_dagl": 0.0}, **SMALL).model.training_guidance(c, c)[1] == {}


@pytest.mark.parametrize("stop", [True, False])
def test_stop_gradient_latent_keeps_the_divergence_off_the_encoder(build: Callable[..., Built], stop: bool) -> None:
    model = build("DiffDiv", stop_gradient_latent=stop, divergence="none", latent_residual=False, **SMALL).model
    model.latent.psi = torch.nn.Sequential(torch.nn.Linear(8, 8))
    for parameter in model.latent.posterior.parameters():
        parameter.data.zero_()  # c_hat does not depend on c: only the target side of the divergence does
    c = torch.randn(5, 8, requires_grad=True)
    _, terms = model.training_guidance(c, torch.ones(5, dtype=torch.long))
    (gradient,) = torch.autograd.grad(terms["divergence"], c, allow_unused=True)
    assert (gradient is None or (gradient == 0).all()) if stop else gradient.abs().sum() > 0


def test_diagnosis_ranks_the_target_by_one_look_at_the_noisiest_step(
    build: Callable[..., Built], monkeypatch: pytest.MonkeyPatch
) -> None:
    built = build("DreamRec", **SMALL)
    batch = built.loaders.valid.dataset[list(range(5))]
    seen: list[torch.Tensor] = []

    def perfect(x_t: torch.Tensor, t: torch.Tensor, guidance: torch.Tensor, w: float) -> torch.Tensor:
        seen.append(t)
        return built.model.item_embedding(batch["item_id"])

    monkeypatch.setattr(built.model.denoiser, "guided", perfect)
    values = built.model.diagnose(batch)
    assert values["target_rank"] == 1 and (seen[0] == 999).all()
    assert values["abar_T"] == pytest.approx(4.036e-5, rel=1e-3)


@pytest.mark.parametrize("use_position", [False, True])
def test_diffurec_knows_the_order_of_its_history_only_by_position(
    build: Callable[..., Built], use_position: bool
) -> None:
    model = build("DiffuRec", use_position=use_position, uncertainty=0.0, **SMALL).model.eval()
    histories = torch.tensor([[3, 5, 7, 9, 0, 0], [7, 3, 5, 9, 0, 0]])
    batch = Interaction({"item_id_list": histories, "item_length": torch.tensor([4, 4])})
    first, second = model.generate(batch)
    assert torch.allclose(first, second, atol=1e-4) is not use_position


def test_diffurecs_uncertainty_has_mean_and_deviation_delta(build: Callable[..., Built]) -> None:
    model = build("DiffuRec", uncertainty=0.5, sampling_steps=3, **SMALL).model
    seen: list[torch.Tensor] = []
    model.denoiser.blocks[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    history = model.last_state(
        Interaction({"item_id_list": torch.ones(500, 10, dtype=torch.long), "item_length": torch.full((500,), 10)})
    )
    history = history._replace(items=torch.zeros_like(history.items))
    x_t, t = torch.ones(500, 8), torch.zeros(500, dtype=torch.long)
    model.denoiser(x_t, t, history)
    draws = seen[0] / (x_t + model.denoiser.tau(t * model.denoiser.step_scale)).unsqueeze(1)
    assert draws.mean().item() == pytest.approx(0.5, abs=0.01)
    assert draws.std().item() == pytest.approx(0.5, abs=0.01)


def test_adigrecs_interests_are_those_of_each_prefix_by_itself(build: Callable[..., Built]) -> None:
    model = build("ADIGRec", num_interests=3, **SMALL).model.eval()
    history = torch.tensor([[4, 8, 15, 16, 23]])
    interests = model.encode(history)
    embedded = model.item_embedding(history[0])
    positioned = embedded + model.encoder.position_embedding.weight[:5]
    for n in range(1, 6):
        w = model.interest_scores(positioned[:n]).softmax(dim=0)  # [n, k]
        torch.testing.assert_close(interests.weights[0, n - 1, :n], w)
        assert (interests.weights[0, n - 1, n:] == 0).all()
        torch.testing.assert_close(interests.inherent[0, n - 1], w.T @ embedded[:n])
        assert interests.seen[0, n - 1].tolist() == [i < n for i in range(5)]
    last = model.last_state(Interaction({"item_id_list": history, "item_length": torch.tensor([5])}))
    guidance = model.guidance(last)
    torch.testing.assert_close(guidance[0, :, :8], w.T @ embedded)
    torch.testing.assert_close(guidance[0, :, 8:], model.encoder(embedded[None])[0, -1].expand(3, 8))


def test_ai2m_by_its_formula(build: Callable[..., Built]) -> None:
    denoiser = build("ADIGRec", num_interests=3, denoiser_skip=False, **SMALL).model.denoiser
    x_t, t, g = torch.randn(2, 8), torch.tensor([3, 700]), torch.randn(2, 3, 16)
    for b in range(2):
        t_e = denoiser.t_embedding.weight[t[b]]
        query = (x_t[b] + t_e) @ denoiser.query.weight.T
        attention = ((g[b] @ denoiser.key.weight.T) @ query / 8**0.5).softmax(dim=0)
        attended = attention @ (g[b] @ denoiser.value.weight.T)
        expected = denoiser.f(torch.cat([x_t[b], attended, t_e]))
        torch.testing.assert_close(denoiser(x_t, t, g)[b], expected)


def test_adigrec_sees_x_t_on_the_unit_sphere_in_training_and_at_every_step(build: Callable[..., Built]) -> None:
    built = build("ADIGRec", sampling_steps=6, chain_start="noise", **SMALL)
    seen: list[torch.Tensor] = []
    built.model.denoiser.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    built.model.calculate_loss(next(iter(built.loaders.train)))
    built.model.eval().generate(built.loaders.valid.dataset[[0, 1, 2]])
    built.model.diagnose(built.loaders.valid.dataset[[0, 1, 2]])
    assert len(seen) == 1 + 6 + 5  # the diagnosis looks at five timesteps
    for x_t in seen:
        torch.testing.assert_close(x_t.norm(dim=-1), torch.ones(len(x_t)))


def test_adigrecs_own_losses_by_hand(build: Callable[..., Built]) -> None:
    settings = {"num_interests": 3, "interest_weight": 0.5, "penalty_weight": 2.0, **WHOLE, **SMALL}
    model = build("ADIGRec", **settings).model.eval()
    batch = build("ADIGRec", **settings).loaders.valid.dataset[[0, 1, 2, 3]]
    state, target = model.last_state(batch), batch["item_id"]
    _, terms = model.training_guidance(state, target)
    table = model.item_embedding.weight
    rows = []
    for b in range(4):
        g = max(state.inherent[b], key=lambda interest: float(interest @ table[target[b]]))
        scores = table[1:] @ g
        rows.append(torch.logsumexp(scores, dim=0) - scores[target[b] - 1])
    torch.testing.assert_close(terms["interest"], 0.5 * torch.stack(rows).mean())
    assert terms["penalty"].item() > 0
    off = build("ADIGRec", **{**settings, "interest_weight": 0.0, "penalty_weight": 0.0}).model
    assert off.training_guidance(state, target)[1] == {}


@pytest.mark.parametrize("switch", ["use_ai2m", "use_dynamic_interest"])
def test_adigrecs_ablations_change_what_they_name(build: Callable[..., Built], switch: str) -> None:
    model = build("ADIGRec", num_interests=3, denoiser_skip=False, **{switch: False}, **SMALL).model
    x_t, t, g = torch.randn(2, 8), torch.tensor([3, 700]), torch.randn(2, 3, 16)
    if switch == "use_ai2m":
        values = g @ model.denoiser.value.weight.T
        expected = model.denoiser.f(torch.cat([x_t, values.mean(dim=1), model.denoiser.t_embedding(t)], dim=-1))
        torch.testing.assert_close(model.denoiser(x_t, t, g), expected)
    else:
        batch = build("ADIGRec", num_interests=3, **SMALL).loaders.valid.dataset[[0, 1]]
        assert (model.guidance(model.last_state(batch))[..., 8:] == 0).all()


def test_diagnosis_looks_at_as_many_rows_as_distances_to_all_items_may_be_held(
    build: Callable[..., Built], monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes: list[torch.Size] = []
    distances = torch.cdist

    def recording(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        shapes.append(distances(a, b).shape)
        return distances(a, b)

    monkeypatch.setattr(torch, "cdist", recording)
    built = build("DiffDiv", num_channels=4, latent_size=8, max_cells=260, **SMALL)
    built.model.eval().diagnose(built.loaders.valid.dataset[list(range(5))])
    assert set(shapes) == {torch.Size([2 * 4, 30])}  # of 30 items: at most 260 distances


def test_a_gaussian_process_has_no_euler_steps() -> None:
    @dataclasses.dataclass(frozen=True)
    class Plain(DiffusionConfig):
        """The settings of a model that has no ``process``."""

    known = {**dict.fromkeys(("beta_start", "beta_end", "valid_sampling_steps")), "timesteps": 5, "eta": 0.0}
    known |= {"noise_schedule": "linear", "prediction": "x0", "timestep_sampler": "uniform", "sampling_steps": 1}
    known |= {"variance": "small", "eval_seed": 0, "sampler": "ddim", "ablate": None}
    assert Plain.from_config(known).sampler == "ddim"
    with pytest.raises(UserError, match="sampler=euler with process=gaussian: must be one of ddpm, ddim"):
        Plain.from_config({**known, "sampler": "euler"})


def test_two_losses_of_one_name_are_a_mistake_of_the_model(build: Callable[..., Built]) -> None:
    built = build("DreamRec", embedding_size=8, mse_weight=1.0)
    batch = next(iter(built.loaders.train))
    example = built.model.training_example(batch)
    built.model.training_example = lambda interaction: example._replace(losses={"mse": torch.tensor(1.0)})
    with pytest.raises(AssertionError, match="two losses are called mse"):
        built.model.calculate_loss(batch)


def test_a_training_step_draws_t_then_noise_then_what_is_dropped(build: Callable[..., Built]) -> None:
    built = build("DreamRec", embedding_size=8, dropout=0.0, p_uncond=0.5)
    model, batch = built.model, next(iter(built.loaders.train))
    torch.manual_seed(5)
    losses = model.calculate_loss(batch)
    torch.manual_seed(5)
    x_0, guidance, target, _, _ = model.training_example(batch)
    t, weight = model.timestep_sampler.draw(len(x_0))
    noise = torch.randn_like(x_0)
    guidance = model.denoiser.drop(guidance)
    step = Step(x_0, model.process.q_sample(x_0, t, noise), t, noise, weight)
    expected = model.denoising_losses(step, guidance, target)
    assert [loss.item() for loss in losses] == [(weight * loss).mean().item() for loss in expected.values()]
