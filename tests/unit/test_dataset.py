"""Data sets follow their files: the exact order of times, rows without identifiers, pre-split files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Built
from recbole.data.dataset import Dataset
from recbole.data.interaction import Interaction

from recbole_diffusion import registry
from recbole_diffusion.config.settings import UserError
from recbole_diffusion.config.strict import Config
from recbole_diffusion.data.fingerprint import dataset_hash
from recbole_diffusion.data.loaders import create_dataset

HEADER = "user_id:token\titem_id:token\ttimestamp:float"
USERS, EVENTS = 12, 8
# Kinds of data sets: lazy histories, RecBole's table, the model's own data set, users and items, a knowledge graph.
MODELS = ["SASRec", "FEARec", "DIEN", "BPR", "CKE"]
Config_ = Callable[..., Config]


@pytest.fixture
def shop(tmp_path: Path) -> Callable[..., Path]:
    """``shop(rows, header, suffix)``: write ``shop.<suffix>``; the folder for ``data_path``."""

    def write(rows: list[str], header: str = HEADER, suffix: str = "inter") -> Path:
        (tmp_path / "shop").mkdir(exist_ok=True)
        (tmp_path / "shop" / f"shop.{suffix}").write_text("\n".join([header, *rows]) + "\n")
        return tmp_path

    return write


@pytest.fixture
def configure(tmp_path: Path) -> Config_:
    def configure(model: str, **settings: Any) -> Config:
        resolved = registry.get_model(model)
        user = {"data_path": str(tmp_path), "MAX_ITEM_LIST_LENGTH": 10, "topk": [1], "valid_metric": "NDCG@1"}
        return Config(resolved.model_class, "shop", {**user, **settings}, resolved.ours)

    return configure


def item(user: int, event: int) -> str:
    return f"i{(7 * user + 3 * event) % 20}"


def graph(shop: Callable[..., Path]) -> None:
    rows = [f"e{place}\tr\te{place + 1}" for place in range(20)]
    shop(rows, "head_id:token\trelation_id:token\ttail_id:token", "kg")
    shop([f"i{place}\te{place}" for place in range(20)], "item_id:token\tentity_id:token", "link")


def reversed_rows(start: float, step: float) -> list[str]:
    """Events with the latest of each user first, and the users mixed."""
    return [
        f"u{user}\t{item(user, event)}\t{start + step * (event * USERS + user):.6f}"
        for event in reversed(range(EVENTS))
        for user in range(USERS)
    ]


def held_out(dataset: Any, part: Any) -> list[tuple[str, str]]:
    feat = part.inter_feat
    users, items = (dataset.field2id_token[f][feat[f].numpy()] for f in ("user_id", "item_id"))
    return sorted(zip(users.tolist(), items.tolist(), strict=True))


def expected(event: int) -> list[tuple[str, str]]:
    return sorted((f"u{user}", item(user, event)) for user in range(USERS))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("start", "step"), [(1_700_000_000, 1), (1_700_000_000_000, 1), (1_700_000_000, 0.001), (2.0**53 - 99, 1)]
)
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"normalize_all": True},
        {"rm_dup_inter": "last"},
        {"numerical_features": ["timestamp"]},
        {"numerical_features": ["timestamp"], "discretization": {"timestamp": {"method": "ED", "bucket": 3}}},
    ],
)
def test_the_latest_events_are_held_out_however_close_they_are(
    shop: Callable[..., Path], configure: Config_, model: str, start: float, step: float, more: dict[str, Any]
) -> None:
    shop(reversed_rows(start, step))
    graph(shop)
    labels = {"train_neg_sample_args": None} if model == "DIEN" else {}
    load = {"inter": ["user_id", "item_id", "timestamp"], "kg": "*", "link": "*"} if model == "CKE" else None
    dataset = create_dataset(configure(model, **more, **labels, load_col=load, eval_args=LEAVE_ONE_OUT))
    _, valid, test = dataset.build()
    assert held_out(dataset, valid) == expected(EVENTS - 2)
    assert held_out(dataset, test) == expected(EVENTS - 1)
    if hasattr(test, "max_item_list_len"):
        row = test[[0]]
        user = int(dataset.field2id_token["user_id"][int(row["user_id"])].removeprefix("u"))
        history = dataset.field2id_token["item_id"][row["item_id_list"][0].numpy()]
        assert history[: EVENTS - 1].tolist() == [item(user, event) for event in range(EVENTS - 1)]


LEAVE_ONE_OUT = {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"}


@pytest.mark.parametrize("model", ["SASRec", "BPR"])
@pytest.mark.parametrize("split", [{"RS": [0.5, 0.25, 0.25]}, {"TS": [0.5, 0.25, 0.25]}])
def test_splits_across_users_are_at_the_exact_time(
    shop: Callable[..., Path], configure: Config_, model: str, split: dict[str, Any]
) -> None:
    shop(reversed_rows(1_700_000_000, 1))
    evaluation = {"split": split, "order": "TO", "group_by": "none", "mode": "full"}
    dataset = create_dataset(configure(model, eval_args=evaluation))
    times = [part.inter_feat["timestamp"] for part in dataset.build()]
    assert times[0].max() <= times[2].min() and min(map(len, times)) > 0
    if "RS" in split:
        assert times[0].max() < times[1].min() and times[1].max() < times[2].min()
    else:
        assert times[2].min() > np.percentile(torch.cat(times).numpy(), 74)


def test_a_random_order_is_recboles(shop: Callable[..., Path], configure: Config_) -> None:
    shop([f"u{place % 5}\ti{place}\t{-place}" for place in range(100)])
    evaluation = {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "RO", "group_by": "none", "mode": "full"}
    config = configure("BPR", eval_args=evaluation)
    drawn = []
    for dataset in (create_dataset(config), Dataset(config)):
        torch.manual_seed(0)
        drawn.append(held_out(dataset, dataset.build()[2]))
    assert drawn[0] == drawn[1]


def test_events_of_one_time_keep_the_order_of_the_file(
    shop: Callable[..., Path], configure: Config_, caplog: pytest.LogCaptureFixture
) -> None:
    # More rows than a sort that is not stable leaves in their order; some of them twice.
    rows = [f"u{place % 3}\ti{place // 3 % 40}\t{place * 7 % 4}" for place in range(300)]
    shop(rows)
    for settings in ({}, {"rm_dup_inter": "first"}, {"rm_dup_inter": "last"}):
        with caplog.at_level("INFO"):
            dataset = create_dataset(configure("SASRec", **settings))
        dataset.build()
        tokens = dataset.field2id_token["item_id"][dataset.events["item_id"].numpy()].tolist()
        users = dataset.field2id_token["user_id"][dataset.events["user_id"].numpy()].tolist()
        for user in range(3):
            by_time = sorted(rows, key=lambda row: int(row.split("\t")[2]))
            own = [row.split("\t")[1] for row in by_time if row.startswith(f"u{user}\t")]
            if settings:  # of two interactions with an item, the first or the last stays
                ordered = own if settings["rm_dup_inter"] == "first" else own[::-1]
                own = list(dict.fromkeys(ordered))[:: 1 if ordered is own else -1]
            assert [t for t, u in zip(tokens, users, strict=True) if u == f"u{user}"] == own
    assert "288 of 297 neighbouring events of a user share a time; their order is the file's." in caplog.text


def test_batches_have_times_of_32_bits(shop: Callable[..., Path], configure: Config_) -> None:
    shop(reversed_rows(1_700_000_000, 1))
    for model in ("SASRec", "FEARec", "BPR"):
        batch: Interaction = create_dataset(configure(model)).build()[0][[0, 1]]
        assert {values.dtype for values in batch.interaction.values()} == {torch.int64, torch.float32}


@pytest.mark.parametrize("model", ["SASRec", "BPR"])
def test_rows_without_a_time_are_refused_where_time_orders_them(
    shop: Callable[..., Path], configure: Config_, model: str
) -> None:
    shop([*reversed_rows(1, 1), "u1\ti3\t", "u2\ti4\tnan"])
    message = r"shop.inter: 2 rows \(lines 98, 99\) without a time in 'timestamp'"
    with pytest.raises(UserError, match=message):
        create_dataset(configure(model))
    if model == "BPR":
        random = {"order": "RO", "split": {"RS": [0.8, 0.1, 0.1]}}
        assert create_dataset(configure(model, eval_args=random)).interactions == 98
        with pytest.raises(UserError, match=message):
            create_dataset(configure(model, eval_args=random, rm_dup_inter="last"))


@pytest.mark.parametrize("model", MODELS[3:])
def test_rows_without_identifiers_are_counted_and_left_out(
    shop: Callable[..., Path], configure: Config_, model: str, caplog: pytest.LogCaptureFixture
) -> None:
    shop([*reversed_rows(1, 1), "\ti3\t4", "u2\t\t4", *(["\t\t9"] * 5), "NA\tnull\t3"])
    graph(shop)
    shop(["i1\t3", "\t4"], "item_id:token\tprice:float", "item")
    load = {"inter": "*", "item": "*", **({"kg": "*", "link": "*"} if model == "CKE" else {})}
    dataset = create_dataset(configure(model, load_col=load, filter_inter_by_user_or_item=False))
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert [text.partition(": ")[2] for text in warnings if "left out" in text] == [
        "7 rows (lines 98, 99, 100, 101, 102, ...) without user_id or item_id left out.",
        "1 row (line 3) without item_id left out.",
    ]
    assert dataset.interactions == USERS * EVENTS + (model != "CKE")  # a graph does not know the item null
    assert ("NA" in dataset.field2token_id["user_id"]) == (model != "CKE")
    assert np.isfinite(np.asarray(dataset.item_feat["price"], dtype=float)).all()


@pytest.mark.parametrize("model", MODELS)
def test_the_log_counts_users_items_and_interactions(shop: Callable[..., Path], configure: Config_, model: str) -> None:
    shop(reversed_rows(1, 1))
    graph(shop)
    load = {"inter": ["user_id", "item_id", "timestamp"], "kg": "*", "link": "*"} if model == "CKE" else None
    labels = {"train_neg_sample_args": None} if model == "DIEN" else {}
    dataset = create_dataset(configure(model, load_col=load, **labels))
    items = len({item(user, event) for user in range(USERS) for event in range(EVENTS)})
    dataset.build()
    assert str(dataset).startswith(f"shop: {USERS} users, {items} items, {USERS * EVENTS} interactions")
    assert ("20 triples" in str(dataset)) == (model == "CKE")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"load_col": {"inter": ["user_id", "item_id", "timestmp"]}}, "no column 'timestmp'.*Did you mean 'timestamp'"),
        ({"load_col": {"inter": ["user_id", "item_id"]}}, "TIME_FIELD='timestamp', .* load_col or unload_col leaves"),
        ({"load_col": {"inter": ["item_id", "timestamp"]}}, "USER_ID_FIELD='user_id' must be a token column"),
        ({"load_col": {"item": ["item_id"]}}, "names no column of the .inter file"),
        ({"load_col": {"inter": None}}, r"must be columns of each file, e\.g\."),
        ({"load_col": {"inter": "user_id"}}, r"must be columns of each file, e\.g\."),
        ({"load_col": {"inter": "*"}, "unload_col": {"inter": ["timestamp"]}}, "TIME_FIELD='timestamp'"),
        ({"ITEM_ID_FIELD": "timestamp"}, "TIME_FIELD='timestamp': is the column of ITEM_ID_FIELD too; each needs its"),
        (
            {"ITEM_ID_FIELD": "timestamp", "TIME_FIELD": "when"},
            "ITEM_ID_FIELD='timestamp' must be a token column; there is a column of type",
        ),
        ({"USER_ID_FIELD": "who"}, "USER_ID_FIELD='who' must be a token column; there is only"),
        ({"field_separator": ""}, "field_separator='': must be a text"),
        ({"seq_separator": "", "load_col": {"inter": "*", "item": "*"}}, "seq_separator='': must be a text"),
    ],
)
def test_columns_that_are_not_there(
    shop: Callable[..., Path], configure: Config_, settings: dict[str, Any], message: str
) -> None:
    shop(reversed_rows(1, 1))
    shop(["i1\ta b"], "item_id:token\tclass:token_seq", "item")
    with pytest.raises(UserError, match=message):
        create_dataset(configure("SASRec", **settings))


def test_columns_of_other_names_need_no_other_setting(shop: Callable[..., Path], build: Callable[..., Built]) -> None:
    folder = shop(reversed_rows(1, 1), "who:token\tproduct:token\twhen:float")
    names = {"USER_ID_FIELD": "who", "ITEM_ID_FIELD": "product", "TIME_FIELD": "when"}
    for model in ("DreamRec", "SASRec", "BPR"):
        built = build(model, "shop", data_path=str(folder), topk=[1], valid_metric="NDCG@1", **names)
        built.model.calculate_loss(next(iter(built.loaders.train)))


def pre_split(shop: Callable[..., Path], length: int, header: str = "item_id_list:token_seq") -> Path:
    folder = Path()
    for place, part in enumerate(("train", "valid", "test")):
        rows = []
        for user in range(USERS):
            items = [item(user, event) for event in range(length + 3)]
            rows.append(f"u{user}\t{' '.join(items[: length + place])}\t{items[length + place]}")
        folder = shop(rows, f"user_id:token\t{header}\titem_id:token", f"{part}.inter")
    return folder


PRE_SPLIT = {"benchmark_filename": ["train", "valid", "test"], "load_col": {"inter": "*"}}


@pytest.mark.parametrize("model", ["SASRec", "Caser", "FEARec"])
@pytest.mark.parametrize("length", [3, 30])  # shorter and longer than the longest history
def test_pre_split_histories_are_cut_to_their_end(
    shop: Callable[..., Path], build: Callable[..., Built], model: str, length: int
) -> None:
    small = {"topk": [1], "valid_metric": "NDCG@1"}
    built = build(model, "shop", data_path=str(pre_split(shop, length)), **PRE_SPLIT, **small)
    dataset = built.loaders.test.dataset
    row, kept = dataset[[0]], min(length + 2, 10)
    tokens = dataset.field2id_token["item_id"]
    user = int(dataset.field2id_token["user_id"][int(row["user_id"])].removeprefix("u"))
    assert row["item_id_list"].shape == (1, 10) and row["item_length"].tolist() == [kept]
    # The items of histories are those of targets, though the user did not say so.
    whole = [item(user, event) for event in range(length + 2)]
    assert tokens[row["item_id_list"][0, :kept].numpy()].tolist() == whole[-kept:]
    assert tokens[int(row["item_id"])] == item(user, length + 2)
    built.model.calculate_loss(next(iter(built.loaders.train)))
    built.trainer.evaluate(built.loaders.test, load_best_model=False)


def test_rows_of_pre_split_files_keep_their_part(shop: Callable[..., Path], configure: Config_) -> None:
    for place, part in enumerate(("train", "valid", "test")):
        shop([f"u1\ti{place}{row}\t{9 - place}" for row in range(2)], suffix=f"{part}.inter")
    dataset = create_dataset(configure("BPR", benchmark_filename=["train", "valid", "test"]))
    assert [[i for _, i in held_out(dataset, part)] for part in dataset.build()] == [
        ["i00", "i01"],
        ["i10", "i11"],
        ["i20", "i21"],
    ]


def test_pre_split_files_without_histories_are_refused(shop: Callable[..., Path], configure: Config_) -> None:
    message = r"shop.train.inter: 'item_id_list', the history .* must be a token_seq column; there is "
    pre_split(shop, 3, header="items:token_seq")
    with pytest.raises(UserError, match=f"{message}only"):
        create_dataset(configure("SASRec", **PRE_SPLIT))
    pre_split(shop, 3, header="item_id_list:token")
    with pytest.raises(UserError, match=f"{message}a column of type token"):
        create_dataset(configure("SASRec", **PRE_SPLIT))
    pre_split(shop, 0)
    with pytest.raises(UserError, match=r"shop.train.inter: 12 rows \(lines 2, .*\) without a history"):
        create_dataset(configure("SASRec", **PRE_SPLIT))


def test_labels_to_judge_by_must_be_loaded(shop: Callable[..., Path], configure: Config_) -> None:
    shop([f"{row}\t{place % 2}" for place, row in enumerate(reversed_rows(1, 1))], f"{HEADER}\tlabel:float")
    judged = {"eval_args": {"mode": "labeled"}, "metrics": ["AUC"], "valid_metric": "AUC"}
    with pytest.raises(UserError, match="eval_args mode 'labeled' needs LABEL_FIELD='label'"):
        create_dataset(configure("SASRec", **judged))
    assert create_dataset(configure("SASRec", load_col={"inter": "*"}, **judged)).field2type["label"].value == "float"


def test_a_hash_is_of_the_files_of_that_name(tmp_path: Path) -> None:
    (tmp_path / "a.inter").write_text("1")
    config = {"data_path": str(tmp_path), "dataset": "a"}
    before = dataset_hash(config)
    (tmp_path / "ab.inter").write_text("2")
    (tmp_path / "[a].inter").write_text("3")
    assert dataset_hash(config) == before
    assert dataset_hash({**config, "dataset": "[a]"}) != dataset_hash({**config, "dataset": "none"})
    (tmp_path / "a.train.inter").write_text("4")
    assert dataset_hash(config) != before
