"""The table of bad input: what a user may get wrong, and what the one line of error must say.

Each case starts from a small data set ``data/shop`` in an empty folder.
"""

from __future__ import annotations

import dataclasses
import gzip
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

HEADER = "user_id:token\titem_id:token\ttimestamp:float"
USERS, ITEMS, EVENTS = 12, 25, 8
INTER, ITEM = "data/shop/shop.inter", "data/shop/shop.item"


def rows(item: str = "i{}", end: str = "") -> list[str]:
    """The rows of the shop, with this form of an item's token, and something at the end of each row."""
    return [
        f"u{user}\t{item.format((5 * user + 3 * event) % ITEMS)}\t{1_700_000_000 + 1000 * event}{end}"
        for user in range(USERS)
        for event in range(EVENTS)
    ]


def table(lines: list[str] | None = None, header: str = HEADER) -> str:
    return "\n".join([header, *(rows() if lines is None else lines)]) + "\n"


def with_row(row: str) -> str:
    """The shop with this row in line 7."""
    lines = rows()
    lines[5] = row
    return table(lines)


@dataclasses.dataclass(frozen=True)
class Case:
    """Bad input.

    Args:
        says: what the line must have: the file or setting, the value, and what is allowed.
        arguments: of the command, after those that every case has.
        files: files to write, by their path.
        model: the model, if ``arguments`` names none.
        verb: of the command.
        prepare: changes the folder before the command.
    """

    says: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    files: Mapping[str, str | bytes] = dataclasses.field(default_factory=dict)
    model: str = "DreamRec"
    verb: str = "run"
    prepare: Callable[[], object] = lambda: None


def inter(content: str | bytes, *says: str, model: str = "DreamRec", arguments: tuple[str, ...] = ()) -> Case:
    """A file of interactions with this content."""
    return Case((INTER, *says), arguments, {INTER: content}, model)


def sets(*arguments: str, says: tuple[str, ...] = (), model: str = "DreamRec", key: str = "") -> Case:
    """Settings. The line has the key of the last one, and ``says``."""
    name = arguments[-1].removeprefix("--").partition("=")[0]
    return Case((key or name, *(says or ("must be",))), arguments, model=model)


def moved(name: str) -> Callable[[], object]:
    return lambda: os.rename(INTER, f"data/shop/{name}")


def instead(path: str, make: Callable[[str], object]) -> Callable[[], object]:
    """Put something else in the place of a file."""

    def prepare() -> None:
        os.remove(path)
        make(path)

    return prepare


def config(content: str | bytes, *says: str, arguments: tuple[str, ...] = ()) -> Case:
    """A file for --config_files."""
    return Case(says, ("--config_files=c.yaml", *arguments), {"c.yaml": content})


def space(content: str, *says: str) -> Case:
    """A search space."""
    return Case(("s.yaml", *says), ("--trials=1", "--space=s.yaml"), {"s.yaml": content}, verb="tune")


def tune(*arguments: str, says: tuple[str, ...], **more: object) -> Case:
    return Case(says, arguments, verb="tune", **more)  # type: ignore[arg-type]


def compare(*arguments: str, says: tuple[str, ...], models: str = "Pop", **more: object) -> Case:
    return Case(says, (f"--models={models}", *arguments), verb="compare", **more)  # type: ignore[arg-type]


NAME_TYPE = ("a column is NAME:TYPE", "token, float, token_seq, float_seq")
NUMBERED = ("line 7", "is no finite number")
FIELDS = ("line 7 has", "the header has 3")
NO_TEXT = ("is not text in the encoding", "--encoding=")
WITH_ITEMS = {
    ITEM: "item_id:token\tkind:token\tprice:float\n" + "".join(f"i{i}\tk{i % 3}\t{i}\n" for i in range(ITEMS))
}
LOAD_ITEMS = "--load_col={inter: [user_id, item_id, timestamp], item: [item_id, kind, price]}"

FILES: dict[str, Case] = {
    "empty": inter("", "is empty", "user_id:token"),
    "one line end": inter("\n", "is empty"),
    "header only": inter(HEADER + "\n", "a header and no rows"),
    "no header": inter(table()[len(HEADER) + 1 :], "'u0'", *NAME_TYPE),
    "no types": inter(table(header="user_id\titem_id\ttimestamp"), "'user_id'", *NAME_TYPE),
    "one type is missing": inter(table(header="user_id:token\titem_id:token\ttimestamp"), "'timestamp'", *NAME_TYPE),
    "type": inter(table(header=HEADER.replace("float", "int")), "'timestamp'", "'int'", "token, float"),
    "type in capitals": inter(table(header=HEADER.replace("float", "Float")), "'Float'", "Did you mean 'float'"),
    "column twice": inter(table(header=HEADER.replace("item_id", "user_id")), "'user_id' twice"),
    "column without a name": inter(table(header=HEADER.replace("user_id", "")), "':token'", *NAME_TYPE),
    "two colons": inter(table(header=HEADER.replace("user_id", "user:id")), "'user:id:token'", *NAME_TYPE),
    "commas for tabs": inter(table().replace("\t", ","), "field_separator='\\t'", "','"),
    "semicolons for tabs": inter(table().replace("\t", ";"), "field_separator='\\t'", "';'"),
    "blanks for tabs": inter(table().replace("\t", " "), "field_separator='\\t'", "' '"),
    "tabs for commas": inter(table(), "field_separator=','", "'\\t'", arguments=("--field_separator=,",)),
    "a header of a megabyte": inter("x" * (1 << 21) + "\n", "is no header"),
    "users are a sequence": inter(
        table(header=HEADER.replace("user_id:token", "user_id:token_seq")), "USER_ID_FIELD='user_id'", "a token column"
    ),
    "items are a sequence": inter(
        table(header=HEADER.replace("item_id:token", "item_id:token_seq")), "ITEM_ID_FIELD='item_id'", "token_seq"
    ),
    "items are numbers": inter(
        table(rows("{}"), HEADER.replace("item_id:token", "item_id:float")), "ITEM_ID_FIELD='item_id'", "type float"
    ),
    "times are tokens": inter(table(header=HEADER.replace("float", "token")), "TIME_FIELD='timestamp'", "float column"),
    "no users": inter(
        table([row.partition("\t")[2] for row in rows()], "item_id:token\ttimestamp:float"),
        "USER_ID_FIELD='user_id'", "only ['item_id', 'timestamp']",
    ),
    "no items": inter(
        table(["u0\t1"], "user_id:token\ttimestamp:float"),
        "ITEM_ID_FIELD='item_id'", "only ['user_id', 'timestamp']",
    ),
    "no times": inter(
        table([row.rpartition("\t")[0] for row in rows()], "user_id:token\titem_id:token"),
        "TIME_FIELD='timestamp'", "ordered by", "only ['user_id', 'item_id']",
    ),
    "no times for BPR": inter(
        table([row.rpartition("\t")[0] for row in rows()], "user_id:token\titem_id:token"),
        "TIME_FIELD='timestamp'", "ordered by", model="BPR",
    ),
    "users of another name": inter(
        table(header=HEADER.replace("user_id", "User_ID")), "USER_ID_FIELD='user_id'", "Did you mean 'User_ID'"
    ),
    "latin-1": inter(table(rows("é{}")).encode("latin-1"), *NO_TEXT),
    "latin-1 in the last line": inter(table([*rows(), "u1\té\t1"]).encode("latin-1"), *NO_TEXT),
    "utf-16": inter(table().encode("utf-16"), *NO_TEXT),
    "utf-32": inter(table().encode("utf-32"), *NO_TEXT),
    "utf-16 without its mark": inter(table(), *NO_TEXT, arguments=("--encoding=utf-16",)),
    "more letters than ascii": inter(table(rows("é{}")), *NO_TEXT, arguments=("--encoding=ascii",)),
    "any bytes": inter(bytes(range(256)) * 20, *NO_TEXT),
    "zeros": inter(bytes(1000), *NO_TEXT),
    "a zero in an item": inter(table([*rows(), "u1\ti\0x\t1"]), "NUL"),
    "gzip": inter(gzip.compress(table().encode()), *NO_TEXT),
    "time NaN": inter(with_row("u0\ti1\tNaN"), "line 7", "without a time", "Fill it in"),
    "time inf": inter(with_row("u0\ti1\tinf"), "line 7", "'inf'", "not finite"),
    "time -inf": inter(with_row("u0\ti1\t-inf"), "line 7", "'-inf'", "not finite"),
    "no time": inter(with_row("u0\ti1\t"), "line 7", "without a time in 'timestamp'"),
    "time is a word": inter(with_row("u0\ti1\tyesterday"), "'yesterday'", *NUMBERED),
    "time is a date": inter(with_row("u0\ti1\t2024-01-05"), "'2024-01-05'", *NUMBERED, "Unix seconds"),
    "time 1e400": inter(with_row("u0\ti1\t1e400"), "line 7", "'1e400'", "not finite"),
    "time in nanoseconds": inter(with_row("u0\ti1\t1700000000123456789"), "line 7", "too large", "milliseconds"),
    "time with a comma": inter(with_row("u0\ti1\t1,5"), "'1,5'", *NUMBERED),
    "time in hexadecimal": inter(with_row("u0\ti1\t0x10"), "'0x10'", *NUMBERED),
    "time with an underscore": inter(with_row("u0\ti1\t1_000"), "'1_000'", *NUMBERED),
    "time in other digits": inter(with_row("u0\ti1\t١٢"), "'١٢'", *NUMBERED),
    "no times at all": inter(table([f"u{n % 9}\ti{n % 7}\tnan" for n in range(90)]), "90 rows", "without a time"),
    "one field more": inter(with_row("u0\ti1\t5\tx"), *FIELDS, "4 fields"),
    "one field less": inter(with_row("u0\ti1"), *FIELDS, "2 fields"),
    "one field": inter(with_row("u0"), *FIELDS, "1 field"),
    "a field more in each row": inter(table(rows(end="\tx")), "line 2 has 4 fields", "the header has 3"),
    "a line break in quotation marks": inter(with_row('u0\t"i\n1"\t1'), *FIELDS, "quotation marks"),
    "no user in any row": inter(table([f"\ti{n}\t{n}" for n in range(50)]), "user_id and item_id"),
    "no item in any row": inter(table([f"u{n}\t\t{n}" for n in range(50)]), "user_id and item_id"),
    "an item called padding": inter(with_row("u0\t[PAD]\t1"), "'item_id'", "line 7", "'[PAD]'", "another name"),
    "a user called padding": inter(with_row("[PAD]\ti1\t1"), "'user_id'", "line 7", "'[PAD]'", "another name"),
    "users with three interactions": Case(
        ("dataset='shop'", "nothing for validation", "longest of 40 users has 3", "120 interactions", "four"),
        files={INTER: table([f"u{u}\ti{e}\t{e}" for u in range(40) for e in range(3)])},
    ),
    "users with one interaction": Case(
        ("dataset='shop'", "no user has two interactions", "60 interactions in the files"),
        files={INTER: table([f"u{u}\ti{u % 9}\t{u}" for u in range(60)])},
    ),
    "one item": Case(
        ("topk=[5, 10, 20]", "'shop' has only 1 items"), files={INTER: table([f"u{n % 9}\ti1\t{n}" for n in range(90)])}
    ),
    "a folder in its place": Case(("dataset='shop'", "no shop.inter"), prepare=instead(INTER, os.mkdir)),
    "a link to nothing": Case(
        ("dataset='shop'", "no shop.inter"), prepare=instead(INTER, lambda path: os.symlink("nowhere", path))
    ),
    "a link to itself": Case(
        ("dataset='shop'", "no shop.inter"), prepare=instead(INTER, lambda path: os.symlink("shop.inter", path))
    ),
    "a pipe": Case(("dataset='shop'", "no shop.inter"), prepare=instead(INTER, os.mkfifo)),
    "a misspelt file": Case(
        ("data/shop has no shop.inter, only shp.inter", "Put data/shop/shop.inter"), prepare=moved("shp.inter")
    ),
    "a CSV file": Case(("has no shop.inter, only shop.csv", "atomic format"), prepare=moved("shop.csv")),
    "items: no file": sets("--category_field=kind", says=("'kind'", "there is no file data/shop/shop.item")),
    "items: no file to load": Case(("load_col=", "there is no file data/shop/shop.item"), (LOAD_ITEMS,)),
    "items: no column": Case(
        ("category_field='nope'", ITEM, "only ['item_id', 'kind', 'price']"), ("--category_field=nope",), WITH_ITEMS
    ),
    "items: no title": Case(("title_field='nope'", ITEM, "no column"), ("--title_field=nope",), WITH_ITEMS),
    "items: categories are numbers": Case(
        ("category_field='price'", "token or token_seq", "it is float"),
        ("--category_field=price", "--metrics=[NDCG, ILD]"), WITH_ITEMS,
    ),
    "items: no categories": sets("--metrics=[NDCG, ILD]", says=("need category_field", "it is ~")),
    "items: no categories for MMR": sets("--mmr_weight=0.5", says=("0.5", "needs category_field")),
    "items: empty": Case((ITEM, "is empty"), ("--category_field=kind",), {ITEM: ""}),
    "items: no items": Case((ITEM, "no column 'item_id'"), ("--category_field=kind",), {ITEM: "kind:token\na\n"}),
    "items: price": Case(
        (ITEM, "'price'", "line 2", "'-'", "no finite number"), (LOAD_ITEMS,),
        {ITEM: "item_id:token\tkind:token\tprice:float\ni1\ta\t-\n"},
    ),
    "items: a field more": Case(
        (ITEM, "line 2 has 4 fields", "the header has 3"), (LOAD_ITEMS,),
        {ITEM: "item_id:token\tkind:token\tprice:float\ni1\ta\t1\tx\n"},
    ),
    "items: few of them": Case(
        ("dataset='shop'", "no user has two", "96 interactions in the files", "after filter_inter_by_user_or_item"),
        (LOAD_ITEMS,), {ITEM: "item_id:token\tkind:token\tprice:float\ni1\ta\t1\n"},
    ),
    "files that are split already": sets(
        "--benchmark_filename=[a, b, c]", says=("no shop.a.inter", "only shop.inter"), key="dataset='shop'"
    ),
}  # fmt: skip

NAMES: dict[str, Case] = {
    "wrong": sets("--dataset=shoop", says=("'shoop'", "data has no such folder, only shop", "Did you mean 'shop'")),
    "in capitals": sets("--dataset=Shop", says=("'Shop'", "Did you mean 'shop'")),
    "folder above": sets("--dataset=../shop", says=("'../shop'", "must be a name")),
    "absolute": sets("--dataset=/tmp", says=("'/tmp'", "must be a name")),
    "of 300 letters": sets(f"--dataset={'x' * 300}", says=("at most 100 bytes",)),
    "empty": sets("--dataset=", says=("''", "must be a name")),
    "with a line end": sets("--dataset=a\nb", says=("'a\\nb'", "must be a name")),
    "no folder": sets("--data_path=nowhere", says=("there is no folder nowhere", "--data_path"), key="dataset='shop'"),
    "a file": sets("--data_path=" + INTER, says=("there is no folder " + INTER,), key="dataset='shop'"),
    "a path without a value": sets("--data_path=", says=("''", "~ stands for none")),
    "a list of paths": sets("--data_path=[a]", says=("['a']", "must be a path")),
    "a path of 5000 letters": sets(f"--data_path={'x' * 5000}", says=("cannot be read", "too long")),
    "a path with a zero": sets("--data_path=a\0b", says=("'a\\x00b'",)),
    "of no model": sets("--model=DremRec", says=("'DremRec'", "no such model", "Did you mean 'DreamRec'")),
    "of a model in small letters": sets("--model=dreamrec", says=("Did you mean 'DreamRec'", "case-sensitive")),
    "of an empty model": sets("--model=", says=("''", "no such model")),
    "of no module": sets("--model=no.such:Model", says=("'no.such:Model'", "no module 'no'", "PYTHONPATH")),
    "of no class": sets("--model=os:Model", says=("'os'", "no class 'Model'")),
    "of a function": sets("--model=os:getcwd", says=("os:getcwd", "SequentialRecommender")),
    "of another class": sets("--model=torch:Tensor", says=("torch:Tensor", "SequentialRecommender")),
    "of no model of RecBole": sets("--model=recbole.Nope", says=("'recbole.Nope'", "no such model")),
    "of no preset": sets("--preset=papr", says=("papr", "default, paper")),
    "of a preset elsewhere": sets("--preset=../model", says=("../model", "default, paper")),
}

WHOLE, FLAG, NUMBER = ("must be a whole number",), ("must be True or False",), ("must be a number",)

SETTINGS: dict[str, Case] = {
    f"{number} {' '.join(case.arguments)[:60]}": case
    for number, case in enumerate(
        [
            sets("--epochs=0", says=("0", *WHOLE, ">= 1")),
            sets("--epochs=-1", says=("-1", *WHOLE)),
            sets("--epochs=many", says=("'many'", *WHOLE)),
            sets("--epochs=1.5", says=("1.5", *WHOLE)),
            sets("--epochs=True", says=("True", *WHOLE)),
            sets("--epochs=~", says=WHOLE),
            sets("--epochs=", says=("''", "has no value", "~")),
            sets("--epochs=[1]", says=("[1]", *WHOLE)),
            sets("--epochs=.inf", says=("inf", "finite")),
            sets("--epochs=.nan", says=("nan", "finite")),
            sets("--epochs=1", "--epochs=2", says=("given twice", "1 and 2")),
            sets("--eval_step=0", says=("0", *WHOLE)),
            sets("--stopping_step=-1", says=("-1", *WHOLE)),
            sets("--worker=-1", says=("-1", *WHOLE)),
            sets("--worker=100000", says=("100000", "<= 256")),
            sets("--train_batch_size=0", says=WHOLE),
            sets("--train_batch_size=1e3", says=("1000.0", *WHOLE)),
            sets("--train_batch_size=99999999999999999999", says=("<= 2147483647",)),
            sets("--eval_batch_size=0", says=WHOLE),
            sets("--max_cells=x", says=("'x'", *WHOLE)),
            sets("--learning_rate=0", says=("0", *NUMBER, "> 0")),
            sets("--learning_rate=fast", says=("'fast'", *NUMBER)),
            sets("--learning_rate=.inf", says=("inf", "finite")),
            sets("--learner=adm", says=("'adm'", "one of adam", "Did you mean 'adam'")),
            sets("--weight_decay=-1", says=("-1", *NUMBER)),
            sets("--clip_grad_norm=5", says=("5", "max_norm")),
            sets("--clip_grad_norm=abc", says=("'abc'", "max_norm")),
            sets("--clip_grad_norm={max_norm: -5}", says=("-5", "above 0")),
            sets("--clip_grad_norm={max_norm: five}", says=("'five'", "numbers above 0")),
            sets("--clip_grad_norm={max_norm: 5, nope: 1}", says=("'nope'", "optionally norm_type")),
            sets("--seed=-1", says=("-1", *WHOLE)),
            sets("--seed=1.5", says=("1.5", *WHOLE)),
            sets("--seed=99999999999999999999", says=("<= 4294967295",)),
            sets("--reproducibility=often", says=("'often'", *FLAG)),
            sets("--shuffle=3", says=("3", *FLAG)),
            sets("--window_overlap=1", says=("1", "< 1")),
            sets("--train_on=prefixes", "--prefixes_per_user=0", says=("0", *WHOLE)),
            sets("--precision=fp8", says=("'fp8'", "one of fp32, bf16")),
            sets("--precision=bf16", says=("only sequential models",), model="BPR"),
            sets("--MAX_ITEM_LIST_LENGTH=0", says=WHOLE),
            sets("--MAX_ITEM_LIST_LENGTH=1000000000", says=("<= 1000000",)),
            sets("--state=LOUD", says=("'LOUD'", "one of DEBUG")),
            sets("--log_wandb=x", says=("'x'", *FLAG)),
            sets("--wandb_project=x", says=("'x'", "only with log_wandb=True")),
            sets("--metrics=NDGC", says=("'NDGC'", "Did you mean 'ndcg'")),
            sets("--metrics=[]", says=("[]", "a list of different names")),
            sets("--metrics={a: 1}", says=("a list of different names",)),
            sets("--metrics=[NDCG, NDCG]", says=("different names",)),
            sets("--topk=[0]", says=("[0]", "whole numbers >= 1")),
            sets("--topk=ten", says=("'ten'", "whole numbers >= 1")),
            sets("--topk=[True]", says=("[True]", "whole numbers >= 1")),
            sets("--topk=[10, 10]", says=("different whole numbers",)),
            sets("--topk=[1,", says=("'[1,'", "not a YAML value")),
            sets("--valid_metric=NDCG@1000", "--topk=[1000]", says=("topk=[1000]", "only 25 items")),
            sets("--valid_metric=NDCG@7", says=("'NDCG@7'", "NDCG@5, NDCG@10, NDCG@20")),
            sets("--metric_decimal_place=-1", says=("-1", *WHOLE)),
            sets("--metric_decimal_place=text", says=("'text'", *WHOLE)),
            sets("--metric_decimal_place=1000000000", says=("<= 16",)),
            sets("--loss_decimal_place=1000000000", says=("<= 16",)),
            sets("--eval_args=abc", says=("'abc'", "a mapping of split, group_by, order and mode")),
            sets("--eval_args={splt: {LS: valid_and_test}}", says=("'splt'", "split, group_by, order, mode")),
            sets("--eval_args={group_by: session}", says=("group_by='session'", "must be user")),
            sets("--eval_args={group_by: 3}", says=("group_by=3", "must be user")),
            sets("--eval_args={order: XX}", says=("order='XX'", "TO")),
            sets("--eval_args={split: {RS: [a, b, c]}}", says=("three numbers above 0",)),
            sets("--eval_args={mode: uni1000000000}", says=("'uni1000000000'", "below 1000000")),
            sets("--mask_history=1", says=("1", *FLAG)),
            sets("--eval_args={mode: uni5}", "--candidate_seed=-1", says=("-1", *WHOLE)),
            sets("--tail_ratio=0", says=("0", "> 0")),
            sets("--mmr_weight=2", says=("2", "<= 1")),
            sets("--repeatable=True", says=("use mask_history",)),
            sets("--USER_ID_FIELD=uid", says=("only ['user_id', 'item_id', 'timestamp']",)),
            sets("--USER_ID_FIELD=[user_id]", says=("['user_id']", "a text")),
            sets("--USER_ID_FIELD=item_id", says=("ITEM_ID_FIELD='item_id'", "each needs its own")),
            sets("--TARGET_LIST_FIELD=item_length", says=("'item_length'", "ITEM_LIST_LENGTH_FIELD")),
            sets("--LIST_SUFFIX=", says=("''", "has no value")),
            sets("--field_separator=", says=("''", "has no value")),
            sets("--encoding=8", says=("8", "a text")),
            sets("--encoding=utf9", says=("'utf9'", "a text encoding of Python")),
            sets("--encoding=base64", says=("'base64'", "a text encoding")),
            sets("--encoding=\udcff", says=("not a YAML value",)),
            sets("--load_col=3", says=("3", "{inter: [user_id, item_id]}")),
            sets("--load_col=[user_id]", says=("['user_id']", "{inter: [user_id, item_id]}")),
            sets("--load_col={inter: user_id}", says=("'user_id'", "{inter: [user_id, item_id]}")),
            sets("--load_col={inter: [1]}", says=("[1]", "{inter: [user_id, item_id]}")),
            sets("--load_col={inter: [user_id, item_id, time]}", says=("'time'", "only ['user_id', ")),
            sets("--load_col={inter: [user_id, item_id]}", says=("TIME_FIELD='timestamp'", "leaves it out"), key=INTER),
            sets("--load_col={}", says=("names no column of the .inter file",)),
            sets("--unload_col=user_id", says=("'user_id'", "{inter: [user_id, item_id]}")),
            sets("--unused_col=3", says=("3", "{inter: [user_id, item_id]}")),
            sets("--unused_col={inter: [nope]}", says=("'nope'", "only ['user_id', 'item_id', 'timestamp']")),
            sets("--unused_col={inter: [user_id]}", says=("'user_id'", "cannot be dropped")),
            sets("--additional_feat_suffix=3", says=("3", "a list of file suffixes")),
            sets("--numerical_features=price", says=("'price'", "a list of columns")),
            sets("--numerical_features=[price]", says=("'price'", "only ['user_id', ")),
            sets("--numerical_features=[item_id]", says=("'item_id'", "must be float")),
            sets("--threshold=3", says=("3", "{rating: 3}")),
            sets("--threshold={rating: 3}", says=("'rating'", "only ['user_id', ")),
            sets("--threshold={timestamp: abc}", says=("'abc'", "{rating: 3}")),
            sets("--val_interval=3", says=("3", "{rating: '[3,inf)'}")),
            sets("--val_interval=[3,inf)", says=("'[3,inf)'", "columns")),
            sets("--val_interval={rating: '[3,inf)'}", says=("'rating'", "only ['user_id', ")),
            sets("--val_interval={timestamp: abc}", says=("'abc'", "'[3,inf)'")),
            sets("--val_interval={timestamp: [a, b]}", says=("timestamp=['a', 'b']", "an interval")),
            sets("--val_interval={timestamp: '[5,3]'}", says=("'[5,3]'", "columns")),
            sets("--val_interval={item_id: '[3,5]'}", says=("item_id='[3,5]'", "a list of values")),
            sets(
                "--val_interval={timestamp: '[9e9,inf)'}",
                says=(
                    "nothing is left",
                    "96 interactions in the files; 0 after val_interval={'timestamp'",
                ),
            ),
            sets("--user_inter_num_interval=abc", says=("'abc'", "'[4,inf)'")),
            sets("--user_inter_num_interval=5", says=("5", "an interval")),
            sets("--user_inter_num_interval=[5", says=("'[5'", "an interval")),
            sets("--user_inter_num_interval=[9,3]", says=("'[9,3]'", "an interval")),
            sets("--user_inter_num_interval=[nan,inf)", says=("'[nan,inf)'", "an interval")),
            sets("--user_inter_num_interval=[1,2];[x,4]", says=("'[1,2];[x,4]'", "an interval")),
            sets("--item_inter_num_interval=5,inf", says=("'5,inf'", "an interval")),
            sets(
                "--user_inter_num_interval=[100,inf)",
                says=("96 interactions in the files; 0 after user_inter_num_interval=[100,inf)",),
            ),
            sets("--item_inter_num_interval=[100,inf)", says=("; 0 after",), model="BPR"),
            sets("--rm_dup_inter=middle", says=("'middle'", "first, last")),
            sets("--filter_inter_by_user_or_item=maybe", says=("'maybe'", *FLAG)),
            sets("--alias_of_item_id=tags", says=("'tags'", "a list of columns")),
            sets("--normalize_field=3", says=("3", "a list of columns")),
            sets("--discretization=3", says=("3", "{method: ED, bucket: 5}")),
            sets("--discretization={timestamp: {method: XX}}", says=("'XX'", "{method: LD}")),
            sets("--seq_len=abc", says=("'abc'", "{column: 5}")),
            sets("--train_on=prefixes", "--transform=nope", says=("'nope'", "crop_itemseq")),
            sets("--train_neg_sample_args={distribution: uniform}", says=("Only ~",)),
            sets("--train_neg_sample_args=uniform", says=("'uniform'", "{distribution: uniform"), model="BPR"),
            sets("--train_neg_sample_args={sample_num: -1}", says=("-1", "sample_num: 1"), model="BPR"),
            sets("--train_neg_sample_args={sample_num: two}", says=("'two'", "sample_num: 1"), model="BPR"),
            sets("--train_neg_sample_args={distribution: gauss}", says=("'gauss'", "popularity"), model="BPR"),
            sets("--train_neg_sample_args={dynamic: maybe}", says=("'maybe'",), model="BPR"),
            sets("--train_neg_sample_args=~", says=("BPR learns from pairs", "distribution: uniform"), model="BPR"),
            sets("--embeding_size=3", says=("Did you mean 'embedding_size'",)),
            sets("--foo=3", says=("unknown setting 'foo'",)),
            sets("--num_channels=3", says=("DreamRec does not read it; DiffDiv can",)),
            Case(("'--epochs'", "--key=value"), ("--epochs",)),
            Case(("'-epochs=3'", "--key=value"), ("-epochs=3",)),
            Case(("--examples", "'-1'", "a whole number >= 0"), ("--examples=-1",)),
            sets("--epochs=!!python/object/apply:os.system [ls]", says=("not a YAML value",)),
            sets("--resume=nope-last.safetensors", says=("there is no checkpoint 'nope-last.safetensors'",)),
            sets("--resume=data", says=("'data'", "only a folder")),
            sets(f"--resume={INTER}", says=(INTER, "is not a checkpoint")),
            Case(("--resume", "must not be empty"), ("--resume=",)),
            sets("--checkpoint_dir=", says=("''", "has no value")),
            sets(f"--checkpoint_dir={INTER}", says=(INTER, "this folder cannot be made")),
            sets(f"--checkpoint_dir={INTER}/in", says=(INTER, "this folder cannot be made")),
            sets("--checkpoint_dir=[a]", says=("['a']", "must be a path")),
            sets("--checkpoint_dir=/proc/x", says=("'/proc/x'", "cannot be made")),
            sets(f"--checkpoint_dir={'x' * 300}", says=("cannot be made", "too long")),
            sets("--checkpoint_minutes=often", says=("'often'", *NUMBER)),
            sets("--trust_checkpoint=x", says=("'x'", *FLAG)),
        ]
    )
}

MODELS: dict[str, Case] = {
    f"{number} {case.model} {' '.join(case.arguments)[:60]}": case
    for number, case in enumerate(
        [
            sets("--timesteps=0", says=WHOLE),
            sets("--timesteps=1000000000", says=("1000000000", "<= 1000000")),
            sets("--sampling_steps=2000", says=("2000", "timesteps=1000")),
            sets("--beta_end=0.1", "--beta_start=0.5", says=("0.5", "must be <= beta_end=0.1")),
            sets("--beta_start=0.5", says=("0.5", "must be <= beta_end=0.02")),
            sets("--beta_end=1", says=("1", "< 1")),
            sets("--noise_schedule=cosine", "--beta_start=0.01", says=("'cosine'", "allowed none")),
            sets("--noise_schedule=lin", says=("'lin'", "Did you mean 'linear'")),
            sets("--noise_schedule=~", says=("process=straight",)),
            sets("--prediction=y", says=("'y'", "x0, eps, v")),
            sets("--sampler=plms", says=("'plms'", "ddpm, ddim, euler")),
            sets("--eta=2", says=("2", "<= 1")),
            sets("--eta=.nan", says=("nan", "finite")),
            sets("--sampler=ddpm", "--eta=0.5", says=("0.5", "sampler=ddpm", "Set eta=0")),
            sets("--p_uncond=1", says=("1", "< 1")),
            sets("--embedding_size=0", says=WHOLE),
            sets("--embedding_size=1000000000000", says=("<= 65536",)),
            sets("--num_heads=3", says=("3", "must divide embedding_size=64")),
            sets("--num_layers=1000000000", says=("<= 1000",)),
            sets("--dropout=half", says=("'half'", *NUMBER)),
            sets("--train_on=users", says=("'users'", "windows, prefixes")),
            sets("--num_negatives=0", says=WHOLE),
            sets("--num_negatives=1000000000", says=("<= 10000000",)),
            sets("--num_negatives=~", "--negative_sampler=uniform", says=("num_negatives=~",)),
            sets("--ce_weight=0", "--mse_weight=0", says=("one of them must be above 0",)),
            sets("--stages=abc", says=("'abc'", "a list of stages")),
            sets("--stages=[{epoch: 1}, {}]", says=("'epoch'", "Did you mean 'epochs'")),
            sets("--stages=[{epochs: 1, freeze: [nope]}, {}]", says=("'nope'", "item_embedding")),
            sets("--ablate=all", says=("'all'", "state, noise")),
            sets("--pretrained_item_table=nope", says=("there is no checkpoint 'nope'",)),
            sets(f"--pretrained_item_table={INTER}", says=(INTER, "is not a checkpoint")),
            sets("--num_channels=0", says=WHOLE, model="DiffDiv"),
            sets("--divergence=alpha", "--divergence_order=1.5", says=("1.5", "below 1"), model="DiffDiv"),
            sets("--latent_size=8", says=("8", "embedding_size=64"), model="DiffDiv"),
            sets("--start_steps=100000", says=("100000", "timesteps=5"), model="DiffRec"),
            sets("--noise_max=0.1", "--noise_min=0.5", says=("0.5", "must be <= noise_max=0.1"), model="DiffRec"),
            sets("--w_max=0.5", "--w_min=1", says=("1", "w_max=0.5"), model="DiffRec"),
            sets("--num_interests=0", says=WHOLE, model="ADIGRec"),
            sets("--uncertainty=-1", says=("-1", ">= 0"), model="DiffuRec"),
            sets("--hidden_act=rleu", says=("'rleu'", "Did you mean 'relu'"), model="WindowSASRec"),
            sets("--n_heads=5", says=("5", "must divide hidden_size=64"), model="WindowSASRec"),
            sets("--hidden_size=abc", says=("'abc'", *WHOLE), model="SASRec"),
            sets("--n_layers=-1", says=("-1", *WHOLE), model="SASRec"),
            sets("--n_heads=7", says=("7", "must divide hidden_size=64"), model="SASRec"),
            sets("--hidden_act=nope", says=("'nope'", "one of gelu"), model="SASRec"),
            sets("--loss_type=XX", says=("'XX'", "BPR, CE"), model="SASRec"),
            sets("--embedding_size=-1", says=("-1", *WHOLE), model="BPR"),
            sets("--k=0", says=("0", *WHOLE), model="ItemKNN"),
            sets("--reg_weight=-1", says=("-1", ">= 0"), model="EASE"),
            sets("--mask_ratio=2", says=("2", "<= 1"), model="BERT4Rec"),
            sets("--mlp_hidden_size=[]", says=("[]", "must be a list, such as"), model="NeuMF"),
            sets("--n_layers=1000000", says=("1000000", "<= 1000"), model="LightGCN"),
            Case(("train_stage", "S3Rec trains in stages"), model="S3Rec"),
            Case(("shop.kg", "not found"), model="KGAT"),
        ]
    )
}

DEVICES: dict[str, Case] = {
    " ".join(case.arguments): case
    for case in [
        sets("--gpu_id=abc", says=("'abc'", "the number of a GPU")),
        sets("--gpu_id=-1", says=("-1", "the number of a GPU")),
        sets("--gpu_id=[0]", says=("[0]", "the number of a GPU")),
        sets("--gpu_id=0,1", says=("'0,1'", "the number of a GPU")),
        sets("--gpu_id=0.5", says=("0.5", "the number of a GPU")),
        sets("--gpu_id=4096", says=("4096", "no such GPU", "use_gpu=False")),
        sets("--use_gpu=False", "--gpu_id=abc", says=("'abc'", "the number of a GPU")),
        sets("--use_gpu=maybe", says=("'maybe'", *FLAG)),
        sets("--use_gpu=1", says=("1", *FLAG)),
        sets("--use_gpu='False'", says=("'False'", *FLAG)),
        sets("--device=cuda", says=("use gpu_id",)),
        sets("--nproc=2", says=("2", "cannot be set")),
        sets("--world_size=2", says=("2", "cannot be set")),
    ]
}

CONFIG_FILES: dict[str, Case] = {
    "missing": Case(("config_files", "no file 'nope.yaml'"), ("--config_files=nope.yaml",)),
    "a folder": Case(("config_files", "no file 'data'"), ("--config_files=data",)),
    "broken": config("epochs: [1\n", "c.yaml is not valid YAML"),
    "a list": config("- 1\n- 2\n", "c.yaml", "'key: value'"),
    "a text": config("hello\n", "c.yaml", "'key: value'"),
    "numbers": config("1: 2\n", "c.yaml", "'key: value'"),
    "latin-1": config("encoding: é\n".encode("latin-1"), "'c.yaml'", "UTF-8"),
    "any bytes": config(bytes(range(256)), "'c.yaml'", "UTF-8"),
    "a key twice": config("epochs: 1\nepochs: 2\n", "c.yaml", "'epochs' is given twice"),
    "a key twice inside": config("eval_args:\n  mode: full\n  mode: uni5\n", "c.yaml", "'mode' is given twice"),
    "a tab": config("epochs:\t1\n\tseed: 3\n", "c.yaml is not valid YAML", "tab"),
    "code": config("epochs: !!python/object/apply:os.system ['ls']\n", "c.yaml is not valid YAML"),
    "two documents": config("epochs: 1\n---\nseed: 2\n", "c.yaml is not valid YAML", "single document"),
    "an unknown key": config("epochz: 1\n", "'epochz'", "Did you mean 'epochs'"),
    "a date": config("seed: 2024-01-05\n", "seed=", *WHOLE),
    "an impossible date": config("seed: 2024-13-45\n", "c.yaml is not valid YAML"),
    "an interval of one number": config("user_inter_num_interval: [5]\n", "[5]", "an interval"),
    "billions of values": config(
        "a0: &a0 [x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"a{n + 1}: &a{n + 1} [{','.join([f'*a{n}'] * 9)}]\n" for n in range(9)),
        "c.yaml", "more than 100000 values",
    ),
    "a list in itself": config("metrics: &a [*a]\n", "c.yaml is not valid YAML"),
    "2000 lists in one another": config(f"metrics: {'[' * 2000}{']' * 2000}\n", "c.yaml is not valid YAML"),
}  # fmt: skip

OTHER_VERBS: dict[str, Case] = {
    "tune: no budget": tune(says=("--trials=N", "--seconds=S")),
    "tune: no trials": tune("--trials=0", says=("trials=0", *WHOLE)),
    "tune: trials": tune("--trials=x", says=("--trials", "'x'", "whole number")),
    "tune: seconds nan": tune("--seconds=nan", says=("seconds=nan", "a finite number > 0")),
    "tune: seconds inf": tune("--seconds=inf", says=("seconds=inf", "a finite number > 0")),
    "tune: no data": tune("--trials=1", "--data_path=nowhere", says=("dataset='shop'", "nowhere")),
    "tune: no space": tune("--trials=1", "--space=nope", says=("space", "'nope'")),
    "tune: storage": tune("--trials=1", "--storage=no://u:secret@nowhere/x", says=("storage='nowhere/x'", "opened")),
    "tune: storage is a folder": tune("--trials=1", "--storage=data", says=("storage='data'", "Is a directory")),
    "tune: checkpoint_dir": tune("--trials=1", "--checkpoint_dir=x", says=("checkpoint_dir", "--out")),
    "tune: out is a file": tune("--trials=1", f"--out={INTER}", says=("out=", INTER, "no folder")),
    "tune: a damaged study": tune(
        "--trials=1", "--out=t", says=("t/study.json", "is damaged", "Give another --out"),
        files={"t/study.json": '{"study": "x'},
    ),
    "tune: a study of nothing": tune(
        "--trials=1", "--out=t", says=("t/study.json", "is damaged", "no study"), files={"t/study.json": "{}"}
    ),
    "space: empty": space("", "no setting to search"),
    "space: unknown": space("foo: [1, 2]\n", "unknown setting 'foo'"),
    "space: a value": space("dropout: 3\n", "dropout=3", "{low: 1, high: 4}"),
    "space: a range": space("dropout: {low: 1, high: 0}\n", "'low': 1", "low below high"),
    "space: not allowed": space("dropout: [0.1, 2]\n", "dropout=2", "< 1"),
    "space: without the default": space("dropout: [0.35, 0.45]\n", "dropout", "default"),
    "space: of the protocol": space("seed: [1, 2]\n", "seed cannot be searched"),
    "compare: no model": compare(models="Nope", says=("'Nope'", "no such model")),
    "compare: a model twice": compare(models="Pop,Pop", says=("'Pop,Pop'", "different names")),
    "compare: no data": compare("--datasets=shoop", says=("'shoop'", "only shop", "Did you mean 'shop'")),
    "compare: seeds": compare("--seeds=a", says=("--seeds", "'a'", "whole number")),
    "compare: a large seed": compare("--seeds=99999999999", says=("seed=99999999999", "<= 4294967295")),
    "compare: a setting": compare("--seed=1", says=("seed=1", "--seeds")),
    "compare: baseline": compare("--baseline=X", says=("baseline='X'", "Pop")),
    "compare: metric": compare("--metric=X", says=("metric='X'", "NDCG@10")),
    "compare: eval_seeds": compare("--eval_seeds=1", says=("eval_seeds=[1]", "diffusion model")),
    "compare: curve_steps": compare("--curve_steps=0", models="DreamRec", says=("curve_steps=[0]", "1 or more")),
    "compare: tuned": compare("--tuned=nope", says=("tuned='nope'", "not a folder")),
    "compare: another model's setting": compare("--X.epochs=1", says=("'X.epochs'", "--models")),
    "compare: out is a file": compare(f"--out={INTER}", says=("out=", INTER, "not a folder")),
    "compare: gpu_id": compare("--gpu_id=abc", says=("Pop on shop", "gpu_id='abc'", "number of a GPU")),
    "compare: no header": compare(says=(INTER, "is empty"), files={INTER: ""}),
}  # fmt: skip

CASES: dict[str, Case] = {
    f"{kind}: {name}": case
    for kind, cases in {
        "files": FILES, "name": NAMES, "setting": SETTINGS, "model": MODELS, "device": DEVICES, "config": CONFIG_FILES,
        "verb": OTHER_VERBS,
    }.items()
    for name, case in cases.items()
}  # fmt: skip


def prepare(case: Case) -> None:
    """Write the shop and the files of a case into the current folder."""
    shutil.rmtree("data", ignore_errors=True)
    for path, content in {INTER: table(), **case.files}.items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(content if isinstance(content, bytes) else content.encode())
    case.prepare()
