"""Facts about items: their interaction counts, and single columns of the .item file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from recbole_diffusion.config.settings import UserError
from recbole_diffusion.data.atomic import AtomicFile

# Settings that name a column of the .item file. Not every run reads the column.
_NAMING = ("category_field", "title_field")


def interaction_counts(split: Any) -> np.ndarray:
    """Number of interactions of each item in ``split``, [n_items], including the first of each user."""
    return np.bincount(split.inter_matrix().col, minlength=split.item_num)


class ItemColumn(NamedTuple):
    """One column: its type in the file's header (``token``, ``token_seq``, ...) and the text of each item token."""

    kind: str
    texts: dict[str, str]


def item_column(config: Any, setting: str) -> ItemColumn:
    """The column of the .item file that ``config[setting]`` names. A missing value is an empty text.

    RecBole does not load this column: with item features it would change the catalogue.

    Raises:
        UserError: there is no .item file, it has no such column, or :class:`AtomicFile` refuses it.
    """
    field, item_field = config[setting], config["ITEM_ID_FIELD"]
    file = _file_with(config, setting)
    table = file.read(list(dict.fromkeys((item_field, field))), text=True)
    table = table.dropna(subset=item_field).drop_duplicates(item_field)  # the first row of an item, as in RecBole
    return ItemColumn(file.columns[field].value, dict(zip(table[item_field], table[field].fillna(""), strict=True)))


def item_column_if_any(config: Any, setting: str) -> ItemColumn | None:
    """:func:`item_column`, or None if the setting is ~, or only a default that the data set's files do not have.

    Raises:
        UserError: the user has named a column that does not exist.
    """
    if config[setting] is None:
        return None
    try:
        _file_with(config, setting)
    except UserError:
        if config.external_config_dict.get(setting) is not None:
            raise
        return None
    return item_column(config, setting)


def check_named_columns(config: Any) -> None:
    """Check that the columns exist that the user's settings name, even if this run does not read them.

    Raises:
        UserError: as :func:`item_column`.
    """
    for setting in _NAMING:
        if config.external_config_dict.get(setting) is not None:
            _file_with(config, setting)


def _file_with(config: Any, setting: str) -> AtomicFile:
    """The .item file, after a check that it has the column that ``config[setting]`` names."""
    field = config[setting]
    path = Path(config["data_path"]) / f"{config['dataset']}.item"
    if not path.is_file():
        raise UserError(f"{setting}={field!r}: there is no file {path}.")
    file = AtomicFile(path, config["field_separator"], config["encoding"])
    for name in (config["ITEM_ID_FIELD"], field):
        if name not in file.columns:
            raise UserError(f"{setting}={field!r}: {path} has no column {name!r}, only {list(file.columns)}.")
    return file
