"""How the command line starts: quickly if nothing is trained, and with one line of error if it cannot."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import recbole_diffusion
from recbole_diffusion import compat
from recbole_diffusion.__main__ import main
from recbole_diffusion.names import RecBoleMissing

HEAVY = ("torch", "numpy", "pandas", "scipy", "recbole", "optuna")
HELP = (
    ["--version"],
    ["--help"],
    ["run", "--help"],
    ["run", "--model=DreamRec", "--help"],
    ["compare", "--help"],
    ["tune", "--help"],
)
BOUND = 2.0  # seconds; importing torch and RecBole takes longer


def _python(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(recbole_diffusion.__file__).parents[1])}
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_help_and_mistyped_arguments_load_nothing_heavy() -> None:
    script = f"""
import contextlib, io, sys
from recbole_diffusion.__main__ import main
mistakes = [["foo"], ["compare"], ["run", "stray"], ["run", "--epochs={{"]]
for arguments in [*{HELP!r}, *mistakes]:
    with contextlib.suppress(SystemExit), contextlib.redirect_stderr(io.StringIO()):
        with contextlib.redirect_stdout(io.StringIO()) as out:
            main(arguments)
    if arguments not in mistakes:
        assert out.getvalue(), arguments
    print(arguments, [name for name in {HEAVY!r} if name in sys.modules])
"""
    done = _python(script)
    lines = done.stdout.splitlines()
    assert len(lines) == len(HELP) + 4, done.stderr
    assert [line for line in lines if not line.endswith("[]")] == []


@pytest.mark.parametrize("arguments", [["--version"], ["run", "--help"]])
def test_help_comes_at_once(arguments: list[str]) -> None:
    start = time.perf_counter()
    done = _python("import sys; from recbole_diffusion.__main__ import main; main()", *arguments)
    assert done.returncode == 0 and done.stdout
    assert time.perf_counter() - start < BOUND


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: VERB"),
        (["foo"], "argument VERB: invalid choice: 'foo'"),
        (["compare", "--models=A,A"], "argument --models: 'A,A' is not a list of different names, A,B,..."),
        (["run", "--examples=\nx"], "argument --examples: '\\nx' is not a whole number >= 0"),
        (["tune", "--seconds"], "argument --seconds: expected one argument"),
    ],
)
def test_an_argument_that_does_not_parse_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    shown = capsys.readouterr()
    (line,) = shown.err.splitlines()
    verb = f" {arguments[0]}" if arguments and arguments[0] != "foo" else ""
    assert ended.value.code == 2 and shown.out == ""
    assert line.startswith(f"recbole-diffusion: error: {message}")
    assert line.endswith(f"recbole-diffusion{verb} --help shows what is allowed.")


@pytest.fixture
def no_recbole(monkeypatch: pytest.MonkeyPatch) -> None:
    """RecBole as if it were not installed."""
    monkeypatch.setitem(sys.modules, "recbole", None)


@pytest.mark.usefixtures("no_recbole")
def test_without_recbole_help_says_so_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--help"]) == 0
    out = capsys.readouterr().out
    assert "DreamRec" in out and "BERT4Rec" not in out
    assert [line for line in out.splitlines() if line.endswith("pip install --no-deps recbole==1.2.1")]


@pytest.mark.usefixtures("no_recbole")
@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--model=Pop", "--dataset=ml-100k"],
        ["tune", "--model=Pop", "--dataset=ml-100k", "--trials=1"],
        ["compare", "--models=Pop", "--datasets=ml-100k", "--out=out"],
    ],
)
def test_without_recbole_a_command_is_refused_in_one_line(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err == f"recbole-diffusion: error: {RecBoleMissing()}\n"


@pytest.mark.usefixtures("no_recbole")
def test_without_recbole_what_mends_it_says_so() -> None:
    spec = importlib.util.spec_from_file_location("compat_without_recbole", compat.__file__)
    assert spec is not None and spec.loader is not None
    with pytest.raises(RecBoleMissing, match=r"needs RecBole 1\.2\.1, which is not installed"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
