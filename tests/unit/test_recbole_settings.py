"""Allowed settings of RecBole's own models: types, limits by name, stages of training, item columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import recbole

from recbole_diffusion import registry
from recbole_diffusion.config.reading import load_settings
from recbole_diffusion.config.recbole_models import check_types
from recbole_diffusion.config.settings import UserError
from recbole_diffusion.config.strict import Config

PROPERTIES = Path(recbole.__file__).parent / "properties" / "model"


def _config(model: str, **user: Any) -> Config:
    return Config(registry.get_model(f"recbole.{model}").model_class, "made", user, ours=False)


@pytest.mark.parametrize("file", sorted(PROPERTIES.glob("*.yaml")), ids=lambda file: file.stem)
def test_recboles_own_values_are_allowed(file: Path) -> None:
    defaults = load_settings([file])
    check_types(defaults, defaults)


@pytest.mark.parametrize(
    ("model", "key", "value", "allowed"),
    [
        ("SASRec", "hidden_size", "abc", "a whole number >= 1 and <= 1000000"),
        ("SASRec", "hidden_size", 64.5, "a whole number >= 1 and <= 1000000"),
        ("SASRec", "n_layers", -1, "a whole number >= 1 and <= 1000"),
        ("SASRec", "layer_norm_eps", 0, "a number > 0"),
        ("SASRec", "loss_type", 3, "one of BPR, CE"),
        ("SASRec", "attn_dropout_prob", 1.5, "a number >= 0 and <= 1"),
        ("BPR", "embedding_size", True, "a whole number >= 1 and <= 1000000"),
        ("ItemKNN", "k", 0, "a whole number >= 1"),
        ("ItemKNN", "shrink", -1, "a number >= 0"),
        ("EASE", "reg_weight", -1, "a number >= 0"),
        ("BERT4Rec", "mask_ratio", 2, "a number >= 0 and <= 1"),
        ("GRU4RecCPR", "dropout_prob", -0.1, "a number >= 0 and <= 1"),
        ("SINE", "reg_loss_ratio", -1, "a number >= 0"),
        ("SpectralCF", "n_layers", None, "a whole number >= 1 and <= 1000"),
        ("ADMMSLIM", "positive_only", 1, "True or False"),
        ("LightGCN", "reg_weight", "1e", "a number >= 0"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(model: str, key: str, value: Any, allowed: str) -> None:
    with pytest.raises(UserError) as caught:
        _config(model, **{key: value})
    assert str(caught.value) == f"{key}={value!r}: must be {allowed}."


def test_lists_are_checked_element_by_element() -> None:
    with pytest.raises(UserError, match=r"mlp_hidden_size=-1: must be a whole number >= 1"):
        _config("NeuMF", mlp_hidden_size=[64, -1])
    with pytest.raises(UserError, match=r"reg_weights=-0\.1: must be a number >= 0"):
        _config("FISM", reg_weights=[0.01, -0.1])
    with pytest.raises(UserError, match=r"dropout_probs=0\.2: must be a list, such as \[0\.25, 0\.5\]"):
        _config("NARM", dropout_probs=0.2)
    assert _config("FISM", reg_weights=[1, 0])["reg_weights"] == [1, 0]


def test_a_whole_number_is_a_number_and_a_count_may_be_a_list_in_a_text() -> None:
    assert _config("EASE", reg_weight=3)["reg_weight"] == 3
    assert _config("GRU4RecCPR", dropout_prob=0.5)["dropout_prob"] == 0.5
    assert _config("SASRecCPR", reranker_CAN_NUM="20,10")["reranker_CAN_NUM"] == "20,10"


def test_a_model_of_stages_asks_which_one() -> None:
    with pytest.raises(UserError, match=r"train_stage is not given: RaCT .*--train_stage=actor_pretrain .*finetune"):
        _config("RaCT")
    assert _config("S3Rec", train_stage="pretrain")["save_step"] == 50
    few = _config("S3Rec", train_stage="pretrain", pretrain_epochs=3)
    assert (few["pretrain_epochs"], few["save_step"]) == (3, 3)  # otherwise nothing would be saved


@pytest.mark.parametrize(
    ("user", "message"),
    [
        ({"train_stage": "pretrain", "epochs": 5}, "epochs=5: train_stage=pretrain does not use it"),
        (
            {"train_stage": "pretrain", "pre_model_path": "x.pth"},
            "pre_model_path='x.pth': train_stage=pretrain does not",
        ),
        ({"train_stage": "finetune", "save_step": 5}, "save_step=5: train_stage=finetune does not use it"),
        ({"train_stage": "finetune"}, "pre_model_path='': there is no such file, and train_stage=finetune"),
        (
            {"train_stage": "pretrain", "pretrain_epochs": 7, "save_step": 2},
            "pretrain_epochs=7: its last epoch is saved",
        ),
        ({"train_stage": "pretrain", "pretrain_epochs": "x"}, "pretrain_epochs='x': must be a whole number >= 1"),
    ],
)
def test_settings_that_a_stage_cannot_follow(user: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        _config("S3Rec", **user)
    assert message in str(caught.value)


def test_the_item_columns_that_a_model_names_are_loaded() -> None:
    assert _config("FDSA")["load_col"]["item"] == ["item_id", "class"]
    both = _config("GRU4RecF", selected_features=["class", "brand"], ITEM_ID_FIELD="sku")
    assert both["load_col"]["item"] == ["sku", "class", "brand"]
    assert _config("S3Rec", train_stage="pretrain", item_attribute="brand")["load_col"]["item"] == ["item_id", "brand"]
    own = {"inter": ["user_id", "item_id", "timestamp"]}
    assert _config("FDSA", load_col=own)["load_col"] == own
    assert "item" not in _config("SASRec")["load_col"]
