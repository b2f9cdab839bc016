"""The setting ``split``: points in time for all users, and other users for validation and test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from recbole_diffusion.config.settings import UserError
from recbole_diffusion.quick_start import request, run
from recbole_diffusion.testing.fixtures import Built, builder

USERS, ITEMS, START = 20, 12, 1_700_000_000
SMALL: dict[str, Any] = {"topk": [1], "valid_metric": "NDCG@1", "MAX_ITEM_LIST_LENGTH": 6}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data set ``shop``: user u has events at seconds u, u + 20, u + 40 ...; user 19 comes late, item 12 is new."""
    folder = tmp_path_factory.mktemp("split")
    rows = []
    for user in range(USERS):
        for event in range(3 + user % 8):
            time = 20 * event + user + (150 if user == 19 else 0)
            item = ITEMS if time > 120 and event % 2 else 1 + (3 * user + event) % (ITEMS - 1)
            rows.append(f"u{user}\ti{item}\t{START + time}")
    (folder / "shop").mkdir()
    text = "\n".join(["user_id:token\titem_id:token\ttimestamp:float", *reversed(rows)]) + "\n"
    (folder / "shop" / "shop.inter").write_text(text)
    return folder


def _build(shop: Path, model: str, **settings: Any) -> Built:
    return builder(shop)(model, "shop", **{**SMALL, **settings})


def _targets(built: Built) -> list[set[tuple[str, str]]]:
    """(user, item) of the targets of validation and of test, in the tokens of the file."""
    found = []
    for loader in built.loaders[1:]:
        rows, data = loader.dataset.inter_feat, loader.dataset
        tokens = [data.id2token(field, rows[field].long().numpy()) for field in (data.uid_field, data.iid_field)]
        found.append(set(zip(*tokens, strict=True)))
    return found


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("model", ["WindowSASRec", "DiffuRec", "FEARec", "BPR"])
def test_training_sees_nothing_later_than_the_point(shop: Path, model: str, scaled: bool) -> None:
    points = [START + 100, START + 130]
    built = _build(shop, model, split="global_time", split_at=points, split_targets="each", normalize_all=scaled)
    train, valid, test = (loader.dataset.inter_feat["timestamp"].double() for loader in built.loaders)
    span, first = (269, START) if scaled else (1, 0)  # u19's last event is 19 + 150 + 5 * 20 seconds after the first
    begin, middle = ((point - first) / span for point in points)
    assert train.max() < begin <= valid.min() and valid.max() < middle <= test.min()
    assert "user 19" not in str(built.loaders.train.dataset.split_note)
    assert ("u19", "i1") not in set.union(*_targets(built)) and all(user != "u19" for user, _ in _targets(built)[1])
    assert "1 new users left out" in built.loaders.train.dataset.split_note


def test_no_window_of_training_has_a_later_event(shop: Path) -> None:
    built = _build(shop, "WindowSASRec", split="global_time", split_at=[START + 100, START + 130])
    data = built.loaders.train.dataset
    begin = START + 100
    early = {int(item) for item in data.events["item_id"][data.events["timestamp"] < begin]}
    late = {int(item) for item in data.events["item_id"]} - early
    assert late
    for batch in built.loaders.train:
        for field in ("item_id_list", "target_list"):
            assert not late & set(batch[field].flatten().tolist())


def test_sequential_and_general_models_rank_the_same_targets(shop: Path) -> None:
    chosen: dict[str, Any] = {"split": "global_time", "split_at": [START + 60, START + 100]}
    first = _targets(_build(shop, "WindowSASRec", **chosen))
    assert first == _targets(_build(shop, "BPR", **chosen))
    every = _build(shop, "WindowSASRec", split_targets="each", **chosen)
    assert all(one < each for one, each in zip(first, _targets(every), strict=True))
    once = _build(shop, "WindowSASRec", **chosen)
    for loader, other in zip(once.loaders[1:], every.loaders[1:], strict=True):
        rows, others = loader.dataset.inter_feat, other.dataset.inter_feat
        for user, time in zip(rows["user_id"], rows["timestamp"], strict=True):
            assert time == others["timestamp"][others["user_id"] == user].min()
    for part in first:
        users = [user for user, _ in part]
        assert len(users) == len(set(users)) > 3


def test_positions_instead_of_times_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [f"u{user}\ti{(user + event) % 9}\t{event}" for user in range(20) for event in range(4 + user % 5)]
    (tmp_path / "shop").mkdir()
    text = "\n".join(["user_id:token\titem_id:token\ttimestamp:float", *rows]) + "\n"
    (tmp_path / "shop" / "shop.inter").write_text(text)
    with caplog.at_level("WARNING"):
        _build(tmp_path, "BPR", split="global_time", split_at=[3, 5])
    assert "100% of the users have the same first time" in caplog.text
    caplog.clear()
    with caplog.at_level("WARNING"):
        _build(tmp_path, "BPR")
    assert "first time" not in caplog.text


def test_without_points_they_are_at_80_and_90_percent_of_the_events(shop: Path) -> None:
    data = _build(shop, "BPR", split="global_time").loaders.train.dataset
    total = sum(3 + user % 8 for user in range(USERS))
    assert len(data.inter_feat) == int(0.8 * total)


def test_users_of_the_test_are_not_in_training(shop: Path) -> None:
    built = _build(shop, "DreamRec", split="user")
    users = [set(loader.dataset.inter_feat["user_id"].tolist()) for loader in built.loaders]
    assert [len(part) for part in users] == [16, 2, 2] and len(set.union(*users)) == 20
    for loader in built.loaders[1:]:  # one row a user: the last event, with everything before it
        data = loader.dataset
        assert len(data) == 2
        for row in range(2):
            user = int(data.inter_feat["user_id"][row])
            last = torch.nonzero(data.events["user_id"] == user).max()
            assert int(data.target_rows[row]) == int(last)
    again = _build(shop, "DreamRec", split="user", seed=5)
    assert torch.equal(again.loaders.test.dataset.target_rows, built.loaders.test.dataset.target_rows)
    other = _build(shop, "DreamRec", split="user", split_seed=5)
    assert not torch.equal(other.loaders.test.dataset.target_rows, built.loaders.test.dataset.target_rows)


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        ("BPR", {"split": "user"}, "split=user: the users of the test are not in training"),
        ("DreamRec", {"split": "time"}, "split='time': must be one of leave_one_out, global_time, user or ~"),
        ("DreamRec", {"split_at": [1, 2]}, "split_at=.*only with split=global_time"),
        ("DreamRec", {"split": "user", "split_targets": "each"}, "split_targets='each': .*only with split=global_time"),
        ("DreamRec", {"split_seed": 3}, "split_seed=3: has an effect only with split=user"),
        ("DreamRec", {"split": "global_time", "split_at": [2, 1]}, "split_at=.*the first smaller"),
        ("DreamRec", {"split": "global_time", "split_at": [True, 2]}, "split_at=.*the first smaller"),
        ("DreamRec", {"split": "global_time", "split_at": 5}, "split_at=5: must be"),
        ("DreamRec", {"split": "user", "eval_args": {"split": {"RS": [8, 1, 1]}}}, "both say how the data is split"),
        ("DreamRec", {"split": "global_time", "split_at": [1, 2]}, "leaves nothing for training"),
    ],
)
def test_what_makes_no_sense_is_refused(shop: Path, model: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        _build(shop, model, **settings)


def test_eval_args_alone_still_split(shop: Path) -> None:
    config = request("BPR", "shop", {"data_path": str(shop), "eval_args": {"split": {"RS": [8, 1, 1]}}}, None).config()
    assert config["split"] is None and config["eval_args"]["split"] == {"RS": [8, 1, 1]}
    whole = request("BPR", "shop", {"data_path": str(shop), "eval_args": {"mode": "uni5"}}, None).config()
    assert whole["split"] == "leave_one_out"


@pytest.mark.parametrize("split", ["global_time", "user"])
def test_a_run_under_each_split(split: str, shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {"data_path": str(shop), "split": split, "epochs": 1, "embedding_size": 8, "num_layers": 1}
    result = run("DreamRec", "shop", settings={**SMALL, **settings, "use_gpu": False, "mask_history": True})
    assert 0 <= result["test"]["ndcg@1"] <= 1 and result["pop"]["test"]
