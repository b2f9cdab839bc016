"""The reader of atomic files: what it accepts, and what it refuses with file, column and line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recbole_diffusion.config.settings import UserError
from recbole_diffusion.data import ragged
from recbole_diffusion.data.atomic import AtomicFile, rows_and_lines
from recbole_diffusion.data.items import item_column

HEADER = "user_id:token\titem_id:token\ttimestamp:float\n"
Write = Callable[..., AtomicFile]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """``write(text, separator, encoding, write_as)``: a file of that text, opened."""

    def write(text: str, separator: str = "\t", encoding: str | None = None, write_as: str = "utf-8") -> AtomicFile:
        path = tmp_path / "shop.inter"
        path.write_bytes(text.encode(write_as))
        return AtomicFile(path, separator, encoding)

    return write


def rows(file: AtomicFile, *names: str) -> list[list]:
    table = file.read(names or list(file.columns)).astype(object)
    return table.where(table.notna(), None).to_numpy().tolist()


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", ["", "\n", "\n\n\n"])
def test_line_ends_and_blank_lines_make_no_difference(write: Write, ending: str, last: str) -> None:
    file = write(f"{HEADER}u1\ti1\t1\n\nu2\ti2\t2.5{last}".replace("\n", ending))
    assert list(file.columns) == ["user_id", "item_id", "timestamp"]
    table = file.read(list(file.columns))
    assert table.to_numpy().tolist() == [["u1", "i1", 1], ["u2", "i2", 2.5]]
    assert table.index.tolist() == [2, 4]  # line numbers


@pytest.mark.parametrize(
    ("write_as", "encoding"),
    [("utf-8", None), ("utf-8-sig", None), ("utf-8-sig", "utf-8"), ("latin-1", "latin-1"), ("utf-16", "utf-16")],
)
def test_encodings_and_the_byte_order_mark(write: Write, write_as: str, encoding: str | None) -> None:
    file = write(f"{HEADER}Zoë\ti1\t1\n", encoding=encoding, write_as=write_as)
    assert rows(file) == [["Zoë", "i1", 1]]


def test_another_encoding_is_refused_where_it_is_read(write: Write) -> None:
    text = "item_id:token\ttitle:token\n" + "i\tx\n" * 9 + "i1\tZoë\n"
    message = r"shop.inter is not text in the encoding utf-8. Set encoding .*--encoding=latin-1"
    file = write(text, write_as="latin-1")
    with pytest.raises(UserError, match=message):
        file.read(["title"])
    assert len(file.read(["item_id"])) == 10  # the wrong value is in a column that is not read
    with pytest.raises(UserError, match=message):
        write(text.replace("title", "Titré"), write_as="latin-1")
    with pytest.raises(UserError, match=message):
        write(text, write_as="utf-16-le")
    for wrong in ("latin-0", "rot13", 3):
        with pytest.raises(UserError, match=f"encoding={wrong!r}: must be a text encoding"):
            write(text, encoding=wrong)  # type: ignore[arg-type]


def test_words_for_nothing_are_identifiers_and_no_numbers(write: Write) -> None:
    words = ["NA", "null", "None", "nan", "N/A", "NULL", "NaN"]
    text = "item_id:token\tbrand:token\tprice:float\n"
    file = write(text + "".join(f"{word}\t{word}\t{word}\n" for word in words) + "i1\t\t\n")
    assert rows(file) == [*([word, word, None] for word in words), ["i1", None, None]]


def test_a_quotation_mark_is_a_character(write: Write) -> None:
    text = 'item_id:token\ttitle:token\ni1\t"Up"\ni2\t12" vinyl\ni3\t"never closed\ni4\tlast\n'
    assert rows(write(text)) == [["i1", '"Up"'], ["i2", '12" vinyl'], ["i3", '"never closed'], ["i4", "last"]]
    with pytest.raises(UserError, match=r"line 2 has 3 fields, the header has 2\. .* cannot hold a line break or ','"):
        write('item_id:token,title:token\ni1,"Godfather, The"\n', separator=",").read(["item_id"])


@pytest.mark.parametrize("separator", ["\t", ",", "::", "|", "§"])
def test_rows_that_are_too_long_are_refused_and_trailing_separators_are_not(write: Write, separator: str) -> None:
    text = f"{HEADER}u1\ti1\t1\t\nu2\ti2\t2\n".replace("\t", separator)
    assert rows(write(text, separator), "user_id", "timestamp") == [["u1", 1], ["u2", 2]]
    with pytest.raises(UserError, match=r"shop.inter: line 4 has 5 fields, the header has 3"):
        write(f"{text}u3{separator}i3{separator}3{separator}4{separator}5\n", separator).read(["user_id"])


def test_a_row_of_another_length_is_seen_at_the_edge_of_a_block(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    for size in range(1, 40):
        monkeypatch.setattr(ragged, "_BLOCK", size)
        with monkeypatch.context() as patch:  # where all is well, the file is not read line by line
            patch.setattr(AtomicFile, "_rows", pytest.fail)
            for last in ("", "\n", "\r\n"):
                assert len(write(f"{HEADER}u1\ti1\t1\nu2\ti2\t2{last}").read(["user_id"])) == 2
        for long in ("u1\ti1\t1\t9\nu2\ti2\t2\n", "u1\ti1\t1\nu2\ti2\t2\t9"):
            with pytest.raises(UserError, match="has 4 fields"):
                write(f"{HEADER}{long}").read(["user_id"])
        for short in ("u1\ti1\nu2\ti2\t2\n", "u1\ti1\t1\nu2\ti2"):
            with pytest.raises(UserError, match="has 2 fields"):
                write(f"{HEADER}{short}").read(["user_id"])


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_a_row_that_is_too_short_is_refused(write: Write, ending: str) -> None:
    # A line break within a field would make rows of its pieces.
    text = 'item_id:token\ttitle:token\tclass:token\ni1\tUp\tfilm\ni2\t"A\ntitle"\tfilm\n'.replace("\n", ending)
    with pytest.raises(UserError, match=r"shop\.inter: line 3 has 2 fields, the header has 3"):
        write(text).read(["item_id"])
    assert rows(write(f"{HEADER}u1\ti1\t\n".replace("\n", ending))) == [["u1", "i1", None]]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("—", r"shop.item: column 'price', line 3: '—' is no finite number \(a missing one is an empty field\)\.$"),
        ("3,50", "column 'price', line 3: '3,50' is no finite number"),
        ("1_000", "line 3: '1_000' is no finite number"),
        ("2024-01-05T10:00:00", "line 3: '2024-01-05T10:00:00' is no finite number .*: convert dates to Unix seconds"),
        ("05.01.2024", "convert dates to Unix seconds"),
        ("inf", "line 3: 'inf' is not finite"),
        ("-Infinity", "line 3: '-Infinity' is not finite"),
        ("1e39", "line 3: '1e39' is not finite in 32 bits"),
        ("x" * 500, "line 3: 'x{40}...' is no finite number"),
    ],
)
def test_what_is_no_number_is_named(tmp_path: Path, value: str, message: str) -> None:
    path = tmp_path / "shop.item"
    path.write_text(f"item_id:token\tprice:float\tyear:float\ni1\t1\t1999\ni2\t{value}\t1999\ni3\t\tNA\n")
    with pytest.raises(UserError, match=message) as error:
        AtomicFile(path, "\t", None).read(["item_id", "price"])
    assert "\n" not in str(error.value)
    assert len(AtomicFile(path, "\t", None).read(["item_id", "year"])) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "shop.inter is empty: its first line must be a header"),
        (HEADER, "shop.inter has a header and no rows"),
        (HEADER.strip(), "shop.inter has a header and no rows"),
        ("user_id\titem_id\nu1\ti1\n", r"the header has 'user_id'; a column is NAME:TYPE.*token, float, .*\)\.$"),
        ("user_id:token\t:token\nu1\ti1\n", "the header has ':token'; a column is NAME:TYPE"),
        ("user_id:token,item_id:token\nu1,i1\n", r"a column is NAME:TYPE.* Is field_separator='\\t' right\?"),
        ("user_id:token\titem_id:tokens\nu1\ti1\n", "'item_id' has the unknown type 'tokens'.*Did you mean 'token'"),
        ("user_id:token\tuser_id:token\nu1\ti1\n", "the header has column 'user_id' twice"),
    ],
)
def test_headers_that_are_none(write: Write, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        write(text).read(["user_id"])


def test_sequences(write: Write) -> None:
    file = write("item_id:token\ttags:token_seq\tvector:float_seq\ni1\ta  b\t1 2.5\ni2\t\t\ni3\tNA\t3\n")
    table = file.read(["tags", "vector"])
    assert [value.tolist() for value in file.sequences(table["tags"], " ")] == [["a", "b"], [], ["NA"]]
    assert [value.tolist() for value in file.sequences(table["vector"], " ")] == [[1, 2.5], [], [3]]
    for wrong in ("x", "nan", "inf"):
        file = write(f"item_id:token\tvector:float_seq\ni1\t1\ni2\t1 {wrong}\n")
        with pytest.raises(UserError, match=f"column 'vector', line 3: '1 {wrong}' is no finite number"):
            file.sequences(file.read(["vector"])["vector"], " ")


def check(file: AtomicFile) -> None:
    file.check_times(file.read(["timestamp"])["timestamp"])


def times(write: Write, *values: str) -> AtomicFile:
    return write(HEADER + "".join(f"u1\ti{place}\t{value}\n" for place, value in enumerate(values)))


def test_times_that_order_their_rows(write: Write) -> None:
    check(times(write, "3", "1", "1", "-5", "1700000000.25", "1700000000.250", "9007199254740991"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["1", "", "2", "nan"], r"shop.inter: 2 rows \(lines 3, 5\) without a time in 'timestamp'"),
        (["1", "1700000000123456789"], "line 3: '1700000000123456789' is too large to be told .*milliseconds"),
        (["9007199254740993", "1"], "column 'timestamp', line 2: '9007199254740993' is too large"),
        (["1700000000.123456788", "5", "1700000000.123456789"], "line 4: '1700000000.123456789' is too fine"),
    ],
)
def test_times_that_do_not(write: Write, values: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check(times(write, *values))


def test_many_lines_are_counted_and_the_first_are_named() -> None:
    assert rows_and_lines([7]) == "1 row (line 7)"
    assert rows_and_lines(pd.RangeIndex(2, 9)) == "7 rows (lines 2, 3, 4, 5, 6, ...)"


def test_columns_of_items_are_read_by_the_same_rules(tmp_path: Path) -> None:
    config = {"title_field": "name", "ITEM_ID_FIELD": "item_id", "data_path": str(tmp_path), "dataset": "shop"}
    config |= {"field_separator": "\t", "encoding": "latin-1"}
    path, header = tmp_path / "shop.item", "item_id:token\tname:token\n"
    path.write_text(f'{header}NA\t"Zoë\ni1\t\n\tnobody\ni1\tagain\n', encoding="latin-1")
    assert item_column(config, "title_field") == ("token", {"NA": '"Zoë', "i1": ""})
    path.write_text(f"\ufeff{header}i1\tNA\n", encoding="utf-8")
    assert item_column({**config, "encoding": None}, "title_field").texts == {"i1": "NA"}
    path.write_text(f"{header}i1\ta\tb\n")
    with pytest.raises(UserError, match="line 2 has 3 fields"):
        item_column(config, "title_field")


def test_numbers_are_read_to_the_last_bit(write: Write) -> None:
    values = np.random.default_rng(0).integers(1_600_000_000_000, 1_700_000_000_000, 500) / 1000
    file = write(HEADER + "".join(f"u\ti\t{value!r}\n" for value in values.tolist()))
    assert file.read(["timestamp"])["timestamp"].tolist() == values.tolist()
