"""Whole runs: the command line, our models and RecBole's baselines, and the package as a user installs it."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from recbole_diffusion.__main__ import main
from recbole_diffusion.quick_start import run

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["--embedding_size=16", "--num_layers=1", "--sampling_steps=2", "--epochs=1", "--MAX_ITEM_LIST_LENGTH=10"]


def test_a_run_by_command_reports_metrics_class_and_recommendations(
    random_data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    arguments = ["run", "--model=DreamRec", "--dataset=random", f"--data_path={random_data}", "--examples=5", *SMALL]
    with caplog.at_level("INFO"):
        assert main(arguments) == 0
    assert "DreamRec: ours (recbole_diffusion.model.dreamrec.DreamRec)" in caplog.text
    for text in ("mse:", "ce:", "target_rank", "table_cosine", "abar_T", "valid: hit@5", "test:  hit@5", "  5. i"):
        assert text in caplog.text, text


def test_settings_of_files_and_command_line_reach_the_run(random_data: Path, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(
        f"model: DreamRec\ndataset: random\ndata_path: {random_data}\nepochs: 1\nembedding_size: 16\nseed: 5\n"
        "title_field: ~\nsampling_steps: 2\n"
    )
    result = run(config_files=[file], settings={"seed": 6})
    assert (result["model"], result["dataset"], result["seed"], result["epochs"]) == ("DreamRec", "random", 6, 1)
    assert result["parameters"] > 0 and Path(result["checkpoint"]).is_file()
    assert (
        set(result["valid"]) == set(result["test"]) == {f"{m}@{k}" for m in ("hit", "ndcg", "mrr") for k in (5, 10, 20)}
    )
    assert result["history"][0]["diagnostics"]["target_rank"] >= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--learning_rat=0.1"], "unknown setting 'learning_rat'. Did you mean 'learning_rate'"),
        (["--epochs=x"], "epochs='x': must be a whole number >= 1"),
        (["--epochs=1", "--epochs=2"], "epochs is given twice: 1 and 2"),
        (["--epochs={"], "epochs='{': not a YAML value"),
        (["stray"], "argument 'stray': settings are given as --key=value"),
        (["--preset=papers"], "preset=papers: DreamRec has no such preset. Allowed: default, paper"),
        (["--config_files", "none.yaml"], "config_files: there is no file 'none.yaml'"),
        (["--title_field=movie_title"], "title_field='movie_title': there is no file"),
        (["--TIME_FIELD=when"], "when"),
        (["--metrics=[Hit, Nope]"], "there is no metric 'Nope'"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_status_2(
    random_data: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["run", "--model=DreamRec", "--dataset=random", f"--data_path={random_data}", "--examples=1", *SMALL]
    if arguments[0].startswith("--epochs"):
        base.remove("--epochs=1")
    assert main(base + arguments) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("recbole-diffusion: error:")]
    assert len(errors) == 1 and message in errors[0]


def test_models_and_data_sets_that_do_not_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--model=DreamRek", "--dataset=ml-100k"]) == 2
    assert "model='DreamRek': there is no such model. Did you mean 'DreamRec'" in capsys.readouterr().err
    assert main(["run", "--model=DreamRec", "--dataset=ml-100"]) == 2
    assert "dataset='ml-100': there is no folder" in capsys.readouterr().err
    assert main(["run", "--dataset=ml-100k"]) == 2
    assert "model is not set" in capsys.readouterr().err


def test_help_lists_models_and_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--help"]) == 0
    out = capsys.readouterr().out
    for name in ("DreamRec", "DiffDiv", "WindowSASRec", "BERT4Rec", "LightGCN", "--eval_seed", "--sampling_steps"):
        assert name in out, name


@pytest.mark.slow
@pytest.mark.parametrize(
    "model", ["Pop", "BPR", "GRU4Rec", "SASRec", "BERT4Rec", "Caser", "NARM", "CORE", "recbole.DiffRec", "EASE"]
)
@pytest.mark.parametrize("mask_history", [False, True])
def test_recboles_baselines_run_by_the_same_command(
    random_data: Path, model: str, mask_history: bool, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"data_path": str(random_data), "epochs": 1, "MAX_ITEM_LIST_LENGTH": 10, "mask_history": mask_history}
    with caplog.at_level("INFO"):
        result = run(model, "random", settings=settings)
    assert f"{model}: RecBole (recbole.model." in caplog.text
    assert 0 < result["test"]["hit@20"] <= 1 and result["mask_history"] is mask_history
    torch.load(result["checkpoint"], weights_only=True)


@pytest.mark.slow
def test_item_coverage_and_popularity_do_not_crash(random_data: Path) -> None:
    settings = {"data_path": str(random_data), "epochs": 1, "metrics": ["NDCG", "ItemCoverage", "AveragePopularity"]}
    result = run("Pop", "random", settings={**settings, "topk": [5, 10]})
    assert 0 < result["test"]["itemcoverage@10"] <= 1 and result["test"]["averagepopularity@10"] > 0


@pytest.mark.slow
def test_diffdiv_runs_on_the_films_that_recbole_ships(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        result = run("DiffDiv", "ml-100k", settings={"epochs": 1, "embedding_size": 16}, examples=5)
    assert result["test"]["hit@20"] > 0
    held_out = [r.getMessage() for r in caplog.records if r.getMessage().startswith("Held out for user")]
    assert len(held_out) == 1 and any(c.isalpha() for c in held_out[0].split(": ", 1)[1])


@pytest.mark.slow
def test_the_wheel_carries_its_settings_and_runs_elsewhere(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    subprocess.run([*build, str(ROOT)], check=True, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "site")
    shipped = {str(p.relative_to(ROOT)) for p in (ROOT / "properties").rglob("*.yaml")}
    assert shipped and {f"recbole_diffusion/{name}" for name in shipped} <= names
    code = {str(p.relative_to(ROOT)) for p in (ROOT / "recbole_diffusion").rglob("*.py")}
    assert code <= names
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    script = (
        "import recbole_diffusion, sys; from recbole_diffusion.config.reading import read_properties as r; "
        "assert 'site' in recbole_diffusion.__file__; assert r('model', 'DiffDiv.yaml') and r('overall.yaml')"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path, env=environment)


@pytest.mark.slow
def test_the_script_needs_no_installation_and_shows_no_traceback(tmp_path: Path) -> None:
    script = [sys.executable, str(ROOT / "run_recbole_diffusion.py"), "--model=DiffDiv", "--dataset=ml-100k"]
    done = subprocess.run([*script, "--learning_rat=0.1"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert "Did you mean 'learning_rate'" in done.stderr and "Traceback" not in done.stderr + done.stdout
