"""Every case of the table of bad input is one line of error before any training, and leaves nothing behind."""

from __future__ import annotations

import functools
import os
import time
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from bad_input import CASES, INTER, Case, prepare

from recbole_diffusion import quick_start
from recbole_diffusion.__main__ import main
from recbole_diffusion.config import outside

_entry_points = functools.cache(entry_points)
SECONDS = 20  # a case takes a fraction of one; a hang takes for ever
BASE = {
    "run": ["--model={model}", "--dataset=shop", "--data_path=data", "--epochs=1"],
    "tune": ["--model={model}", "--dataset=shop", "--data_path=data", "--epochs=1"],
    "compare": ["--datasets=shop", "--out=out", "--data_path=data", "--epochs=1"],
}


def command(case: Case) -> list[str]:
    given = {argument.partition("=")[0] for argument in case.arguments}
    base = [part.format(model=case.model) for part in BASE[case.verb]]
    return [case.verb, *(part for part in base if part.partition("=")[0] not in given), *case.arguments]


def contents() -> dict[str, tuple[int, int]]:
    """Every file and folder here, with its kind and size."""
    found = {path: os.lstat(path) for path in map(str, Path().rglob("*"))}
    return {path: (of.st_mode, of.st_size if Path(path).is_file() else 0) for path, of in found.items()}


def test_the_table_is_large() -> None:
    assert len(CASES) >= 300


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_one_line(name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES[name]
    prepare(case)
    before = contents()

    def trains(*_: Any, **__: Any) -> None:
        pytest.fail("training has begun")

    monkeypatch.setattr(quick_start, "train", trains)
    monkeypatch.setattr(outside, "entry_points", _entry_points)  # it reads the files of every installed package
    start = time.monotonic()
    try:
        status: Any = main(command(case))
    except SystemExit as ended:  # of argparse
        status = ended.code
    output = capsys.readouterr()
    lines = output.err.splitlines()
    assert status == 2, output
    assert len(lines) == 1 and lines[0].startswith("recbole-diffusion: error: "), output.err
    assert output.out.count("\n") <= 1  # the line that says what begins
    line = lines[0].replace(str(Path().absolute()) + "/", "")
    assert [text for text in case.says if text not in line] == [], line
    assert len(line) < 700
    assert contents() == before
    assert time.monotonic() - start < SECONDS


@pytest.mark.parametrize("taken", ["saved", "log", "log/DreamRec", "log_tensorboard"])
def test_a_file_in_the_place_of_a_folder(taken: str, capsys: pytest.CaptureFixture[str]) -> None:
    prepare(Case(()))
    Path(taken).parent.mkdir(exist_ok=True)
    Path(taken).write_text("mine")
    before = contents()
    assert main(command(Case(()))) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{taken}" in line and "this folder cannot be made" in line
    assert contents() == before


def test_a_folder_that_takes_no_files(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As on a disk that is mounted for reading, where the permissions of the administrator do not help."""
    prepare(Case(()))
    data = Path("data").absolute()
    monkeypatch.chdir("/proc")
    for more, says in (([], "the log="), ([f"--checkpoint_dir={tmp_path}"], "the log=")):
        arguments = ["run", "--model=DreamRec", "--dataset=shop", f"--data_path={data}", "--epochs=1", *more]
        assert main(arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert says in line and "cannot be made" in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


@pytest.mark.parametrize("verb", ["tune", "compare"])
def test_torchrun_is_refused(verb: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its processes share one training, and this verb has many."""
    prepare(Case(()))
    before = contents()
    monkeypatch.setenv("WORLD_SIZE", "2")
    more = {"tune": ("--trials=1",), "compare": ("--models=Pop",)}[verb]
    assert main(command(Case((), more, verb=verb))) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "WORLD_SIZE=2" in line and "without torchrun" in line and contents() == before


@pytest.mark.parametrize(
    ("model", "gpu", "says"), [("recbole.BERT4Rec", (), "BPR, "), ("DreamRec", ("--gpu_id=1",), "gpu_id=1")]
)
def test_what_several_processes_cannot_train(
    model: str, gpu: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model of RecBole whose loss is no mean over rows; all on one GPU."""
    prepare(Case(()))
    before = contents()
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert main(["run", f"--model={model}", "--dataset=shop", "--data_path=data", *gpu]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line and "torchrun" in line and contents() == before


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="the administrator may read everything")
def test_a_file_that_may_not_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    prepare(Case(()))
    Path(INTER).chmod(0)
    assert main(command(Case(()))) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert INTER in line and "Permission denied" in line
