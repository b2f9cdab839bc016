"""Random input for the three readers: an error that says what is wrong, or a value; never a traceback, hang or file."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from recbole_diffusion.config.reading import load_settings
from recbole_diffusion.config.row import Row
from recbole_diffusion.config.settings import UserError
from recbole_diffusion.config.table import TABLE
from recbole_diffusion.console.arguments import read_arguments
from recbole_diffusion.data.atomic import AtomicFile
from recbole_diffusion.storage import checkpoint
from recbole_diffusion.storage.parts import check_model_parts

pytest.importorskip("hypothesis")
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

EXAMPLES, SECONDS = 10_000, 60
pytestmark = pytest.mark.slow
many = settings(
    max_examples=EXAMPLES, deadline=SECONDS * 1000, derandomize=True, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip

FIELDS = st.one_of(
    st.sampled_from(
        ["u1", "i1", "", " ", "1", "1.5", "-1", "1e999", "nan", "inf", "NaN", "[PAD]", '"', "a b", "1_0", "é"]
    ),
    st.text(max_size=8),
)
HEADERS = st.sampled_from(
    ["user_id:token", "item_id:token", "timestamp:float", "tags:token_seq", "prices:float_seq", "x", ":", "a:b", ""]
)
LINES = st.lists(FIELDS, max_size=6).map("\t".join)
TABLES = st.tuples(
    st.lists(HEADERS, max_size=5), st.lists(LINES, max_size=8), st.sampled_from(["\n", "\r\n", "\r", ""])
)
CONTENTS = st.one_of(
    st.binary(max_size=300),
    TABLES.map(lambda parts: parts[2].join(["\t".join(parts[0]), *parts[1]]).encode(errors="replace")),
    st.tuples(TABLES, st.sampled_from(["utf-16", "latin-1", "utf-8-sig"])).map(
        lambda both: both[0][2].join(["\t".join(both[0][0]), *both[0][1]]).encode(both[1], errors="replace")
    ),
)
ENCODINGS = st.sampled_from([None, "utf-8", "latin-1", "utf-16", "ascii", "utf-32", "cp1252", "shift_jis"])


@pytest.fixture(autouse=True)
def _nothing_is_left(tmp_path: Path) -> Iterator[None]:
    before = set(tmp_path.rglob("*"))
    yield
    assert {path.name for path in set(tmp_path.rglob("*")) - before} <= {"shop.inter", "a.safetensors", "c.yaml"}


def _one_line(error: UserError) -> None:
    assert "\n" not in str(error) and len(str(error)) < 1500 and str(error), str(error)


@many
@given(content=CONTENTS, encoding=ENCODINGS, separator=st.sampled_from(["\t", ",", "::", " "]))
def test_atomic_files(content: bytes, encoding: str | None, separator: str) -> None:
    path = Path("shop.inter")
    path.write_bytes(content)
    start = time.monotonic()
    try:
        file = AtomicFile(path, separator, encoding)
        table = file.read(list(file.columns))
        for name, kind in file.columns.items():
            if kind.value.endswith("_seq"):
                file.sequences(table[name], " ")
            elif kind.value == "float":
                file.check_times(table[name])
    except UserError as error:
        _one_line(error)
        assert str(path) in str(error) or "encoding" in str(error)
    assert time.monotonic() - start < SECONDS


KEYS = st.one_of(st.sampled_from([*TABLE, "", "foo", "--", "a.b"]), st.text(max_size=6))
VALUES = st.one_of(
    st.sampled_from(
        ["1", "-1", "~", "", "[1, 2]", "{a: 1}", "[1,", "{", "&a [*a]", "!!int x", "2024-01-05", "2024-13-45", "1e999",
         ".nan", "[4,inf)", "- a", "a: b: c", "'", '"', "!!python/name:os.system", "0o7", "0x", "1:2:3", "\udcff",
         "---"],
    ),
    st.text(max_size=20),
    st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
                 lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
                 max_leaves=8).map(json.dumps),
)  # fmt: skip
ANY = Row("any")


@many
@given(key=KEYS, value=VALUES)
def test_settings(key: str, value: str) -> None:
    start = time.monotonic()
    try:
        read = read_arguments([f"--{key}={value}"])
        for name, setting in read.items():
            row = TABLE.get(name, ANY)
            if row.settable:
                row.read(name, setting)
    except UserError as error:
        _one_line(error)
    Path("c.yaml").write_text(f"{key}: {value}\n", encoding="utf-8", errors="replace")
    try:
        for name, setting in load_settings(["c.yaml"]).items():
            row = TABLE.get(name, ANY)
            if row.settable:
                row.read(name, setting)
    except UserError as error:
        _one_line(error)
    assert time.monotonic() - start < SECONDS


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5)
    | st.sampled_from([torch.zeros(2), torch.tensor(1), torch.zeros(0), torch.ones(2, 2).bfloat16()]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["config", "items", "__kind__", "values", "__tensor__", "a"]), inner, max_size=3),
    max_leaves=10,
)  # fmt: skip
STATES = st.dictionaries(
    st.sampled_from(["config", "items", "users", "fields", "state_dict", "epoch", "versions", "training", "__pairs__"]),
    PLAIN, max_size=6,
)  # fmt: skip
CHANGES = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=4)


@many
@given(state=STATES, changes=CHANGES, cut=st.integers(0, 200), text=st.none() | st.binary(max_size=60))
def test_checkpoints(state: dict[str, Any], changes: list[tuple[int, int]], cut: int, text: bytes | None) -> None:
    path = Path("a.safetensors")
    start = time.monotonic()
    checkpoint.save(state, path)
    content = bytearray(path.read_bytes())
    if text is not None:  # another header, or another file
        content = bytearray(len(text).to_bytes(8, "little") + text if cut % 2 else text)
    for place, byte in changes if content else []:
        content[place % len(content)] = byte
    path.write_bytes(content[: len(content) - cut] if cut > 100 else content)
    try:
        checkpoint.load_data(path)
        read = checkpoint.load(path)
        check_model_parts(read, str(path))
        checkpoint.unpack(read.get("other_parameter"))
    except UserError as error:
        _one_line(error)
        assert str(path) in str(error)
    assert time.monotonic() - start < SECONDS
