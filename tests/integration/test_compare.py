"""Comparisons: what is kept, what is refused, and whether tables and tests use the right users and numbers."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import Built
from filelock import FileLock

from recbole_diffusion import registry
from recbole_diffusion.__main__ import main
from recbole_diffusion.compare import plan, runner, tables
from recbole_diffusion.compare.run import RECORD_FORMAT, Run
from recbole_diffusion.compare.worker import execute
from recbole_diffusion.config import roles
from recbole_diffusion.config.settings import UserError
from recbole_diffusion.console.progress import duration
from recbole_diffusion.data.fingerprint import dataset_hash, describe_split
from recbole_diffusion.evaluation.users import UserEvaluator, has_user_values, ranked_users
from recbole_diffusion.storage import checkpoint
from recbole_diffusion.testing.markov import write_atomic
from recbole_diffusion.tune.search import tune

METRICS = ["Hit", "NDCG", "MRR", "MAP", "Recall", "Precision", "EmbeddingILD", "Novelty", "AveragePopularity"]
ALL_LISTS = ["GiniIndex", "ItemCoverage", "ShannonEntropy"]
SMALL = {"epochs": 1, "MAX_ITEM_LIST_LENGTH": 10, "user_inter_num_interval": "[4,inf)"}
MODELS = ["DreamRec", "BPR", "WindowSASRec"]


# --------------------------------------------------------------------------------------------------------------
# Values of users, and what they are of


def user_metrics(build: Callable[..., Built], model: str, **settings: Any) -> tuple[dict[str, float], pd.DataFrame]:
    """Test metrics of an untrained model as RecBole reports them, and the users' values by token."""
    built = build(model, **{**SMALL, "metrics": METRICS + ALL_LISTS, **settings})
    built.trainer.eval_collector.data_collect(built.loaders.train)
    built.trainer.evaluator = UserEvaluator(built.config)
    reported = built.trainer.evaluate(built.loaders.test, load_best_model=False)
    dataset = built.loaders.test.dataset
    users = dataset.field2id_token[dataset.uid_field][ranked_users(built.loaders.test)]
    return dict(reported), pd.DataFrame(built.trainer.evaluator.user_values(), index=users)


@pytest.mark.parametrize("mode", ["full", "uni10"])
@pytest.mark.parametrize("model", ["SASRec", "BPR", "DreamRec"])
def test_the_mean_over_users_is_what_is_reported(build: Callable[..., Built], model: str, mode: str) -> None:
    reported, values = user_metrics(build, model, eval_args={"mode": mode})
    assert set(values) == {f"{name.lower()}@{k}" for name in METRICS for k in (5, 10, 20)}
    assert set(reported) - set(values) == {f"{name.lower()}@{k}" for name in ALL_LISTS for k in (5, 10, 20)}
    assert values.index.is_unique and len(values) == 39
    for name, mean in values.mean().items():
        assert reported[name] == pytest.approx(mean, abs=0.5001e-4), name
    assert all(has_user_values(name) for name in METRICS) and not any(has_user_values(name) for name in ALL_LISTS)


@pytest.mark.parametrize("model", ["SASRec", "BPR"])
def test_values_belong_to_their_user_whatever_the_order_of_rows(build: Callable[..., Built], model: str) -> None:
    _, sorted_by_length = user_metrics(build, model)
    _, other = user_metrics(build, model, bucket_by_length=False, eval_batch_size=64)
    if model == "SASRec":
        assert list(sorted_by_length.index) != list(other.index)
    pd.testing.assert_frame_equal(sorted_by_length.sort_index(), other.sort_index())


def test_the_split_has_one_hash_for_all_kinds_of_models(build: Callable[..., Built]) -> None:
    def split(model: str, **settings: Any) -> dict[str, Any]:
        built = build(model, **{"user_inter_num_interval": "[4,inf)", **settings})
        return describe_split(built.loaders.train.dataset, built.loaders)

    first = split("SASRec")
    assert (first["users"], first["items"]) == (39, 30)
    for model in ("BPR", "DreamRec", "FEARec"):
        assert split(model, MAX_ITEM_LIST_LENGTH=7, seed=3) == first
    assert split("BPR", user_inter_num_interval="[5,inf)")["split_sha256"] != first["split_sha256"]
    short = {"user_inter_num_interval": "[0,inf)"}
    # The user with three interactions.
    assert split("BPR", **short)["split_sha256"] != split("SASRec", **short)["split_sha256"]


def test_the_data_has_another_hash_when_a_file_changes(tmp_path: Path) -> None:
    folder = write_atomic(tmp_path, "films", [[1, 2, 3, 4]] * 3) / "films"
    config = {"data_path": str(folder), "dataset": "films"}
    hashes = [dataset_hash(config)]
    (folder / "films.item").write_text("item_id:token\n")
    hashes.append(dataset_hash(config))
    (folder / "notes.txt").write_text("no part of it")
    assert dataset_hash(config) == hashes[1]
    with (folder / "films.inter").open("a") as file:
        file.write("u9\ti9\t1\n")
    assert len({*hashes, dataset_hash(config)}) == 3


# --------------------------------------------------------------------------------------------------------------
# Runs


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Make runs in this process. Returns the names of the runs that were made."""
    names: list[str] = []

    def start(run: Run, out: Path) -> int:
        names.append(f"{run.label}/{run.seed}")
        out.mkdir(parents=True, exist_ok=True)
        Path(run.folder).mkdir(parents=True, exist_ok=True)
        try:
            with contextlib.chdir(out):
                execute(run)
        except UserError as error:
            run.file(".log").write_text(f"a line\n{error}\n\n")
            return 2
        return 0

    monkeypatch.setattr(runner, "start", start)
    return names


def comparison(folder: Path, *models: str, out: str = "out", **changes: Any) -> int:
    settings = {"data_path": str(folder), **SMALL, **changes.pop("settings", {})}
    return plan.compare(models, ["random"], changes.pop("seeds", [0, 1]), out, settings, **changes)


def test_finished_runs_are_kept_and_tables_are_made(
    random_data: Path, started: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    # Without the skip the ranking depends on the noise.
    settings = {"sampling_steps": 20, "denoiser_skip": False, "chain_start": "noise"}
    settings = {f"DreamRec.{key}": value for key, value in settings.items()}
    two_generations: dict[str, Any] = {"eval_seeds": [3, 4], "settings": settings}
    assert comparison(random_data, *MODELS, seeds=[0], **two_generations) == 0
    assert started == [f"{model}/0" for model in MODELS]
    first = Path("out/runs/random/DreamRec/seed0.json")
    before = {file: file.read_bytes() for file in Path("out/runs").rglob("seed0.*")}
    assert comparison(random_data, *MODELS, **two_generations) == 0
    assert started[3:] == [f"{model}/1" for model in MODELS]
    tables = {name: Path("out", name).read_bytes() for name in ("results.csv", "results.md")}
    assert comparison(random_data, *MODELS, **two_generations) == 0
    assert len(started) == 6
    assert before == {file: file.read_bytes() for file in Path("out/runs").rglob("seed0.*")}
    assert tables == {name: Path("out", name).read_bytes() for name in tables}
    shown = capsys.readouterr().out
    assert "run 2 of 3: BPR on random, seed 0 ... NDCG@10 0." in shown
    assert " left; best so far " in shown and "6 of 6 runs are finished and kept." in shown
    assert {path.name for path in Path("out").iterdir()} >= {"runs", "saved", "log", "log_tensorboard"}
    assert not Path("saved").exists() and not list(Path("out").rglob(".*"))

    record = json.loads(first.read_text())
    table = pd.read_csv("out/results.csv").set_index("model")
    of_pop, table = table.loc["Pop"], table.drop(index="Pop")
    assert (of_pop.preset, of_pop.runs) == ("reference", 0) and not np.isnan(of_pop["test_ndcg@10_mean"])
    assert list(table.index) == MODELS and set(table.runs) == {2} and set(table.seeds) == {"0, 1"}
    assert set(table.baseline) == {"BPR"} and set(table.tested_metric) == {"ndcg@10"}
    assert table.paired_users.tolist()[::2] == [39, 39] and np.isnan(table.difference["BPR"])
    assert (table.p_holm.dropna() >= table.p.dropna()).all()
    assert set(table.split_sha256) == {record["split_sha256"]} and set(table.interactions) == {620}
    # Each number once more, from the files.
    for model, row in table.iterrows():
        files = [np.load(f"out/runs/random/{model}/seed{seed}.npz") for seed in (0, 1)]
        means = [file["ndcg@10"].mean() for file in files]
        assert row["test_ndcg@10_mean"] == pytest.approx(np.mean(means))
        assert row["test_ndcg@10_std"] == pytest.approx(np.std(means, ddof=1))
        assert list(files[0]["users"]) == sorted(files[0]["users"]) and len(files[0]["users"]) == 39
        assert files[0]["ndcg@10"].shape == (2 if model == "DreamRec" else 1, 39)
    values = np.load("out/runs/random/DreamRec/seed0.npz")["ndcg@20"]
    assert not np.array_equal(values[0], values[1])
    generated = [np.load(f"out/runs/random/DreamRec/seed{seed}.npz")["ndcg@10"].mean(axis=1) for seed in (0, 1)]
    spread = np.sqrt(np.mean([np.var(of_seed, ddof=1) for of_seed in generated]))
    assert table["test_ndcg@10_generation_std"]["DreamRec"] == pytest.approx(spread, abs=1e-12)
    assert table["test_ndcg@10_generation_std"].isna().tolist() == [False, True, True]
    assert record["test"]["ndcg@10"] == pytest.approx(generated[0][0], abs=0.5001e-4)
    assert record["tests"][1]["ndcg@10"] == pytest.approx(generated[0][1])
    assert record["peak_memory_gb"] > 0.1 and record["generation"]["eval_seed"] == 3

    text = Path("out/results.md").read_text()
    for part in (
        "## random", "| DreamRec | default | 2 | 0.", " ± ", "NDCG@10 compared with the baseline, BPR:",
        "- mask_history: False\n", "- evaluation: split LS valid_and_test", "- generation seeds: 3, 4 (DreamRec)\n",
        "- training seeds: 0, 1\n",
        f"- data set, SHA-256: {record['data_sha256']}", "- versions: recbole_diffusion ", "- threads: ", "- CPU: ",
        "two-sided Wilcoxon signed-rank test",
    ):  # fmt: skip
        assert part in text, part
    assert "splits differ" not in text


def test_every_evaluation_of_a_comparison_ranks_the_same_candidates(
    random_data: Path, started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ranked: list[tuple[int, ...]] = []
    for name in ("DreamRec", "BPR"):
        model_class = registry.get_model(name).model_class

        def predict(self: Any, interaction: Any, original: Any = model_class.predict) -> Any:
            pairs = zip(interaction["user_id"].tolist(), interaction["item_id"].tolist(), strict=True)
            ranked.append(tuple(sorted(pairs)))
            return original(self, interaction)

        monkeypatch.setattr(model_class, "predict", predict)
    settings = {"eval_args": {"mode": "uni10"}, "DreamRec.sampling_steps": 4, "DreamRec.embedding_size": 8}
    assert comparison(random_data, "DreamRec", "BPR", eval_seeds=[3, 4], curve_steps=[1, 2], settings=settings) == 0
    # Validation and test, two seeds: DreamRec with two seeds and two numbers of steps of generation too.
    assert len(started) == 4 and len(ranked) == 2 * (2 + 1 + 2) + 2 * 2
    assert len(set(ranked)) == 2 and len(ranked[0]) == 39 * 11
    records = [json.loads(file.read_text()) for file in Path("out/runs").rglob("seed*.json")]
    assert all(record["pop"] == records[0]["pop"] for record in records)
    assert {record["settings"]["candidate_seed"] for record in records} == {2020}


@pytest.mark.parametrize("mask_history", [False, True])
def test_every_run_records_the_figures_of_pops_own_run(
    random_data: Path, started: list[str], mask_history: bool
) -> None:
    settings = {"mask_history": mask_history, "metrics": ["NDCG", "ItemCoverage"]}
    wanted: dict[str, Any] = {"seeds": [0, 1], "eval_seeds": [3, 4], "settings": settings}
    assert comparison(random_data, "DreamRec", "BPR", "Pop", **wanted) == 0

    def record(name: str, seed: int = 0) -> dict[str, Any]:
        return json.loads(Path(f"out/runs/random/{name}/seed{seed}.json").read_text())

    own = record("Pop")
    assert own["pop"] is None and "pop_test" not in own
    of_users = np.load("out/runs/random/Pop/seed0.npz")
    for model, seed in (("DreamRec", 0), ("BPR", 0), ("BPR", 1)):
        beside = record(model, seed)
        assert beside["pop"] == {"valid": own["valid"], "test": own["test"]}
        assert beside["pop_test"] == pytest.approx(own["tests"][0]) and isinstance(beside["warnings"], list)
        values = np.load(f"out/runs/random/{model}/seed{seed}.npz")
        assert np.array_equal(values["users"], of_users["users"])
        for name in ("ndcg@5", "ndcg@10"):
            np.testing.assert_array_equal(values[f"pop_{name}"], of_users[name])
        assert not np.array_equal(values["pop_ndcg@10"], values["ndcg@10"][:1])
    assert list(pd.read_csv("out/results.csv").model) == ["DreamRec", "BPR", "Pop"]
    assert "differ between runs" not in Path("out/results.md").read_text()


def test_steps_of_generation_are_measured_on_the_validation_split(random_data: Path, started: list[str]) -> None:
    settings = {"DreamRec.timesteps": 30, "DreamRec.sampling_steps": 3}
    wanted: dict[str, Any] = {"seeds": [0], "eval_seeds": [8, 9], "settings": settings}
    assert comparison(random_data, "DreamRec", "Pop", curve_steps=[1, 3, 30, 31], **wanted) == 0
    record, of_pop = (
        json.loads(Path(f"out/runs/random/{name}/seed0.json").read_text()) for name in ("DreamRec", "Pop")
    )
    assert [point["steps"] for point in record["steps_curve"]] == [1, 3, 30] and of_pop["steps_curve"] == []
    scores = [point["valid"] for point in record["steps_curve"]]
    assert scores[1] == record["valid"] and scores[0] != scores[2]  # by the generation seed that chose the epoch
    assert all(point["seconds"] > 0 for point in record["steps_curve"])
    assert "figure-0-steps" in Path("out/report.html").read_text(encoding="utf-8")
    with pytest.raises(UserError, match=r"DreamRec/seed0.json: was made with curve_steps=\[1, 3, 30\] and not \[\]"):
        comparison(random_data, "DreamRec", "Pop", **wanted)
    wanted["settings"] = {
        **settings,
        "DreamRec.prediction": "eps",
        "DreamRec.denoiser_skip": False,
        "DreamRec.ce_weight": 0.0,
    }
    assert comparison(random_data, "DreamRec", "Pop", out="eps", curve_steps=[1, 3], **wanted) == 0
    record = json.loads(Path("eps/runs/random/DreamRec/seed0.json").read_text())
    assert record["curve_steps"] == [3]  # models that predict the noise cannot generate in one step


def test_settings_that_tune_found_are_taken_over(random_data: Path, started: list[str]) -> None:
    space = Path("space.yaml")
    space.write_text("embedding_size: [8, 64]\nlearning_rate: [1e-3, 1e-2]\n")
    settings = {"data_path": str(random_data), "mask_history": True, "epochs": 2, "seed": 5}
    best = tune("BPR", "random", (), settings, space=space, trials=4, out="studies/BPR-random")
    common: dict[str, Any] = {"seeds": [0], "tuned": "studies", "settings": {"mask_history": True}}
    assert comparison(random_data, "BPR", "Pop", **common) == 0
    record, of_pop = (json.loads(Path(f"out/runs/random/{name}/seed0.json").read_text()) for name in ("BPR", "Pop"))
    assert best["settings"].items() <= record["settings"].items()
    assert record["settings"]["seed"] == 0 and record["tuning"].startswith("4 trials, ")
    assert of_pop["tuning"] == "not tuned"
    with pytest.raises(UserError, match="tuned='nowhere': is not a folder"):
        comparison(random_data, "Pop", tuned="nowhere", seeds=[0])
    assert f"embedding_size {best['settings']['embedding_size']}" in Path("out/results.md").read_text()
    assert f"tuning, on the validation split: {record['tuning']} (BPR); not tuned (Pop)" in (
        Path("out/results.md").read_text()
    )
    changed = {**common, "settings": {"mask_history": True, "BPR.embedding_size": 16}}
    assert comparison(random_data, "BPR", "Pop", out="other", **changed) == 0
    assert json.loads(Path("other/runs/random/BPR/seed0.json").read_text())["settings"]["embedding_size"] == 16
    with pytest.raises(UserError, match=r"no studies/DreamRec-random/best.yaml. It is made by tune --model=DreamRec"):
        comparison(random_data, "DreamRec", "Pop", **common)
    shutil.copytree("studies/BPR-random", "studies/DreamRec-random")
    with pytest.raises(UserError, match=r"DreamRec-random/best.yaml is of BPR, random, default"):
        comparison(random_data, "DreamRec", "Pop", **common)


def test_what_would_mix_results_is_refused(random_data: Path, tmp_path: Path, started: list[str]) -> None:
    folder = tmp_path / "data"
    shutil.copytree(random_data, folder)
    assert comparison(folder, "Pop", seeds=[0]) == 0
    for changes, message in (
        ({"settings": {"topk": [5, 10]}}, r"Pop/seed0.json: was made with topk=\[5, 10, 20\] and not \[5, 10\]"),
        ({"settings": {"mask_history": True}}, "mask_history=False and not True"),
    ):
        with pytest.raises(UserError, match=message):
            comparison(folder, "BPR", "Pop", seeds=[0], **changes)
    moved = tmp_path / "moved"
    folder.rename(moved)
    assert comparison(moved, "Pop", seeds=[0]) == 0  # data in another folder count as the same
    with (moved / "random" / "random.inter").open("a") as file:
        file.write("u1\ti1\t99\n")
    with pytest.raises(UserError, match="data_sha256="):
        comparison(moved, "Pop", seeds=[0])
    assert started == ["Pop/0"]


def test_a_run_that_fails_leaves_the_others(
    random_data: Path, started: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "compare", "--models=DreamRec,Pop", "--datasets=random", "--out=out", f"--data_path={random_data}",
        "--DreamRec.embedding_size=-3", "--epochs=1",
    ]  # fmt: skip
    assert main(arguments) == 1
    shown = capsys.readouterr().out
    assert (
        "run 1 of 2: DreamRec on random, seed 0 ... FAILED: embedding_size=-3: must be a whole number >= 1 and <= 6"
        in shown
    )
    assert list(pd.read_csv("out/results.csv").model) == ["Pop"]
    arguments[5] = "--DreamRec.embedding_size=8"
    assert main(arguments) == 0
    assert started == ["DreamRec/0", "Pop/0", "DreamRec/0"]
    assert list(pd.read_csv("out/results.csv").model) == ["DreamRec", "Pop"]


def test_a_run_that_another_process_makes_is_left_to_it(
    random_data: Path, started: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with FileLock("out/locks/random-BPR-default-seed0.lock"):
        assert comparison(random_data, "Pop", "BPR", seeds=[0]) == 0
    assert started == ["Pop/0"]
    assert "1 of 2 runs are being made by other processes" in capsys.readouterr().out
    assert list(pd.read_csv("out/results.csv").model) == ["Pop"]
    assert comparison(random_data, "Pop", "BPR", seeds=[0]) == 0
    assert started == ["Pop/0", "BPR/0"]
    assert "other processes" not in capsys.readouterr().out


def test_what_another_process_makes_meanwhile_is_not_made_again(
    random_data: Path, started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = runner.start

    def start(run: Run, out: Path) -> int:
        monkeypatch.setattr(runner, "start", alone)  # the other process makes the next run before this one fails
        assert comparison(random_data, "Pop", "BPR", seeds=[0]) == 0
        Path(run.folder).mkdir(parents=True)
        run.file(".log").write_text("no memory\n")
        return 1

    monkeypatch.setattr(runner, "start", start)
    assert comparison(random_data, "Pop", "BPR", seeds=[0]) == 1
    assert started == ["BPR/0"]
    assert list(pd.read_csv("out/results.csv").model) == ["BPR", "Pop"]  # Pop was not run here; it is the reference


def test_what_another_process_gives_up_is_made(
    random_data: Path, started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = FileLock("out/locks/random-Pop-default-seed0.lock")
    alone = runner.start

    def start(run: Run, out: Path) -> int:
        if run.model == "BPR":
            lock.release()  # the other process is stopped
        return alone(run, out)

    monkeypatch.setattr(runner, "start", start)
    with lock:
        assert comparison(random_data, "Pop", "BPR", seeds=[0]) == 0
    assert started == ["BPR/0", "Pop/0"]


def test_a_run_without_its_users_values_is_made_again_by_the_process_that_makes_it(random_data: Path) -> None:
    settings = {"use_gpu": False}  # a process of its own would not see the fake device
    assert comparison(random_data, "Pop", seeds=[0], settings=settings) == 0
    values = Path("out/runs/random/Pop/seed0.npz")
    values.unlink()
    assert comparison(random_data, "Pop", seeds=[0], settings=settings) == 0
    assert values.is_file()


def test_where_a_run_was_made_does_not_matter(random_data: Path, started: list[str]) -> None:
    on_cpu = {"use_gpu": False}  # the device itself matters
    assert comparison(random_data, "Pop", seeds=[0], settings=on_cpu) == 0
    file = Path("out/runs/random/Pop/seed0.json")
    record = json.loads(file.read_text())
    record["settings"] |= {"gpu_id": "3", "use_gpu": True}  # as an earlier version kept them
    file.write_text(json.dumps(record))
    assert comparison(random_data, "Pop", seeds=[0], settings={**on_cpu, "eval_batch_size": 64}) == 0
    assert started == ["Pop/0"]
    with pytest.raises(UserError, match="worker=0 and not 1"):  # it changes which negatives are sampled
        comparison(random_data, "Pop", seeds=[0], settings={**on_cpu, "worker": 1})


def test_a_finished_run_of_other_threads_or_device_is_refused(random_data: Path, started: list[str]) -> None:
    assert comparison(random_data, "Pop", seeds=[0]) == 0
    file = Path("out/runs/random/Pop/seed0.json")
    whole = file.read_text()
    threads = json.loads(whole)["threads"]
    for key, value, message in (
        ("threads", threads + 1, rf"was made with threads={threads + 1} and not {threads}\. OMP_NUM_THREADS sets"),
        ("device", "tpu", r"was made with device='tpu' and not '(cpu|cuda)'\. Take another --out, or remove that file"),
    ):
        file.write_text(json.dumps({**json.loads(whole), key: value}))
        with pytest.raises(UserError, match=message):
            comparison(random_data, "Pop", seeds=[0])
    assert started == ["Pop/0"]


@pytest.mark.parametrize(
    ("made_by", "which"), [(None, "an earlier"), (RECORD_FORMAT - 1, "an earlier"), (RECORD_FORMAT + 1, "a later")]
)
def test_a_run_of_another_version_is_one_line(
    random_data: Path, started: list[str], made_by: int | None, which: str
) -> None:
    assert comparison(random_data, "Pop", seeds=[0]) == 0
    file = Path("out/runs/random/Pop/seed0.json")
    record = {**json.loads(file.read_text()), "format": made_by}
    if made_by is None:  # records of that version had no such entries
        del record["format"], record["threads"], record["settings"]["prefixes_per_user"]
    file.write_text(json.dumps(record))
    with pytest.raises(UserError) as raised:
        comparison(random_data, "Pop", seeds=[0])
    assert str(raised.value) == (
        f"{file.absolute()}: was made by {which} version, whose numbers do not compare: take another --out, or remove "
        "it."
    )
    assert started == ["Pop/0"]


def test_a_setting_that_a_run_did_not_have_is_not_one_that_was_none(random_data: Path, started: list[str]) -> None:
    assert comparison(random_data, "Pop", seeds=[0]) == 0
    file = Path("out/runs/random/Pop/seed0.json")
    record = json.loads(file.read_text())
    assert record["settings"].pop("prefixes_per_user") is None
    file.write_text(json.dumps(record))
    with pytest.raises(
        UserError, match=r"was made with prefixes_per_user=\(no such setting\) and not None\. Take another"
    ):
        comparison(random_data, "Pop", seeds=[0])
    assert started == ["Pop/0"]


@pytest.fixture
def planned(random_data: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """The run that a comparison of one model plans. It is not made."""

    def plan(model: str, **settings: Any) -> Run:
        runs: list[Run] = []
        with monkeypatch.context() as patch:
            patch.setattr(runner, "make", lambda planned, *_: runs.extend(planned) or 0)
            comparison(random_data, model, seeds=[0], settings=settings)
        Path(runs[0].folder).mkdir(parents=True)
        return runs[0]

    return plan


def test_what_is_recorded_is_what_the_run_had(planned: Callable[..., Run]) -> None:
    task = planned("DreamRec", embedding_size=8, sampling_steps=2, eval_args={"mode": "uni10"})
    execute(task)
    record = json.loads(task.file(".json").read_text())
    saved = checkpoint.load(record["checkpoint"])["config"]
    assert record["settings"] == json.loads(json.dumps(roles.that_count(saved)))  # of the trained model itself
    assert record["settings"]["eval_args"]["mode"] == {"valid": "uni10", "test": "uni10"}
    assert record["settings"]["embedding_size"] == 8 and "data_path" not in record["settings"]
    assert record["generation"]["sampling_steps"] == 2 and record["generation"]["guidance_strength"] == 0.0
    assert runner.finished(task) is not None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threads": 99}, r"^random-Pop-default-seed0: this process has threads=\d+ and not 99 as planned"),
        ({"device": "cuda:7"}, r"this process has device='\w+' and not 'cuda:7' as planned"),
        ({"resolved": {"epochs": 77}}, r"this process has epochs=1 and not 77 as planned"),
        ({"resolved": {"new": 1}}, r"this process has new=\(no such setting\) and not 1 as planned"),
    ],
)
def test_a_process_that_would_make_another_run_than_was_planned_makes_none(
    planned: Callable[..., Run], change: dict[str, Any], message: str
) -> None:
    task = planned("Pop")
    if "resolved" in change:
        change = {"resolved": {**task.resolved, **change["resolved"]}}
    with pytest.raises(UserError, match=message):
        execute(dataclasses.replace(task, **change))
    assert list(Path(task.folder).iterdir()) == [] and not Path("saved").exists()


def test_settings_of_single_models_are_shown_in_the_protocol(random_data: Path, started: list[str]) -> None:
    settings = {"DreamRec.embedding_size": 8, "DreamRec.guidance_strength": 1.0, "WindowSASRec.bucket_by_length": False}
    assert comparison(random_data, "DreamRec", "WindowSASRec", seeds=[0], settings=settings) == 0
    text = Path("out/results.md").read_text()
    for line in (
        "bucket_by_length: True (DreamRec); False (WindowSASRec)",
        "precision: fp32",
        "guidance_strength: 1.0 (DreamRec)",
        "eta: 0.0 (DreamRec)",
    ):
        assert f"- {line}\n" in text, line
    assert "Not all runs are of one machine" not in text


def test_a_run_that_failed_here_and_then_succeeded_elsewhere(
    random_data: Path, started: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = runner.start

    def start(run: Run, out: Path) -> int:
        if run.model == "Pop":
            run.file(".log").parent.mkdir(parents=True, exist_ok=True)
            run.file(".log").write_text("no memory\n")
            return 1
        monkeypatch.setattr(runner, "start", alone)  # meanwhile, in the other process
        assert comparison(random_data, "Pop", seeds=[0]) == 0
        return alone(run, out)

    monkeypatch.setattr(runner, "start", start)
    assert comparison(random_data, "Pop", "BPR", seeds=[0]) == 0
    shown = capsys.readouterr().out
    assert "FAILED: no memory" in shown and "other processes" not in shown
    assert sorted(pd.read_csv("out/results.csv").model) == ["BPR", "Pop"]


def test_different_splits_are_said_and_common_users_paired(random_data: Path, started: list[str]) -> None:
    everyone = {"user_inter_num_interval": "[0,inf)"}
    assert comparison(random_data, "BPR", "WindowSASRec", seeds=[0], settings=everyone) == 0
    text = Path("out/results.md").read_text()
    assert "**The splits differ between models.**" in text and "(WindowSASRec)" in text


def test_settings_of_one_model_and_of_one_preset(random_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned: list[Run] = []
    monkeypatch.setattr(runner, "make", lambda runs, *_: planned.extend(runs) or 0)
    own = {"epochs": 7, "DreamRec.timesteps": 50, "DreamRec:paper.timesteps": 60, "DreamRec.epochs": 8}
    comparison(random_data, "DreamRec", "DreamRec:paper", "Pop", seeds=[4], settings=own)
    found = {run.label: (run.resolved.get("timesteps"), run.resolved["epochs"], run.preset) for run in planned}
    assert found == {"DreamRec": (50, 8, "default"), "DreamRec:paper": (60, 8, "paper"), "Pop": (None, 7, "default")}
    assert [run.eval_seeds for run in planned] == [[2024], [2024], []]
    assert {run.resolved["seed"] for run in planned} == {4}
    assert planned[1].file(".npz").parts[-4:] == ("runs", "random", "DreamRec-paper", "seed4.npz")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num_channels=3"], "BPR on random: num_channels=3: BPR does not read it; DiffDiv can."),
        (["--BPS.epochs=3"], "setting 'BPS.epochs': 'BPS' is not one of --models. Did you mean 'BPR'"),
        (["--seed=3"], "seed=3: give it to compare as --seeds=0,1,2"),
        (["--Pop.seed=3"], "Pop.seed=3: give it to compare as --seeds=0,1,2"),
        (["--metric=NDCG@3"], "metric='NDCG@3': the test needs a metric that has a value for each user"),
        (["--metrics=[GiniIndex]", "--valid_metric=GiniIndex@5"], "it can be one of (none)"),
        (["--baseline=SASRec"], "baseline='SASRec': is not one of --models, BPR, Pop"),
        (["--eval_seeds=1"], "none of --models is a diffusion model"),
        (["--curve_steps=1"], "curve_steps=[1]: none of --models can generate in so many steps"),
        (["--curve_steps=0,1"], "curve_steps=[0, 1]: must be 1 or more"),
        (["--Pop.mask_history=True"], "mask_history on random is False for BPR and True for Pop"),
        (
            ["--eval_args={mode: uni10}", "--Pop.candidate_seed=1"],
            "candidate_seed on random is 2020 for BPR and 1 for Pop",
        ),
        (["--Pop.metric_decimal_place=3"], "metric_decimal_place on random is 4 for BPR and 3 for Pop"),
        (["--Pop.ITEM_ID_FIELD=film"], "ITEM_ID_FIELD on random is 'item_id' for BPR and 'film' for Pop"),
        (["--BPR.data_path=elsewhere"], "elsewhere/random"),
        (["--config_files=latin.yaml"], "config_files: 'latin.yaml' cannot be read as UTF-8 text"),
        (
            ["--models=DreamRec", "--embedding_size=-3", "--curve_steps=1"],
            "DreamRec on random: embedding_size=-3: must",
        ),
        (["--out=latin.yaml"], "out='latin.yaml': is not a folder"),
    ],
)
def test_a_wrong_command_is_one_line_before_anything_is_run(
    random_data: Path, started: list[str], arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("latin.yaml").write_bytes("# Größe\n".encode("latin-1"))
    base = ["compare", "--models=BPR,Pop", "--datasets=random", "--out=out", f"--data_path={random_data}"]
    assert main(base + arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("recbole-diffusion: error: ") and message in line
    assert not started and not Path("out").exists()


def test_help_shows_settings_and_files(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["compare", "--help"])
    out = capsys.readouterr().out
    assert exit_.value.code == 0
    for name in (
        "--models",
        "--eval_seeds",
        "--baseline",
        "--MODEL.key=value",
        "results.csv",
        "report.html",
        "--png",
        "seedK.npz",
    ):
        assert name in out, name


@pytest.mark.parametrize(("seconds", "text"), [(45.4, "45 s"), (250, "4 min 10 s"), (7500, "2 h 5 min")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_names_of_metrics() -> None:
    shown = tables.metric_names(["NDCG", "Hit"])
    assert [shown(key) for key in ("ndcg@10", "hit@5", "gauc")] == ["NDCG@10", "Hit@5", "gauc"]


# --------------------------------------------------------------------------------------------------------------
# In processes of their own


def command(folder: Path, *arguments: str) -> list[str]:
    base = [sys.executable, "-m", "recbole_diffusion", "compare", "--datasets=random", f"--data_path={folder}"]
    return [*base, "--MAX_ITEM_LIST_LENGTH=10", "--out=out", *arguments]


@pytest.mark.slow
def test_two_processes_share_a_comparison(random_data: Path) -> None:
    here = str(Path(plan.__file__).parents[2])
    arguments = command(random_data, "--models=BPR,Pop,ItemKNN", "--seeds=0,1", "--BPR.epochs=5")
    both = [
        subprocess.Popen(arguments, env={**os.environ, "PYTHONPATH": here}, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    shown = [process.communicate(timeout=240)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], shown
    made = [line.split(" ... ")[0] for text in shown for line in text.splitlines() if line.startswith("run ")]
    titles = [(model, seed) for seed in (0, 1) for model in ("BPR", "Pop", "ItemKNN")]
    assert sorted(made) == [f"run {n} of 6: {m} on random, seed {seed}" for n, (m, seed) in enumerate(titles, 1)]
    table = pd.read_csv("out/results.csv")
    assert sorted(table.model) == ["BPR", "ItemKNN", "Pop"] and set(table.runs) == {2}
    assert "ItemKNN" in Path("out/report.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_what_is_finished(random_data: Path, sign: signal.Signals) -> None:
    here = str(Path(plan.__file__).parents[2])
    endless = ["--models=Pop,DreamRec", "--DreamRec.epochs=100000", "--DreamRec.stopping_step=100000"]
    process = subprocess.Popen(
        command(random_data, *endless),
        env={**os.environ, "PYTHONPATH": here}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        # A shell ignores Ctrl-C in what it runs in the background, and that is inherited.
        start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        log = Path("out/runs/random/DreamRec/seed0.log")
        until = time.monotonic() + 120
        while not (log.is_file() and "training [" in log.read_text()):
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.2)
        if sign == signal.SIGINT:
            os.killpg(process.pid, sign)  # as from a terminal
        else:
            process.send_signal(sign)
        shown, _ = process.communicate(timeout=60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # a failure must not leave an endless run behind
    assert process.returncode == 128 + sign
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)  # the run has ended too
    assert shown.splitlines()[-1] == (
        "recbole-diffusion: interrupted: 1 of 2 runs are finished and kept; the same command continues."
    )
    assert "Traceback" not in shown
    assert sorted(path.name for path in Path("out/runs").rglob("*") if path.is_file()) == [
        "seed0.json", "seed0.log", "seed0.log", "seed0.npz",
    ]  # fmt: skip
    assert list(pd.read_csv("out/results.csv").model) == ["Pop"]
    log = Path("out/runs/random/Pop/seed0.log").read_text()
    assert "Pop: RecBole (recbole.model." in log and "\x1b" not in log
