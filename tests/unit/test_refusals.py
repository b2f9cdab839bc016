"""Which exceptions become one line for the user, and which stay a traceback."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from recbole_diffusion.config.refusals import setting_up, using
from recbole_diffusion.config.settings import UserError

Call = Callable[..., Any]


def function_of(package: str) -> Call:
    """``call(function, *arguments)``, as a function in a file of ``package``."""
    scope: dict[str, Any] = {"__name__": f"{package}.made", "__file__": f"/lib/{package}/made.py"}
    exec("\n\ndef call(function, *arguments):\n    return function(*arguments)\n", scope)
    return scope["call"]


def raiser_of(package: str, error: Exception) -> Call:
    """A function in a file of ``package`` that raises."""
    scope: dict[str, Any] = {"__name__": f"{package}.made", "__file__": f"/lib/{package}/made.py", "error": error}
    exec("def fail():\n    raise error\n", scope)
    return scope["fail"]


def model_of(package: str) -> Any:
    return type("Made", (), {"__module__": f"{package}.model.made"})()


THEIRS, OURS = function_of("recbole"), function_of("recbole_diffusion")


@pytest.mark.parametrize("ours", [True, False])
@pytest.mark.parametrize(
    ("fail", "line"),
    [
        (raiser_of("recbole", ValueError("a\n  b")), "BPR on made: a b"),
        (raiser_of("recbole", KeyError("class")), "BPR on made: KeyError: 'class' (RecBole's made.py:2)"),
        (lambda: THEIRS(int, "x"), "invalid literal for int"),
        (lambda: THEIRS(__import__, "no_such"), "BPR on made: it needs the package 'no_such', which is not installed"),
        (raiser_of("recbole_diffusion", ValueError("eta")), "BPR on made: eta"),
        (raiser_of("numpy", MemoryError("2 TB")), "BPR on made: there is not enough memory"),
        (raiser_of("torch", RuntimeError("DefaultCPUAllocator: can't allocate memory")), "there is not enough memory"),
        (raiser_of("torch", torch.OutOfMemoryError("8 GB")), "there is not enough memory"),
    ],
)
def test_what_is_refused_at_set_up_is_one_line(fail: Call, line: str, ours: bool) -> None:
    with pytest.raises(UserError) as caught, setting_up("BPR on made", ours):
        fail()
    assert line in str(caught.value) and "\n" not in str(caught.value)


def test_any_type_is_refused_of_recboles_models_only() -> None:
    for error in (AttributeError("no field"), IndexError("0"), RuntimeError("shapes"), FileNotFoundError("x.pth")):
        fail = raiser_of("recbole", error)
        with pytest.raises(UserError, match=f"{type(error).__name__}: .*made.py:2"), setting_up("BPR", ours=False):
            fail()
        with pytest.raises(type(error)), setting_up("DreamRec", ours=True):
            fail()


@pytest.mark.parametrize("ours", [True, False])
@pytest.mark.parametrize("error", [KeyError("k"), AttributeError("a"), RuntimeError("r"), AssertionError()])
def test_what_is_wrong_in_this_package_keeps_its_traceback(error: Exception, ours: bool) -> None:
    fail = raiser_of("recbole_diffusion", error)
    with pytest.raises(type(error)), setting_up("BPR", ours):
        THEIRS(fail)
    with pytest.raises(type(error)), using(model_of("recbole")):
        THEIRS(fail)
    below = raiser_of("torch", error)
    with pytest.raises(type(error)), setting_up("BPR", ours):
        THEIRS(OURS, below)


def test_a_bare_assertion_says_what_it_asserts(tmp_path: Path) -> None:
    file = tmp_path / "made.py"
    file.write_text("def check(stage):\n    assert stage in ('a', 'b')\n")
    scope: dict[str, Any] = {"__name__": "recbole.made", "__file__": str(file)}
    exec(compile(file.read_text(), str(file), "exec"), scope)
    with pytest.raises(UserError, match=r"AssertionError: assert stage in \('a', 'b'\)"), setting_up("BPR", ours=False):
        scope["check"]("c")


def test_a_model_of_recbole_that_fails_in_training_says_where() -> None:
    line = r"Made failed in RecBole's code at made\.py:4: ZeroDivisionError: "
    with pytest.raises(UserError, match=line), using(model_of("recbole")):
        OURS(THEIRS, lambda: 1 / 0)


@pytest.mark.parametrize("error", [OSError("disk full"), torch.OutOfMemoryError("8 GB"), KeyboardInterrupt()])
def test_the_machines_failures_in_training_stay_what_they_are(error: Exception) -> None:
    with pytest.raises(type(error)), using(model_of("recbole")):
        raiser_of("recbole", error)()


def test_our_models_failures_in_training_stay_what_they_are() -> None:
    with pytest.raises(KeyError), using(model_of("recbole_diffusion")):
        raiser_of("recbole", KeyError("k"))()


def test_an_error_for_the_user_passes() -> None:
    for context in (setting_up("BPR", ours=False), using(model_of("recbole"))):
        with pytest.raises(UserError, match=r"^as it is$"), context:
            raiser_of("recbole", UserError("as it is"))()


def test_the_logs_file_has_the_traceback_and_the_terminal_has_not(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    request: pytest.FixtureRequest,
) -> None:
    handlers = [logging.FileHandler(tmp_path / "run.log"), logging.StreamHandler()]
    for handler in handlers:
        request.addfinalizer(partial(logging.getLogger().removeHandler, handler))
        handler.setLevel(logging.INFO)
        logging.getLogger().addHandler(handler)
    with pytest.raises(UserError), using(model_of("recbole")):
        THEIRS(lambda: 1 / 0)
    text = (tmp_path / "run.log").read_text()
    assert "Traceback" in text and "ZeroDivisionError" in text
    assert capsys.readouterr().err == "" and caplog.text == ""
