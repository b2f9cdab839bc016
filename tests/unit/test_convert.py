"""From users' files to atomic files: formats, encodings, ids, bad rows, duplicates, k-core, items."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import recbole_diffusion
from recbole_diffusion.__main__ import main
from recbole_diffusion.config.settings import UserError
from recbole_diffusion.conversion.core import k_core
from recbole_diffusion.conversion.items import categories, one_line

ROWS = [("007", "a b", "2024-01-01T10:00:00+02:00"), ("7", "x", "2024-01-02T00:00:00Z"), ("Zoë", "3.5", "2024-01-03")]
SECONDS = [1704096000, 1704153600, 1704240000]
HEAD = "who,what,when\n"


def convert(source: Path | list[Path], out: str = "ds/shop", **given: Any) -> Any:
    columns = {"user": "who", "item": "what", "time": "when"}
    return recbole_diffusion.convert(source, out, **{**columns, **given})


def written(path: str = "ds/shop/shop.inter") -> list[list[str]]:
    """The rows of an atomic file, as its reader splits them."""
    return [line.split("\t") for line in Path(path).read_text(encoding="utf-8").removesuffix("\n").split("\n")]


def table(rows: list[tuple[str, ...]], delimiter: str = ",", head: str = HEAD) -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows([head.strip().split(","), *rows])
    return text.getvalue()


def write(name: str, content: str | bytes) -> Path:
    data = content if isinstance(content, bytes) else content.encode()
    Path(name).write_bytes(data)
    return Path(name)


UTC_ROWS = [(user, item, f"{time[:10]}T08:00:00Z") for user, item, time in ROWS]
IN_UTC = [1704096000, 1704182400, 1704268800]


def _packed(name: str) -> Path:
    text = table(UTC_ROWS)
    records = "".join(json.dumps(dict(zip(("who", "what", "when"), row, strict=True))) + "\n" for row in UTC_ROWS)
    frame = pl.DataFrame(UTC_ROWS, schema=["who", "what", "when"], orient="row")
    if name == "a.zip":
        with zipfile.ZipFile(name, "w") as archive:
            archive.writestr("inside/a.csv", text)
            archive.writestr("__MACOSX/._a.csv", b"\0")
        return Path(name)
    if name == "folder":
        Path(name).mkdir()
        write("folder/part-0.csv", table(UTC_ROWS[:1]))
        write("folder/part-1.csv.gz", gzip.compress(table(UTC_ROWS[1:]).encode()))
        write("folder/_SUCCESS", "")
        return Path(name)
    if name == "a.parquet":
        moment = pl.col("when").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_zone="UTC")
        frame.with_columns(moment.dt.convert_time_zone("Europe/Berlin")).write_parquet(name)
        return Path(name)
    contents = {
        "a.csv": text.encode(),
        "crlf.csv": text.replace("\n", "\r\n").encode(),
        "no-end.csv": text.rstrip("\n").encode(),
        "blank.csv": text.replace("\n", "\n\n").encode(),
        "a.tsv": table(UTC_ROWS, "\t").encode(),
        "semicolon.csv": table(UTC_ROWS, ";").encode(),
        "pipe.txt": table(UTC_ROWS, "|").encode(),
        "colons.dat": table(UTC_ROWS).replace(",", "::").encode(),
        "a.csv.gz": gzip.compress(text.encode()),
        "a.jsonl": records.encode(),
        "a.jsonl.gz": gzip.compress(records.encode()),
        "bom.csv": text.encode("utf-8-sig"),
        "utf16.csv": text.encode("utf-16"),
        "utf16be.csv": text.encode("utf-16-be"),
        "cp1252.csv": text.encode("cp1252"),
        "quoted.csv": text.replace("Zoë", '"Zoë"').encode(),
    }
    return write(name, contents[name])


@pytest.mark.parametrize(
    "name",
    [
        "a.csv", "crlf.csv", "no-end.csv", "blank.csv", "a.tsv", "semicolon.csv", "pipe.txt", "colons.dat", "a.csv.gz",
        "a.zip", "folder", "a.jsonl", "a.jsonl.gz", "a.parquet", "bom.csv", "utf16.csv", "utf16be.csv", "cp1252.csv",
        "quoted.csv",
    ],
)  # fmt: skip
def test_every_format_gives_the_same_file(name: str) -> None:
    done = convert(_packed(name))
    expected = [[user, item, str(time)] for (user, item, _), time in zip(ROWS, IN_UTC, strict=True)]
    assert written() == [["user_id:token", "item_id:token", "timestamp:float"], *expected]
    assert (done.rows_read, done.rows, done.users, done.items, done.short_users) == (3, 3, 3, 3, 3)


def test_an_encoding_is_found_and_told() -> None:
    done = convert(write("a.csv", table(UTC_ROWS).encode("cp1252")))
    assert "cp1252, because line 4 is not UTF-8" in dict(done.facts)["file"]
    convert(write("b.csv", table(UTC_ROWS).replace("ë", "é").encode("cp850")), "ds/b", encoding="cp850")
    assert written("ds/b/b.inter")[3][0] == "Zoé"


def test_numbers_in_typed_files_are_the_texts_of_a_csv() -> None:
    frame = pl.DataFrame({"who": [7.0, 42.0, None], "what": [1, 2, 3], "when": [1.7e9, 1.7e9, 1.7e9]})
    frame.write_parquet("a.parquet")
    done = convert(Path("a.parquet"))
    assert written()[1:] == [["7", "1", "1700000000"], ["42", "2", "1700000000"]]
    assert done.dropped == {"without user (who)": 1}
    write("a.jsonl", '{"who": 42, "what": "007", "when": 1700000000}\n\n{"what": 12345678901234567890, "who": 1}\n')
    done = convert(Path("a.jsonl"), "ds/json")
    assert written("ds/json/json.inter")[1:] == [["42", "007", "1700000000"]]
    assert done.dropped == {"without time (when)": 1}


def test_ids_that_pandas_made_floats_are_whole_again() -> None:
    convert(write("a.csv", f"{HEAD}1.0,1.0,1700000000\n42.0,1.5,1700000000\n"))
    assert written()[1:] == [["1", "1.0", "1700000000"], ["42", "1.5", "1700000000"]]


def test_quoted_fields_with_line_breaks_and_delimiters() -> None:
    text = f'{HEAD}"a, ""b""",x,1700000000\n"c\n d",x,1700000001\n\ne,"f,\ng",1700000002\nh,x,1700000003\n'
    with pytest.raises(UserError, match=r"1 row \(line 3\): 'who' has a tab, a line break.*line 6\): 'what'"):
        convert(write("a.csv", text))
    done = convert(Path("a.csv"), drop_bad_rows=True)
    assert written()[1:] == [['a, "b"', "x", "1700000000"], ["h", "x", "1700000003"]]
    assert done.dropped == {"cannot be read": 2}


def test_an_open_quotation_mark() -> None:
    path = write("a.csv", f'{HEAD}"a,x,1700000000\nb,x,1700000001\n')
    with pytest.raises(UserError, match=r"the row from line 2 has a quotation mark .*--quote=none"):
        convert(path)
    convert(path, quote="none")
    assert written()[1:] == [['"a', "x", "1700000000"], ["b", "x", "1700000001"]]


def test_rows_with_more_or_fewer_fields() -> None:
    path = write("a.csv", f"{HEAD}a,x,1700000000\n\nb,x\nc,x,1700000000,9\n ,,\nd,y,1700000000\n")
    with pytest.raises(UserError, match=r"a.csv: 2 rows \(lines 4, 5\): not 3 fields, as the header has"):
        convert(path)
    assert not Path("ds").exists()
    done = convert(path, drop_bad_rows=True)
    assert [row[0] for row in written()[1:]] == ["a", "d"]
    assert done.dropped == {"cannot be read": 2, "without user (who)": 1}
    assert done.rows_read == 5


def test_bad_json_lines_are_numbered_as_in_the_file() -> None:
    good = '{"who": "a", "what": "x", "when": 1700000000}\n'
    path = write("a.jsonl", f'{good}\n{{"who": \n[1]\n{good}{{"who": "c", "what": "x", "when": "?"}}')
    with pytest.raises(UserError, match=r"2 rows \(lines 3, 4\): no JSON.*1 row \(line 6\): 'when' is no time"):
        convert(path)
    done = convert(path, drop_bad_rows=True)
    assert done.dropped == {"cannot be read": 3, "the same user, item and time again": 1}
    assert len(written()) == 2


def test_duplicates_and_repeats() -> None:
    rows = "a,x,1700000000\na,x,1700000000\na,x,1700000009\nb,x,1700000000\n"
    done = convert(write("a.csv", HEAD + rows))
    assert done.dropped == {"the same user, item and time again": 1}
    assert written()[1:] == [["a", "x", "1700000000"], ["a", "x", "1700000009"], ["b", "x", "1700000000"]]
    assert dict(done.facts)["repeats"] == "1 row with the user and item of an earlier row kept"


def test_the_order_of_the_rows_can_be_the_time() -> None:
    first, second = write("b.csv", "who,what\na,x\na,x\n"), write("a.csv", "who,what\nb,x\n")
    done = convert([first, second], time="row")
    assert written()[1:] == [["a", "x", "1"], ["a", "x", "2"], ["b", "x", "3"]]
    assert not done.dropped
    with pytest.raises(UserError, match="--time=row"):
        convert(first, time=None)


def test_ratings() -> None:
    text = "who;what;when;stars\na;x;1700000000;3,5\nb;x;1700000000;\nc;x;1700000000;NaN\n"
    path = write("a.csv", text)
    with pytest.raises(UserError, match=r"line 2\): 'stars' is no number \(--decimal=, reads 3,5 .*'3,5'"):
        convert(path, rating="stars")
    done = convert(path, rating="stars", decimal=",")
    assert [row[3] for row in written()] == ["rating:float", "3.5", "", ""]
    assert dict(done.facts)["ratings"] == "2 rows without a rating kept"


def test_k_core_against_a_loop() -> None:
    rng = np.random.default_rng(0)
    for least in (2, 3, 4):
        users, items = rng.integers(0, 30, 150), (30 * rng.random(150) ** 2).astype(int)
        rows = list(zip(users, items, strict=True))
        left = list(range(len(rows)))
        while True:
            counts = [Counter(rows[place][side] for place in left) for side in (0, 1)]
            kept = [place for place in left if all(counts[side][rows[place][side]] >= least for side in (0, 1))]
            if kept == left:
                break
            left = kept
        assert k_core(users, items, least)[0].tolist() == left
        assert 0 < len(left) < 150


def test_k_core_of_a_file() -> None:
    rows = "".join(f"u{user},i{item},17000000{user}{item}\n" for user in range(3) for item in range(3))
    done = convert(write("a.csv", f"{HEAD}{rows}lonely,i0,1700000099\nu0,rare,1700000098\n"), min_interactions=3)
    assert (done.rows, done.users, done.items, done.dropped) == (9, 3, 3, {"3-core": 2})
    with pytest.raises(UserError, match="no row is left"):
        convert(Path("a.csv"), "ds/none", min_interactions=99)
    assert not Path("ds/none").exists()


def test_items() -> None:
    path = write("a.csv", f"{HEAD}a,1,1700000000\na,2,1700000001\na,3,1700000002\n")
    text = 'what,name,kind\n1.0,"Two \t words,\n and  more",Sci Fi|Drama|Drama\n2.0,,\n9.0,Unseen,War\n1.0,again,War\n'
    done = convert(path, items=write("items.csv", text), title="name", category="kind")
    assert written("ds/shop/shop.item") == [
        ["item_id:token", "title:token_seq", "category:token_seq"],
        ["1", "Two words, and more", "Sci_Fi Drama"],
        ["2", "", ""],
    ]
    told = [text for label, text in done.facts if label == "items"]
    assert "1 of 3 without a row in items.csv: '3'" in told
    assert "1 of items.csv without interactions left out" in told
    text = Path("ds/shop/shop.yaml").read_text(encoding="utf-8")
    assert text.endswith("title_field: title\ncategory_field: category\n")


def test_categories() -> None:
    assert categories('[["Books", "New  Age"], ["Books"]]', None) == ["Books", "New_Age"]
    assert categories("a; b ;", ";") == ["a", "b"]
    assert categories("[not json", None) == ["[not_json"]
    assert categories("a,b c", None) == ["a,b_c"]
    assert categories(None, None) == []
    assert one_line(" a\r\n b\x1fc ") == "a b c"


# A file with zero bytes is refused as a whole.
_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6)


@settings(max_examples=40, deadline=None)
@example([("0", "0\r")], ",")
@given(st.lists(st.tuples(_TEXT, _TEXT), min_size=1, max_size=30), st.sampled_from([",", "\t", ";"]))
def test_ids_survive_or_are_refused(pairs: list[tuple[str, str]], delimiter: str) -> None:
    """Every row of a CSV is either written as it is, or counted as missing or unreadable."""
    rows = [(user, item, str(1_700_000_000 + place)) for place, (user, item) in enumerate(pairs)]
    path = write("a.csv", table([("plain", "plain", "1600000000"), *rows], delimiter))
    done = convert(path, drop_bad_rows=True, overwrite=True, delimiter=delimiter)
    got = written()[2:]
    assert all([user, item, time] in got for user, item, time in rows if _is_plain(user) and _is_plain(item))
    assert [row for row in got if tuple(row) not in rows] == []
    assert done.rows_read == done.rows + sum(done.dropped.values())


def _is_plain(text: str) -> bool:
    return bool(text.strip()) and text.isprintable()


def test_an_overwritten_data_set_keeps_no_old_items() -> None:
    path = write("a.csv", f"{HEAD}a,1,1700000000\n")
    convert(path, items=write("items.csv", "what,name\n1,One\n"), title="name")
    with pytest.raises(UserError, match="out='ds/shop': this folder has files"):
        convert(path)
    convert(path, overwrite=True)
    assert sorted(file.name for file in Path("ds/shop").iterdir()) == ["shop.inter", "shop.yaml"]


def test_nothing_is_left_of_a_write_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: pl.DataFrame, file: Any, **options: Any) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pl.DataFrame, "write_csv", full)
    with pytest.raises(UserError, match="no space"):
        convert(write("a.csv", f"{HEAD}a,1,1700000000\n"))
    assert not Path("ds/shop").exists()


WRONG = {
    "a column that is not there": (["--user=wo"], "user='wo': a.csv has no such column.*Did you mean 'who'"),
    "an item column": (["--items=items.csv", "--title=nam"], "title='nam': items.csv has no.*Did you mean 'name'"),
    "items without columns": (["--items=items.csv"], "items: give the column of titles"),
    "columns without items": (["--title=name"], "give items too"),
    "no item matches": (["--items=items.csv", "--title=name", "--item_id=name"], "no item of the rows is in"),
    "an unknown argument": (["--usr=who"], "convert has no argument '--usr=who'. Did you mean 'user'"),
    "an empty argument": (["--rating="], "rating='': has no value"),
    "k": (["--min_interactions=0"], "min_interactions=0: must be a whole number >= 1"),
    "a delimiter": (["--delimiter=x"], "no such column"),
    "a quotation mark": (["--quote=ab"], "quote='ab': must be one ASCII character"),
    "a decimal sign": (["--decimal=;"], "decimal=';': must be"),
    "an encoding": (["--encoding=klingon"], "encoding='klingon': must be a text encoding"),
    "the wrong encoding": (["--encoding=ascii"], "a.csv is not text in the encoding ascii"),
    "a header": (["--header=a,b"], "header: has 2 names, but the first line of a.csv has 3 fields"),
    "a header with a name twice": (["--header=a,a,b"], "header='a,a,b': must be different names"),
    "a name": (["--out=ds/a:b"], "out='a:b': must be a name"),
    "no out": (["--out="], "out='': has no value"),
    "a file that is not there": (["nofile.csv"], "there is no file 'nofile.csv'"),
    "a file twice": (["a.csv"], "a.csv is given twice"),
    "an empty file": (["empty.csv"], "empty.csv is empty"),
    "an empty folder": (["nothing"], "nothing: this folder has no data file"),
    "a JSON list": (["list.json"], "list.json is one JSON list"),
    "a damaged gzip file": (["broken.csv.gz"], "broken.csv.gz cannot be read"),
    "a damaged ZIP file": (["broken.zip"], "broken.zip cannot be read"),
    "a damaged Parquet file": (["broken.parquet"], "broken.parquet cannot be read"),
    "bytes": (["bytes.csv"], "bytes.csv is not text: it has zero bytes"),
    "one column": (["words.txt"], "words.txt: no delimiter was found; it starts 'word'"),
    "times with a wrong format": (["--time_format=%d.%m.%Y"], "'when' is no time that is known: '1700000000'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_bad_input_is_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    write("a.csv", f"{HEAD}Zoë,1,1700000000\n")
    write("items.csv", "what,name\n1,One\n")
    write("empty.csv", "")
    Path("nothing").mkdir()
    write("list.json", '[{"who": 1}]')
    write("broken.csv.gz", gzip.compress(b"who,what,when\n" * 99)[:-9])
    write("broken.zip", b"PK\x03\x04 is not all")
    write("broken.parquet", b"PAR1 is not all")
    write("bytes.csv", bytes(range(256)))
    write("words.txt", "word\nanother\n")
    arguments, message = WRONG[name]
    usual = {"--user": "who", "--item": "what", "--time": "when", "--out": "ds/shop"}
    usual |= dict(argument.split("=", 1) for argument in arguments if argument.startswith("--"))
    files = [argument for argument in arguments if not argument.startswith("--")]
    arguments = ["convert", "a.csv", *files, *(f"{key}={value}" for key, value in usual.items())]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert error.count("\n") == 1
    assert not Path("ds").exists()


def test_the_verb_ends_with_the_next_command(capsys: pytest.CaptureFixture[str]) -> None:
    write("a.csv", f"{HEAD}a,1,1700000000\n")
    assert main(["convert", "--user=who", "--item=what", "--time", "when", "--out=ds/my shop", "a.csv"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "next:  recbole-diffusion run --model=DiffDiv --dataset='my shop' --data_path=ds"


def test_columns_are_proposed(capsys: pytest.CaptureFixture[str]) -> None:
    rows = "1,2024-01-05,bread,C7,3.5\n2,2024-01-06,milk,C8,4\n"
    write("orders of may.csv", f"order_id,Purchase Date,product_name,Customer ID,score\n{rows}")
    assert main(["convert", "orders of may.csv", "--min_interactions=5"]) == 2
    out = capsys.readouterr().out
    assert out.splitlines()[-1].strip() == (
        "recbole-diffusion convert 'orders of may.csv' '--user=Customer ID' --item=product_name '--time=Purchase Date' "
        "--rating=score --min_interactions=5 --out=dataset/orders-of-may"
    )
    assert not Path("dataset").exists()
    write("b.jsonl", '{"a": "x", "b": {"c": 1}}\n')
    assert main(["convert", "b.jsonl", "--user=a"]) == 2
    assert "--user=a --item=COL --time=COL" in capsys.readouterr().out
    pl.DataFrame({"uid": [1], "sku": ["x"], "d": [2.0], "l": [["a"]]}).write_parquet("c.parquet")
    assert main(["convert", "c.parquet"]) == 2
    assert "--user=uid --item=sku --time=COL" in capsys.readouterr().out


def test_converting_loads_neither_torch_nor_recbole() -> None:
    write("a.csv", f"{HEAD}a,1,1700000000\n")
    code = (
        "import sys, recbole_diffusion as r; r.convert('a.csv', 'ds/a', 'who', 'what', 'when'); "
        "print(sorted({'torch', 'recbole', 'pandas'} & set(sys.modules)))"
    )
    root = Path(recbole_diffusion.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(root)}, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_polars_is_only_needed_to_convert(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "polars", None)
    assert main(["convert", "a.csv"]) == 2
    assert "needs the package polars: pip install 'polars>=2,<3'" in capsys.readouterr().err
    assert main(["convert", "movielens", "--list"]) == 0


def test_a_file_without_a_header() -> None:
    text = "\ufeffa,x,1700000000\nb,y,1700000001\n"
    convert(write("a.csv", text), header=("who", "what", "when"))
    assert [row[0] for row in written()[1:]] == ["a", "b"]
