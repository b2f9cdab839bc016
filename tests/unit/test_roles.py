"""What each setting does: no accepted setting is ignored, and settings without effect on results change none."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import recbole
import torch
from conftest import Built
from recbole.config import Config as RecBoleConfig
from recbole.utils.argument_list import (
    dataset_arguments,
    evaluation_arguments,
    general_arguments,
    training_arguments,
)

from recbole_diffusion.config import reading, roles
from recbole_diffusion.config.row import Part
from recbole_diffusion.config.rows_run import RUN_ROWS
from recbole_diffusion.config.strict import Config
from recbole_diffusion.quick_start import run
from recbole_diffusion.storage import checkpoint

# Settings that are read only together with another setting.
CONDITIONAL = {
    "gpu_id": "chooses the device, before any model is built",
    "use_gpu": "chooses the device, before any model is built",
    "wandb_project": "refused without log_wandb",
    "category_field": "describes the data, for metrics of categories and re-ranking",
    "tail_ratio": "of TailPercentage; the same for all models of a comparison",
    "candidate_seed": "refused where no candidates are sampled",
    "mmr_candidates": "of re-ranking; the same for all models of a comparison",
    **{key: f"refused for models but {' and '.join(row.read_by)}" for key, row in RUN_ROWS.items() if row.read_by},
    **{key: "of knowledge graphs; refused for others" for key, row in RUN_ROWS.items() if row.part is Part.KNOWLEDGE},
    "RATING_FIELD": "names a column, which DMF reads",
    "HEAD_ENTITY_ID_FIELD": "names a column of a knowledge graph",
    "TAIL_ENTITY_ID_FIELD": "names a column of a knowledge graph",
    "RELATION_ID_FIELD": "names a column of a knowledge graph",
    "ENTITY_ID_FIELD": "names a column of a knowledge graph",
    **dict.fromkeys(("seq_len", "seq_separator"), "of columns that hold sequences"),
}


def _known() -> set[str]:
    """Every setting that RecBole lists, and ours that all models have."""
    root = Path(recbole.__file__).parent / "properties"
    files = [root / "overall.yaml", root / "dataset" / "sample.yaml", *(root / "quick_start_config").glob("*.yaml")]
    listed = (general_arguments, training_arguments, evaluation_arguments, dataset_arguments)
    return {
        *(key for keys in listed for key in keys),
        *(key for file in files for key in reading.load_settings([file])),
        *reading.read_properties("overall.yaml"),
    }


def test_every_known_setting_is_read_or_refused(random_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: set[str] = set()
    by_name, by_attribute = RecBoleConfig.__getitem__, RecBoleConfig.__getattr__

    def item(self: RecBoleConfig, key: str) -> Any:
        read.add(key)
        return by_name(self, key)

    def attribute(self: RecBoleConfig, key: str) -> Any:
        read.add(key)
        return by_attribute(self, key)

    monkeypatch.setattr(Config, "_check_values", lambda config: None)  # checking a value does not count as using it
    monkeypatch.setattr(RecBoleConfig, "__getitem__", item)
    monkeypatch.setattr(RecBoleConfig, "__getattr__", attribute)
    small = {"data_path": str(random_data), "epochs": 1, "MAX_ITEM_LIST_LENGTH": 10}
    for model, own in (("DreamRec", {"embedding_size": 8}), ("BPR", {})):
        run(model, "random", settings={**small, **own}, examples=2)
    settable = {key for key in _known() if RUN_ROWS[key].settable}
    ignored = settable - read - CONDITIONAL.keys()
    assert not ignored


@pytest.mark.parametrize("model", ["SASRec", "DiffDiv"])
def test_what_changes_no_result_changes_none(random_data: Path, model: str) -> None:
    shutil.copytree(random_data / "random", "moved/random")
    Path("moved/random/random.item").write_text("item_id:token\tname:token\ni1\ta film\n")
    small = {"data_path": str(random_data), "epochs": 2, "MAX_ITEM_LIST_LENGTH": 10}
    small |= {"hidden_size": 16} if model == "SASRec" else {"embedding_size": 16, "sampling_steps": 2}
    changed = {
        "eval_batch_size": 7, "max_cells": 310, "data_path": "moved", "checkpoint_dir": "elsewhere",
        "show_progress": True, "state": "ERROR", "loss_decimal_place": 2, "title_field": "name",
        "gpu_id": "", "use_gpu": False, "checkpoint_minutes": 0, "trust_checkpoint": True,
    }  # fmt: skip
    # These cannot be set, or need wandb. A run records its device in addition to its settings.
    assert roles.NO_RESULT - changed.keys() == {"device", "local_rank", "single_spec", "log_wandb", "wandb_project"}
    if model == "DiffDiv":  # with a small max_cells it computes in parts, which changes the rounding
        del changed["max_cells"]
    results = [run(model, "random", settings={**small, "use_gpu": False, **own}, examples=1) for own in ({}, changed)]
    for result in results:
        for entry in result["history"]:
            del entry["train_seconds"], entry["valid_seconds"]
    for part in ("history", "test", "settings"):
        assert results[0][part] == results[1][part], part
    weights = [checkpoint.load(result["checkpoint"])["state_dict"] for result in results]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_workers_draw_other_negatives_so_their_number_counts(random_data: Path) -> None:
    small = {"data_path": str(random_data), "epochs": 1}
    losses = [run("BPR", "random", settings={**small, "worker": count})["history"][0]["train_loss"] for count in (0, 1)]
    assert losses[0] != losses[1] and "worker" in roles.that_count({"worker": 1})


def test_losses_are_shown_with_as_many_decimals_as_are_asked_for(build: Callable[..., Built]) -> None:
    trainer = build("DreamRec", embedding_size=8, loss_decimal_place=2).trainer
    trainer.model.loss_names = ("mse", "ce")
    assert trainer._generate_train_loss_output(3, 0.0, 1.0, (0.12345, 2.0)).endswith(", mse: 0.12, ce: 2.00]")
