"""Several chains of generation for one history, and what is left without the state or without the noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import Built

from recbole_diffusion.config.settings import UserError
from recbole_diffusion.model.embedding import EmbeddingDiffusionRecommender

SMALL = {"embedding_size": 8, "num_layers": 1, "num_heads": 2, "dropout": 0.0, "item_init_std": 1.0}
MODELS = ("DreamRec", "DiffDiv", "ADIGRec", "DiffuRec", "PreferDiff", "FMRec", "ADRec")
ROWS = [0, 1, 2, 3]


def _built(build: Callable[..., Built], model: str, **settings: Any) -> Built:
    fixed: dict[str, Any] = {"uncertainty": 0.5} if model in ("DiffuRec", "FMRec") else {}
    fixed["chain_start"] = "noise"
    built = build(model, **{**SMALL, **fixed, **settings})
    built.model.eval()
    return built


def _ranked(built: Built, rows: list[int]) -> torch.Tensor:
    return built.model.full_sort_predict(built.loaders.valid.dataset[rows])[:, 1:]


def test_with_several_chains_a_score_is_the_log_of_the_mean_probability(build: Callable[..., Built]) -> None:
    model = _built(build, "DreamRec", num_chains=3, ce_temperature=0.5).model
    x_0, table = torch.randn(2, 3, 8), model.item_embedding.weight.detach()
    probability = torch.zeros(2, len(table))
    for row in range(2):
        for chain in range(3):
            odds = torch.tensor([(2 * x_0[row, chain] @ e).exp() for e in table[1:]])
            probability[row, 1:] += odds / odds.sum() / 3
    torch.testing.assert_close(model.score(x_0).exp().detach(), probability)


def test_the_channels_of_diffdiv_are_compared_after_their_chains_are_averaged(build: Callable[..., Built]) -> None:
    model = _built(build, "DiffDiv", num_channels=2, num_chains=3, latent_size=8).model
    x_0 = torch.randn(2, 6, 8)
    mean = (x_0.view(2, 2, 3, 8) @ model.item_embedding.weight[1:].T).softmax(dim=-1).mean(dim=2)
    torch.testing.assert_close(model.score(x_0)[:, 1:], mean.amax(dim=1).log())


@pytest.mark.parametrize("model", MODELS)
def test_the_first_chain_is_the_only_one_of_before_and_the_others_differ(
    build: Callable[..., Built], model: str
) -> None:
    settings = {"sampling_steps": 3, "num_channels": 1} if model == "DiffDiv" else {"sampling_steps": 3}
    one, four = (_built(build, model, num_chains=count, **settings) for count in (1, 4))
    batch = one.loaders.valid.dataset[ROWS]
    alone, all_chains = one.model.generate(batch), four.model.generate(batch)
    assert alone.shape == (4, 1, 8) and all_chains.shape == (4, 4, 8)
    torch.testing.assert_close(alone[:, 0], all_chains[:, 0])
    for other in range(1, 4):
        assert (all_chains[:, other] - all_chains[:, 0]).norm(dim=-1).min() > 1e-4


@pytest.mark.parametrize("model", MODELS)
def test_a_ranking_by_chains_is_the_users_own_and_predict_agrees(build: Callable[..., Built], model: str) -> None:
    built = _built(build, model, num_chains=3, sampling_steps=2, max_cells=70)
    every = _ranked(built, ROWS)
    for row in ROWS:
        torch.testing.assert_close(_ranked(built, [row])[0], every[row])
    batch = built.loaders.valid.dataset[ROWS]
    scores = built.model.predict(batch)
    torch.testing.assert_close(scores, every.gather(1, batch[built.model.ITEM_ID].unsqueeze(1) - 1).squeeze(1))


@pytest.mark.parametrize("model", MODELS)
def test_without_the_state_the_denoiser_sees_zeros_and_draws_stay_the_same(
    build: Callable[..., Built], model: str
) -> None:
    settings = {"dropout": 0.0, "num_channels": 1} if model == "DiffDiv" else {}
    after = []
    for ablate in (None, "state", "noise"):
        built = _built(build, model, ablate=ablate, sampling_steps=3, **settings)
        seen: list[torch.Tensor] = []
        steps: list[torch.Tensor] = []

        def look(_: Any, inputs: Any, seen: list[Any] = seen, steps: list[Any] = steps) -> None:
            seen.append(inputs[0])
            steps.append(inputs[1])

        denoiser = built.model.denoiser
        if model == "FMRec":  # its training asks for a state inside the network too
            whole = denoiser.with_middle

            def looked_at(*inputs: Any, whole: Any = whole, look: Any = look) -> Any:
                look(None, inputs)
                return whole(*inputs)

            denoiser.with_middle = looked_at
        else:
            getattr(denoiser, "denoiser", denoiser).register_forward_pre_hook(look)
        batch = next(iter(built.loaders.train))
        torch.manual_seed(1)
        built.model.calculate_loss(batch)
        after.append((torch.rand(1), steps[0]))
        built.model.generate(built.loaders.valid.dataset[ROWS])
        built.model.diagnose(built.loaders.valid.dataset[ROWS])
        trained = 2 if model == "PreferDiff" else 1  # it looks at the negative too
        assert len(seen) == trained + 3 + 5  # the diagnosis looks at five timesteps
        assert all((x_t == 0).all() for x_t in seen) is (ablate == "state")
        if model != "ADRec" or ablate != "noise":  # it sees the items of the history too, which are no noise
            assert (seen[trained] == 0).all() == (ablate is not None)  # the start of the chain
    for draw, t in after[1:]:
        assert torch.equal(draw, after[0][0]) and torch.equal(t, after[0][1])


@pytest.mark.parametrize("model", ["DreamRec", "ADIGRec"])
@pytest.mark.parametrize("ablate", [None, "state", "noise"])
def test_without_state_or_noise_nothing_is_left_to_chance(
    build: Callable[..., Built], model: str, ablate: str | None
) -> None:
    settings = {"ablate": ablate, "sampler": "ddpm", "sampling_steps": 3}
    first, second = (_ranked(_built(build, model, eval_seed=seed, **settings), ROWS) for seed in (1, 2))
    assert torch.equal(first, second) is (ablate is not None)


@pytest.mark.parametrize("model", [model for model in MODELS if model != "ADRec"])  # sees known items
def test_a_chain_can_start_at_zero(build: Callable[..., Built], model: str) -> None:
    built = _built(build, model, chain_start="zero", sampling_steps=2)
    seen: list[torch.Tensor] = []
    denoiser = built.model.denoiser
    getattr(denoiser, "denoiser", denoiser).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    built.model.generate(built.loaders.valid.dataset[ROWS])
    assert (seen[0] == 0).all() and (seen[1] != 0).all()


@pytest.mark.parametrize(
    "settings", [{"chain_start": "zero"}, {"chain_start": "zero", "sampling_steps": 3}, {"ablate": "state"}]
)
def test_several_chains_that_would_be_equal_are_refused(build: Callable[..., Built], settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"num_chains=2 with .*same"):
        _built(build, "DreamRec", num_chains=2, **settings)


@pytest.mark.parametrize(
    ("model", "settings"),
    [("DreamRec", {"sampling_steps": 3, "eta": 1.0}), ("DiffDiv", {"num_channels": 1}), ("DiffuRec", {})],
)
def test_several_chains_from_zero_differ_where_something_else_is_drawn(
    build: Callable[..., Built], model: str, settings: dict[str, Any]
) -> None:
    built = _built(build, model, num_chains=2, chain_start="zero", **settings)
    chains = built.model.generate(built.loaders.valid.dataset[ROWS])
    assert (chains[:, 1] - chains[:, 0]).norm(dim=-1).min() > 1e-4


@pytest.mark.parametrize("model", ["DreamRec", "ADIGRec"])
def test_the_diagnosed_rank_is_from_noise_wherever_the_chain_starts(build: Callable[..., Built], model: str) -> None:
    zero, noise = (_built(build, model, chain_start=start) for start in ("zero", "noise"))
    rows = noise.loaders.valid.dataset[ROWS]
    assert zero.model.diagnose(rows) == noise.model.diagnose(rows)


def test_one_step_from_zero_does_not_depend_on_the_seed_of_generation(build: Callable[..., Built]) -> None:
    first, second = (_ranked(_built(build, "DreamRec", chain_start="zero", eval_seed=seed), ROWS) for seed in (1, 2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_without_noise_training_sees_the_scaled_target(build: Callable[..., Built]) -> None:
    model = _built(build, "DreamRec", ablate="noise").model
    assert isinstance(model, EmbeddingDiffusionRecommender)
    seen: list[Any] = []
    model.denoising_losses = lambda step, guidance, target: seen.append(step) or {"mse": step.x_0.sum(-1)}  # type: ignore
    built = _built(build, "DreamRec", ablate="noise")
    model.calculate_loss(next(iter(built.loaders.train)))
    (step,) = seen
    assert (step.noise == 0).all()
    torch.testing.assert_close(step.x_t, model.process.alpha_bar(step.t).sqrt().unsqueeze(-1) * step.x_0)


def test_diffrec_without_noise_starts_from_the_scaled_history(build: Callable[..., Built]) -> None:
    built = build("DiffRec", hidden_size=16, ablate="noise", start_steps=3)
    built.model.eval()
    seen: list[torch.Tensor] = []
    built.model.denoiser.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    batch = built.loaders.valid.dataset[ROWS]
    built.model.generate(batch)
    history = built.model.vectors(batch[built.model.ITEM_SEQ], batch[built.model.ITEM_SEQ_LEN])
    torch.testing.assert_close(seen[0], built.model.process.alpha_bar(2).sqrt() * history)
