"""Which rows make a batch: buckets of similar length, drawn prefixes, one row per user; and what must not change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import recbole
import torch
from conftest import Built
from recbole.data.interaction import Interaction

from recbole_diffusion.config.settings import UserError
from recbole_diffusion.data.batches import BatchSampler, draw_prefixes, last_rows
from recbole_diffusion.names import recbole_models
from recbole_diffusion.registry import SHORT_BATCHES
from recbole_diffusion.testing.markov import write_atomic


def _sampler(lengths: torch.Tensor, targets: torch.Tensor | None = None, seed: int = 0, **options: Any) -> BatchSampler:
    rows = torch.arange(len(lengths))
    options = {"batch_size": 8, "bucket": True, "generator": torch.Generator().manual_seed(seed), **options}
    return BatchSampler(lambda: rows, lengths, targets, **options)


def test_every_row_once_in_batches_of_like_length_in_a_new_order_each_epoch() -> None:
    lengths = torch.randint(1, 51, (1003,), generator=torch.Generator().manual_seed(1))
    sampler = _sampler(lengths)
    first, second = list(sampler), list(sampler)
    assert len(first) == len(sampler) == 126 and sorted(len(b) for b in first) == [3, *[8] * 125]
    for epoch in (first, second):
        assert sorted(row for batch in epoch for row in batch) == list(range(1003))
        padding = sum(len(b) * int(lengths[b].max()) for b in epoch) / int(lengths.sum())
        assert padding < 1.15  # in random batches of 8 about 1.75
    assert first != second
    together = {frozenset(batch) for batch in first} & {frozenset(batch) for batch in second}
    assert len(together) < 5  # in the next epoch, other rows are together
    means = torch.tensor([float(lengths[b].float().mean()) for b in first])
    assert (
        abs(torch.corrcoef(torch.stack([means, torch.arange(126.0)]))[0, 1]) < 0.3
    )  # batches are not ordered by length
    assert list(_sampler(lengths)) == first


def test_rows_of_all_lengths_stay_among_their_chunk() -> None:
    lengths = torch.arange(2000) % 50 + 1
    groups = list(_sampler(lengths, batch_size=2))
    # one chunk is 128 rows: a batch of two equal lengths cannot be had for all of them
    assert any(len({int(n) for n in lengths[b]}) > 1 for b in groups)


def test_without_buckets_and_shuffle_rows_come_in_order() -> None:
    lengths = torch.tensor([3, 1, 2, 9, 4])
    assert list(_sampler(lengths, batch_size=2, bucket=False, generator=None)) == [[0, 1], [2, 3], [4]]
    assert list(_sampler(lengths, batch_size=2, generator=None)) == [[1, 2], [0, 4], [3]]


def test_batches_of_windows_hold_alike_many_targets() -> None:
    counts = torch.randint(1, 51, (1000,), generator=torch.Generator().manual_seed(1))
    batches = list(_sampler(counts, counts, batch_size=4))
    targets = torch.tensor([int(counts[b].sum()) for b in batches])
    budget = round(4 * float(counts.double().mean()))
    assert len(batches) == len(_sampler(counts, counts, batch_size=4))
    assert (targets[:-1].sort().values[1:] - budget).abs().max() <= 50
    assert sorted(row for batch in batches for row in batch) == list(range(1000))
    alone = list(_sampler(counts, counts, batch_size=1))  # a budget below the longest window leaves no batch empty
    assert min(map(len, alone)) >= 1 and len(alone) == len(_sampler(counts, counts, batch_size=1))


def test_prefixes_per_user_are_random_rows_of_each_user() -> None:
    users = torch.tensor([5, 2, 2, 5, 2, 9, 2, 2, 5, 2])
    generator = torch.Generator().manual_seed(0)
    draws = [draw_prefixes(users, 3, generator) for _ in range(300)]
    seen = torch.zeros(10)
    for rows in draws:
        assert sorted(users[rows].tolist()) == [2, 2, 2, 5, 5, 5, 9] and len(set(rows.tolist())) == 7
        seen[rows] += 1
    assert (seen[users != 2] == 300).all()
    assert ((seen[users == 2] / 300 - 0.5).abs() < 0.1).all()  # three of six: each in half of the draws


def test_last_rows_are_the_latest_of_each_user() -> None:
    users, events = torch.tensor([5, 2, 2, 5, 9]), torch.tensor([11, 4, 7, 10, 12])
    assert sorted(last_rows(users, events).tolist()) == [0, 2, 4]


def test_prefixes_per_user_reach_the_loader_and_change_each_epoch(build: Callable[..., Built]) -> None:
    small = {"prefixes_per_user": 2, "embedding_size": 8, "num_layers": 1, "num_heads": 2, "train_batch_size": 16}
    loader = build("DiffuRec", **small).loaders.train

    def epoch() -> list[tuple[int, int]]:
        pairs = [zip(b["user_id"].tolist(), b["item_length"].tolist(), strict=True) for b in loader]
        return sorted(pair for batch in pairs for pair in batch)

    first, second = epoch(), epoch()
    users = [user for user, _ in first]
    assert max(users.count(u) for u in users) == 2 and len(set(users)) == 40
    assert first != second
    loader = build("DiffuRec", **small).loaders.train
    assert epoch() == first


@pytest.mark.parametrize("model", ["DreamRec", "BPR"])
def test_prefixes_per_user_of_what_has_none_are_refused(build: Callable[..., Built], model: str) -> None:
    with pytest.raises(UserError, match="prefixes_per_user=3: "):
        build(model, prefixes_per_user=3)


def test_trimmed_batches_hold_the_same_rows_as_full_ones(build: Callable[..., Built]) -> None:
    rows = {}
    for bucket in (True, False):
        loaders = build("SASRec", bucket_by_length=bucket, train_batch_size=16).loaders
        batches = [*loaders.train, *(b[0] for b in loaders.valid)]
        widths = [b["item_id_list"].shape[1] for b in batches]
        assert all(w == (int(b["item_length"].max()) if bucket else 10) for w, b in zip(widths, batches, strict=True))
        assert not bucket or min(widths) < 5
        rows[bucket] = sorted(
            (int(b["user_id"][i]), int(b["item_id"][i]), *b["item_id_list"][i][: b["item_length"][i]].tolist())
            for b in batches
            for i in range(len(b))
        )
    assert rows[True] == rows[False]


@pytest.fixture(scope="module")
def short_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data set ``short``: users of 4 to 9 items with a category, far below the longest history."""
    rng = np.random.default_rng(2)
    sequences = [rng.integers(1, 21, size=n) for n in rng.integers(4, 10, size=30)]
    folder = write_atomic(tmp_path_factory.mktemp("short"), "short", sequences)
    items = [f"i{i}\t{rng.choice(list('abc'))}" for i in range(1, 21)]
    (folder / "short" / "short.item").write_text("\n".join(["item_id:token\tclass:token_seq", *items]) + "\n")
    return folder


def _differs(built: Built) -> bool:
    """Whether a batch cut to its longest history changes what the model scores or learns."""
    model = built.model.eval()
    rows = torch.arange(6)
    dataset = built.loaders.test.dataset
    dataset.trim = False
    full = dataset[rows]
    if built.config["transform"] is not None:  # the loader makes the training data of this model
        return True
    width = int(full["item_length"].max())
    cut = Interaction({k: v[:, :width] if k.endswith("_list") else v for k, v in full.interaction.items()})
    answers = []
    for batch in (full, cut):
        batch.update(Interaction({"neg_item_id": torch.arange(1, 7), "label": torch.ones(6)}))
        try:
            torch.manual_seed(0)
            answers.append((model.predict(batch), torch.as_tensor(model.calculate_loss(batch)).sum()))
        except (RuntimeError, IndexError):  # a width it cannot take
            return True
    return not all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(*answers, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("model", sorted(recbole_models("sequential_recommender")))
def test_models_take_short_batches_only_where_nothing_changes(
    build: Callable[..., Built], short_data: Path, model: str
) -> None:
    if model.endswith("CPR"):
        pytest.skip("ranks among more items than this catalogue has")
    yaml = Path(recbole.__file__).parent / "properties" / "model" / f"{model}.yaml"
    features = {"selected_features": ["class"]} if "selected_features" in yaml.read_text() else {}
    load = {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id", "class"]}
    try:
        built = build(
            model,
            dataset="short",
            data_path=str(short_data),
            load_col=load,
            **features,
            MAX_ITEM_LIST_LENGTH=15,
            epochs=1,
            topk=[5],
            valid_metric="NDCG@5",
        )
    except UserError as error:
        pytest.skip(f"needs more than this data set has: {error}")
    if getattr(built.loaders.test.dataset, "events", None) is None:
        assert model not in SHORT_BATCHES  # these models get RecBole's own batches
    else:
        assert (model in SHORT_BATCHES) is not _differs(built)
    if model != "S3Rec":  # hundreds of epochs of pre-training first
        built.trainer.fit(built.loaders.train, built.loaders.valid)
