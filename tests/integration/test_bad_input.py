"""Files and commands as users write them: they work, or are refused with one line and exit status 2."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from recbole_diffusion.__main__ import main

HEADER = "user_id:token\titem_id:token\ttimestamp:float"
USERS, ITEMS, EVENTS = 12, 25, 8
Command = Callable[..., str]


def item(user: int, event: int) -> int:
    return (5 * user + 3 * event) % ITEMS


def rows(token: str = "i{}", extra: str = "", step: int = 1000) -> list[str]:
    return [
        f"u{user}\t{token.format(item(user, event))}\t{extra}{1_700_000_000 + step * event}"
        for user in range(USERS)
        for event in range(EVENTS)
    ]


def write(lines: list[str], header: str = HEADER, suffix: str = "inter", encoding: str = "utf-8") -> None:
    folder = Path("data/shop")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"shop.{suffix}").write_text("\n".join([header, *lines]) + "\n", encoding=encoding)


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Command:
    """``refused(*arguments, verb)``: the error line of a command that fails before training."""

    def refused(*arguments: str, verb: str = "run", model: str = "SASRec") -> str:
        names = {"compare": ["--models=Pop", "--out=out"], "tune": [f"--model={model}", "--trials=1"]}
        names["run"] = [f"--model={model}", *([] if "--dataset=" in "".join(arguments) else ["--dataset=shop"])]
        assert main([verb, *names[verb], "--data_path=data", "--epochs=1", *arguments]) == 2
        output = capsys.readouterr().err
        assert "Traceback" not in output and not list(Path().glob("saved/*.safetensors"))
        (error,) = [line for line in output.splitlines() if line.startswith("recbole-diffusion: error: ")]
        assert output.splitlines()[-1] == error and len(output.splitlines()) < 12  # and no pages of settings before it
        return error.removeprefix("recbole-diffusion: error: ")

    return refused


def log_of(caplog: pytest.LogCaptureFixture, *arguments: str, model: str = "DreamRec") -> str:
    base = ["run", f"--model={model}", "--dataset=shop", "--data_path=data", "--epochs=1", "--MAX_ITEM_LIST_LENGTH=6"]
    small = ["--embedding_size=16", "--num_layers=1", "--sampling_steps=1"] if model == "DreamRec" else []
    caplog.clear()
    with caplog.at_level("INFO"):
        assert main([*base, *small, *arguments]) == 0
    return caplog.text


def test_events_a_second_apart_are_in_their_order(caplog: pytest.LogCaptureFixture) -> None:
    for step in (1, 60):
        write(rows(step=step)[::-1])
        log = log_of(caplog, "--examples=2")
        user = int(log.partition("Held out for user u")[2].partition(":")[0])
        before = "; ".join(f"i{item(user, event)}" for event in range(EVENTS - 4, EVENTS - 1))
        assert f"User u{user}, last items: {before}" in log
        assert f"Held out for user u{user}: i{item(user, EVENTS - 1)}" in log


def test_a_byte_order_mark_and_windows_line_ends_are_read(caplog: pytest.LogCaptureFixture) -> None:
    write(rows(), encoding="utf-8-sig")
    path = Path("data/shop/shop.inter")
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert f"shop: {USERS} users, {ITEMS} items, {USERS * EVENTS} interactions" in log_of(caplog)


def test_the_encoding_is_that_of_every_file(caplog: pytest.LogCaptureFixture, refused: Command) -> None:
    write(rows("é{}"), encoding="latin-1")
    titles = [f"é{number}\tTitré {number}" for number in range(ITEMS)]
    write(titles, "item_id:token\tname:token", "item", encoding="latin-1")
    assert refused() == (
        "data/shop/shop.inter is not text in the encoding utf-8. Set encoding to the file's own, e.g. "
        "--encoding=latin-1 or --encoding=utf-16."
    )
    assert "  1. Titré " in log_of(caplog, "--encoding=latin-1", "--title_field=name", "--examples=1")


def test_identifiers_that_look_like_nothing_are_kept(caplog: pytest.LogCaptureFixture) -> None:
    words = {"i0": "NA", "i1": "null", "i2": "None", "i3": "nan"}
    write(["\t".join(words.get(field, field) for field in row.split("\t")) for row in rows()])
    log = log_of(caplog, "--examples=25")
    assert f"{ITEMS} items, {USERS * EVENTS} interactions" in log
    assert "WARNING" not in log.partition("epoch 0 training")[0]  # 12 users are too few to be above Pop
    assert any(f". {word}\n" in log for word in words.values())


def test_pre_split_histories_that_are_too_long_are_cut(caplog: pytest.LogCaptureFixture) -> None:
    for place, part in enumerate(("train", "valid", "test")):
        lines = [
            f"u{user}\t{' '.join(f'i{item(user, event)}' for event in range(9 + place))}\ti{item(user, 9 + place)}"
            for user in range(USERS)
        ]
        write(lines, "session_id:token\titem_id_list:token_seq\titem_id:token", f"{part}.inter")
    split = ["--benchmark_filename=[train, valid, test]", "--USER_ID_FIELD=session_id", "--load_col={inter: '*'}"]
    for alias in ([], ["--alias_of_item_id=[item_id_list]"]):
        assert "test:  hit@5" in log_of(caplog, *split, *alias, model="SASRec")


def test_a_dash_for_a_price_is_named(refused: Command) -> None:
    write(rows())
    write(["i0\t1.5", "i1\t—"], "item_id:token\tprice:float", "item")
    error = refused("--load_col={inter: [user_id, item_id, timestamp], item: [item_id, price]}", model="SASRecF")
    assert error.startswith("data/shop/shop.item: column 'price', line 3: '—' is no finite number")


def test_times_that_are_dates_or_missing_or_too_long_are_named(refused: Command) -> None:
    write([*rows(), "u1\ti3\t2024-01-05 10:00"])
    assert refused(model="BPR").endswith("line 98: '2024-01-05 10:00' is no finite number (a missing one is an empty "
    "field): convert dates to Unix seconds.")  # fmt: skip
    write([*rows(), "u1\ti3\t"])
    assert "shop.inter: 1 row (line 98) without a time in 'timestamp'" in refused()
    write([*rows(), "u1\ti3\t1700000000123456789"])
    assert "line 98: '1700000000123456789' is too large to be told from the next time" in refused()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--eval_args={mode: labeled}"],
            "eval_args mode='labeled': compares each row with its label, but metrics=['Hit'",
        ),
        (["--eval_args={mode: {valid: full, test: labeled}}"], "eval_args mode='labeled'"),
        (
            ["--eval_args={mode: {valid: labeled, test: uni10}}", "--metrics=[AUC]", "--valid_metric=AUC"],
            "labeled must be the mode of both",
        ),
        (
            ["--metrics=[AUC]", "--valid_metric=AUC"],
            "eval_args mode='full': ranks the whole catalogue, but metrics=['AUC']",
        ),
        (["--eval_args={mode: uni0}"], "eval_args mode='uni0': must be full, labeled, or uniN or popN with N"),
        (["--eval_args={mode: uni-5}"], "eval_args mode='uni-5': must be"),
        (["--eval_args={mode: pop}"], "eval_args mode='pop': must be"),
        (["--eval_args={mode: Full}"], "eval_args mode='Full': must be"),
        (["--eval_args={mode: {vaild: full}}"], "eval_args mode={'vaild': 'full'}: must have the keys valid and test"),
        (["--eval_args={mode: full, mode: uni5}"], "key 'mode' is given twice"),
        (["--eval_args={split: {LS: test_only}}"], "must be {LS: valid_and_test}, because a run needs"),
        (["--eval_args={split: {LS: valid_only}}"], "must be {LS: valid_and_test}, because a run needs"),
        (["--eval_args={split: {RS: [0.8, 0.2]}}"], "must be three numbers above 0: training, validation, test"),
        (["--eval_args={split: {TS: [0.9, 0.1, 0]}}"], "must be three numbers above 0"),
        (["--eval_args={split: {RS: [1, 1, 1], LS: valid_and_test}}"], "must be {LS: valid_and_test}, {RS: "),
        (["--eval_args={split: LS}"], "eval_args split='LS': must be"),
        (["--eval_args={order: RO}"], "eval_args order='RO': a sequential model needs TO"),
        (["--eval_args={order: random}"], "eval_args order='random': must be TO (order of time) or RO (random order)"),
        (["--eval_args={split: {RS: [8, 1, 1]}, group_by: item}"], "eval_args group_by='item': must be user or none"),
        (
            ["--eval_args={split: {TS: [8, 1, 1]}}", "--numerical_features=[timestamp]"],
            "with TS, numerical_features cannot contain TIME_FIELD",
        ),
        (
            ["--benchmark_filename=[train, test]"],
            "benchmark_filename=['train', 'test']: must be three different names of training",
        ),
        (["--benchmark_filename=[a, b, b]"], "benchmark_filename=['a', 'b', 'b']: must be three different names"),
        (["--benchmark_filename=[]"], "benchmark_filename=[]: must be three different names"),
        (["--benchmark_filename=[a, b, ../c]"], "benchmark_filename='../c': must be a name"),
        (
            ["--benchmark_filename=[a, b, c]"],
            "no shop.a.inter and no shop.b.inter and no shop.c.inter, only shop.inter.",
        ),
    ],
)
def test_settings_of_splits_and_evaluation_are_checked(refused: Command, arguments: list[str], message: str) -> None:
    write(rows())
    assert message in refused(*arguments)


def test_general_models_need_the_order_for_a_split_by_time(refused: Command) -> None:
    write(rows())
    error = refused("--eval_args={order: RO, split: {TS: [8, 1, 1]}}", model="BPR")
    assert error == "eval_args order='RO': a split by time needs TO, the order of time."


def test_pre_split_files_of_single_events_are_refused(refused: Command) -> None:
    for part in ("a", "b", "c"):
        write(rows(), suffix=f"{part}.inter")
    error = refused("--benchmark_filename=[a, b, c]")
    assert error.startswith("data/shop/shop.a.inter: 'item_id_list', the history of each row of pre-split files")


def test_wandb_must_be_there(refused: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    write(rows())
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert refused("--log_wandb=True") == (
        "log_wandb=True: needs the package wandb. Install it (pip install wandb), or set False."
    )


def test_pre_split_files_are_neither_filtered_nor_split(refused: Command, caplog: pytest.LogCaptureFixture) -> None:
    for part in ("a", "b", "c"):
        write(rows(), suffix=f"{part}.inter")
    split = "--benchmark_filename=[a, b, c]"
    for argument, named in (
        ("--rm_dup_inter=first", "rm_dup_inter='first'"),
        ("--user_inter_num_interval=[4,inf)", "user_inter_num_interval='[4,inf)'"),
        ("--item_inter_num_interval=[4,inf)", "item_inter_num_interval='[4,inf)'"),
        ("--val_interval={timestamp: '[3,inf)'}", "val_interval={'timestamp': '[3,inf)'}"),
        ("--filter_inter_by_user_or_item=False", "filter_inter_by_user_or_item=False"),
        ("--eval_args={split: {LS: valid_and_test}}", "eval_args split={'LS': 'valid_and_test'}"),
        ("--eval_args={order: TO}", "eval_args order='TO'"),
        ("--eval_args={group_by: user}", "eval_args group_by='user'"),
    ):
        assert refused(split, argument, model="BPR") == (
            f"{named}: benchmark_filename takes the rows and splits of its files as they are."
        )
    allowed = ["--eval_args={mode: uni5}", "--user_inter_num_interval=[0,inf)", "--topk=[5, 10]"]
    assert "test:  hit@5" in log_of(caplog, split, *allowed, model="BPR")


def test_columns_of_items_are_there_where_nothing_reads_them_too(
    refused: Command, caplog: pytest.LogCaptureFixture
) -> None:
    write(rows())
    for key in ("title_field", "category_field"):
        assert refused(f"--{key}=name", model="Pop") == f"{key}='name': there is no file data/shop/shop.item."
    write(["i1\tx"], "item_id:token\tkind:token", "item")
    for key in ("title_field", "category_field"):
        error = f"{key}='name': data/shop/shop.item has no column 'name', only ['item_id', 'kind']."
        assert refused(f"--{key}=name", model="Pop") == error
        line = refused("--datasets=shop", f"--{key}=name", verb="compare").replace(str(Path().absolute()) + "/", "")
        assert line == f"Pop on shop: {error}" and not Path("out/runs").exists()
    assert "test:  hit@5" in log_of(caplog, "--title_field=kind", "--category_field=kind", model="Pop")


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--seq_len={nope: 3}", "seq_len={'nope': 3}: no column 'nope' is loaded, only ['user_id', 'item_id', "),
        ("--seq_len={user_id: 3}", "seq_len={'user_id': 3}: column 'user_id' is of type token: must be token_seq or "),
        ("--seq_len={tags: 0}", "seq_len={'tags': 0}: must be columns and whole numbers >= 1"),
        ("--seq_len=[tags]", "seq_len=['tags']: must be columns and whole numbers >= 1, e.g. {column: 5}, or ~."),
        ("--alias_of_user_id=[zz]", "alias_of_user_id=['zz']: no column 'zz' is loaded, only ['user_id', 'item_id', "),
        ("--alias_of_item_id=[tag]", "Did you mean 'tags'?"),
        ("--alias_of_item_id=[[tags]]", "alias_of_item_id=[['tags']]: must be a list of columns, or ~."),
        ("--alias_of_item_id=tags", "alias_of_item_id='tags': must be a list of columns, or ~."),
        ("--alias_of_item_id=[timestamp]", "column 'timestamp' is of type float: must be token or token_seq."),
        ("--alias_of_user_id=[item_id]", "alias_of_user_id=['item_id']: 'item_id' cannot be numbered by alias_of_item"),
    ],
)
def test_columns_that_settings_name_are_loaded(
    refused: Command, caplog: pytest.LogCaptureFixture, argument: str, message: str
) -> None:
    write(rows(extra="i1 i2\t"), "user_id:token\titem_id:token\ttags:token_seq\ttimestamp:float")
    loaded = "--load_col={inter: [user_id, item_id, tags, timestamp]}"
    assert message in refused(loaded, argument, model="BPR")
    allowed = ["--seq_len={tags: 1}", "--alias_of_item_id=[tags, item_id]"]
    assert "test:  hit@5" in log_of(caplog, loaded, *allowed, model="Pop")


def test_a_key_given_twice_in_a_file_is_refused(refused: Command) -> None:
    write(rows())
    Path("twice.yaml").write_text("seed: 1\nepochs: 2\nseed: 2\n")
    assert refused("--config_files=twice.yaml") == "twice.yaml is not valid YAML: key 'seed' is given twice"
    Path("broken.yaml").write_text("seed: [1\nepochs: 2\n")
    assert refused("--config_files=broken.yaml").startswith("broken.yaml is not valid YAML: ")


NAMES = ["../shop", "/tmp", "a/b", "a\\b", ".", "..", "", "[1]", "sh*p", "sh?p", "a\0b", "a\nb", "é" * 51, "C:x"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("verb", ["run", "tune", "compare"])
def test_names_of_data_sets_are_names(refused: Command, verb: str, name: str) -> None:
    write(rows())
    before = sorted(map(str, Path().rglob("*")))
    if verb == "compare":
        if not name:
            pytest.skip("refused as a list of names")
        error = refused(f"--datasets={name}", "--tuned=data", verb=verb)
    else:
        error = refused(f"--dataset={name}", verb=verb, model="DreamRec")
    assert "must be a name of at most 100 bytes" in error and len(error) < 250
    assert sorted(map(str, Path().rglob("*"))) == before


def test_names_in_files_are_names_too(capsys: pytest.CaptureFixture[str]) -> None:
    write(rows())
    for name, message in (
        ("../shop", "dataset='../shop': must be a name"),
        ("", "dataset='': must be a name"),
        ("12", "dataset=12: must be a text"),
    ):
        Path("name.yaml").write_text(f"dataset: {name or repr(name)}\nmodel: Pop\ndata_path: data\n")
        assert main(["run", "--config_files=name.yaml"]) == 2
        assert message in capsys.readouterr().err


def test_folders_that_cannot_be_made_are_named(refused: Command) -> None:
    write(rows())
    Path("saved").write_text("mine")
    Path("taken").write_text("mine")
    assert refused().startswith("checkpoint_dir='saved': this folder cannot be made (")
    assert refused("--checkpoint_dir=taken/in").startswith("checkpoint_dir='taken/in': this folder cannot be made (")
    for verb in ("compare", "tune"):
        arguments = ["--datasets=shop"] if verb == "compare" else ["--dataset=shop"]
        line = refused(*arguments, "--out=taken/in", verb=verb, model="DreamRec")
        assert line.startswith("out=") and "taken/in" in line and "cannot be made (" in line
    assert Path("saved").read_text() == Path("taken").read_text() == "mine"


def test_a_log_that_cannot_be_made_is_named(refused: Command) -> None:
    write(rows())
    Path("log").write_text("mine")
    assert refused().startswith("the log='log/SASRec': this folder cannot be made (")


@pytest.mark.parametrize("verb", ["compare", "tune"])
def test_an_empty_folder_for_results_is_not_the_current_one(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["--models=Pop", "--datasets=shop"] if verb == "compare" else ["--model=DreamRec", "--dataset=shop"]
    with pytest.raises(SystemExit) as ended:
        main([verb, *names, "--out="])
    assert ended.value.code == 2 and "argument --out: must not be empty" in capsys.readouterr().err


def test_a_metric_that_is_not_defined_stops_the_training_with_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    write(rows(extra="1\t"), header="user_id:token\titem_id:token\tlabel:float\ttimestamp:float")
    labelled = ["--eval_args={mode: labeled}", "--metrics=[AUC]", "--valid_metric=AUC"]
    labelled.append("--load_col={inter: [user_id, item_id, label, timestamp]}")
    assert main(["run", "--model=BPR", "--dataset=shop", "--data_path=data", "--epochs=1", *labelled]) == 2
    assert "error: valid_metric=AUC: is nan on the validation split" in capsys.readouterr().err


def test_a_separator_is_given_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    write([row.replace("\t", ",") for row in rows()], header=HEADER.replace("\t", ","))
    assert f"{USERS * EVENTS} interactions" in log_of(caplog, "--field_separator=,", model="Pop")
    assert f"{USERS * EVENTS} interactions" in log_of(caplog, '--field_separator=","', model="Pop")


def test_rows_given_twice_are_told(caplog: pytest.LogCaptureFixture) -> None:
    write(rows())
    assert "repeat another" not in log_of(caplog, model="Pop")
    write([row for row in rows() for _ in range(2)])
    count = USERS * EVENTS
    assert f"{count} of {2 * count} interactions repeat another's user_id, item_id, timestamp" in log_of(
        caplog, model="Pop"
    )
    assert "repeat another" not in log_of(caplog, "--rm_dup_inter=first", model="Pop")


def test_items_that_nobody_has_taken_are_told(caplog: pytest.LogCaptureFixture) -> None:
    write(rows())
    load = "--load_col={inter: [user_id, item_id, timestamp], item: [item_id, colour]}"
    for extra in (0, 3):
        write([f"i{i}\tred" for i in range(ITEMS + extra)], header="item_id:token\tcolour:token", suffix="item")
        log = log_of(caplog, load, model="Pop")
        assert ("3 of 28 items are in the .item file only" in log) is (extra > 0)


def test_the_histories_of_pre_split_files_are_loaded(caplog: pytest.LogCaptureFixture) -> None:
    lines = [f"u{user}\ti{item(user, 0)} i{item(user, 1)}\ti{item(user, 2)}" for user in range(USERS)]
    for part in ("train", "valid", "test"):
        write(lines, header="user_id:token\titem_id_list:token_seq\titem_id:token", suffix=f"{part}.inter")
    log = log_of(caplog, "--benchmark_filename=[train, valid, test]", "--topk=[5, 10]", model="SASRec")
    assert "test:  hit@5" in log
