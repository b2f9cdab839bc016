"""A trained model in use: lists, vectors, explanations and later evaluation, from its checkpoint."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch

import recbole_diffusion
from recbole_diffusion.__main__ import main
from recbole_diffusion.config.settings import UserError
from recbole_diffusion.quick_start import run
from recbole_diffusion.recommend.evaluate import evaluate, grouped
from recbole_diffusion.recommend.index import Index
from recbole_diffusion.storage import checkpoint

NETWORK = {"embedding_size": 8, "num_layers": 1, "num_heads": 2, "sampling_steps": 2}
MODELS: dict[str, dict[str, Any]] = {
    "DreamRec": NETWORK,
    "DiffDiv": {**NETWORK, "num_channels": 3},
    "ADIGRec": {**NETWORK, "num_interests": 3},
    "DiffuRec": {**NETWORK, "uncertainty": 0.5},
    "ADRec": NETWORK,
    "PreferGrow": NETWORK,
    "DiffRec": {"hidden_size": 8, "mask_history": False},
    "WindowSASRec": {"hidden_size": 16, "n_layers": 1},
    "HSTU": {"embedding_size": 8, "num_layers": 1, "num_heads": 2},
    "SASRec": {"hidden_size": 16, "inner_size": 16, "n_layers": 1, "loss_type": "CE"},
    "Caser": {"embedding_size": 8, "nh": 2, "nv": 2},  # needs histories of the full length
    "BPR": {"embedding_size": 8},
    "EASE": {},
    "ItemKNN": {},
    "Pop": {},
}
SEQUENTIAL = [name for name in MODELS if name not in ("BPR", "EASE", "ItemKNN", "Pop")]


GAP = pd.DataFrame({"user": ["a", "a"], "item": ["i1", "i2"], "time": [1.0, None]})
ONE = pd.DataFrame({"user": ["u1"], "item": ["i1"]})


class Trained(NamedTuple):
    result: dict[str, Any]
    recommender: recbole_diffusion.Recommender


@pytest.fixture(scope="module")
def trained(random_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Trained]:
    """A model of each kind after one epoch; each is trained when it is first asked for."""
    folder, made = tmp_path_factory.mktemp("trained"), dict[str, Trained]()

    def get(model: str) -> Trained:
        if model not in made:
            before = Path.cwd()
            os.chdir(folder)
            try:
                settings = {
                    "data_path": str(random_data), "MAX_ITEM_LIST_LENGTH": 10, "epochs": 1, "eval_step": 1, "seed": 1,
                    "checkpoint_dir": str(folder), "use_gpu": False, "metric_decimal_place": 12, **MODELS[model],
                }  # fmt: skip
                result = run(model, "random", settings=settings)
            finally:
                os.chdir(before)
            made[model] = Trained(result, recbole_diffusion.load(result["checkpoint"]))
        return made[model]

    return get


@pytest.fixture(scope="module")
def events(random_data: Path) -> pd.DataFrame:
    """The interactions of the data set, in the order of time."""
    file = random_data / "random" / "random.inter"
    frame = pd.read_csv(file, sep="\t", dtype=str).rename(columns=lambda name: name.partition(":")[0])
    frame = frame.rename(columns={"user_id": "user", "item_id": "item", "timestamp": "time"})
    return frame.assign(time=frame["time"].astype(float)).sort_values(["user", "time"], kind="stable")


@pytest.mark.parametrize("model", MODELS)
def test_lists_are_those_that_the_run_has_tested(
    trained: Callable[[str], Trained], events: pd.DataFrame, model: str
) -> None:
    result, recommender = trained(model)
    last = events.groupby("user").tail(1)
    before = events.drop(last.index) if model in SEQUENTIAL else None
    tested = recommender.evaluate(last, before, ("Hit", "NDCG", "MRR"), (5, 10))
    assert tested == pytest.approx({name: result["test"][name] for name in tested}, abs=1e-7)
    assert 0 < tested["hit@10"] < 1


@pytest.mark.parametrize("model", MODELS)
def test_evaluate_gives_the_figures_of_the_run(trained: Callable[[str], Trained], model: str) -> None:
    result, _ = trained(model)
    again = evaluate(result["checkpoint"], ("valid", "test"))
    assert again["valid"] == result["valid"] and again["test"] == result["test"]


@pytest.mark.parametrize("model", ["DreamRec", "DiffDiv", "WindowSASRec", "HSTU", "SASRec", "BPR"])
def test_scores_are_products_of_the_vectors(trained: Callable[[str], Trained], model: str) -> None:
    recommender = trained(model).recommender
    users, items = recommender.user_vectors(), recommender.item_vectors()
    scores = users @ items.T  # [users, items] or [users, channels, items]
    scores = scores.max(axis=1) if model == "DiffDiv" else scores
    lists = recommender.recommend(k=4, filter_seen=False)
    place = {item: index for index, item in enumerate(recommender.items)}
    for row, user in enumerate(recommender.users):
        listed = lists[lists["user"] == user]
        best = np.argsort(-scores[row], kind="stable")[:4]
        assert [place[item] for item in listed["item"]] == best.tolist()
        np.testing.assert_allclose(listed["score"], scores[row][best], rtol=1e-5)


@pytest.mark.parametrize("model", ["DreamRec", "DiffuRec", "DiffRec", "SASRec", "Caser", "BPR"])
def test_a_list_does_not_depend_on_the_other_users(trained: Callable[[str], Trained], model: str) -> None:
    recommender = trained(model).recommender
    every = recommender.recommend(k=5)
    bounded = recommender.with_settings(max_cells=70).recommend(k=5)  # two rows at once
    pd.testing.assert_frame_equal(every, bounded, check_exact=False, rtol=1e-5)
    for user in recommender.users[:3]:
        alone = recommender.recommend(users=[user], k=5)
        pd.testing.assert_frame_equal(
            alone, every[every["user"] == user].reset_index(drop=True), check_exact=False, rtol=1e-5
        )


def test_what_is_seen_blocked_or_not_allowed_is_not_listed(
    trained: Callable[[str], Trained], events: pd.DataFrame
) -> None:
    recommender = trained("DreamRec").recommender
    taken = set(zip(events["user"], events["item"], strict=True))
    every = recommender.recommend(k=30)
    listed = set(zip(every["user"], every["item"], strict=True))
    assert not listed & taken and len(listed | taken) == 40 * 30  # all others are listed
    assert (every.groupby("user")["rank"].apply(list).map(lambda ranks: ranks == list(range(1, len(ranks) + 1)))).all()
    with_seen = recommender.recommend(k=30, filter_seen=False)
    assert len(with_seen) == 40 * 30
    assert (with_seen.groupby("user")["score"].apply(lambda scores: scores.is_monotonic_decreasing)).all()
    allowed = recommender.recommend(k=30, filter_seen=False, allow=["i1", "i2", "i3"], block=["i2"])
    assert set(allowed["item"]) == {"i1", "i3"}


def test_histories_of_any_form_give_the_same_lists(
    trained: Callable[[str], Trained], events: pd.DataFrame, caplog: pytest.LogCaptureFixture
) -> None:
    recommender = trained("DreamRec").recommender
    mapping = {user: list(of_user["item"]) for user, of_user in events.groupby("user", sort=False)}
    known = recommender.recommend(users=list(mapping), k=3)
    shuffled = events.sample(frac=1, random_state=0)
    by_time = recommender.recommend(histories=shuffled, k=3)
    pd.testing.assert_frame_equal(recommender.recommend(histories=mapping, k=3), known)
    pd.testing.assert_frame_equal(
        by_time.sort_values(["user", "rank"], ignore_index=True), known.sort_values(["user", "rank"], ignore_index=True)
    )
    listed = recommender.recommend(histories=list(mapping.values()), k=3)
    assert listed["item"].tolist() == known["item"].tolist() and listed["user"].unique().tolist() == list(range(40))
    assert not caplog.records
    with_strange = {user: ["strange", *items[:2], "i99", *items[2:]] for user, items in mapping.items()}
    pd.testing.assert_frame_equal(recommender.recommend(histories=with_strange, k=3), known)
    (record,) = caplog.records
    assert record.getMessage().startswith(f"histories: 80 of {len(events) + 80} items are unknown, such as 'strange'")


def test_who_has_no_history_gets_the_most_popular_items(
    trained: Callable[[str], Trained], events: pd.DataFrame
) -> None:
    recommender = trained("DiffDiv").recommender
    lists = recommender.recommend(histories={"new": [], "strange": ["x"], "known": ["i3", "i4"]}, k=5)
    assert lists.groupby("user")["by"].unique().map(list).to_dict() == {
        "new": ["popularity"], "strange": ["popularity"], "known": ["model"],
    }  # fmt: skip
    counts = events["item"].value_counts()
    new = lists[lists["user"] == "new"]["item"]
    assert counts[new].tolist() == sorted(counts, reverse=True)[:5]


def test_who_is_not_in_the_data_set_is_nobody_of_it(trained: Callable[[str], Trained]) -> None:
    recommender = trained("BPR").recommender
    recommender._users = {**recommender._users, "0": 3}  # as in a data set whose users are numbers
    with pytest.raises(UserError, match="BPR knows users only by their ids"):
        recommender.recommend(histories=[["i1"]])
    assert recommender.rows(histories={"u1": ["i1"]}).users.tolist() == [recommender._users["u1"]]
    del recommender._users["0"]


def test_a_file_beside_other_data_changes_nothing(trained: Callable[[str], Trained]) -> None:
    result, recommender = trained("DreamRec")
    Path("dataset/random").mkdir(parents=True)
    Path("dataset/random/random.yaml").write_text("USER_ID_FIELD: who\nepochs: 3\n")
    again = recbole_diffusion.load(result["checkpoint"])
    pd.testing.assert_frame_equal(again.recommend(k=3), recommender.recommend(k=3))


def test_an_item_comes_from_the_channel_with_its_score(trained: Callable[[str], Trained]) -> None:
    recommender = trained("DiffDiv").recommender.with_settings(num_chains=2)
    rows = recommender.rows()
    model, batch = recommender.model, recommender._ranker.batch(rows)
    x_0, row = model.generate(batch), torch.arange(len(rows)).repeat_interleave(30)
    items = torch.arange(1, 31).repeat(len(rows))
    origin = model.origins(batch, x_0, row, items)
    alone = [model._channel_scores(channel)[row, items] for channel in x_0.split(2, dim=1)]
    torch.testing.assert_close(origin, torch.stack(alone).argmax(dim=0))
    raw = torch.einsum("rcd,rd->rc", x_0[row], model.item_embedding(items)).argmax(dim=1) // 2
    assert not torch.equal(origin, raw)


def test_settings_of_generation_can_be_others(trained: Callable[[str], Trained], random_data: Path) -> None:
    result, recommender = trained("DiffDiv")
    seeds = [recommender.recommend(k=30, seed=seed) for seed in (1, 1, 2)]
    pd.testing.assert_frame_equal(seeds[0], seeds[1])
    assert not seeds[0]["score"].equals(seeds[2]["score"])
    one = recommender.recommend(k=5, channels=1)
    assert set(recommender.explain(k=5, num_channels=1).lists["channel"]) == {0}
    assert not one["score"].equals(recommender.recommend(k=5)["score"])
    loaded = recbole_diffusion.load(result["checkpoint"], num_channels=1)
    pd.testing.assert_frame_equal(loaded.recommend(k=5), one)
    other = evaluate(result["checkpoint"], settings={"topk": [3], "valid_metric": "NDCG@3", "num_channels": 1})
    assert set(other["test"]) == {"hit@3", "ndcg@3", "mrr@3"}


@pytest.mark.parametrize("model", ["DiffDiv", "ADIGRec", "DreamRec"])
def test_an_explanation_says_where_items_come_from(trained: Callable[[str], Trained], model: str) -> None:
    recommender = trained(model).recommender
    users = recommender.users[:5]
    lists, steps = recommender.explain(users=users, k=4, nearest=29)
    pd.testing.assert_frame_equal(lists[lists.columns[:-1]], recommender.recommend(users=users, k=4))
    assert lists.columns[-1] == ("interest" if model == "ADIGRec" else "channel")
    assert steps["step"].unique().tolist() == [1, 2] and (steps.groupby("step")["t"].first() == [999, 0]).all()
    last = steps[steps["step"] == 2]
    if model == "DiffDiv":
        assert lists["channel"].nunique() > 1
        for _, row in lists.iterrows():  # the channel has this item with this score
            of = last[(last["user"] == row["user"]) & (last["item"] == row["item"])]
            assert of.loc[of["score"].idxmax(), "channel"] == row["channel"]
            assert of["score"].max() == pytest.approx(row["score"], rel=1e-5)
    if model == "DreamRec":
        best = recommender.recommend(users=users, k=29, filter_seen=False)
        assert last["item"].tolist() == best["item"].tolist()


def test_the_lines_of_the_page_work(trained: Callable[[str], Trained]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "recommend.md").read_text(encoding="utf-8")
    code = page.partition("```python\n")[2].partition("```")[0]
    for old, new in (
        ("saved/NAME-best.safetensors", trained("DiffDiv").result["checkpoint"]),
        ('"196", "22"', '"u1", "u2"'),
        ('"50", "172"', '"i1", "i2"'),
        ('"181"', '"i3"'),
        ('users=["196"]', 'users=["u1"]'),
    ):
        assert old in code
        code = code.replace(old, new)
    scope: dict[str, Any] = {}
    exec(code, scope)
    assert len(scope["recommender"].users) == 40


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
@pytest.mark.parametrize("model", ["DreamRec", "DiffDiv", "BPR"])
def test_an_index_of_few_items_gives_the_exact_lists(trained: Callable[[str], Trained], model: str, kind: str) -> None:
    pytest.importorskip("faiss", reason="faiss is not installed")
    recommender = trained(model).recommender
    for filter_seen in (True, False):
        exact, found = (recommender.recommend(k=8, filter_seen=filter_seen, index=index) for index in ("exact", kind))
        pd.testing.assert_frame_equal(found, exact, rtol=1e-5)
    if model != "BPR":
        assert len(recommender.recommend(histories=[[], ["x"]], k=3, index=kind)) == 6
        histories = {"new": [], "known": ["i3", "i4"]}
        exact, found = (recommender.recommend(histories=histories, k=30, index=index) for index in ("exact", kind))
        pd.testing.assert_frame_equal(found, exact, rtol=1e-5)


def test_an_index_is_refused_where_it_would_be_wrong(trained: Callable[[str], Trained]) -> None:
    pytest.importorskip("faiss", reason="faiss is not installed")
    for model, settings, message in (
        ("DreamRec", {"index": "flat"}, "index='flat': must be one of exact, hnsw, ivf"),
        ("DreamRec", {"index": "hnsw", "block": ["i1"]}, "cannot be combined with allow, block"),
        ("DreamRec", {"index": "ivf", "num_chains": 2, "chain_start": "noise"}, "are no inner products"),
        ("DiffRec", {"index": "hnsw"}, "DiffRec has no vectors of items"),
    ):
        with pytest.raises(UserError, match=message):
            trained(model).recommender.recommend(**settings)


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_an_index_finds_most_items_and_each_once(kind: str) -> None:
    pytest.importorskip("faiss", reason="faiss is not installed")
    torch.manual_seed(0)
    items, queries = torch.randn(3000, 16), torch.randn(50, 3, 16)
    scores, found = Index(items, kind).search(queries, 10)
    best, places = (queries @ items.T).amax(dim=1).topk(10)
    recall = (found.unsqueeze(2) == places.unsqueeze(1) + 1).any(dim=2).float().mean()
    assert recall > (0.95 if kind == "hnsw" else 0.2)
    assert all(len(set(row)) == 10 for row in found.tolist())
    torch.testing.assert_close(scores, (queries @ items.T).amax(dim=1).gather(1, found - 1))
    assert (scores[:, 0] <= best[:, 0] + 1e-5).all()


def test_files_have_the_same_lists_and_an_interrupted_one_is_not_there(
    trained: Callable[[str], Trained],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    result, recommender = trained("DreamRec")
    wanted = recommender.recommend(k=3)
    monkeypatch.setattr("recbole_diffusion.recommend.export._ROWS_AT_ONCE", 7)
    base = ["recommend", f"--checkpoint={result['checkpoint']}", "--topk=3"]
    assert main([*base, "--all", "--out=lists.csv"]) == 0
    assert "40 users, 120 items" in capsys.readouterr().out
    pd.testing.assert_frame_equal(pd.read_csv("lists.csv", dtype={"user": str}), wanted, rtol=1e-5, check_dtype=False)
    assert main([*base, "--all", "--out=lists.jsonl"]) == 0
    rows = [json.loads(line) for line in Path("lists.jsonl").read_text().splitlines()]
    pd.testing.assert_frame_equal(pd.DataFrame(rows), wanted, rtol=1e-5, check_dtype=False)
    Path("users.txt").write_text("\n".join(recommender.users[:2]) + "\n")
    assert main([*base, "--users=users.txt", "--out=two.csv"]) == 0
    assert len(pd.read_csv("two.csv")) == 6
    before = {path.name for path in tmp_path.rglob("*")}
    calls = []

    def fails(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments, **named)

    real = recbole_diffusion.Recommender.lists
    monkeypatch.setattr(recbole_diffusion.Recommender, "lists", fails)
    assert main([*base, "--all", "--out=broken.csv"]) == 130
    assert {path.name for path in tmp_path.rglob("*")} == before


def test_a_parquet_file(trained: Callable[[str], Trained]) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    result, recommender = trained("DreamRec")
    assert main(["recommend", f"--checkpoint={result['checkpoint']}", "--all", "--out=lists.parquet"]) == 0
    pd.testing.assert_frame_equal(
        pd.read_parquet("lists.parquet"), recommender.recommend(), rtol=1e-5, check_dtype=False
    )


def test_histories_from_files_and_the_command_line(
    trained: Callable[[str], Trained], capsys: pytest.CaptureFixture[str]
) -> None:
    result, recommender = trained("DreamRec")
    lists = recommender.recommend(histories={"a": ["i1", "i2"], "b": ["i5"]}, k=2)
    Path("h.csv").write_text("user,item,time\na,i2,2\nb,i5,1\na,i1,1\n")
    Path("h.jsonl").write_text('{"user": "a", "items": ["i1", "i2"]}\n\n{"user": "b", "items": ["i5"]}\n')
    base = ["recommend", f"--checkpoint={result['checkpoint']}", "--topk=2"]
    for name in ("h.csv", "h.jsonl"):
        assert main([*base, f"--histories={name}", "--out=out.csv"]) == 0
        pd.testing.assert_frame_equal(pd.read_csv("out.csv"), lists, rtol=1e-5, check_dtype=False)
    capsys.readouterr()
    assert main([*base, "--history=i1, i2"]) == 0
    shown = capsys.readouterr().out
    assert [line.split()[1] for line in shown.splitlines()[1:]] == lists["item"][:2].tolist()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--all", "--out=lists.txt"], "out='lists.txt': must end in .csv, .jsonl, .parquet"),
        (["--all", "--out=."], "out='.': must end in"),
        (["--users=none.txt"], "users: there is no file 'none.txt'"),
        (["--users=empty.txt"], "users: 'empty.txt' is empty"),
        (["--users=who.txt"], "users: 'u999' is not in the model's data set. Give"),
        (["--histories=h.txt"], "histories='h.txt': must end in .csv or .jsonl"),
        (["--histories=wrong.csv"], "histories: has no column 'user', only ['a', 'b']"),
        (["--histories=wrong.jsonl"], "histories: 'wrong.jsonl', line 1: must be"),
        (["--history=i1", "--topk=0"], "must be at least 1"),
        (["--history=i1", "--learning_rate=1"], "learning_rate=1: cannot be set here; a trained model depends on it"),
        (["--history=i1", "--num_stepz=1"], "num_stepz=1: cannot be set here; there is no such setting"),
        (["--history=i1", "--sampling_steps=0"], "sampling_steps=0: must be a whole number >= 1"),
        (["--history=i1", "--mmr_weight=0.5"], "has no categories of items"),
        (["--history=i1", "--all"], "not allowed with argument"),
        ([], "one of the arguments --users --all --history --histories is required"),
    ],
)
def test_a_wrong_argument_is_one_line_and_nothing_is_written(
    trained: Callable[[str], Trained], arguments: list[str], message: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    checkpoint_file = trained("DreamRec").result["checkpoint"]
    Path("empty.txt").write_text("\n")
    Path("who.txt").write_text("u999\n")
    Path("wrong.csv").write_text("a,b\n1,2\n")
    Path("wrong.jsonl").write_text('{"user": "a", "items": "i1"}\n')
    before = {path.name for path in tmp_path.rglob("*")}
    try:
        status = main(["recommend", f"--checkpoint={checkpoint_file}", *arguments])
    except SystemExit as stop:  # of argparse
        status = stop.code
    error = capsys.readouterr().err
    assert status == 2 and message in error and error.count("\n") == 1
    assert {path.name for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r: r.recommend(users=["u1"], histories=[["i1"]]), "users and histories: give one"),
        (lambda r: r.recommend(users=["u1", "u1"]), "'u1' come twice"),
        (lambda r: r.recommend(histories={7: ["i1"], "7": ["i2"]}), "come twice"),
        (lambda r: r.recommend(histories=GAP), "histories: 1 of 2 rows have no time"),
        (lambda r: r.recommend(topk=5), "topk=5: cannot be set here; it is for evaluation; the length of a list is k"),
        (lambda r: r.user_vectors(users=[]), "there is nobody"),
        (lambda r: r.recommend(k=0), "k=0: must be a whole number >= 1"),
        (lambda r: r.recommend(histories="i1"), "histories='i1': must be a DataFrame"),
        (lambda r: r.recommend(histories={"a": "i1"}), "must be a list of items"),
        (lambda r: r.recommend(histories=pd.DataFrame({"user": ["a"], "item": [None]})), "1 of 1 rows have no item"),
        (lambda r: r.recommend(allow=["nope"]), "allow: 'nope' is not an item"),
        (lambda r: r.recommend(block="i1"), "block='i1': must be a list of items"),
        (
            lambda r: r.evaluate(pd.DataFrame({"user": ["u1"], "item": ["i1"]}), metrics=["GAUC"]),
            "no metric of accuracy",
        ),
        (lambda r: r.evaluate(pd.DataFrame({"user": ["u1"], "item": ["i1"]}), topk=[]), "topk=[]: must be a list"),
    ],
)
def test_a_wrong_call_is_one_line(trained: Callable[[str], Trained], call: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        call(trained("DreamRec").recommender)
    assert message in str(error.value)


def test_models_that_need_more_than_a_history_say_so(trained: Callable[[str], Trained]) -> None:
    with pytest.raises(UserError, match="HSTU reads them"):
        trained("HSTU").recommender.recommend(histories=[["i1"]])
    with pytest.raises(UserError, match="BPR knows users only by their ids"):
        trained("BPR").recommender.recommend(histories=[["i1"]])
    with pytest.raises(UserError, match="EASE has no vectors"):
        trained("EASE").recommender.user_vectors()
    with pytest.raises(UserError, match="SASRec does not generate an embedding"):
        trained("SASRec").recommender.explain()


@pytest.mark.parametrize(
    "break_it",
    [
        lambda known: None,
        lambda known: {**known, "starts": known["starts"][1:]},
        lambda known: {**known, "items": known["items"] + 100},
        lambda known: {**known, "items": known["items"].float()},
        lambda known: {**known, "titles": ["one"]},
        lambda known: {**known, "more": 1},
    ],
)
def test_a_checkpoint_whose_interactions_do_not_fit_is_one_line(
    trained: Callable[[str], Trained], tmp_path: Path, break_it: Callable[[dict[str, Any]], Any]
) -> None:
    state = checkpoint.load(trained("DreamRec").result["checkpoint"])
    state["known"] = break_it(state["known"])
    checkpoint.save(state, tmp_path / "crafted.safetensors")
    with pytest.raises(UserError, match=r"crafted.safetensors: (has no interactions|is no checkpoint)"):
        recbole_diffusion.load(tmp_path / "crafted.safetensors")


def test_a_file_does_not_choose_what_is_imported(trained: Callable[[str], Trained], tmp_path: Path) -> None:
    state = checkpoint.load(trained("DreamRec").result["checkpoint"])
    state["config"]["model"] = "antigravity:Model"
    checkpoint.save(state, tmp_path / "crafted.safetensors")
    with pytest.raises(UserError, match=r"not registered\. Give it: --model=antigravity:Model"):
        recbole_diffusion.load(tmp_path / "crafted.safetensors")


def test_fit_keeps_the_users_own_ids_titles_and_categories(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [(10 * user, 7 * int(item)) for user in range(30) for item in rng.permutation(20)[: rng.integers(4, 12)]]
    table = pd.DataFrame(rows, columns=["user", "item"])
    table["time"] = pd.Timestamp("2024-01-01", tz="UTC") + pd.to_timedelta(np.arange(len(table)), "min")
    items = pd.DataFrame({"item": 7 * np.arange(20)})
    items["title"] = [f'The "{item}"\tof\nall' for item in items["item"]]
    items["category"] = [["Home & Garden", "new"] if item % 2 else "Books" for item in items["item"]]
    settings = {**NETWORK, "epochs": 1, "eval_step": 1, "use_gpu": False, "MAX_ITEM_LIST_LENGTH": 10}
    recommender = recbole_diffusion.Recommender.fit(table.sample(frac=1, random_state=1), "DreamRec", items, **settings)
    assert "DreamRec" in repr(recommender) and recommender.get_params()["embedding_size"] == 8
    assert recommender.result is not None and recommender.result["model"] == "DreamRec"
    lists = recommender.recommend(users=[0, 290], k=20)
    assert lists["user"].dtype == np.int64 and lists["item"].dtype == np.int64
    seen = set(table[table["user"] == 290]["item"])
    assert not seen & set(lists[lists["user"] == 290]["item"])
    assert lists["title"].iloc[0] == f'The "{lists["item"].iloc[0]}" of all'
    as_floats = recommender.recommend(users=[0.0, 290.0], k=20)  # as after a merge with gaps
    pd.testing.assert_frame_equal(as_floats[["item", "rank"]], lists[["item", "rank"]])
    recommender.save(tmp_path / "mine.safetensors")
    again = recbole_diffusion.load(tmp_path / "mine.safetensors")
    pd.testing.assert_frame_equal(again.recommend(users=[0, 290], k=20), lists)
    assert again.users == recommender.users and sorted(again.users)[:2] == [0, 10]
    mixed = again.recommend(users=[0], k=10, filter_seen=False, mmr_weight=0.0)
    known = again._ranker.loaded.known
    assert known.categories is not None and known.separator == "|"
    books = mixed["item"] % 2 == 0
    assert books.iloc[:2].nunique() == 2  # the second has another category than the first
    plain = again.recommend(users=[0], k=20, filter_seen=False).set_index("item")["score"]
    np.testing.assert_allclose(mixed["score"], plain[mixed["item"]])  # the model's own, in another order
    with pytest.raises(UserError, match="data_path"):
        recbole_diffusion.Recommender.fit(table, data_path="x")


@pytest.mark.parametrize(
    ("table", "items", "message"),
    [
        ([1, 2], None, "interactions: must be a pandas DataFrame, not list"),
        (pd.DataFrame({"user": [1]}), None, "interactions: has no column 'item'"),
        (pd.DataFrame({"user": [], "item": []}), None, "interactions: the table is empty"),
        (pd.DataFrame({"user": [1, None], "item": [1, 2]}), None, "interactions: 1 of 2 rows have no user"),
        (pd.DataFrame({"user": ["a\tb"], "item": [1]}), None, r"user='a\\tb': an id may have no tab"),
        (pd.DataFrame({"user": [1], "item": [1], "time": ["now"]}), None, "times such as 'now' are neither"),
        (pd.DataFrame({"user": [1], "item": [1]}), pd.DataFrame({"item": [1]}), "items: has neither 'title' nor"),
        (
            pd.DataFrame({"user": [1], "item": [1]}), pd.DataFrame({"item": [1], "category": [["a|b"]]}),
            r"items: category 'a\|b' contains",
        ),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_learned_from_is_one_line(table: Any, items: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        recbole_diffusion.Recommender.fit(table, "DreamRec", items)


def test_groups_together_are_the_whole(trained: Callable[[str], Trained], tmp_path: Path) -> None:
    result, _ = trained("DreamRec")
    found = evaluate(result["checkpoint"], by=("activity", "popularity"), picture=str(tmp_path / "by.html"))
    for name in ("test by activity", "test by popularity"):
        rows = [int(group.partition("(")[2].split()[0]) for group in found["by"][name]]
        assert sum(rows) == 40 and len(rows) > 2
        means = [of_group["ndcg@10"] for of_group in found["by"][name].values()]
        assert np.dot(means, rows) / 40 == pytest.approx(result["test"]["ndcg@10"], abs=1e-9)
    assert "test by activity" in (tmp_path / "by.html").read_text()
    with pytest.raises(UserError, match="by='size': must be activity or popularity"):
        evaluate(result["checkpoint"], by=("size",))


def test_other_interactions_than_in_training_are_told(
    trained: Callable[[str], Trained], random_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result, _ = trained("DreamRec")
    (tmp_path / "data/random").mkdir(parents=True)
    text = (random_data / "random/random.inter").read_text()
    for more, told in (("", False), ("u1\ti1\t99\n", True)):
        caplog.clear()
        (tmp_path / "data/random/random.inter").write_text(text + more)
        evaluate(result["checkpoint"], settings={"data_path": str(tmp_path / "data")})
        assert ("are not those that it was trained" in caplog.text) is told


def test_rows_with_equal_facts_are_in_one_group() -> None:
    values = {"x": np.arange(8.0)}
    groups = grouped(values, np.array([1, 1, 1, 1, 1, 2, 3, 9]))
    assert groups == {"1 (5 rows)": {"x": 2.0}, "2 (1 rows)": {"x": 5.0}, "3 to 9 (2 rows)": {"x": 6.5}}
    assert list(grouped(values, np.full(8, 4))) == ["4 (8 rows)"]


def test_the_checkpoint_alone_is_enough(trained: Callable[[str], Trained], tmp_path: Path) -> None:
    result, recommender = trained("DreamRec")
    state = checkpoint.load(result["checkpoint"])
    state["config"]["data_path"] = "/nowhere/random"
    checkpoint.save(state, tmp_path / "moved.safetensors")
    moved = recbole_diffusion.load(tmp_path / "moved.safetensors")
    pd.testing.assert_frame_equal(moved.recommend(k=3), recommender.recommend(k=3))
    with pytest.raises(UserError, match=r"its data set was in .*nowhere.*Give --data_path"):
        evaluate(tmp_path / "moved.safetensors")
    assert torch.equal(moved._ranker.loaded.known.items, state["known"]["items"])
