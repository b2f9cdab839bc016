"""Sketches of models that the package does not have: they show that its base has what a new model needs.

PreferDiff (Liu et al., ICLR 2025, arXiv 2410.13117) compares two denoising errors at the same timestep. ADRec (KDD
2025, arXiv 2505.19544) adds noise to a whole sequence, and each position has its own timestep. Details such as initial
values and sizes are left out.
"""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from conftest import Built
from recbole.data.interaction import Interaction
from torch import Tensor, nn

from recbole_diffusion.diffusion.denoiser import TimestepEmbedding
from recbole_diffusion.diffusion.step import Step
from recbole_diffusion.model.dreamrec import DreamRec
from recbole_diffusion.model.embedding import EmbeddingDiffusionRecommender
from recbole_diffusion.model.layers import TransformerBlock
from recbole_diffusion.testing.markov import markov_sequences, write_atomic
from recbole_diffusion.training.trainer import DiffusionTrainer

# --- PreferDiff


def cosine_error(prediction: Tensor, x_0: Tensor) -> Tensor:
    """``(1 - cos)^2``, [*leading]."""
    return (1 - F.cosine_similarity(prediction, x_0, dim=-1)).square()


class PreferDiff(DreamRec):
    """Prefers the target to the mean of the other targets in the batch, by their denoising errors at the same t."""

    preference_weight, sharpness = 0.6, 5.0  # 1 - lambda, gamma

    def denoising_losses(self, step: Step, guidance: Tensor, target: Tensor) -> dict[str, Tensor]:
        negative = (step.x_0.sum(dim=0) - step.x_0) / (len(step.x_0) - 1)
        x_t = self.process.q_sample(negative, step.t, torch.randn_like(negative))
        error = cosine_error(self.denoiser(step.x_t, step.t, guidance), step.x_0)
        negative_error = cosine_error(self.denoiser(x_t, step.t, guidance), negative)
        preference = -F.logsigmoid(self.sharpness * (negative_error - error))
        w = self.preference_weight
        return {"error": (1 - w) * error, "preference": w * preference}


# --- ADRec


class Known(NamedTuple):
    """The guidance at generation: the states of a history, the items after each position, and the place of the next."""

    states: Tensor  # [rows, length, dim]
    items: Tensor  # [rows, length, dim]
    last: Tensor  # [rows]


class SequenceDenoiser(nn.Module):
    """``f(c + delta (x_t + tau(t)))``, causal: x0_hat at every position depends on this position and earlier ones."""

    def __init__(self, blocks: nn.ModuleList, dim: int, delta: float) -> None:
        super().__init__()
        self.blocks, self.delta, self.tau = blocks, delta, TimestepEmbedding(dim, 4 * dim, nn.SiLU())

    def forward(self, x_t: Tensor, t: Tensor, states: Tensor) -> Tensor:
        """x0_hat [batch, length, dim] from x_t and c of the same shape and t [batch, length]."""
        z = states + self.delta * (x_t + self.tau(t))
        for block in self.blocks:
            z = block(z, causal=True)
        return z


class ADRec(EmbeddingDiffusionRecommender):
    """Denoises the item after every position of a window. Each position has its own timestep."""

    stage_losses: ClassVar[tuple[str, ...]] = ("next_item",)

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        s = self.settings
        encoder, denoiser = (
            nn.ModuleList(TransformerBlock(s.embedding_size, s.num_heads, s.dropout) for _ in range(s.num_layers))
            for _ in range(2)
        )
        self.encoder, self.norm = encoder, nn.LayerNorm(s.embedding_size)
        self.denoiser = SequenceDenoiser(denoiser, s.embedding_size, delta=0.1)

    def encode(self, item_seq: Tensor) -> Tensor:
        states = self.norm(self.item_embedding(item_seq))
        for block in self.encoder:
            states = block(states, causal=True)
        return states

    def training_pairs(self, interaction: Interaction) -> tuple[Tensor, Tensor]:
        return self.encode(interaction[self.ITEM_SEQ]), interaction[self.TARGET_SEQ]

    def last_state(self, interaction: Interaction) -> Known:
        history = interaction[self.ITEM_SEQ]
        followed = self.item_embedding(F.pad(history[:, 1:], (0, 1)))
        return Known(self.encode(history), followed, self.history_length(interaction) - 1)

    def guided_denoiser(self, x_t: Tensor, t: Tensor, guidance: Known) -> Tensor:
        place = torch.arange(len(x_t), device=x_t.device), guidance.last
        steps = t.new_zeros(guidance.items.shape[:-1]).index_put(place, t)  # known items have no noise
        return self.denoiser(guidance.items.index_put(place, x_t), steps, guidance.states)[place]


# --- what they are held to

ITEMS, ACCURACY = 12, 0.8
CHANCE = sum(1 / math.log2(rank + 1) for rank in range(1, 6)) / ITEMS  # NDCG@5
SMALL = {"embedding_size": 16, "num_layers": 1, "num_heads": 2, "dropout": 0.0}
SKETCHES: dict[type[EmbeddingDiffusionRecommender], dict[str, Any]] = {
    PreferDiff: {"item_init_std": 1.0, "embedding_size": 32, "guidance_strength": 1.0, "sampling_steps": 5},
    ADRec: {
        "timesteps": 32, "noise_schedule": "truncated_linear", "timestep_sampler": "uniform", "sampling_steps": 2,
        "sampler": "ddpm", "stop_gradient_target": False,
    },
}  # fmt: skip


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


@pytest.fixture
def sketch(build: Callable[..., Built]) -> Callable[..., Built]:
    """``sketch(model_class, **settings)``: a model without its own YAML file, with its loaders and trainer."""

    def make(model_class: type[EmbeddingDiffusionRecommender], **settings: Any) -> Built:
        built = build("DreamRec", **{**SMALL, **SKETCHES.get(model_class, {}), **settings})
        torch.manual_seed(0)
        model = model_class(built.config, built.loaders.train._dataset).to(built.config["device"])
        trainer = DiffusionTrainer(built.config, model)
        trainer.vocabulary = built.trainer.vocabulary
        return built._replace(model=model, trainer=trainer)

    return make


def _learn(built: Built) -> tuple[dict[int, float], float]:
    """The training loss of each epoch, and NDCG@5 on the test split."""
    built.trainer.fit(built.loaders.train, built.loaders.valid)
    return built.trainer.train_loss_dict, built.trainer.evaluate(built.loaders.test)["ndcg@5"]


@pytest.mark.parametrize("model_class", SKETCHES)
def test_a_paper_is_less_than_60_lines(model_class: type) -> None:
    parts = {PreferDiff: (cosine_error, PreferDiff), ADRec: (Known, SequenceDenoiser, ADRec)}[model_class]
    assert sum(len(inspect.getsource(part).splitlines()) for part in parts) < 60


@pytest.mark.parametrize("model_class", SKETCHES)
def test_it_learns_a_markov_chain(
    sketch: Callable[..., Built], chain: dict[str, Any], model_class: type[EmbeddingDiffusionRecommender]
) -> None:
    losses, ndcg = _learn(sketch(model_class, **chain))
    assert losses[7] < 0.6 * losses[0]
    assert ndcg > 2 * CHANCE


@pytest.mark.parametrize("prediction", ["x0", "v"])
def test_dreamrec_learns_a_markov_chain_along_a_straight_path(
    sketch: Callable[..., Built], chain: dict[str, Any], prediction: str
) -> None:
    path = {"process": "straight", "noise_schedule": None, "sampler": "euler", "sampling_steps": 4, "timesteps": 50}
    skip = prediction == "x0"
    losses, ndcg = _learn(sketch(DreamRec, prediction=prediction, denoiser_skip=skip, **path, **chain))
    assert losses[7] < 0.8 * losses[0]
    assert ndcg > 2 * CHANCE


class Recorded(nn.Module):
    """A denoiser that remembers its arguments and answers."""

    def __init__(self, denoiser: nn.Module) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.calls: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    def forward(self, x_t: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        output = self.denoiser(x_t, t, cond)
        self.calls.append((x_t, t, cond, output))
        return output


class Fixed(nn.Module):
    """A denoiser that always answers the same."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x_t: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        return self.answer


def test_preferdiffs_loss_by_its_formula(sketch: Callable[..., Built]) -> None:
    built = sketch(PreferDiff, stop_gradient_target=False, p_uncond=0.5)
    model = built.model
    batch = next(iter(built.loaders.train))
    recorded = model.denoiser.denoiser = Recorded(model.denoiser.denoiser)
    terms = dict(zip(("error", "preference"), model.calculate_loss(batch), strict=True))
    assert model.loss_names == tuple(terms)
    (x_t, t, cond, positive), (other_x_t, other_t, other_cond, negative) = recorded.calls
    assert other_t is t and other_cond is cond  # one timestep, and the same rows without a condition
    dropped = (cond == model.denoiser.null).all(dim=-1)
    assert dropped.any() and not dropped.all()
    targets = batch[model.TARGET_SEQ]
    x_0 = model.item_embedding(targets[targets != 0])
    rows = len(x_0)
    errors, preferences, centroids = [], [], []
    for row in range(rows):
        others = torch.stack([x_0[other] for other in range(rows) if other != row]).mean(dim=0)
        centroids.append(others)

        def error(a: Tensor, b: Tensor) -> Tensor:
            return (1 - a @ b / (a.norm() * b.norm())) ** 2

        good, bad = error(positive[row], x_0[row]), error(negative[row], others)
        errors.append(0.4 * good)
        preferences.append(0.6 * torch.log(1 + torch.exp(-5.0 * (bad - good))))
    torch.testing.assert_close(terms["error"], torch.stack(errors).mean())
    torch.testing.assert_close(terms["preference"], torch.stack(preferences).mean())
    # The noise of the two is independent, and each has the size that its step says.
    noises = [
        (noised - model.process.q_sample(data, t, torch.zeros_like(data))).detach()
        / model.process.beta_between(t, -1).sqrt().unsqueeze(-1)
        for noised, data in ((x_t, x_0), (other_x_t, torch.stack(centroids)))
    ]
    assert all(noise.std().item() == pytest.approx(1, abs=0.05) for noise in noises)
    assert abs((noises[0] * noises[1]).mean().item()) < 0.05


def test_adrecs_losses_by_their_formula(sketch: Callable[..., Built]) -> None:
    built = sketch(ADRec, mse_weight=0.5, ce_weight=0.5, **PADDED)
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


def test_a_stage_of_plain_cross_entropy_is_a_mean_over_what_is_no_padding(sketch: Callable[..., Built]) -> None:
    model = (built := sketch(ADRec, **PADDED)).model
    batch = next(iter(built.loaders.train))
    targets = batch[model.TARGET_SEQ]
    (loss,) = model.next_item_loss(batch)
    real = targets != 0
    logits = model.encode(batch[model.ITEM_SEQ])[real] @ model.item_embedding.weight[1:].T
    torch.testing.assert_close(loss, F.cross_entropy(logits, targets[real] - 1))


def test_padding_of_a_sequence_is_neither_learned_nor_told_to_the_timestep_sampler(
    sketch: Callable[..., Built], monkeypatch: pytest.MonkeyPatch
) -> None:
    built = sketch(ADRec, timestep_sampler="loss_second_moment", **PADDED)
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


def test_generation_noises_the_next_item_alone_and_knows_the_others(sketch: Callable[..., Built]) -> None:
    built = sketch(ADRec)
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


def test_adrecs_three_stages_are_three_lines_of_settings(sketch: Callable[..., Built], chain: dict[str, Any]) -> None:
    stages = [{"epochs": 2, "loss": "next_item"}, {"epochs": 3, "freeze": ["item_embedding"]}, {}]
    built = sketch(ADRec, **{**chain, "stages": stages, "eval_step": 1, "weight_decay": 0.01, "learning_rate": 0.02})
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
