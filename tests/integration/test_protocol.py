"""A reported number comes from the right split, weights and seed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Built
from recbole.data.dataset import Dataset

from recbole_diffusion.config.settings import UserError
from recbole_diffusion.data.loaders import create_dataset, fetch_files
from recbole_diffusion.evaluation.examples import example_recommendations
from recbole_diffusion.quick_start import request, run
from recbole_diffusion.storage import checkpoint
from recbole_diffusion.testing.markov import write_atomic
from recbole_diffusion.training.trainer import DiffusionTrainer

SMALL: dict[str, Any] = {"embedding_size": 8, "num_layers": 1, "MAX_ITEM_LIST_LENGTH": 10}


def test_the_test_result_is_of_the_test_split_under_the_best_epochs_weights(
    random_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = iter([0.1, 0.9, 0.3, 0.2])
    evaluated: list[tuple[Any, torch.Tensor]] = []
    original = DiffusionTrainer.evaluate

    def spy(self: DiffusionTrainer, data: Any, load_best_model: bool = True, **rest: Any) -> Any:
        result = original(self, data, load_best_model, **rest)
        weights = self.model.item_embedding.weight.detach().clone()
        evaluated.append((data.dataset.target_rows.clone(), weights))
        if not load_best_model:
            result["ndcg@10"] = next(planted)
        return result

    monkeypatch.setattr(DiffusionTrainer, "evaluate", spy)
    settings = {**SMALL, "data_path": str(random_data), "epochs": 4, "eval_step": 1}
    result = run("DreamRec", "random", settings=settings)
    assert result["best_epoch"] == 1 and result["valid"]["ndcg@10"] == 0.9
    *validations, (test_rows, test_weights) = evaluated
    assert len(validations) == 4
    assert torch.equal(test_weights, validations[1][1]) and not torch.equal(test_weights, validations[3][1])
    valid_rows = validations[0][0]
    after_validation = set((valid_rows + 1).tolist())
    assert after_validation <= set(test_rows.tolist()) and not after_validation & set(valid_rows.tolist())
    state = checkpoint.load(result["checkpoint"])
    assert state["items"][0] == "[PAD]" and len(state["items"]) == 31


def test_a_run_does_not_depend_on_what_was_drawn_before_it(random_data: Path) -> None:
    settings = {**SMALL, "data_path": str(random_data), "epochs": 2}
    results = []
    for junk in (1, 2):
        torch.manual_seed(junk)
        results.append(run("DiffDiv", "random", settings=settings))
    first, second = results
    assert first["test"] == second["test"] and first["valid"] == second["valid"]
    assert first["history"][0]["losses"] == second["history"][0]["losses"]
    assert first["checkpoint"] != second["checkpoint"]
    assert (
        run("DiffDiv", "random", settings={**settings, "seed": 7})["history"][0]["losses"]
        != first["history"][0]["losses"]
    )


def test_pop_is_restored_into_a_fresh_model(build: Callable[..., Built]) -> None:
    built = build("Pop")
    built.trainer.fit(built.loaders.train, built.loaders.valid)
    result = built.trainer.evaluate(built.loaders.test)
    fresh = build("Pop")
    fresh.trainer.eval_collector.data_collect(fresh.loaders.train)
    assert fresh.trainer.evaluate(fresh.loaders.test, model_file=built.trainer.saved_model_file) == result


def test_a_checkpoint_can_be_trained_on(build: Callable[..., Built]) -> None:
    built = build("DreamRec", epochs=3, eval_step=1, **{k: v for k, v in SMALL.items() if k != "MAX_ITEM_LIST_LENGTH"})
    built.trainer.fit(built.loaders.train, built.loaders.valid)
    again = build("DreamRec", epochs=9, **{k: v for k, v in SMALL.items() if k != "MAX_ITEM_LIST_LENGTH"})
    again.trainer.resume_checkpoint(built.trainer.files.last)
    assert again.trainer.start_epoch == 3
    assert again.trainer.best_valid_score == built.trainer.best_valid_score
    steps = {int(s["step"]) for s in again.trainer.optimizer.state_dict()["state"].values()}
    assert steps == {len(built.loaders.train) * 3}


@pytest.mark.parametrize("mask_history", [True, False])
@pytest.mark.parametrize("model", ["DiffDiv", "Pop", "NeuMF"])
def test_examples_are_the_list_that_is_evaluated(build: Callable[..., Built], model: str, mask_history: bool) -> None:
    small = {"embedding_size": 16, "sampling_steps": 2} if model == "DiffDiv" else {}
    built = build(model, mask_history=mask_history, **small)
    trainer = built.trainer
    trainer.fit(built.loaders.train, built.loaders.valid)
    titles = [f"item {i}" for i in range(31)]
    lines = example_recommendations(
        built.model, built.loaders, titles, built.config, 30, trainer.eval_collector.rerank
    )[3:]
    listed = [int(line.removesuffix(" (seen)").rsplit(" ")[-1]) for line in lines]
    user = int(built.loaders.test.dataset[[0]]["user_id"])
    for batch in built.loaders.test:
        _, scores, _, _ = trainer._full_sort_batch_eval(batch)
        users = batch[0]["user_id"].tolist()
        if user in users:
            ranked = scores[users.index(user)]
    best = ranked.topk(int((ranked > -torch.inf).sum()))
    assert len(listed) == len(best.values) and (len(listed) < 30) is mask_history
    torch.testing.assert_close(ranked[listed], best.values)  # ties may come in another order
    assert any(line.endswith(" (seen)") for line in lines) is not mask_history


def test_an_ml_100k_of_the_users_own_wins_over_the_one_recbole_ships() -> None:
    def found() -> str:
        return str(request("DreamRec", "ml-100k", {"data_path": "data"}, None).config()["data_path"])

    assert "dataset_example" in found()
    write_atomic(Path("data"), "ml-100k", [[1, 2, 3]])
    assert found() == "data/ml-100k"
    Path("data/ml-100k/ml-100k.inter").rename("data/ml-100k/u.data")  # not an atomic file
    assert "dataset_example" in found()


def test_a_download_is_whole_or_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(dataset: Dataset) -> None:
        folder = Path(dataset.dataset_path)
        folder.mkdir(parents=True)
        (folder / "ml-1m.inter").write_text("half")
        assert not Path("dataset/ml-1m").exists()
        if broken:
            raise OSError("the connection was lost")

    monkeypatch.setattr(Dataset, "_download", download)
    config = request("DreamRec", "ml-1m", {}, None).config()
    broken = True
    with pytest.raises(UserError, match="the connection was lost"):
        fetch_files(config)
    assert not list(Path("dataset").iterdir())
    broken = False
    fetch_files(config)
    assert [str(path) for path in Path("dataset").rglob("*")] == ["dataset/ml-1m", "dataset/ml-1m/ml-1m.inter"]


def test_negatives_of_general_models_are_never_the_users_own_items(build: Callable[..., Built]) -> None:
    for mask_history in (False, True):
        built = build("BPR", mask_history=mask_history)
        feat = built.loaders.train.dataset.inter_feat
        own = set(zip(feat["user_id"].tolist(), feat["item_id"].tolist(), strict=True))
        for batch in built.loaders.train:
            assert not own & set(zip(batch["user_id"].tolist(), batch["neg_item_id"].tolist(), strict=True))


def test_a_partial_protocol_is_completed_by_ours(build: Callable[..., Built]) -> None:
    built = build("BPR", eval_args={"mode": "uni10"})
    assert built.config["eval_args"]["split"] == {"LS": "valid_and_test"}
    assert built.config["eval_args"]["order"] == "TO"
    assert build("DreamRec", eval_args={"mode": "uni10"}, embedding_size=8).trainer._valid_epoch


def test_training_with_sampled_evaluation_diagnoses_the_targets(build: Callable[..., Built]) -> None:
    built = build("DreamRec", eval_args={"mode": "uni10"}, embedding_size=8, epochs=1)
    rows: list[int] = []
    built.model.diagnose = lambda batch: rows.append(len(batch)) or {}
    built.trainer.fit(built.loaders.train, built.loaders.valid)
    assert rows == [len(built.loaders.valid.dataset)]


def test_traditional_models_validate_whatever_eval_step_says(random_data: Path) -> None:
    settings = {"data_path": str(random_data), "eval_step": 5, "MAX_ITEM_LIST_LENGTH": 10}
    assert run("Pop", "random", settings=settings)["test"]["hit@20"] > 0


def test_use_gpu_false_means_the_cpu(build: Callable[..., Built]) -> None:
    config = build("DreamRec", use_gpu=False, embedding_size=8).config
    assert config["device"].type == "cpu" and config["gpu_id"] == ""


@pytest.mark.parametrize(
    ("model", "sequences", "settings", "message"),
    [
        ("DreamRec", [[1, 2]] * 5, {}, "leaves nothing for validation"),
        ("DreamRec", [[1]] * 5, {}, "no user has two interactions"),
        ("DreamRec", [[1, 2, 3, 4]] * 5, {}, r"topk=\[5, 10, 20\]: dataset 'bad' has only 4 items"),
        ("BPR", [[1, 2, 3, 4]] * 5, {}, r"topk=\[5, 10, 20\]: dataset 'bad' has only 4 items"),
        ("DreamRec", [range(1, 31)] * 5, {"eval_args": {"split": {"LS": "nope"}}}, "nope"),
        ("DreamRec", [range(1, 31)] * 5, {"eval_args": {"order": "RO"}}, "a sequential model needs TO"),
        (
            "DreamRec",
            [range(1, 31)] * 5,
            {"eval_args": {"split": {"LS": "test_only"}}},
            "must be {LS: valid_and_test}, because a run needs validation to choose",
        ),
        ("DreamRec", [range(1, 31)] * 5, {"num_heads": 3, "embedding_size": 8}, "num_heads=3: must divide"),
        (
            "DreamRec",
            [range(1, 31)] * 5,
            {"stages": [{"epochs": 3, "freeze": ["item_embedding"]}, {}]},
            "freezes item_embedding, which needs a pretrained",
        ),
        ("FEARec", [range(1, 31)] * 5, {"mask_history": True}, "mask_history=True: FEARec .* keeps no whole histories"),
        ("DreamRec", [range(1, 31)] * 5, {"learning_rate": 1e30, "epochs": 3}, "the training loss is nan"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(
    tmp_path: Path, model: str, sequences: list, settings: dict[str, Any], message: str
) -> None:
    folder = write_atomic(tmp_path / "data", "bad", sequences)
    with pytest.raises(UserError, match=message):
        run(model, "bad", settings={"data_path": str(folder), "MAX_ITEM_LIST_LENGTH": 10, **settings})


def test_times_that_are_no_numbers_are_refused(tmp_path: Path, build: Callable[..., Built]) -> None:
    folder = write_atomic(tmp_path, "dated", [[1, 2, 3, 4]] * 3)
    file = folder / "dated" / "dated.inter"
    file.write_text(file.read_text().replace("timestamp:float", "timestamp:token"))
    with pytest.raises(
        UserError,
        match="TIME_FIELD='timestamp', which the rows are ordered by, must be a float column; there is a column of",
    ):
        build("DreamRec", dataset="dated", data_path=str(folder))


def test_models_that_read_the_table_of_histories_get_it(build: Callable[..., Built]) -> None:
    built = build("FEARec")
    assert "item_id_list" in built.loaders.train.dataset.inter_feat
    assert type(create_dataset(build("SASRec").config)).__name__ == "LazySequentialDataset"


def test_config_files_in_every_spelling_and_a_preset_in_a_file(random_data: Path, tmp_path: Path) -> None:
    from recbole_diffusion.console.arguments import make_parser, split_config_files

    for spelling in (
        ["--config_files=a.yaml", "b.yaml"],
        ["--config_files=a.yaml b.yaml"],
        ["--config_files", "a.yaml", "b.yaml"],
    ):
        known, rest = make_parser().parse_known_args(split_config_files(["run", *spelling, "--epochs=1"]))
        assert known.config_files == ["a.yaml", "b.yaml"] and rest == ["--epochs=1"]
    file = tmp_path / "paper.yaml"
    file.write_text(f"model: DreamRec\ndataset: random\npreset: paper\ndata_path: {random_data}\nepochs: 1\n")
    result = run(config_files=[file], settings={**SMALL, "sampling_steps": 2})
    assert result["preset"] == "paper" and "ce" not in result["history"][0]["losses"]
