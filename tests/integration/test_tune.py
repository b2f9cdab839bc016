"""The search over settings: budget, resuming, sharing, pruning, and that the test split stays unread."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest

from recbole_diffusion import quick_start
from recbole_diffusion.__main__ import main
from recbole_diffusion.config.reading import load_settings
from recbole_diffusion.config.settings import Settings, UserError
from recbole_diffusion.quick_start import request, run
from recbole_diffusion.testing.markov import write_atomic
from recbole_diffusion.training.finite import Diverged
from recbole_diffusion.tune import loop, results, trial
from recbole_diffusion.tune import search as tune_module
from recbole_diffusion.tune.search import tune
from recbole_diffusion.tune.study import open_storage, this_process

SMALL = {"embedding_size": 8, "epochs": 2, "eval_step": 1, "MAX_ITEM_LIST_LENGTH": 10}
SPACE = "learning_rate: {low: 1e-4, high: 1e-2, log: true}\ndropout: [0.1, 0.3, 0.5]\nnum_layers: {low: 1, high: 3}\n"


@pytest.fixture
def space(tmp_path: Path) -> Path:
    file = tmp_path / "space.yaml"
    file.write_text(SPACE, encoding="utf-8")
    return file


def table(folder: str = "out") -> list[dict[str, str]]:
    with Path(folder, "trials.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def drawn(folder: str = "out") -> list[tuple[str, ...]]:
    return [(row["learning_rate"], row["dropout"], row["num_layers"]) for row in table(folder)]


class _Unreadable:
    """A loader that must not be used."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def __iter__(self) -> Any:
        raise AssertionError("the test split was read")


# ------------------------------------------------------------------------------------------------------------------
# Real trainings


def test_a_study_is_resumed_and_its_best_setting_runs(
    random_data: Path, space: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def search(out: str, trials: int) -> None:
        options = [f"--{key}={value}" for key, value in {**SMALL, "data_path": random_data}.items()]
        wanted = ["--model=DreamRec", "--dataset=random", f"--space={space}", f"--trials={trials}", f"--out={out}"]
        assert main(["tune", *wanted, *options]) == 0

    prepare = trial.prepare

    def guarded(*arguments: Any) -> Any:
        prepared = prepare(*arguments)
        return prepared._replace(loaders=prepared.loaders._replace(test=_Unreadable(prepared.loaders.test)))

    monkeypatch.setattr(trial, "prepare", guarded)
    before = set(os.listdir())
    search("out", 3)
    first = Path("out/log/0001.log").read_text(encoding="utf-8")
    search("out", 5)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("study DreamRec-random-") and ": new; results and logs in" in lines[0]
    assert lines[1].startswith("trial 1 of 3: NDCG@10 0.") and "(best 0." in lines[1] and " left" in lines[1]
    assert [line[:14] for line in lines[5:9]] == [lines[0][:14], "trial 4 of 5: ", "trial 5 of 5: ", "best: NDCG@10 "]
    assert len(lines) == 9 and ": 3 trials and " in lines[5]
    assert "/out/best.yaml (5 trials and " in lines[8] and lines[8].endswith(" s of training and validation)")

    # No trial was run again, and none drawn twice: as if the study had been run in one go.
    assert Path("out/log/0001.log").read_text(encoding="utf-8") == first
    assert len(set(drawn())) == 5 and drawn()[0] == ("0.002", "0.5", "2")
    search("whole", 5)
    assert drawn("whole") == drawn() and [r["NDCG@10"] for r in table("whole")] == [r["NDCG@10"] for r in table()]

    # All files are in the folder, and one checkpoint is left: the best.
    assert set(os.listdir()) - before == {"out", "whole"}
    (checkpoint,) = Path("out/saved").iterdir()
    assert {"tune.log", "study.json", "study.journal", "log_tensorboard"} <= {p.name for p in Path("out").iterdir()}
    assert "epoch 1 evaluating" in first and "valid result" not in Path("out/tune.log").read_text(encoding="utf-8")

    result = run(config_files=["out/best.yaml"])
    assert f" (Pop {result['pop']['valid']['ndcg@10']:.4f}), trial " in lines[4] and lines[4].startswith("best: ")
    assert f" (Pop {result['pop']['valid']['ndcg@10']:.4f}), trial " in lines[8]
    best = max(table(), key=lambda row: float(row["NDCG@10"]))
    assert result["valid"]["ndcg@10"] == float(best["NDCG@10"]) and result["best_epoch"] + 1 == int(best["best_epoch"])
    assert checkpoint.stat().st_size > 0

    # The guard does refuse a run, which tests.
    monkeypatch.setattr(quick_start, "prepare", guarded)
    with pytest.raises(AssertionError, match="the test split was read"):
        run(config_files=["out/best.yaml"])


@pytest.mark.parametrize(("model", "text"), [("EASE", None), ("BPR", "learning_rate: [0.001, 0.01]")])
def test_a_baseline_is_tuned_by_the_same_command(random_data: Path, tmp_path: Path, model: str, text: str) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(text or "", encoding="utf-8")
    settings = {"data_path": str(random_data), "epochs": 1, "valid_metric": "MRR@20"}
    result = tune(model, "random", settings=settings, space=file if text else None, trials=2, storage="sqlite:///s.db")
    assert result["trials"] == 2 and result["metric"] == "MRR@20" and 0 < result["value"] <= 1
    assert result["file"] == str(Path(f"tune/{model}-random/best.yaml").absolute())
    assert run(config_files=[result["file"]])["valid"]["mrr@20"] == result["value"]


@pytest.mark.slow
def test_two_processes_share_a_study(random_data: Path, space: Path) -> None:
    options = [f"--{key}={value}" for key, value in {**SMALL, "data_path": random_data}.items()]
    wanted = ["--model=DreamRec", "--dataset=random", f"--space={space}", "--out=out", "--trials=8"]
    command = [sys.executable, "-m", "recbole_diffusion", "tune", *wanted, *options]
    root = str(Path(tune_module.__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    lines = [line for process in both for line in process.communicate()[0].splitlines()]
    assert [process.returncode for process in both] == [0, 0]
    rows = [row for row in table() if row["state"] != "interrupted"]  # a setting that both had drawn
    assert [row["state"] for row in rows] == ["complete"] * 8
    assert len({(row["learning_rate"], row["dropout"], row["num_layers"]) for row in rows}) == 8
    trained = [line.split()[1] for line in lines if line.startswith("trial ")]
    assert sorted(map(int, trained)) == [int(row["trial"]) for row in rows]
    assert len(list(Path("out/saved").iterdir())) == 1


# ------------------------------------------------------------------------------------------------------------------
# Planted validation curves: the logic of a study, without training

Curve = Callable[[Settings], list[float]]


class Planted:
    """Validation scores of a setting instead of training; each takes ten seconds."""

    def __init__(self) -> None:
        self.curve: Curve = lambda _: [0.1, 0.2]
        self.trained: list[Settings] = []
        self.clock = 0.0

    def prepare(self, resolved: Any, config: Any, resume: str) -> Any:
        file = f"{len(self.trained)}-best.safetensors"
        trainer = SimpleNamespace(saved_model_file=file, reference=None, history=[], resumed="")
        return SimpleNamespace(config=config, trainer=trainer)

    def train(self, prepared: Any, after_validation: Callable[[int, float], None]) -> dict[str, Any]:
        settings = {key: prepared.config[key] for key in ("learning_rate", "dropout", "num_layers")}
        self.trained.append(settings)
        curve = self.curve(settings)
        for epoch, score in enumerate(curve):
            self.clock += 10
            after_validation(epoch, score)
        bigger = prepared.config["valid_metric_bigger"]
        best = max(curve) if bigger else min(curve)
        metric = prepared.config["valid_metric"].lower()
        return {"valid": {metric: best}, "best_epoch": curve.index(best), "epochs": len(curve)}


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> Planted:
    planted = Planted()
    write_atomic(Path("dataset"), "random", [[1, 2, 3]])
    monkeypatch.setattr(trial, "prepare", planted.prepare)
    monkeypatch.setattr(trial, "train", planted.train)
    for module in (trial, loop):
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: planted.clock))
    return planted


@pytest.fixture
def search(space: Path) -> Callable[..., dict[str, Any]]:
    def search(settings: Settings | None = None, **options: Any) -> dict[str, Any]:
        options = {"space": space, "out": "out", **options}
        return tune("DreamRec", "random", settings={"eval_step": 1, **(settings or {})}, **options)

    return search


Search = Callable[..., dict[str, Any]]


def states() -> list[str]:
    return [row["state"] for row in table()]


def test_a_trial_below_the_median_is_pruned_after_the_warm_up(planted: Planted, search: Search) -> None:
    planted.curve = lambda _: [0.5] * 8 if len(planted.trained) <= 5 else [0.4] * 8
    result = search(trials=8)
    assert states() == ["complete"] * 5 + ["pruned"] * 3
    assert [row["epochs"] for row in table()] == ["8"] * 5 + ["6"] * 3
    assert [row["NDCG@10"] for row in table()] == ["0.5"] * 5 + ["0.4"] * 3
    assert (result["trial"], result["value"], result["seconds"]) == (1, 0.5, 5 * 80 + 3 * 60)


def test_the_default_setting_is_never_pruned(planted: Planted, search: Search) -> None:
    planted.curve = lambda _: 1 / 0  # type: ignore[assignment,return-value]
    with pytest.raises(ZeroDivisionError):
        search(trials=1)
    study = optuna.load_study(study_name=None, storage=open_storage(None, Path("out").absolute()))
    finished = optuna.trial.create_trial(value=0.9, intermediate_values=dict.fromkeys(range(8), 0.9))
    for _ in range(6):  # they overtake the default, which waits to be run again
        study.add_trial(finished)
    planted.curve = lambda _: [0.1] * 8
    search(trials=7)
    assert states() == ["interrupted", "complete", *["complete"] * 6] and table()[1]["epochs"] == "8"


def test_a_metric_that_should_be_small(planted: Planted, search: Search) -> None:
    planted.curve = lambda settings: [0.9, settings["dropout"]]
    settings = {"metrics": ["GiniIndex"], "valid_metric": "GiniIndex@10"}
    result = search(settings, trials=12)
    assert result["value"] == 0.1 == result["settings"]["dropout"] and result["metric"] == "GiniIndex@10"


def test_a_trial_that_diverges_fails_alone(planted: Planted, search: Search) -> None:
    def curve(settings: Settings) -> list[float]:
        if len(planted.trained) == 2:
            raise Diverged("the training loss is nan; learning_rate=0.1 may be too large.")
        if len(planted.trained) == 3:
            raise UserError("num_heads=3: must divide embedding_size=8.")
        return [0.1]

    planted.curve = curve
    assert search(trials=4)["trials"] == 4
    assert states() == ["complete", "failed", "failed", "complete"]
    assert [row["reason"][:22] for row in table()] == ["", "the training loss is n", "num_heads=3: must divi", ""]


def test_a_trial_that_ends_with_an_error_fails_alone_and_is_not_run_again(planted: Planted, search: Search) -> None:
    def curve(settings: Settings) -> list[float]:
        if len(planted.trained) == 2:
            raise RuntimeError("DefaultCPUAllocator: not enough memory")
        if len(planted.trained) == 3:
            raise MemoryError
        return [0.1]

    planted.curve = curve
    search(trials=3)
    assert [row["reason"] for row in table()] == ["", "DefaultCPUAllocator: not enough memory", "MemoryError"]
    search(trials=4)
    assert len(planted.trained) == 4 and states() == ["complete", "failed", "failed", "complete"]


def test_what_the_machine_cannot_do_is_no_fault_of_the_setting(planted: Planted, search: Search) -> None:
    def curve(settings: Settings) -> list[float]:
        if len(planted.trained) == 2:
            raise OSError("No space left on device")
        return [0.1]

    planted.curve = curve
    with pytest.raises(OSError, match="No space left"):
        search(trials=3)
    assert "No space left on device" in Path("out/log/0002.log").read_text(encoding="utf-8")
    search(trials=3)
    assert states() == ["complete", "interrupted", "complete", "complete"]
    assert planted.trained[1] == planted.trained[2]


def test_a_default_that_diverges_does_not_end_the_study(planted: Planted, search: Search) -> None:
    def curve(settings: Settings) -> list[float]:
        if len(planted.trained) == 1:
            raise Diverged("the training loss is nan")
        return [0.1]

    planted.curve = curve
    assert search(trials=3)["trial"] == 2 and states() == ["failed", "complete", "complete"]


def test_what_the_default_setting_cannot_do_ends_the_study(planted: Planted, search: Search) -> None:
    def refuse(settings: Settings) -> list[float]:
        raise UserError("dataset='random': not found")

    planted.curve = refuse
    with pytest.raises(UserError, match="dataset='random': not found"):
        search(trials=3)
    planted.curve = lambda _: [0.1]
    search(trials=3)  # the default again, then the others
    assert states() == ["interrupted"] + ["complete"] * 3
    assert planted.trained[0] == planted.trained[1] == {"learning_rate": 0.002, "dropout": 0.5, "num_layers": 2}


def test_ten_failures_in_a_row_end_the_study(planted: Planted, search: Search) -> None:
    def curve(settings: Settings) -> list[float]:
        if len(planted.trained) > 1:
            raise Diverged("the training loss is nan")
        return [0.1]

    planted.curve = curve
    with pytest.raises(UserError, match="10 trials in a row failed, the last with: the training loss is nan"):
        search(seconds=1000)
    assert len(table()) == 11 and Path("out/best.yaml").is_file()


def test_failures_between_pruned_trials_are_not_in_a_row(planted: Planted, search: Search) -> None:
    def curve(settings: Settings) -> list[float]:
        if len(planted.trained) > 5 and len(planted.trained) % 2:
            raise Diverged("the training loss is nan")
        return [0.5 if len(planted.trained) <= 5 else 0.1] * 8

    planted.curve = curve
    search(trials=35)
    assert states().count("failed") == states().count("pruned") == 15


def test_what_another_process_finishes_while_the_results_are_written_is_kept(
    planted: Planted, search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = results.write_text
    study = None

    def write_text(path: Path, text: str) -> None:
        nonlocal study
        if study is None and path.name == "trials.csv":
            name = json.loads(Path("out/study.json").read_text(encoding="utf-8"))["study"]
            study = optuna.load_study(study_name=name, storage=open_storage(None, Path("out").absolute()))
            better = study.ask({"learning_rate": optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True)})
            better.set_user_attr("checkpoint", "better-best.safetensors")
            study.tell(better, 0.9)
        write(path, text)

    Path("out/saved").mkdir(parents=True)
    Path("out/saved/better-best.safetensors").write_text("a checkpoint", encoding="utf-8")
    monkeypatch.setattr(results, "write_text", write_text)
    planted.curve = lambda _: [0.2]
    assert search(trials=1)["value"] == 0.9
    assert Path("out/saved/better-best.safetensors").is_file()


def test_a_setting_that_is_fixed_leaves_the_shipped_space(planted: Planted, search: Search) -> None:
    search({"num_layers": 1, "train_batch_size": 32}, space=None, trials=2)
    assert {settings["num_layers"] for settings in planted.trained} == {1}
    assert "learning_rate" in table()[0] and not {"num_layers", "train_batch_size"} & set(table()[0])
    assert load_settings(["out/best.yaml"])["train_batch_size"] == 32
    with pytest.raises(UserError, match=r"recbole\.ItemKNN\.yaml is fixed: there is nothing to search"):
        tune("ItemKNN", "random", settings={"k": 10, "shrink": 0.0}, trials=1)


def test_a_study_does_not_go_on_with_other_data(planted: Planted, search: Search) -> None:
    search(trials=1)
    write_atomic(Path("elsewhere"), "random", [[1, 2, 3]])
    search({"data_path": "elsewhere"}, trials=2)  # the same files in another folder
    write_atomic(Path("other"), "random", [[1, 2, 4]])
    with pytest.raises(UserError, match=r"data_path: .*other/random holds other data than study DreamRec-random-"):
        search({"data_path": "other"}, trials=3)
    assert len(planted.trained) == 2


def test_the_best_setting_is_of_the_model_that_was_tuned(planted: Planted, search: Search) -> None:
    Path("base.yaml").write_text("model: BPR\ndataset: other\npreset: paper\n", encoding="utf-8")
    search(trials=1, config_files=["base.yaml"], preset="default")
    best = load_settings(["out/best.yaml"])
    assert (best["model"], best["dataset"], best["preset"]) == ("DreamRec", "random", "default")
    assert request(None, None, best, "paper").preset == "paper"


def test_ctrl_c_keeps_what_is_finished_and_runs_the_rest_again(
    planted: Planted, space: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def curve(settings: Settings) -> list[float]:
        if len(planted.trained) == 3:
            planted.clock += 7
            raise KeyboardInterrupt
        return [0.1 * len(planted.trained)]

    planted.curve = curve
    command = ["tune", "--model=DreamRec", "--dataset=random", f"--space={space}", "--trials=4", "--out=out"]
    assert main(command) == 130
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith("recbole-diffusion: interrupted: trial 3 is not finished. Finished trials are in ")
    assert main(command) == 0
    assert states() == ["complete", "complete", "interrupted", "complete", "complete"]
    assert planted.trained[2] == planted.trained[3] and drawn()[2] == drawn()[3]
    assert capsys.readouterr().out.splitlines()[-2].startswith("trial 5 of 5: NDCG@10 0.5000 (best 0.5000, trial 5)")
    assert table()[2]["seconds"] == "7.0"  # they count


def test_a_process_that_ended_without_a_word_gives_its_trial_back(
    planted: Planted, search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def die(settings: Settings) -> list[float]:
        raise Killed

    planted.curve = die
    with monkeypatch.context() as context:
        context.setattr(loop.Search, "_give_back", lambda *_: None)
        with pytest.raises(Killed):
            search(trials=2)
    planted.curve = lambda _: [0.1]
    owner = this_process()
    with monkeypatch.context() as context:  # on another machine it is unknown whether the process lives
        context.setattr("recbole_diffusion.tune.study.this_process", lambda: ["elsewhere", *owner[1:]])
        with pytest.raises(UserError, match="no trial finished"):
            search(trials=1)
    search(trials=2)
    assert states() == ["interrupted", "complete", "complete"]
    assert planted.trained[0] == planted.trained[1]


def test_the_seconds_end_a_study_and_are_remembered(planted: Planted, search: Search) -> None:
    planted.curve = lambda _: [0.1, 0.2, 0.3]
    assert search(seconds=45)["seconds"] == 50
    assert states() == ["complete", "pruned"] and table()[1]["epochs"] == "2"
    assert search(seconds=45)["seconds"] == 50 and len(planted.trained) == 2
    assert search(seconds=85)["seconds"] == 90 and states() == ["complete", "pruned", "complete", "pruned"]
    planted.curve = lambda _: [0.1] * 60  # as many as there are epochs
    assert search(seconds=690, trials=5)["seconds"] == 690 and states()[-1] == "complete"


def test_the_default_setting_is_trained_to_its_end_whatever_the_seconds(planted: Planted, search: Search) -> None:
    assert search(seconds=5)["seconds"] == 20 and states() == ["complete"]


def test_every_setting_of_a_small_space_is_trained_once(planted: Planted, search: Search, tmp_path: Path) -> None:
    file = tmp_path / "few.yaml"
    file.write_text("dropout: [0.1, 0.5]\nnum_layers: {low: 1, high: 2}\n", encoding="utf-8")
    result = search(space=file, trials=500)
    assert len(planted.trained) == 4 == len({tuple(settings.items()) for settings in planted.trained})
    assert result["trials"] == len(table()) < 500 and set(states()) == {"complete"}


def test_time_left_and_best_so_far_are_shown(
    planted: Planted, search: Search, capsys: pytest.CaptureFixture[str]
) -> None:
    planted.curve = lambda _: [0.01 * len(planted.trained)] * 6
    search(trials=3)
    assert capsys.readouterr().out.splitlines()[1:4] == [
        "trial 1 of 3: NDCG@10 0.0100 (best 0.0100, trial 1), 1 min 0 s, about 2 min 0 s left",
        "trial 2 of 3: NDCG@10 0.0200 (best 0.0200, trial 2), 1 min 0 s, about 1 min 0 s left",
        "trial 3 of 3: NDCG@10 0.0300 (best 0.0300, trial 3), 1 min 0 s",
    ]
    search(seconds=8000, trials=4)
    assert "trial 4 of 4: " in capsys.readouterr().out


def test_other_settings_are_another_study(planted: Planted, search: Search, space: Path) -> None:
    search(trials=1)
    with pytest.raises(UserError, match="out holds another study: ") as error:
        search({"dropout": 0.1}, space=write(space, "num_layers: [1, 2]"), trials=1)
    for text in (
        "dropout is {'values': [0.1, 0.3, 0.5]} there and 0.1 here",
        "num_layers is {'low': 1, 'high': 3, 'log': False, 'step': 1} there and {'values': [1, 2]} here",
    ):
        assert text in str(error.value)
    write(space, SPACE)
    with pytest.raises(UserError, match=r"another study: seed is 2020 there and 1 here\. Set the same"):
        search({"seed": 1}, trials=1)
    name = json.loads(Path("out/study.json").read_text(encoding="utf-8"))["study"]
    other = search({"seed": 1}, trials=1, out="other", storage="out/study.journal")
    assert other["study"] != name and other["trials"] == 1


def test_a_study_of_an_earlier_version_is_told_by_what_counts(planted: Planted, search: Search) -> None:
    search(trials=1)
    file = Path("out/study.json")
    whole = json.loads(file.read_text(encoding="utf-8"))

    def reason(**settings: Any) -> str:
        kept = {key: value for key, value in whole["settings"].items() if settings.get(key, value) is not ...}
        there = {**whole, "study": "old", "settings": {**kept, **{k: v for k, v in settings.items() if v is not ...}}}
        file.write_text(json.dumps(there), encoding="utf-8")
        with pytest.raises(UserError) as raised:
            search(trials=1)
        return str(raised.value).partition("holds another study: ")[2].partition(". Set the same")[0]

    assert whole["settings"]["prefixes_per_user"] is None
    assert reason(prefixes_per_user=...) == "prefixes_per_user is (no such setting) there and None here"
    assert reason(max_cells=7, gpu_id="0") == "it was made by an earlier version"  # these change no result
    assert reason() == "it was made by an earlier version"


def write(file: Path, text: str) -> Path:
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "tune needs a budget: --trials=N, --seconds=S"),
        (["--trials=0"], "trials=0: must be a whole number >= 1"),
        (["--seconds=0"], "seconds=0: must be a finite number > 0"),
        (["--trials=1", "--dropout=0.1"], "dropout=0.1 is set, but"),
        (["--trials=1", "--epoch=1"], "unknown setting 'epoch'. Did you mean 'epochs'"),
        (["--trials=1", "--checkpoint_dir=here"], "checkpoint_dir: tune keeps its checkpoints in the folder"),
        (["--trials=1", "--storage=nosql://me:secret@host/db"], "storage='host/db': cannot be opened"),
        (["--trials=1", "--preset=papers"], "preset=papers: DreamRec has no such preset"),
    ],
)
def test_a_mistake_is_one_line(
    space: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune", "--model=DreamRec", "--dataset=random", f"--space={space}", *arguments]) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith("recbole-diffusion: error: ") and message in error and "secret" not in error


def test_help_shows_a_space_and_the_budget(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["tune", "--help"])
    assert exit_.value.code == 0
    out = capsys.readouterr().out
    for text in ("--trials", "--seconds", "--storage", "{low: 1e-4, high: 1e-2, log: true}", "best.yaml"):
        assert text in out, text
