"""Columns of a data set's .item file, read by themselves: RecBole's own loading changes the catalogue."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from recbole_diffusion.settings import UserError


class ItemColumn(NamedTuple):
    """One column: its type in the file's header (``token``, ``token_seq``, ...) and the text of each item token."""

    kind: str
    texts: dict[str, str]


def item_column(config: Any, setting: str) -> ItemColumn:
    """The column of the .item file that ``config[setting]`` names; the text of a missing value is empty.

    Raises:
        UserError: no .item file, or no such column in it.
    """
    field, item_field = config[setting], config["ITEM_ID_FIELD"]
    path = Path(config["data_path"]) / f"{config['dataset']}.item"
    if not path.is_file():
        raise UserError(f"{setting}={field!r}: there is no file {path}.")
    try:
        table = pd.read_csv(path, sep=config["field_separator"], dtype=str, encoding=config["encoding"] or "utf-8")
    except ValueError as error:
        raise UserError(f"{setting}={field!r}: {path} cannot be read: {error}") from error
    kinds = {name: kind for name, _, kind in (column.partition(":") for column in table.columns)}
    table.columns = list(kinds)
    for name in (item_field, field):
        if name not in kinds:
            raise UserError(f"{setting}={field!r}: {path} has no column {name!r}, only {list(kinds)}.")
    return ItemColumn(kinds[field], dict(zip(table[item_field], table[field].fillna(""), strict=True)))
