"""DiffRec's interaction vectors, loss and generation, what it learns, and its memory on a large catalogue."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Built
from recbole.data.interaction import Interaction

from recbole_diffusion.config.settings import UserError
from recbole_diffusion.model.diffrec import interaction_vectors
from recbole_diffusion.testing.markov import write_atomic

SMALL = {"hidden_size": 16}


class Fixed(torch.nn.Module):
    """A denoiser that always answers with one tensor, and remembers its arguments."""

    def __init__(self, answer: torch.Tensor) -> None:
        super().__init__()
        self.answer = answer
        self.x_t: list[torch.Tensor] = []
        self.t: list[torch.Tensor] = []

    def forward(self, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        self.x_t.append(x_t)
        self.t.append(t)
        return self.answer


class Given(torch.nn.Module):
    """A timestep sampler that draws known steps with known weights."""

    def __init__(self, t: torch.Tensor, weight: torch.Tensor) -> None:
        super().__init__()
        self.t, self.weight = t, weight
        self.updates: list[tuple[torch.Tensor, torch.Tensor]] = []

    def draw(self, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.t[:rows], self.weight[:rows]

    def update(self, t: torch.Tensor, losses: torch.Tensor) -> None:
        self.updates.append((t, losses))


def _history(built: Built, *histories: list[int]) -> Interaction:
    width = max(map(len, histories)) + 1
    rows = torch.tensor([history + [0] * (width - len(history)) for history in histories])
    length = torch.tensor([len(history) for history in histories])
    return Interaction({built.model.ITEM_SEQ: rows, built.model.ITEM_SEQ_LEN: length})


def test_vectors_by_hand() -> None:
    items = torch.tensor([[3, 1, 4, 2, 5], [4, 0, 0, 0, 0], [2, 5, 0, 0, 0]])
    length = torch.tensor([5, 1, 2])
    plain = torch.tensor([[1.0, 1, 1, 1, 1, 0], [0, 0, 0, 1, 0, 0], [0, 1, 0, 0, 1, 0]])
    assert torch.equal(interaction_vectors(items, length, 6), plain)
    aware = torch.tensor([[0.4, 0.8, 0.2, 0.6, 1.0, 0], [0, 0, 0, 1, 0, 0], [0, 0.2, 0, 0, 1, 0]])
    torch.testing.assert_close(interaction_vectors(items, length, 6, 0.2, 1.0), aware)


def test_the_newest_of_equal_items_counts_and_padding_does_not() -> None:
    items = torch.tensor([[2, 1, 2, 3, 1, 6]])  # the last two are padding
    expected = torch.tensor([[0.4, 0.7, 1.0, 0, 0, 0]])
    torch.testing.assert_close(interaction_vectors(items, torch.tensor([4]), 6, 0.1, 1.0), expected)
    zeros = torch.tensor([[2, 1, 2, 3, 0, 0]])
    torch.testing.assert_close(interaction_vectors(zeros, torch.tensor([4]), 6, 0.1, 1.0), expected)


@pytest.mark.parametrize("time_aware", [False, True])
def test_the_target_is_in_the_vector_of_a_training_row_and_not_of_an_evaluated_one(
    build: Callable[..., Built], time_aware: bool
) -> None:
    built = build("DiffRec", time_aware=time_aware, w_min=0.5, w_max=2.0, **SMALL)
    row = _history(built, [7, 9, 7])
    row.update(Interaction({built.model.ITEM_ID: torch.tensor([12])}))
    expected = torch.zeros(30)
    expected[[8, 6, 11]] = torch.tensor([1.0, 1.5, 2.0]) if time_aware else torch.ones(3)
    torch.testing.assert_close(built.model.training_vectors(row), expected.unsqueeze(0))

    fixed = built.model.denoiser = Fixed(torch.zeros(1, 30))
    built.model.generate(row)
    expected[[8, 6, 11]] = torch.tensor([1.25, 2.0, 0.0]) if time_aware else torch.tensor([1.0, 1.0, 0.0])
    torch.testing.assert_close(fixed.x_t[0], expected.unsqueeze(0))


def test_a_full_history_still_has_room_for_its_target(build: Callable[..., Built]) -> None:
    built = build("DiffRec", time_aware=False, MAX_ITEM_LIST_LENGTH=3, **SMALL)
    batch = next(iter(built.loaders.train))
    full = batch[built.model.ITEM_SEQ_LEN] == 3
    vectors = built.model.training_vectors(batch)
    assert full.any()
    for row in torch.nonzero(full).squeeze(-1):
        items = {*batch[built.model.ITEM_SEQ][row].tolist(), int(batch[built.model.ITEM_ID][row])}
        assert (torch.nonzero(vectors[row]).squeeze(-1) + 1).tolist() == sorted(items)


@pytest.mark.parametrize("schedule", ["linear_variance", "binomial"])
def test_snr_weights_by_their_closed_form(build: Callable[..., Built], schedule: str) -> None:
    variances = {"noise_scale": 0.5, "noise_min": 0.2, "noise_max": 0.8, "first_beta": None}
    if schedule == "binomial":
        variances = dict.fromkeys(variances)
    model = build("DiffRec", noise_schedule=schedule, timesteps=4, sampling_steps=4, **variances, **SMALL).model
    if schedule == "linear_variance":
        abar = [0.9, 0.8, 0.7, 0.6]
    else:
        abar = np.cumprod([1 - 1 / 5, 1 - 1 / 4, 1 - 1 / 3, 1 - 1 / 2]).tolist()
    snr = [a / (1 - a) for a in abar]
    expected = [1.0, snr[0] - snr[1], snr[1] - snr[2], snr[2] - snr[3]]
    torch.testing.assert_close(model.snr_weight(torch.arange(4)), torch.tensor(expected))


@pytest.mark.parametrize(("prediction", "snr_weighting"), [("x0", True), ("x0", False), ("eps", False)])
def test_loss_by_hand(
    build: Callable[..., Built], monkeypatch: pytest.MonkeyPatch, prediction: str, snr_weighting: bool
) -> None:
    built = build("DiffRec", prediction=prediction, snr_weighting=snr_weighting, train_batch_size=20, **SMALL)
    model = built.model
    batch = next(iter(built.loaders.train))
    t, weight = torch.arange(20) % 5, torch.linspace(0.5, 2, 20)
    noise, answer = torch.randn(20, 30), torch.randn(20, 30)
    steps = model.timestep_sampler = Given(t, weight)
    fixed = model.denoiser = Fixed(answer)
    monkeypatch.setattr(torch, "randn_like", lambda x: noise)
    (loss,) = model.calculate_loss(batch)
    x_0 = model.training_vectors(batch)
    told, total = [], 0.0
    for row in range(20):
        wanted = x_0[row] if prediction == "x0" else noise[row]
        mse = ((answer[row] - wanted) ** 2).sum().item() / 30
        told.append(mse * (model.snr_weight(t)[row].item() if snr_weighting else 1.0))
        total += weight[row].item() * told[-1] / 20
    assert loss.item() == pytest.approx(total, rel=1e-5) and model.loss_names == ("mse",)
    torch.testing.assert_close(fixed.x_t[0], model.process.q_sample(x_0, t, noise))
    ((updated_t, updated),) = steps.updates
    assert torch.equal(updated_t, t)
    torch.testing.assert_close(updated, torch.tensor(told))


def test_normalize_scales_what_the_network_is_shown(build: Callable[..., Built]) -> None:
    x_t, t = torch.randn(3, 30), torch.zeros(3, dtype=torch.long)
    for normalize in (True, False):
        denoiser = build("DiffRec", normalize=normalize, **SMALL).model.eval().denoiser
        assert torch.allclose(denoiser(5 * x_t, t), denoiser(x_t, t), atol=1e-6) is normalize


def test_without_start_steps_the_chain_begins_at_the_history_and_has_no_noise(build: Callable[..., Built]) -> None:
    built = build("DiffRec", start_steps=0, **SMALL)
    model, batch = built.model.eval(), built.loaders.valid.dataset[list(range(6))]
    seen: list[tuple[torch.Tensor, int]] = []
    model.denoiser.register_forward_pre_hook(lambda _, inputs: seen.append((inputs[0], int(inputs[1][0]))))
    first = model.generate(batch)
    assert [t for _, t in seen] == [4, 3, 2, 1, 0]
    assert torch.equal(seen[0][0], model.vectors(batch[model.ITEM_SEQ], batch[model.ITEM_SEQ_LEN]))
    other = build("DiffRec", start_steps=0, eval_seed=1, **SMALL).model.eval()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.generate(batch), first)


def test_start_steps_noise_the_history_by_as_many_steps(build: Callable[..., Built]) -> None:
    variances = {"noise_scale": 1.0, "noise_min": 0.1, "noise_max": 0.5, "first_beta": None}
    built = build("DiffRec", start_steps=3, **variances, **SMALL)  # the third of five variances is 0.3
    model = built.model.eval()
    batch = _history(built, *map(list, itertools.islice(itertools.permutations(range(1, 31), 3), 2000)))
    fixed = model.denoiser = Fixed(torch.zeros(2000, 30))
    model.generate(batch)
    x_0 = model.vectors(batch[model.ITEM_SEQ], batch[model.ITEM_SEQ_LEN])
    start = fixed.x_t[0]
    assert (start - 0.7**0.5 * x_0).mean(dim=0).abs().max() < 0.05
    assert (start - 0.7**0.5 * x_0).std().item() == pytest.approx(0.3**0.5, abs=0.01)
    assert [int(t[0]) for t in fixed.t] == [4, 3, 2, 1, 0]
    model.generate(batch)
    assert torch.equal(fixed.x_t[5], start)  # from the evaluation's own seed


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prediction": "v"}, r"prediction='v': must be one of x0, eps"),
        ({"prediction": "eps"}, r"snr_weighting=True with prediction=eps"),
        ({"w_min": 2.0}, r"w_min=2: must be <= w_max=1"),
        ({"w_min": 0}, r"w_min=0: must be a number > 0"),
        ({"start_steps": 6}, r"start_steps=6: must be from 0 to timesteps=5"),
        ({"sampling_steps": 6}, r"sampling_steps=6: must be from 1 to timesteps=5"),
        ({"noise_schedule": "binomial"}, r"noise_schedule='binomial' with noise_scale.*allowed none"),
        ({"noise_scale": None}, r"noise_schedule='linear_variance'.*needs noise_scale"),
        ({"beta_end": 0.1}, r"noise_schedule='linear_variance' with beta_end"),
        ({"noise_scale": 90.0}, r"noise_scale=90.0.*must lie inside \(0, 1\)"),
        ({"train_on": "windows"}, r"train_on='windows': must be one of users, prefixes"),
        ({"ablate": "state"}, "ablate=state: DiffRec reads the history from x_t alone"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    build: Callable[..., Built], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        build("DiffRec", **settings, **SMALL)


def test_ours_and_recboles_diffrec_are_told_apart(build: Callable[..., Built]) -> None:
    ours, theirs = build("DiffRec", **SMALL), build("recbole.DiffRec")
    assert type(ours.model).__module__ == "recbole_diffusion.model.diffrec"
    assert type(theirs.model).__module__ == "recbole.model.general_recommender.diffrec"
    assert ours.model.ITEM_SEQ in next(iter(ours.loaders.train))
    theirs.trainer.fit(theirs.loaders.train, theirs.loaders.valid)


@pytest.mark.slow
def test_learns_groups_of_items_and_stays_at_chance_on_noise(build: Callable[..., Built], tmp_path: Path) -> None:
    groups, size, users, length, k = 5, 40, 400, 20, 10
    rng = np.random.default_rng(0)
    liked = [rng.choice(size, size=length, replace=False) + size * (user % groups) + 1 for user in range(users)]
    anything = [rng.choice(groups * size, size=length, replace=False) + 1 for _ in range(users)]

    def hit(name: str, sequences: list) -> float:
        extra = {"data_path": str(write_atomic(tmp_path, name, sequences)), "MAX_ITEM_LIST_LENGTH": 20, "topk": [k]}
        extra |= {"epochs": 60, "eval_step": 20, "train_batch_size": 16, "metrics": ["Hit"], "valid_metric": f"Hit@{k}"}
        built = build("DiffRec", dataset=name, hidden_size=64, **extra)
        built.trainer.fit(built.loaders.train, built.loaders.valid)
        return built.trainer.evaluate(built.loaders.test)[f"hit@{k}"]

    # The candidates are the items that the user has not seen before the last one. Those of a group are all alike.
    best, chance = k / (size - length + 1), k / (groups * size - length + 1)
    assert hit("groups", liked) > 0.7 * best  # 0.33 where chance is 0.055
    assert hit("noise", anything) < chance + 3 * (chance * (1 - chance) / users) ** 0.5


_LARGE = """
import resource, sys
from recbole_diffusion import registry
from recbole_diffusion.config.strict import Config
from recbole_diffusion.quick_start import prepare

resolved = registry.get_model("DiffRec")
user = {"data_path": sys.argv[1], "use_gpu": False, "hidden_size": 8, "sampling_steps": 2}
user |= {"train_batch_size": 64, "eval_batch_size": 64}
config = Config(resolved.model_class, "large", user, resolved.ours)
_, loaders, model, trainer = prepare(resolved, config)
assert model.n_items == 1_000_001
batch = next(iter(loaders.train))
assert len(batch) == 64
(loss,) = model.calculate_loss(batch)
loss.backward()
trainer.optimizer.step()
trainer.optimizer.zero_grad()
del batch, loss
model.eval()
trainer.tot_item_num = model.n_items
_, scores, _, _ = trainer._full_sort_batch_eval(next(iter(loaders.valid)))
assert scores.shape == (64, 1_000_001)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)  # kilobytes on Linux
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read as Linux reports it")
def test_a_million_items_need_no_table_of_users_by_items(tmp_path: Path) -> None:
    users, items = 10_000, 1_000_000
    folder = tmp_path / "large"
    folder.mkdir()
    order = np.random.default_rng(0).permutation(items)
    lines = [f"{row % users}\t{item}\t{row}" for row, item in enumerate(order.tolist())]
    header = "user_id:token\titem_id:token\ttimestamp:float\n"
    (folder / "large.inter").write_text(header + "\n".join(lines) + "\n", encoding="utf-8")
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", _LARGE, str(tmp_path)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    gigabytes = int(done.stdout.splitlines()[-1]) * 1024 / 1e9
    # A dense table: 10,000 users * 1,000,000 items * 4 bytes = 40 GB, and still 10 GB at 1 byte per entry. The vectors
    # of a batch: 64 * 1,000,000 * 4 bytes = 0.26 GB, about six at once = 1.5 GB; the weights, their gradient and
    # Adam's moments: 4 * 2 * 1,000,000 * 8 * 4 bytes = 0.26 GB; torch and the interactions: 1 GB.
    assert gigabytes < 5, gigabytes
