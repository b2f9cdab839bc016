"""Facts about items: how often each was taken, and columns of the .item file, read by themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from recbole_diffusion.config.settings import UserError
from recbole_diffusion.data.atomic import AtomicFile

# Settings that name a column of the .item file, though not every run reads it.
_NAMING = ("category_field", "title_field")


def interaction_counts(split: Any) -> np.ndarray:
    """Interactions of each item in ``split``, the first one of each user that it has included: [n_items]."""
    return np.bincount(split.inter_matrix().col, minlength=split.item_num)


class ItemColumn(NamedTuple):
    """One column: its type in the file's header (``token``, ``token_seq``, ...) and the text of each item token."""

    kind: str
    texts: dict[str, str]


def item_column(config: Any, setting: str) -> ItemColumn:
    """The column of the .item file that ``config[setting]`` names; the text of a missing value is empty.

    RecBole is not asked to load it: with item features it changes the catalogue.

    Raises:
        UserError: no .item file, no such column in it, or what :class:`AtomicFile` refuses.
    """
    field, item_field = config[setting], config["ITEM_ID_FIELD"]
    file = _file_with(config, setting)
    table = file.read(list(dict.fromkeys((item_field, field))), text=True)
    table = table.dropna(subset=item_field).drop_duplicates(item_field)  # the first of an item, as RecBole takes
    return ItemColumn(file.columns[field].value, dict(zip(table[item_field], table[field].fillna(""), strict=True)))


def check_named_columns(config: Any) -> None:
    """Look for the columns that the user's settings name, also where nothing of this run reads them.

    Raises:
        UserError: as :func:`item_column`.
    """
    for setting in _NAMING:
        if config.external_config_dict.get(setting) is not None:
            _file_with(config, setting)


def _file_with(config: Any, setting: str) -> AtomicFile:
    """The .item file, which has the column that ``config[setting]`` names."""
    field = config[setting]
    path = Path(config["data_path"]) / f"{config['dataset']}.item"
    if not path.is_file():
        raise UserError(f"{setting}={field!r}: there is no file {path}.")
    file = AtomicFile(path, config["field_separator"], config["encoding"])
    for name in (config["ITEM_ID_FIELD"], field):
        if name not in file.columns:
            raise UserError(f"{setting}={field!r}: {path} has no column {name!r}, only {list(file.columns)}.")
    return file
