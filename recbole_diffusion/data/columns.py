"""Checks that the columns exist which settings name, with a type that the setting accepts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recbole.data.dataset import SequentialDataset
from recbole.utils import FeatureType

from recbole_diffusion.config import shapes
from recbole_diffusion.config.settings import UserError, did_you_mean
from recbole_diffusion.data.atomic import AtomicFile

# Settings that name the identifiers of a row, by the suffix of the file. A row without one of them is useless.
IDENTIFIERS = {
    "inter": ("USER_ID_FIELD", "ITEM_ID_FIELD"),
    "user": ("USER_ID_FIELD",),
    "item": ("ITEM_ID_FIELD",),
    "kg": ("HEAD_ENTITY_ID_FIELD", "RELATION_ID_FIELD", "TAIL_ENTITY_ID_FIELD"),
    "link": ("ITEM_ID_FIELD", "ENTITY_ID_FIELD"),
}
_ALIASES = ("alias_of_user_id", "alias_of_item_id", "alias_of_entity_id", "alias_of_relation_id")
_NUMBERS = (FeatureType.FLOAT, FeatureType.FLOAT_SEQ)
# Settings that name columns, with the column types they accept. Of other types, RecBole skips a column, or fails.
_NAMING = {
    "seq_len": (FeatureType.TOKEN_SEQ, FeatureType.FLOAT_SEQ),
    **dict.fromkeys(_ALIASES, (FeatureType.TOKEN, FeatureType.TOKEN_SEQ)),
    **dict.fromkeys(("numerical_features", "normalize_field", "discretization"), _NUMBERS),
    "threshold": (FeatureType.FLOAT,),
    "val_interval": tuple(FeatureType),
}


def check_columns_of_file(dataset: Any, file: AtomicFile, suffix: str) -> None:
    """Refuse columns in the user's ``load_col`` or ``unload_col`` that the file does not have."""
    for setting in ("load_col", "unload_col"):
        given = (dataset.config.external_config_dict.get(setting) or {}).get(suffix)
        for name in given if isinstance(given, list) else []:
            if name not in file.columns:
                hint = did_you_mean(name, file.columns)
                raise UserError(f"{setting}: {file.path} has no column {name!r}, only {list(file.columns)}.{hint}")


def check_interactions(dataset: Any, file: AtomicFile, names: list[str]) -> None:
    """Refuse a file of interactions that lacks columns which this run needs. ``names`` are those that are loaded."""
    config, history = dataset.config, dataset.item_id_list_field
    needed = [(f"{key}={config[key]!r}", config[key], FeatureType.TOKEN) for key in IDENTIFIERS["inter"]]
    if dataset.benchmark_filename_list is not None:
        if isinstance(dataset, SequentialDataset):
            what = f"{history!r}, the history of each row of pre-split files,"
            needed.append((what, history, FeatureType.TOKEN_SEQ))
    elif config["eval_args"]["order"] == "TO":
        what = f"TIME_FIELD={dataset.time_field!r}, which the rows are ordered by,"
        needed.append((what, dataset.time_field, FeatureType.FLOAT))
    for what, name, kind in needed:
        if name in names and file.columns[name] == kind:
            continue
        found = f"only {list(file.columns)}.{did_you_mean(name, file.columns)}"
        if name in names:
            found = f"a column of type {file.columns[name].value}."
        elif name in file.columns:
            found = "such a column, but load_col or unload_col leaves it out."
        raise UserError(f"{file.path}: {what} must be a {kind.value} column; there is {found}")


def check_named_columns(dataset: Any) -> None:
    """Refuse settings of the user that name columns which are not loaded, or have a type the setting does not accept.

    Raises:
        UserError: the message names setting, column and what is loaded.
    """
    user = dataset.config.external_config_dict
    _check_files(dataset, user.get("load_col") or {})
    for setting, kinds in _NAMING.items():
        value = user.get(setting)
        for name in value or ():
            kind = _loaded(dataset, f"{setting}={value!r}", name)
            if kind not in kinds:
                allowed = " or ".join(kind.value for kind in kinds)
                raise UserError(f"{setting}={value!r}: column {name!r} is of type {kind.value}: must be {allowed}.")
    for name, kept in (user.get("val_interval") or {}).items():
        numbers = dataset.field2type[name] in _NUMBERS
        if not (shapes.is_interval if numbers else shapes.is_values)(kept):
            what = "an interval, e.g. '[3,inf)'" if numbers else "a list of values, e.g. [a, b]"
            raise UserError(f"val_interval: {name}={kept!r}: the {dataset.field2type[name].value} column needs {what}.")
    for suffix, names in (user.get("unused_col") or {}).items():
        for name in names:
            _loaded(dataset, f"unused_col={ {suffix: names} }", name)
            if name in (dataset.uid_field, dataset.iid_field):
                raise UserError(f"unused_col={ {suffix: names} }: {name!r} cannot be dropped, every model reads it.")
    _check_owners(dataset)


def _check_files(dataset: Any, load_col: dict[str, Any]) -> None:
    for suffix in load_col:
        path = Path(dataset.dataset_path, f"{dataset.dataset_name}.{suffix}")
        if suffix != "inter" and not path.is_file():
            raise UserError(f"load_col={load_col!r}: there is no file {path}.")


def _loaded(dataset: Any, where: str, name: str) -> FeatureType:
    """The type of a column, which must be loaded."""
    if name in dataset.field2type:
        return dataset.field2type[name]
    hint = did_you_mean(name, dataset.field2type)
    raise UserError(f"{where}: no column {name!r} is loaded, only {list(dataset.field2type)}.{hint}")


def _check_owners(dataset: Any) -> None:
    """Refuse a column that is numbered together with two others."""
    owners = {dataset.uid_field: "alias_of_user_id", dataset.iid_field: "alias_of_item_id"}
    for setting, name in _aliases(dataset):
        if owners.setdefault(name, setting) != setting:
            value = dataset.config[setting]
            raise UserError(f"{setting}={value!r}: {name!r} cannot be numbered by {owners[name]} too.")


def _aliases(dataset: Any) -> Iterator[tuple[str, str]]:
    for setting in _ALIASES:
        for name in dataset.config[setting] or []:
            yield setting, name
