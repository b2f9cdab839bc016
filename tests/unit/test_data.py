"""Lazy histories compared with RecBole's table, windows with prefixes, masking, missing data sets."""

from __future__ import annotations

import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Built
from recbole.data import dataset as recbole_datasets
from recbole.data.interaction import Interaction
from recbole.data.utils import create_samplers, get_dataloader
from recbole.utils import init_seed

from recbole_diffusion import registry
from recbole_diffusion.config.settings import UserError
from recbole_diffusion.config.strict import Config
from recbole_diffusion.data.loaders import SequenceEvalDataLoader
from recbole_diffusion.data.prefixes import PrefixDataLoader
from recbole_diffusion.data.sequences import LazySequentialDataset
from recbole_diffusion.data.windows import cut_windows


@pytest.fixture(scope="module")
def rich_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data set ``rich``: ratings, tied times, interactions in no order, and items with categories."""
    rng = np.random.default_rng(3)
    folder = tmp_path_factory.mktemp("rich")
    (folder / "rich").mkdir()
    rows = [
        f"u{user}\ti{rng.integers(1, 21)}\t{rng.integers(1, 6)}\t{rng.integers(0, 12)}"
        for user in range(25)
        for _ in range(rng.integers(1, 18))
    ]
    rng.shuffle(rows)
    header = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
    (folder / "rich" / "rich.inter").write_text("\n".join([header, *rows]) + "\n")
    items = [
        f"i{i}\t{' '.join(rng.choice(list('abcde'), size=rng.integers(1, 4), replace=False))}" for i in range(1, 21)
    ]
    (folder / "rich" / "rich.item").write_text("\n".join(["item_id:token\tclass:token_seq", *items]) + "\n")
    return folder


def _rich_config(folder: Path, model: str = "SASRec", **user: Any) -> Config:
    resolved = registry.get_model(model)
    load = {"inter": ["user_id", "item_id", "rating", "timestamp"], "item": ["item_id", "class"]}
    user = {"data_path": str(folder), "load_col": load, "MAX_ITEM_LIST_LENGTH": 6, "train_batch_size": 16, **user}
    return Config(resolved.model_class, "rich", user, resolved.ours)


@pytest.mark.parametrize("model", ["SASRec", "DiffuRec", "FPMC"])  # cross-entropy, ours, and drawn negatives
@pytest.mark.parametrize("split", [{"LS": "valid_and_test"}, {"RS": [0.6, 0.2, 0.2]}, {"TS": [0.6, 0.2, 0.2]}])
def test_lazy_batches_equal_recboles_to_the_last_id(rich_data: Path, split: dict[str, Any], model: str) -> None:
    evaluation = {"split": split, "order": "TO", "group_by": "user", "mode": "full"}
    settings = {"eval_args": evaluation, "bucket_by_length": False, "prefixes_per_user": None}
    batches = []
    for ours in (True, False):
        config = _rich_config(rich_data, model, **settings)
        init_seed(config["seed"], True)
        dataset = (LazySequentialDataset if ours else recbole_datasets.SequentialDataset)(config)
        splits = dataset.build()
        samplers = create_samplers(config, dataset, splits)
        phases = zip(("train", "valid", "test"), splits, samplers, strict=True)
        made = [get_dataloader(config, p)(config, part, s, shuffle=p == "train") for p, part, s in phases]
        if ours:
            made[0] = PrefixDataLoader(config, splits[0], samplers[0], shuffle=True)
            made[1:] = [
                SequenceEvalDataLoader(config, part, s) for part, s in zip(splits[1:], samplers[1:], strict=True)
            ]
        init_seed(config["seed"], True)
        drawn = [b if isinstance(b, Interaction) else b[0] for loader in made for b in loader]
        matrix = splits[0].inter_matrix()
        batches.append([*drawn, Interaction({"matrix": torch.tensor(matrix.toarray())})])
    ours_drawn, theirs = batches
    assert len(ours_drawn) == len(theirs) > 5
    for a, b in zip(ours_drawn, theirs, strict=True):
        assert set(a.columns) == set(b.columns)
        for field in a:
            assert a[field].dtype == b[field].dtype and torch.equal(a[field], b[field]), field


def test_lazy_data_set_holds_no_table(random_data: Path, build: Callable[..., Built]) -> None:
    dataset = build("DreamRec").loaders.train.dataset
    stored = sum(t.numel() for t in (*dataset.events.interaction.values(), *dataset.inter_feat.interaction.values()))
    assert stored <= 8 * len(dataset.events)  # the table would be 2 x 10 values per target


@pytest.mark.parametrize(("overlap", "stride"), [(0.9, 1), (0.5, 2), (0.25, 3), (0.0, 4)])
def test_windows_hold_every_target_once_after_what_came_before_it(
    build: Callable[..., Built], overlap: float, stride: int
) -> None:
    built = build("DreamRec", MAX_ITEM_LIST_LENGTH=4, train_batch_size=7, window_overlap=overlap)
    dataset = built.loaders.train.dataset
    events = list(zip(dataset.events["user_id"].tolist(), dataset.events["item_id"].tolist(), strict=True))
    least = 4 - stride + 1
    seen = []
    for batch in built.loaders.train:
        items, targets, length = batch["item_id_list"], batch["target_list"], batch["item_length"]
        assert items.shape == targets.shape and items.shape[1] == length.max() <= 4
        for row in range(len(batch)):
            user, n = int(batch["user_id"][row]), int(length[row])
            assert (items[row, n:] == 0).all() and (targets[row, n:] == 0).all()
            places = torch.nonzero(targets[row]).squeeze(-1)
            assert torch.equal(places, torch.arange(n - len(places), n)) and len(places) <= stride
            whole = torch.cat([items[row, :n], targets[row, n - 1 : n]])
            assert torch.equal(whole[1:][places], targets[row, places])
            own = [item for of_user, item in events if of_user == user]
            start = next(s for s in range(len(own)) if own[s : s + n + 1] == whole.tolist())  # a piece of its history
            assert all(read >= min(least, start + read) for read in (places + 1).tolist())
            seen += [(user, int(t)) for t in targets[row, places]]
    expected = [events[row] for row in dataset.target_rows.tolist()]
    assert sorted(seen) == sorted(expected)


def test_windows_never_hold_what_is_held_out(build: Callable[..., Built]) -> None:
    built = build("DreamRec")
    trained = set()
    for first, targets, context in zip(*(part.tolist() for part in built.loaders.train.windows), strict=True):
        trained |= set(range(first - 1 - context, first + targets))
    for held_out in (built.loaders.valid.dataset, built.loaders.test.dataset):
        assert not trained & set(held_out.target_rows.tolist())


def test_cut_windows_by_hand() -> None:
    users = torch.tensor([1, 1, 1, 1, 1, 1, 2, 2, 2, 3])
    # user 1 has targets 1 ... 5, user 2 has 7 and 8: windows of 2 from the recent end
    target_rows = torch.tensor([5, 1, 3, 2, 4, 8, 7])
    first, targets, context = cut_windows(target_rows, users, 2, 2)
    assert first.tolist() == [1, 2, 4, 7] and targets.tolist() == [1, 2, 2, 2] and context.tolist() == [0, 0, 0, 0]
    first, targets, context = cut_windows(target_rows, users, 4, 2)
    assert first.tolist() == [1, 2, 4, 7] and targets.tolist() == [1, 2, 2, 2] and context.tolist() == [0, 1, 2, 0]
    # a gap starts a new window, which does not read across it
    first, targets, context = cut_windows(torch.tensor([1, 2, 4, 5, 7]), users, 50, 25)
    assert first.tolist() == [1, 4, 7] and targets.tolist() == [2, 2, 1] and context.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        ("DreamRec", {"window_overlap": 1.0}, "window_overlap=1.0: must be a number >= 0 and < 1"),
        (
            "DreamRec",
            {"window_overlap": 0, "train_on": "prefixes"},
            "window_overlap=0: is of windows; train_on=prefixes",
        ),
        ("SASRec", {"window_overlap": 0.5}, "window_overlap=0.5: is of windows; train_on=prefixes"),
        ("BPR", {"window_overlap": 0.5}, "window_overlap=0.5: only sequential models"),
    ],
)
def test_an_overlap_of_no_windows_is_refused(
    build: Callable[..., Built], model: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        build(model, **settings)


@pytest.mark.parametrize("model", ["DreamRec", "DiffDiv", "ADIGRec", "PreferDiff", "PreferGrow"])
def test_loss_on_windows_is_the_mean_over_prefixes(build: Callable[..., Built], model: str) -> None:
    small = {"embedding_size": 16, "dropout": 0.0, "MAX_ITEM_LIST_LENGTH": 25, "train_batch_size": 1000}
    small["bucket_by_length"] = False
    windows = build(model, train_on="windows", shuffle=False, window_overlap=0.0, **small)
    prefixes = build(model, train_on="prefixes", **small)
    prefixes.model.load_state_dict(windows.model.state_dict())
    dataset = prefixes.loaders.train.dataset
    rows = dataset[dataset.target_rows.argsort()]  # in the order of the windows, so that the same noise is drawn
    assert len(rows) > 300 and int(rows["item_length"].max()) < 25
    torch.manual_seed(5)
    by_window = windows.model.calculate_loss(next(iter(windows.loaders.train)))
    torch.manual_seed(5)
    by_prefix = prefixes.model.calculate_loss(rows)
    torch.testing.assert_close(torch.stack(by_window), torch.stack(by_prefix), rtol=1e-5, atol=1e-6)


def test_window_sasrec_scores_and_learns_as_sasrec(build: Callable[..., Built]) -> None:
    small = {"hidden_size": 16, "inner_size": 32, "hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0}
    small |= {"MAX_ITEM_LIST_LENGTH": 25, "train_batch_size": 1000}
    ours, theirs = build("WindowSASRec", **small), build("SASRec", **small)
    theirs.model.load_state_dict(ours.model.state_dict())
    dataset = theirs.loaders.train.dataset
    torch.testing.assert_close(
        ours.model.calculate_loss(next(iter(ours.loaders.train))),
        theirs.model.calculate_loss(dataset[torch.arange(len(dataset))]),
    )
    batch = theirs.loaders.test.dataset[torch.arange(20)]
    torch.testing.assert_close(ours.model.full_sort_predict(batch), theirs.model.full_sort_predict(batch))


@pytest.mark.parametrize("model", ["DreamRec", "SASRec"])
def test_mask_history_masks_the_whole_history_but_not_the_target(build: Callable[..., Built], model: str) -> None:
    built = build(model, mask_history=True, MAX_ITEM_LIST_LENGTH=3)
    dataset = built.loaders.test.dataset
    interaction, (rows, items), _, positives = next(iter(built.loaders.test))
    seen: list[set[int]] = [set() for _ in range(len(interaction))]
    for row, item in zip(rows.tolist(), items.tolist(), strict=True):
        seen[row].add(item)
    events = dataset.events
    order = next(iter(built.loaders.test.batch_sampler))
    for row, target in enumerate(dataset.target_rows[order].tolist()):
        user = events["user_id"][target]
        before = set(events["item_id"][:target][events["user_id"][:target] == user].tolist())
        assert seen[row] == before - {int(positives[row])}
    assert max(map(len, seen)) > 3  # also items that are older than the history that the model reads
    built.trainer.tot_item_num = dataset.item_num
    built.trainer.model.eval()
    with torch.no_grad():
        _, scores, _, _ = built.trainer._full_sort_batch_eval(next(iter(built.loaders.test)))
    assert (scores[rows, items] == -torch.inf).all()
    assert torch.isfinite(scores[torch.arange(len(positives)), positives]).all()


def test_mask_history_needs_the_whole_catalogue(build: Callable[..., Built]) -> None:
    evaluation = {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "uni5"}
    with pytest.raises(UserError, match="mask_history=True: needs eval_args mode 'full'"):
        build("DreamRec", mask_history=True, eval_args=evaluation)


def test_missing_data_sets_say_where_they_were_looked_for(
    build: Callable[..., Built], random_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"dataset='randon': .* has no such folder, only random.*Did you mean 'random'"):
        build("DreamRec", dataset="randon")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"has no empty.inter. Put .*empty/empty.inter there"):
        build("DreamRec", dataset="empty", data_path=str(tmp_path))

    def no_network(url: str) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("recbole.utils.url.ur.urlopen", no_network)
    for _ in range(2):  # the failed download leaves nothing behind that changes the second answer
        with pytest.raises(UserError, match=r"dataset='ml-1m': not found in .*download failed.*Put .*ml-1m\.inter"):
            build("DreamRec", dataset="ml-1m", data_path=str(tmp_path))


def test_a_data_set_without_times_is_an_error_and_not_a_crash(tmp_path: Path, build: Callable[..., Built]) -> None:
    (tmp_path / "timeless").mkdir()
    (tmp_path / "timeless" / "timeless.inter").write_text("user_id:token\titem_id:token\nu1\ti1\nu1\ti2\nu2\ti1\n")
    with pytest.raises(UserError, match="timestamp"):
        build("DreamRec", dataset="timeless", data_path=str(tmp_path))
