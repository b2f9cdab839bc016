"""Models of other packages: how they are named, found and refused, and that the example package is one of them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recbole_diffusion import registry
from recbole_diffusion.__main__ import main
from recbole_diffusion.compare import plan
from recbole_diffusion.compare.run import Run
from recbole_diffusion.config.settings import UserError
from recbole_diffusion.config.strict import Config
from recbole_diffusion.quick_start import request
from recbole_diffusion.testing.fixtures import Built
from recbole_diffusion.tune.best import read_best
from recbole_diffusion.tune.space import space_file

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "tiny_diffusion"
SMALL = {"embedding_size": 16, "num_layers": 1, "sampling_steps": 3}
MODEL = "from recbole_diffusion.model.dreamrec import DreamRec\n\nclass Mine(DreamRec):\n    pass\n"

Package = Callable[..., Path]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    """``package(name, code, entry_points, yaml)``: an installed package with a module ``model``; returns its folder."""

    def package(name: str, code: str = MODEL, entry_points: str = "", yaml: bool = True) -> Path:
        site = tmp_path / f"site-{name}"
        info = site / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[recbole_diffusion.models]\n{entry_points}\n")
        folder = site / name
        (folder / "properties" / "model").mkdir(parents=True)
        (folder / "__init__.py").touch()
        (folder / "model.py").write_text(code)
        if yaml:
            shutil.copy(ROOT / "properties/model/DreamRec.yaml", folder / "properties/model/Mine.yaml")
        monkeypatch.syspath_prepend(site)
        for module in (name, f"{name}.model"):  # of another test
            monkeypatch.delitem(sys.modules, module, raising=False)
        return folder

    return package


# --------------------------------------------------------------------------------------------------------------
# Names


def test_a_registered_name_and_its_class_are_one_model(package: Package) -> None:
    folder = package("alpha", entry_points="Named = alpha.model:Mine")
    by_name, by_class = registry.get_model("Named"), registry.get_model("alpha.model:Mine")
    assert by_name == by_class and by_name.ours and by_name.origin == "alpha"
    assert by_name.model_class.__module__ == "alpha.model"
    names = {request(name, "random", {}, None).config()["model"] for name in ("Named", "alpha.model:Mine")}
    assert names == {"alpha.model:Mine"}
    assert space_of(folder, "dropout: [0.2, 0.3]") == space_file(request("Named", "random", {}, None))


def space_of(folder: Path, text: str) -> Path:
    file = folder / "properties" / "space" / "Mine.yaml"
    file.parent.mkdir()
    file.write_text(text)
    return file


def test_settings_and_presets_are_those_of_its_own_yaml(package: Package) -> None:
    folder = package("beta")
    yaml = folder / "properties" / "model" / "Mine.yaml"
    yaml.write_text(yaml.read_text() + "epochs: 7\n")

    def config(preset: str | None = None, **user: Any) -> Config:
        return request("beta.model:Mine", "random", user, preset).config()

    assert config()["epochs"] == 7 and config(epochs=8)["epochs"] == 8
    with pytest.raises(UserError, match=r"unknown setting 'epoch'\. Did you mean 'epochs'"):
        config(epoch=8)
    with pytest.raises(UserError, match=r"preset=paper: beta\.model:Mine has no such preset\. Allowed: default\."):
        config("paper")
    (folder / "properties" / "paper").mkdir()
    (folder / "properties" / "paper" / "Mine.yaml").write_text("epochs: 9\n")
    assert config("paper")["epochs"] == 9 and config()["epochs"] == 7
    with pytest.raises(UserError, match="has no shipped search space"):
        space_file(request("beta.model:Mine", "random", {}, None))


def test_the_yaml_may_lie_beside_a_package_around_the_module(package: Package) -> None:
    folder = package("gamma")
    inner = folder / "inner"
    inner.mkdir()
    (inner / "__init__.py").write_text("from gamma.inner.deep import Mine")
    (inner / "deep.py").write_text(MODEL)
    assert request("gamma.inner:Mine", "random", {}, None).config()["model"] == "gamma.inner.deep:Mine"


def test_a_checkpoint_is_of_one_class(package: Package, build: Callable[..., Built]) -> None:
    package("delta", entry_points="Named = delta.model:Mine")
    package("epsilon")
    built = build("Named", **SMALL, epochs=1)
    built.trainer.fit(built.loaders.train, built.loaders.valid)
    file = Path(built.trainer.saved_model_file)
    assert file.name.startswith("delta.model-Mine-random-default-seed1-") and file.is_file()
    expected = built.trainer.evaluate(built.loaders.test)

    def evaluate(model: str) -> Any:
        other = build(model, **SMALL)
        other.trainer.eval_collector.data_collect(other.loaders.train)
        return other.trainer.evaluate(other.loaders.test, model_file=str(file))

    assert evaluate("delta.model:Mine") == expected
    for model, name in (("epsilon.model:Mine", "epsilon.model:Mine"), ("DreamRec", "DreamRec")):
        with pytest.raises(UserError, match=f"is of delta.model:Mine and not of {name}"):
            evaluate(model)


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("DreamRec", ("DreamRec", "default", "DreamRec")),
        ("DreamRec:default", ("DreamRec", "default", "DreamRec")),
        ("DreamRec:paper", ("DreamRec", "paper", "DreamRec:paper")),
        ("DreamRec:papr", ("DreamRec", "papr", "DreamRec:papr")),
        ("recbole.SASRec:papr", ("recbole.SASRec", "papr", "recbole.SASRec:papr")),
        ("zeta:papr", ("zeta", "papr", "zeta:papr")),
        ("eta:Mine", ("eta:Mine", "default", "eta:Mine")),
        ("eta.model:Mine", ("eta.model:Mine", "default", "eta.model:Mine")),
        ("eta.model:Mine:default", ("eta.model:Mine", "default", "eta.model:Mine")),
        ("eta.model:Mine:paper", ("eta.model:Mine", "paper", "eta.model:Mine:paper")),
    ],
)
def test_a_comparison_tells_a_preset_from_a_class(package: Package, name: str, entry: tuple[str, str, str]) -> None:
    package("eta", entry_points="zeta = eta.model:Mine\neta = eta.model:Mine")
    assert plan._entries([name]) == [plan.Entry(*entry)]


def test_only_a_diffusion_model_is_tested_with_several_seeds_of_generation(
    package: Package, random_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "from recbole_diffusion.model.windowsasrec import WindowSASRec\n\nclass Mine(WindowSASRec):\n    pass\n"
    yaml = package("xi", code) / "properties" / "model" / "Mine.yaml"
    yaml.write_text((ROOT / "properties/model/WindowSASRec.yaml").read_text() + "eval_seed: 3\n")
    planned: list[Run] = []
    monkeypatch.setattr(plan.runner, "make", lambda runs, *_: planned.extend(runs))
    models = ["xi.model:Mine", "DreamRec"]
    plan.compare(models, ["random"], [0], "out", {"data_path": str(random_data)}, eval_seeds=[5, 6])
    assert [run.eval_seeds for run in planned] == [[], [5, 6]]
    assert planned[0].settings.get("eval_seed") is None and planned[0].resolved["eval_seed"] == 3


def test_help_lists_what_packages_register(package: Package, capsys: pytest.CaptureFixture[str]) -> None:
    package("theta", code="raise SystemExit('imported')", entry_points="Named = theta.model:Mine")
    assert main(["run", "--help"]) == 0
    assert "  Named (theta.model:Mine)\n" in capsys.readouterr().out


@pytest.mark.parametrize("model", ["Listed", "listed.model:Mine"])
def test_help_of_a_model_of_another_package(package: Package, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    package("listed", entry_points="Listed = listed.model:Mine")
    assert main(["run", "--help", f"--model={model}"]) == 0
    shown = capsys.readouterr().out
    assert f"settings of {model}, and their defaults" in shown and "--embedding_size=" in shown
    assert main(["run", "--help", f"--model={model}", "--preset=paper"]) == 2
    assert "has no such preset" in capsys.readouterr().err


# --------------------------------------------------------------------------------------------------------------
# What is refused

NO_MODEL = "class Mine:\n    pass\n"
PAIRWISE = "from recbole.model.sequential_recommender import FPMC\n\nclass Mine(FPMC):\n    pass\n"


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        (
            "nowhere.model:Mine",
            {},
            r"there is no module 'nowhere'\. Install its package, or put its folder into PYTHON",
        ),
        ("iota.modle:Mine", {}, r"there is no module 'iota\.modle'"),
        ("iota.model:Nine", {}, r"module 'iota\.model' has no class 'Nine'\. Did you mean 'Mine'"),
        (
            "iota.model:Mine",
            {"code": "import nowhere"},
            r"module 'iota\.model' needs 'nowhere', which is not installed",
        ),
        ("iota.model:Mine", {"code": "from iota import no"}, r"module 'iota\.model' cannot be imported \(.*'no'"),
        ("iota.model:Mine", {"code": NO_MODEL}, r"iota\.model:Mine must be a subclass of RecBole's SequentialRecom"),
        ("iota.model:Mine", {"code": "Mine = 1"}, r"iota\.model:Mine must be a subclass of RecBole's SequentialRecom"),
        ("iota.model:Mine", {"code": PAIRWISE}, r"its input_type is PAIRWISE"),
        ("iota.model:Mine", {"yaml": False}, r"its settings are missing: no .*/iota/properties/model/Mine\.yaml"),
        ("iota.model:", {}, r"'iota\.model:' must be package\.module:Class"),
        ("iota.model:Mine()", {}, r"'iota\.model:Mine\(\)' must be package\.module:Class"),
        ("../iota:Mine", {}, r"model='\.\./iota\.Mine': must be a name"),
        ("recbole.model.sequential_recommender:SASRec", {}, r"is RecBole's own model\. Name it recbole\.SASRec"),
        (
            "Named",
            {"entry_points": "Named = iota.model"},
            r"model='Named': 'iota\.model' must be package\.module:Class",
        ),
        ("Nameds", {"entry_points": "Named = iota.model:Mine"}, r"there is no such model\. Did you mean 'Named'"),
        (
            "a b",
            {"entry_points": "a b = iota.model:Mine"},
            r"is registered for iota\.model:Mine; a name may have only letters",
        ),
        (
            "DreamRec",
            {"entry_points": "DreamRec = iota.model:Mine"},
            r"is the name of several: iota\.model:Mine \(package iota\), recbole_diffusion\.model\.dreamrec:DreamRec",
        ),
        (
            "SASRec",
            {"entry_points": "SASRec = iota.model:Mine"},
            r"is the name of several: iota\.model:Mine \(package iota\), recbole\.SASRec \(RecBole\)\. Name one of",
        ),
    ],
)
def test_mistakes_are_one_line_before_anything_is_read(
    package: Package, capsys: pytest.CaptureFixture[str], name: str, given: dict[str, Any], message: str
) -> None:
    package("iota", **given)
    assert main(["run", f"--model={name}", "--dataset=nowhere"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    with pytest.raises(UserError, match=message):
        registry.get_model(name)


def test_two_packages_of_one_name(package: Package) -> None:
    for name in ("kappa", "lambada"):
        package(name, entry_points=f"Named = {name}.model:Mine")
    with pytest.raises(
        UserError, match=r"of several: kappa\.model:Mine \(package kappa\), lambada\.model:Mine \(package lam"
    ):
        registry.get_model("Named")
    assert registry.get_model("kappa.model:Mine") != registry.get_model("lambada.model:Mine")


def test_names_that_are_in_doubt_can_be_given_in_full(package: Package) -> None:
    package("mu", entry_points="DreamRec = mu.model:Mine\nSASRec = mu.model:Mine")
    ours = registry.get_model("recbole_diffusion.model.dreamrec:DreamRec")
    assert ours.origin == "ours" and request("recbole_diffusion.model.dreamrec:DreamRec", "random", {}, None).config()
    assert registry.get_model("recbole.SASRec").origin == "RecBole"
    assert registry.get_model("DiffDiv").origin == "ours"


def test_a_mistake_in_its_code_keeps_its_traceback(package: Package) -> None:
    package("nu", code="1 / 0")
    with pytest.raises(ZeroDivisionError):
        main(["run", "--model=nu.model:Mine", "--dataset=random"])


# --------------------------------------------------------------------------------------------------------------
# The example


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the example is installed in."""
    folder = tmp_path_factory.mktemp("example")
    shutil.copytree(EXAMPLE, folder / "source", ignore=shutil.ignore_patterns("build", "*.egg-info"))
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target"]
    subprocess.run([*install, str(folder / "site"), str(folder / "source")], check=True)
    return folder / "site"


NAMES = ["TinyDiffusion", "tiny_diffusion.model:TinyDiffusion"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_example_runs_and_tunes(site: Path, random_data: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.syspath_prepend(site)
    common = [f"--model={name}", "--dataset=random", f"--data_path={random_data}", "--epochs=1"]
    assert main(["run", *common, "--preset=paper", "--timesteps=20", "--sampling_steps=2"]) == 0
    (log,) = Path("log", "tiny_diffusion.model-TinyDiffusion").iterdir()
    assert f"{name}: tiny_diffusion (tiny_diffusion.model.TinyDiffusion)" in log.read_text()
    assert main(["tune", *common, "--trials=1"]) == 0
    best = Path("tune", f"{name.replace(':', '-')}-random", "best.yaml")
    assert read_best(Path("tune"), name, "random", "default").settings["denoiser_size"] == 128
    assert main(["run", "--config_files", str(best), f"--data_path={random_data}"]) == 0


@pytest.mark.slow
def test_the_example_is_compared_under_both_names(site: Path, random_data: Path, tmp_path: Path) -> None:
    """The processes of the runs find a model in the working folder, although PYTHONPATH does not name this folder."""
    by_name, by_class = NAMES[0], f"{NAMES[1]}:paper"
    command = [
        sys.executable, "-m", "recbole_diffusion", "compare", f"--models={by_name},{by_class}", "--datasets=random",
        f"--data_path={random_data}", f"--out={tmp_path}", "--epochs=1", f"--{by_class}.sampling_steps=2",
        f"--{NAMES[1]}.denoiser_size=32", f"--baseline={by_class}", "--eval_seeds=0,1",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=site, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    folders = {path.name for path in (tmp_path / "runs" / "random").iterdir()}
    assert folders == {"TinyDiffusion", "tiny_diffusion.model-TinyDiffusion-paper"}
    table = (tmp_path / "results.md").read_text()
    assert f"| {NAMES[0]} | default |" in table and f"| {NAMES[1]} | paper |" in table
    assert f"compared with the baseline, {by_class}" in table and f"denoiser_size 32 ({by_class})" in table


@pytest.mark.slow
def test_the_example_passes_the_contract_under_both_names(site: Path, tmp_path: Path) -> None:
    text = (EXAMPLE / "tests" / "test_tiny_diffusion.py").read_text()
    assert NAMES[1] in text
    (tmp_path / "test_by_class.py").write_text(text)
    (tmp_path / "test_by_name.py").write_text(text.replace(NAMES[1], NAMES[0]))
    shutil.copy(EXAMPLE / "pyproject.toml", tmp_path)
    # What it learns does not depend on its name.
    wanted = ["-k", "not by_name or not (overfits or learns)", "--strict-markers", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "ignore", *wanted], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(site)))},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed and int(passed[1]) >= 38, done.stdout  # both files ran


SASREC = "from recbole.model.sequential_recommender import SASRec\n\nclass Mine(SASRec):\n    pass\n"
SASREC_YAML = """\
n_layers: 1
n_heads: 2
hidden_size: 16
inner_size: 32
hidden_dropout_prob: 0.1
attn_dropout_prob: 0.1
hidden_act: gelu
layer_norm_eps: 1e-12
initializer_range: 0.02
loss_type: CE
"""


def test_a_model_on_recboles_base_alone_is_held_to_the_table(package: Package) -> None:
    folder = package("rho", code=SASREC, yaml=False)
    (folder / "properties" / "model" / "Mine.yaml").write_text(SASREC_YAML)
    model_class = registry.get_model("rho.model:Mine").model_class
    assert Config(model_class, "random", {}, ours=True)["train_neg_sample_args"]["distribution"] == "none"
    for wrong, message in (
        ({"n_layers": "abc"}, "n_layers='abc': must be a whole number >= 1"),
        ({"loss_type": "BPR"}, "loss_type='BPR': must be CE"),
    ):
        with pytest.raises(UserError, match=message):
            Config(model_class, "random", wrong, ours=True)
    yaml = folder / "properties" / "model" / "Mine.yaml"
    yaml.write_text(SASREC_YAML.replace("loss_type: CE", "loss_type: BPR"))
    with pytest.raises(UserError, match="loss_type='BPR': must be CE"):
        Config(model_class, "random", {}, ours=True)


def test_only_the_models_own_file_extends_another(package: Package) -> None:
    folder = package("sigma")
    (folder / "properties" / "paper").mkdir()
    (folder / "properties" / "paper" / "Mine.yaml").write_text("extends: diffusion\nsampler: ddpm\n")
    with pytest.raises(UserError, match=r"paper/Mine\.yaml: extends: only the file in model/ extends another"):
        request("sigma.model:Mine", "random", {}, "paper").config()


def test_a_class_without_a_file_is_told_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    made = types.ModuleType("made_on_the_spot")
    monkeypatch.setitem(sys.modules, "made_on_the_spot", made)
    exec(MODEL, made.__dict__)
    with pytest.raises(UserError, match=r"model=made_on_the_spot:Mine: its settings are missing: .*has no file"):
        registry.get_model("made_on_the_spot:Mine")


def test_help_shows_the_limits_of_a_models_own(package: Package, capsys: pytest.CaptureFixture[str]) -> None:
    code = (
        "from dataclasses import dataclass\n"
        "from recbole_diffusion.config.typed import setting\n"
        "from recbole_diffusion.model.dreamrec import DreamRec, DreamRecConfig\n\n"
        "@dataclass(frozen=True)\nclass Own(DreamRecConfig):\n    embedding_size: int = setting(low=4, high=32)\n\n"
        "class Mine(DreamRec):\n    config_class = Own\n"
    )
    package("tau", code=code)
    assert main(["run", "--help", "--model=tau.model:Mine"]) == 0
    assert "(a whole number >= 4 and <= 32)" in capsys.readouterr().out
