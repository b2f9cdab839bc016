"""Checks of the settings of RecBole's own models, which RecBole does not make: types, limits, stages, columns."""

from __future__ import annotations

from collections.abc import Mapping
from logging import getLogger
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbole.utils import FeatureType

from recbole_diffusion.config.settings import Settings, UserError, check_heads
from recbole_diffusion.config.table import recbole_row

if TYPE_CHECKING:
    from recbole.data.dataset import Dataset

# Settings without a fixed type: RecBole reads them also as a text with a list, or as a file.
_FREE = ("reranker_CAN_NUM", "pre_model_path")
_AT_MOST_ITEMS = ("reranker_CAN_NUM", "metrics_k")
_FIRST_STAGES = ("pretrain", "actor_pretrain")
# Settings that name columns of the .item file.
_ITEM_COLUMNS = ("selected_features", "item_attribute")


def check_types(defaults: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Check that ``values`` have the types of a model's ``defaults``, and are within the limits for their names.

    Raises:
        UserError: a value, or an element of a list, has another type or is out of range; heads do not divide the width.
    """
    for key, default in defaults.items():
        if key in _FREE or not key.isidentifier():
            continue
        elements, sample = [values[key]], default
        if isinstance(default, list):
            if not isinstance(values[key], list) or (default and not values[key]):
                raise UserError(f"{key}={values[key]!r}: must be a list, such as {default}.")
            elements, sample = values[key], default[0] if default else None
        row = recbole_row(key, sample)
        for element in elements:
            row.read(key, element)
    if {"n_heads", "hidden_size"} <= defaults.keys():
        check_heads(("n_heads", values["n_heads"]), ("hidden_size", values["hidden_size"]))


def item_columns(settings: Mapping[str, Any]) -> dict[str, list[str]]:
    """The settings that name columns of the .item file, with their columns."""
    named = {key: settings[key] for key in _ITEM_COLUMNS if settings.get(key)}
    return {key: list(value) if isinstance(value, list) else [value] for key, value in named.items()}


def load_item_columns(defaults: Settings, user: Mapping[str, Any]) -> None:
    """Add to ``load_col`` the item columns that other settings name. RecBole loads them only for ml-100k."""
    settings = {**defaults, **user}
    for columns in item_columns(settings).values():
        # Interactions of items that the file lacks are kept: otherwise the data would differ from that of other models.
        defaults["filter_inter_by_user_or_item"] = False
        loaded = defaults["load_col"].setdefault("item", [settings["ITEM_ID_FIELD"]])
        loaded += [column for column in columns if column not in loaded]


def check_stage(model: str, defaults: Settings, user: Mapping[str, Any]) -> None:
    """Check ``train_stage`` of RecBole's models that train in stages (S3Rec, RaCT).

    Stages before ``finetune`` train ``pretrain_epochs`` and not ``epochs``. If the user does not set ``save_step``, the
    last epoch of such a stage is saved.

    Raises:
        UserError: the user did not choose a stage, set something that it does not use, or a checkpoint is missing.
    """
    settings = {**defaults, **user}
    stage = settings.get("train_stage")
    if stage is None:
        return
    if "train_stage" not in user:
        raise UserError(
            f"train_stage is not given: {model} trains in stages. First --train_stage={stage} --pretrain_epochs=N, "
            "which saves a checkpoint; at last --train_stage=finetune --pre_model_path=FILE."
        )
    unread = ["pretrain_epochs", "save_step"] if stage == "finetune" else ["epochs"]
    for key in [*unread, *(["pre_model_path"] if stage in _FIRST_STAGES else [])]:
        if key in user:
            raise UserError(f"{key}={user[key]!r}: train_stage={stage} does not use it.")
    epochs, step, path = settings["pretrain_epochs"], settings["save_step"], str(settings["pre_model_path"])
    if stage != "finetune" and epochs % step:
        if "save_step" in user:
            raise UserError(f"pretrain_epochs={epochs}: its last epoch is saved only if save_step={step} divides it.")
        defaults["save_step"] = epochs
    if stage not in _FIRST_STAGES and not Path(path).is_file():
        raise UserError(
            f"pre_model_path={path!r}: there is no such file, and train_stage={stage} starts from a checkpoint."
        )


def check_data(config: Any, dataset: Dataset) -> None:
    """Check the settings of a RecBole model against the data set. The log says which item columns the model reads.

    Raises:
        UserError: a column that the model needs is missing, or the catalogue is too small for a setting.
    """
    for key, columns in item_columns(config.final_config_dict).items():
        for column in columns:
            _check_column(config, dataset, key, column)
        getLogger().info(f"{key}={config[key]}: read from {config['dataset']}.item, whose items join the catalogue")
    for key in _AT_MOST_ITEMS:
        counts = [] if config[key] is None else str(config[key]).split(",")
        if not all(count.strip().isdigit() and 1 <= int(count) <= dataset.item_num for count in counts):
            raise UserError(
                f"{key}={config[key]!r}: must be from 1 to {dataset.item_num}, the items of {config['dataset']!r} and "
                "the padding."
            )


def _check_column(config: Any, dataset: Dataset, key: str, column: str) -> None:
    """Check that ``column``, named by the setting ``key``, is loaded and has a type that the model reads."""
    where = f"{key}={config[key]!r}: column {column!r} of {config['dataset']}.item"
    if not Path(config["data_path"], f"{config['dataset']}.item").is_file():
        raise UserError(f"{where} is needed, but there is no such file in {config['data_path']}.")
    if dataset.item_feat is None or column not in dataset.item_feat:
        raise UserError(f"{where} is missing, or load_col={config['load_col']} leaves it out.")
    kind = dataset.field2type[column]
    if kind in (FeatureType.TOKEN, FeatureType.TOKEN_SEQ):
        return
    if key != "selected_features":
        raise UserError(f"{where} is of type {kind.value}: must be token or token_seq.")
    if column not in config["numerical_features"]:  # RecBole would leave it out silently, or fail
        raise UserError(f"{where} is of type {kind.value}: name it in numerical_features too.")
