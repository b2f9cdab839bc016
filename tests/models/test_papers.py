"""What the models of single papers compute, by the formulas of the papers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import Built
from recbole.data.interaction import Interaction
from torch import Tensor, nn

from recbole_diffusion.config.settings import UserError
from recbole_diffusion.diffusion.discrete import score_entropy
from recbole_diffusion.diffusion.noise import RowNoise
from recbole_diffusion.testing.markov import markov_sequences, write_atomic

SMALL = {"embedding_size": 16, "num_layers": 1, "num_heads": 2, "dropout": 0.0}
ITEMS, ACCURACY = 12, 0.8
CHANCE = sum(1 / math.log2(rank + 1) for rank in range(1, 6)) / ITEMS  # NDCG@5


class Recorded(nn.Module):
    """A denoiser that remembers its arguments and answers."""

    def __init__(self, denoiser: nn.Module) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.calls: list[tuple[Any, ...]] = []

    def forward(self, x_t: Tensor, t: Tensor, cond: Any) -> Tensor:
        output = self.denoiser(x_t, t, cond)
        self.calls.append((x_t, t, cond, output))
        return output


PADDED = {"bucket_by_length": False, "train_batch_size": 64}  # a batch of different lengths
CHAIN = {
    "dataset": "chain", "MAX_ITEM_LIST_LENGTH": 20, "topk": [5], "valid_metric": "NDCG@5", "metrics": ["NDCG"],
    "epochs": 8, "eval_step": 8, "learning_rate": 0.01, "train_batch_size": 8,
}  # fmt: skip


@pytest.fixture
def chain(tmp_path: Path) -> dict[str, Any]:
    """Settings of a run on a Markov chain."""
    folder = write_atomic(tmp_path / "data", "chain", markov_sequences(100, 18, ITEMS, ACCURACY))
    return {"data_path": str(folder), **CHAIN}


class Fixed(nn.Module):
    """A denoiser that always answers the same."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x_t: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        return self.answer


def _learn(built: Built) -> tuple[dict[int, float], float]:
    """The training loss of each epoch, and NDCG@5 on the test split."""
    built.trainer.fit(built.loaders.train, built.loaders.valid)
    return built.trainer.train_loss_dict, built.trainer.evaluate(built.loaders.test)["ndcg@5"]


def _losses(model: Any, batch: Any) -> dict[str, Tensor]:
    losses = model.calculate_loss(batch)
    return dict(zip(model.loss_names, losses, strict=True))


# --- PreferDiff


@pytest.mark.parametrize("of", ["row", "batch"])
def test_preferdiffs_losses_by_their_formula(build: Callable[..., Built], of: str) -> None:
    settings = {"mse_weight": 0.4, "preference_weight": 0.6, "preference_of": of, "stop_gradient_target": False}
    built = build("PreferDiff", **settings, **SMALL, p_uncond=0.5, num_negatives=None, negative_sampler=None)
    model = built.model
    batch = next(iter(built.loaders.train))
    recorded = model.denoiser.denoiser = Recorded(model.denoiser.denoiser)
    terms = _losses(model, batch)
    (x_t, t, cond, positive), (other_x_t, other_t, other_cond, negative) = recorded.calls
    assert other_t is t and other_cond is cond  # one timestep, and the same rows without a condition
    dropped = (cond == model.denoiser.null).all(dim=-1)
    assert dropped.any() and not dropped.all()
    targets = batch[model.TARGET_SEQ]
    targets = targets[targets != 0]
    x_0 = model.item_embedding(targets)
    goods, bads, centroids = [], [], []

    def error(a: Tensor, b: Tensor) -> Tensor:
        return (1 - a @ b / (a.norm() * b.norm())) ** 2

    for row in range(len(x_0)):
        others = torch.stack([x_0[other] for other in range(len(x_0)) if other != row]).mean(dim=0)
        centroids.append(others)
        goods.append(error(positive[row], x_0[row]))
        bads.append(error(negative[row], others))
    good, bad = torch.stack(goods), torch.stack(bads)
    if of == "batch":
        preference = torch.log(1 + torch.exp(-5.0 * (bad.mean() - good.mean())))
    else:
        preference = torch.log(1 + torch.exp(-5.0 * (bad - good))).mean()
    logits = positive @ model.item_embedding.weight[1:].T
    expected = {
        "error": 0.4 * good.mean(),
        "preference": 0.6 * preference,
        "ce": nn.functional.cross_entropy(logits, targets - 1),
    }
    assert terms.keys() == expected.keys()
    for name, term in terms.items():
        torch.testing.assert_close(term, expected[name])
    # The noise of the two is independent, and each has the size that its step says.
    noises = [
        (noised - model.process.q_sample(data, t, torch.zeros_like(data))).detach()
        / model.process.beta_between(t, -1).sqrt().unsqueeze(-1)
        for noised, data in ((x_t, x_0), (other_x_t, torch.stack(centroids)))
    ]
    assert all(noise.std().item() == pytest.approx(1, abs=0.05) for noise in noises)
    assert abs((noises[0] * noises[1]).mean().item()) < 0.05


def test_a_preference_is_low_where_the_target_is_met_and_its_rival_is_not(build: Callable[..., Built]) -> None:
    """With x0_hat = x_0 for the target and -x_0 for the rival, the errors are 0 and 4."""
    built = build("PreferDiff", mse_weight=1.0, preference_weight=1.0, ce_weight=0.0, preference_scale=0.5, **SMALL,
                  num_negatives=None, negative_sampler=None)  # fmt: skip
    model, answers = built.model, []

    class Perfect(nn.Module):
        def forward(self, x_t: Tensor, t: Tensor, cond: Tensor) -> Tensor:
            answers.append(x_t)
            return targets if len(answers) == 1 else -(targets.sum(dim=0) - targets)

    batch = next(iter(built.loaders.train))
    targets = model.item_embedding(batch[model.TARGET_SEQ][batch[model.TARGET_SEQ] != 0]).detach()
    model.denoiser.denoiser = Perfect()
    terms = _losses(model, batch)
    assert terms["error"].item() == pytest.approx(0, abs=1e-6)
    assert terms["preference"].item() == pytest.approx(torch.log1p(torch.exp(torch.tensor(-2.0))).item(), rel=1e-4)


def test_without_noise_the_rival_has_none_either(build: Callable[..., Built]) -> None:
    built = build("PreferDiff", ablate="noise", **SMALL)
    model, batch = built.model, next(iter(built.loaders.train))
    recorded = model.denoiser.denoiser = Recorded(model.denoiser.denoiser)
    model.calculate_loss(batch)
    targets = batch[model.TARGET_SEQ]
    x_0 = model.item_embedding(targets[targets != 0])
    for (x_t, t, *_), data in zip(recorded.calls, (x_0, (x_0.sum(dim=0) - x_0) / (len(x_0) - 1)), strict=True):
        torch.testing.assert_close(x_t, model.process.alpha_bar(t).sqrt().unsqueeze(-1) * data)


# --- FMRec


def _histories(*rows: list[int], width: int = 6) -> Interaction:
    padded = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    return Interaction({"item_id_list": padded, "item_length": torch.tensor([len(row) for row in rows])})


def test_the_decoder_of_fmrec_is_held_to_the_history_and_to_items_outside_it(
    build: Callable[..., Built], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build("FMRec", reconstruction_weight=0.5, item_init_std=1.0, **SMALL).model
    history = _histories([3, 5, 3, 7], [9])
    drawn = torch.tensor([[3, 20, 21, 21, 8, 8], [11, 9, 2, 2, 2, 2]])  # 3 is in the first history
    monkeypatch.setattr(torch, "randint_like", lambda *given: drawn)
    h, table = torch.randn(2, 16), model.item_embedding.weight
    scores = model.decoder.mlp(h) @ table.T
    expected = [
        ((1 - scores[0, [3, 5, 7]]) ** 2).sum() + (scores[0, [20, 21, 21]] ** 2).sum(),
        (1 - scores[1, 9]) ** 2 + scores[1, 11] ** 2,
    ]
    found = model.decoder(h, history["item_id_list"], history["item_length"], table)
    torch.testing.assert_close(found, torch.stack(expected) / 30)


def test_the_middle_of_fmrec_is_the_last_items_state_after_half_of_the_blocks(build: Callable[..., Built]) -> None:
    model = build("FMRec", **{**SMALL, "num_layers": 4, "uncertainty": 0.0}).model.eval()
    guidance = model.last_state(_histories([3, 5, 3, 7], [9]))
    middle = model.denoiser.with_middle(torch.zeros(2, 16), torch.zeros(2, dtype=torch.long), guidance)[1]
    real = torch.arange(6) < guidance.length.unsqueeze(-1)
    z = guidance.items
    for block in model.denoiser.blocks[:2]:
        z = block(z, real[:, None, None, :])
    torch.testing.assert_close(middle, z[[0, 1], guidance.length - 1])


@pytest.mark.parametrize("keep", [0.25, 1 - 1e-9])
def test_a_path_from_the_history_begins_at_a_part_of_one_of_its_items(build: Callable[..., Built], keep: float) -> None:
    model = build("FMRec", prior="history", prior_keep=keep, item_init_std=1.0, **SMALL).model.eval()
    history = _histories(*[[3, 5, 7]] * 2000)
    guidance, table = model.last_state(history), model.item_embedding.weight.detach()
    torch.manual_seed(0)
    trained = model.training_step(torch.zeros(2000, 16), guidance, None).noise
    generated = model.start_noise(RowNoise(torch.arange(2000)), guidance)
    for start in (trained, generated):
        kept = start != 0
        assert kept.float().mean().item() == pytest.approx(keep, abs=0.02)
        is_item = torch.stack([(start == table[item]) | ~kept for item in (3, 5, 7)]).all(dim=-1)  # [3, rows]
        assert is_item.any(dim=0).all()
        if keep > 0.5:
            torch.testing.assert_close(is_item.float().mean(dim=1), torch.full((3,), 1 / 3), atol=0.05, rtol=0)


def test_the_one_step_term_compares_the_path_with_its_beginning(build: Callable[..., Built]) -> None:
    settings = {"one_step_weight": 2.0, "reconstruction_weight": 0.0, "mse_weight": 1.0, "ce_weight": 0.0}
    built = build("FMRec", prior="history", **settings, **SMALL)
    model, steps = built.model, []
    model.denoiser.with_middle = lambda x_t, t, history: (x_t * 3 + t.unsqueeze(-1), x_t)
    plain = model.denoising_losses
    model.denoising_losses = lambda step, *others: steps.append(step) or plain(step, *others)
    terms = _losses(model, next(iter(built.loaders.train)))
    (step,) = steps
    share = ((step.t + 1) / 1000).unsqueeze(-1)
    torch.testing.assert_close(step.x_t, (1 - share) * step.x_0 + share * step.noise)
    difference = 3 * (step.x_t - step.noise) + (step.t - 999).unsqueeze(-1)
    torch.testing.assert_close(terms["one_step"], 2.0 * difference.square().mean())


def test_fmrec_generates_the_mean_of_its_predictions(build: Callable[..., Built]) -> None:
    built = build("FMRec", sampling_steps=4, timesteps=20, **SMALL)
    model, seen = built.model.eval(), []
    model.denoiser.forward = lambda x_t, t, history: seen.append((x_t, t)) or x_t.sin() + t.unsqueeze(-1) / 7
    x_0 = model.generate(built.loaders.valid.dataset[[0, 1, 2]])[:, 0]
    assert [int(t[0]) for _, t in seen] == [19, 13, 6, 0]
    lengths = [6 / 20, 7 / 20, 6 / 20, 1 / 20]
    answers = [x_t.sin() + t.unsqueeze(-1) / 7 for x_t, t in seen]
    torch.testing.assert_close(x_0, sum(a * length for a, length in zip(answers, lengths, strict=True)))


# --- DreamRec


@pytest.mark.parametrize("prediction", ["x0", "v"])
def test_dreamrec_learns_a_markov_chain_along_a_straight_path(
    build: Callable[..., Built], chain: dict[str, Any], prediction: str
) -> None:
    path = {"process": "straight", "noise_schedule": None, "sampler": "euler", "sampling_steps": 4, "timesteps": 50}
    skip = prediction == "x0"
    losses, ndcg = _learn(build("DreamRec", **SMALL, prediction=prediction, denoiser_skip=skip, **path, **chain))
    assert losses[7] < 0.8 * losses[0]
    assert ndcg > 2 * CHANCE


# --- ADRec


ADREC = {**SMALL, "embedding_dropout": 0.0, "num_negatives": None, "negative_sampler": None, "token_weight": 0.1,
         "sampler": "ddpm", "sampling_steps": 2, "stop_gradient_target": False}  # fmt: skip


def test_adrecs_losses_by_their_formula(build: Callable[..., Built]) -> None:
    built = build("ADRec", **ADREC, mse_weight=0.5, ce_weight=0.5, **PADDED)
    model = built.model
    batch = next(iter(built.loaders.train))
    recorded = model.denoiser = Recorded(model.denoiser)
    terms = dict(zip(("mse", "ce"), model.calculate_loss(batch), strict=True))
    assert model.loss_names == tuple(terms)
    ((x_t, t, _, output),) = recorded.calls
    targets, table = batch[model.TARGET_SEQ], model.item_embedding.weight
    real = [(row, place) for row, place in torch.nonzero(targets).tolist()]
    assert len(real) < targets.numel()  # there is padding
    assert t.shape == targets.shape and len(t[0].unique()) > 1  # every token has a step of its own
    squared, cross = [], []
    for row, place in real:
        item = int(targets[row, place])
        squared.append(((output[row, place] - table[item]) ** 2).sum() / 16)
        logits = table[1:] @ output[row, place]
        cross.append(torch.logsumexp(logits, dim=0) - logits[item - 1])
    torch.testing.assert_close(terms["mse"], 0.5 * torch.stack(squared).mean())
    torch.testing.assert_close(terms["ce"], 0.5 * torch.stack(cross).mean())
    noise = x_t - model.process.alpha_bar(t).sqrt().unsqueeze(-1) * table[targets]
    noise = (noise / model.process.beta_between(t, -1).sqrt().unsqueeze(-1)).detach()[targets != 0]
    assert noise.std().item() == pytest.approx(1, abs=0.03) and abs(noise.mean().item()) < 0.03


def test_a_stage_of_plain_cross_entropy_is_a_mean_over_what_is_no_padding(build: Callable[..., Built]) -> None:
    model = (built := build("ADRec", **ADREC, **PADDED)).model
    batch = next(iter(built.loaders.train))
    targets = batch[model.TARGET_SEQ]
    (loss,) = model.next_item_loss(batch)
    real = targets != 0
    logits = model.encode(batch[model.ITEM_SEQ])[real] @ model.item_embedding.weight[1:].T
    torch.testing.assert_close(loss, F.cross_entropy(logits, targets[real] - 1))


def test_padding_of_a_sequence_is_neither_learned_nor_told_to_the_timestep_sampler(
    build: Callable[..., Built], monkeypatch: pytest.MonkeyPatch
) -> None:
    built = build("ADRec", **ADREC, timestep_sampler="loss_second_moment", **PADDED)
    model = built.model
    batch = next(iter(built.loaders.train))
    told: list[tuple[Tensor, Tensor]] = []
    monkeypatch.setattr(model.timestep_sampler, "update", lambda t, losses: told.append((t, losses)))
    real = batch[model.TARGET_SEQ] != 0
    assert not real.all()
    losses = []
    for content in (0.0, 9.0):  # of the answers at padding positions
        answer = torch.randn(*real.shape, 16, generator=torch.Generator().manual_seed(0))
        answer[~real] = content
        model.denoiser = Fixed(answer)
        torch.manual_seed(1)
        losses.append(torch.stack(model.calculate_loss(batch)))
    torch.testing.assert_close(*losses)
    (t, first), (_, second) = told
    assert t.shape == first.shape == (int(real.sum()),)
    torch.testing.assert_close(first, second)


def test_generation_noises_the_next_item_alone_and_knows_the_others(build: Callable[..., Built]) -> None:
    built = build("ADRec", **ADREC)
    model = built.model.eval()
    batch = built.loaders.valid.dataset[:]
    recorded = model.denoiser = Recorded(model.denoiser)
    model.full_sort_predict(batch)
    length = batch[model.ITEM_SEQ_LEN].tolist()
    assert len(set(length)) > 1
    for (x_t, t, _, _), step in zip(recorded.calls, [31, 0], strict=True):
        for row, n in enumerate(length):
            known = model.item_embedding(batch[model.ITEM_SEQ][row, 1:n])
            assert torch.equal(x_t[row, : n - 1], known)
            assert t[row, :n].tolist() == [0] * (n - 1) + [step]
    # A row's ranking is the same alone and under any padding.
    shortest = length.index(min(length))
    alone = Interaction({key: batch[key][shortest : shortest + 1] for key in batch})
    alone[model.ITEM_SEQ] = alone[model.ITEM_SEQ][:, : length[shortest]]
    torch.testing.assert_close(model.full_sort_predict(alone)[0], model.full_sort_predict(batch)[shortest])


def test_adrecs_three_stages_are_three_lines_of_settings(build: Callable[..., Built], chain: dict[str, Any]) -> None:
    stages = [{"epochs": 2, "loss": "next_item"}, {"epochs": 3, "freeze": ["item_embedding"]}, {}]
    built = build(
        "ADRec", **ADREC, **{**chain, "stages": stages, "eval_step": 1, "weight_decay": 0.01, "learning_rate": 0.02}
    )
    tables: list[Tensor] = []
    plain = built.trainer._valid_epoch

    def validated(*arguments: Any, **named: Any) -> Any:
        tables.append(built.model.item_embedding.weight.detach().clone())
        return plain(*arguments, **named)

    built.trainer._valid_epoch = validated
    _, ndcg = _learn(built)
    assert [torch.equal(a, b) for a, b in itertools.pairwise(tables)] == [False, True, True, True, False, False, False]
    assert [list(entry["losses"]) for entry in built.trainer.history] == [["next_item"]] * 2 + [["mse", "ce"]] * 6
    assert ndcg > 2 * CHANCE


# --- PreferGrow


GROW = {**SMALL, "num_negatives": None, "negative_sampler": None}
RATIO = {**GROW, "prediction": "ratio", "ce_weight": 0.0, "denoiser_skip": False}


@pytest.mark.parametrize("share", [1.0, 0.4, 0.0])
def test_prefergrow_replaces_by_its_law_and_counts_the_entropy_of_ratios(
    build: Callable[..., Built], share: float
) -> None:
    built = build("PreferGrow", item_share=share, **RATIO)
    model, batch = built.model, next(iter(built.loaders.train))
    expected = [share / 30] * 30 + ([1 - share] if share < 1 else [])
    torch.testing.assert_close(model.law, torch.tensor(expected))
    steps: list[Any] = []
    plain = model.denoising_losses
    model.denoising_losses = lambda step, *others: steps.append((step, *others)) or plain(step, *others)
    terms = _losses(model, batch)
    (step, guidance, target) = steps[0]
    assert torch.equal(step.x_0.squeeze(-1), target - 1)
    kept = step.x_t == step.x_0
    assert kept.any() and not kept.all()
    assert ((step.x_t == 30) == ~kept).all() or share > 0
    output = model.denoiser(model.embedded(step.x_t), step.t, guidance)
    sigma = model.process.sigma(step.t)
    found = score_entropy(output @ model.states().T, target - 1, step.x_t.squeeze(-1), sigma, model.law)
    expected_loss = (sigma * math.log(1e4) * found).mean()
    torch.testing.assert_close(terms["ratio"], expected_loss, rtol=1e-4, atol=1e-4)


def test_an_items_probability_is_the_products_and_its_chain_ends_at_scores(build: Callable[..., Built]) -> None:
    built = build("PreferGrow", sampling_steps=3, item_share=0.5, **GROW)
    model, batch = built.model.eval(), built.loaders.valid.dataset[[0, 1, 2]]
    seen: list[Tensor] = []
    plain = model.predict_x0
    model.predict_x0 = lambda x_t, t, guidance: seen.append(x_t) or plain(x_t, t, guidance)
    x_0 = model.generate(batch)
    assert [x_t.shape for x_t in seen] == [(3, 1)] * 3 and x_0.shape == (3, 1, 16)
    torch.testing.assert_close(model.score(x_0), x_0[:, 0] @ model.item_embedding.weight.T)
    p = model.probabilities(x_0[:, 0], seen[-1])
    assert (p[:, 30] == 0).all()  # the target is an item
    torch.testing.assert_close(p[:, :30], (x_0[:, 0] @ model.item_embedding.weight[1:].T).softmax(dim=-1))


def test_ratios_rank_by_the_last_analytic_step(build: Callable[..., Built]) -> None:
    built = build("PreferGrow", sampling_steps=4, item_share=0.5, item_init_std=1.0, **RATIO)
    model, batch = built.model.eval(), built.loaders.valid.dataset[[0, 1, 2]]
    x_0 = model.generate(batch)
    output, state, table = x_0[:, 0, :16], x_0[:, 0, 16].long(), model.states()
    delta, e = model.process.sigma(0).double(), model.law.double()
    for row, scores in enumerate(model.score(x_0)):
        ratios = (table.double() @ output[row].double()).exp()
        ratios[state[row]] = 1.0
        q = (delta.exp() * ratios + (1 - delta.exp()) * e * ratios.sum()).clamp(min=0)
        q *= (1 - (-delta).exp()) * e[state[row]] + (-delta).exp() * (torch.arange(31) == state[row])
        torch.testing.assert_close(scores[1:].exp().double(), (q / q.sum())[:30], rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("prediction", ["x0", "ratio"])
def test_several_chains_of_prefergrow_are_averaged_and_predict_agrees(
    build: Callable[..., Built], prediction: str
) -> None:
    settings = GROW if prediction == "x0" else RATIO
    built = build("PreferGrow", sampling_steps=3, num_chains=3, item_init_std=1.0, max_cells=130, **settings)
    model, batch = built.model.eval(), built.loaders.valid.dataset[[0, 1, 2, 3]]
    scores = model.full_sort_predict(batch)[:, 1:]
    torch.testing.assert_close(scores.exp().sum(dim=1), torch.ones(4))
    own = scores.gather(1, batch["item_id"].unsqueeze(1) - 1).squeeze(1)
    torch.testing.assert_close(model.predict(batch), own, rtol=1e-4, atol=1e-5)


def test_without_the_state_prefergrow_sees_zeros(build: Callable[..., Built]) -> None:
    built = build("PreferGrow", ablate="state", sampling_steps=3, **GROW)
    model, seen = built.model, []
    model.denoiser.denoiser.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model.calculate_loss(next(iter(built.loaders.train)))
    model.eval().generate(built.loaders.valid.dataset[[0, 1, 2]])
    assert len(seen) == 4 and all((vector == 0).all() for vector in seen)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ablate": "noise"}, "ablate=noise with process=replacement: .* no noise"),
        ({"mse_weight": 1.0}, "mse_weight=1.0 with process=replacement: must be 0.0"),
        ({"rescale_x0": True}, "rescale_x0=True with process=replacement: must be False"),
        ({"noise_schedule": "cosine"}, "noise_schedule=cosine with process=replacement: must be ~"),
        ({"prediction": "ratio", "denoiser_skip": False}, "ce_weight=1 with prediction=ratio"),
        ({**RATIO, "ablate": "state"}, "ablate=state with prediction=ratio"),
    ],
)
def test_what_a_discrete_process_cannot_do_is_refused(
    build: Callable[..., Built], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        build("PreferGrow", **{**GROW, **settings})


@pytest.mark.parametrize(
    ("model", "settings"), [("PreferGrow", {}), ("FMRec", {"prior": "history", "prior_keep": 0.5})]
)
def test_a_start_at_zero_is_refused_where_a_chain_starts_at_an_item(
    build: Callable[..., Built], model: str, settings: dict[str, Any]
) -> None:
    with pytest.raises(UserError, match="chain_start=zero with"):
        build(model, chain_start="zero", **settings)
