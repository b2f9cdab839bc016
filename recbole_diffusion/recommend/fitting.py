"""From a table of interactions to a trained model."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recbole_diffusion.config.settings import Settings, UserError
from recbole_diffusion.quick_start import run
from recbole_diffusion.recommend.histories import check_columns, seconds, token_of
from recbole_diffusion.recommend.loading import read_checkpoint
from recbole_diffusion.storage.files import write_text

_NAME = "interactions"  # of the data set
_BETWEEN = "|"  # between the categories of an item in the file


def fit(
    interactions: pd.DataFrame, model: str, items: pd.DataFrame | None, settings: Settings, preset: str | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train a model on a table; see :meth:`recbole_diffusion.recommend.recommender.Recommender.fit`.

    Returns:
        The checkpoint of the best epoch, and the result of :func:`recbole_diffusion.quick_start.run`.
    """
    with tempfile.TemporaryDirectory(prefix="recbole_diffusion-") as folder:
        ids = write_interactions(Path(folder), interactions)
        columns = {} if items is None else write_items(Path(folder), items)
        for key in ("data_path", "dataset"):
            if key in settings:
                raise UserError(f"{key}={settings[key]!r}: cannot be set here; the data are the table.")
        result = run(model, _NAME, settings={**columns, **settings, "data_path": folder}, preset=preset)
        state = read_checkpoint(result["checkpoint"])
    return state | {"ids": ids}, result


def write_interactions(folder: Path, interactions: pd.DataFrame) -> dict[str, str]:
    """Write the .inter file, and return what the ids of users and items are: ``int`` or ``str``.

    Raises:
        UserError: a column or a value is missing, or an id cannot be written.
    """
    if not isinstance(interactions, pd.DataFrame):
        raise UserError(f"interactions: must be a pandas DataFrame, not {type(interactions).__name__}.")
    check_columns(interactions, ("user", "item"), "interactions")
    if interactions.empty:
        raise UserError("interactions: the table is empty.")
    if "time" in interactions:
        check_columns(interactions, ("time",), "interactions")
        times = seconds(interactions["time"], "interactions").to_numpy()
    else:  # the order of the rows
        times = np.arange(len(interactions), dtype=np.float64)
    columns = {"user_id:token": _tokens(interactions["user"]), "item_id:token": _tokens(interactions["item"])}
    _write(folder, "inter", {**columns, "timestamp:float": list(map(repr, times.tolist()))})
    return {name: _kind(interactions[name]) for name in ("user", "item")}


def write_items(folder: Path, items: pd.DataFrame) -> Settings:
    """Write the .item file, and return the settings that name its columns.

    Raises:
        UserError: as :func:`write_interactions`.
    """
    check_columns(items, ("item",), "items")
    columns, settings = {"item_id:token": _tokens(items["item"])}, {}
    if "title" in items:
        columns["title:token"] = [_one_line(text) for text in items["title"].fillna("")]
        settings["title_field"] = "title"
    if "category" in items:
        columns["category:token_seq"] = [_categories(value) for value in items["category"]]
        settings |= {"category_field": "category", "seq_separator": _BETWEEN}
    if not settings:
        raise UserError(f"items: has neither 'title' nor 'category', only {[str(name) for name in items.columns]}.")
    _write(folder, "item", columns)
    return settings


def _kind(ids: pd.Series) -> str:
    """``int`` if all ids are whole numbers of 64 bits, else ``str``."""
    if not pd.api.types.is_numeric_dtype(ids) or pd.api.types.is_bool_dtype(ids):
        return "str"
    whole = pd.api.types.is_integer_dtype(ids) or bool((ids == ids.round()).all())
    return "int" if whole and int(ids.min()) >= -(2**63) and int(ids.max()) < 2**63 else "str"


def _tokens(ids: pd.Series) -> list[str]:
    tokens = [token_of(name) for name in ids]
    for token in tokens:
        if not token or _one_line(token) != token:
            raise UserError(f"{ids.name}={token!r}: an id may have no tab, no line break and no space at its ends.")
    return tokens


def _one_line(text: Any) -> str:
    return " ".join(str(text).split("\t")).replace("\r", " ").replace("\n", " ").strip()


def _categories(value: Any) -> str:
    """One category, several in a text with ``|`` between them, or a list of them, as a text."""
    if isinstance(value, str):
        value = value.split(_BETWEEN)
    if isinstance(value, set | frozenset):
        value = sorted(value)
    if isinstance(value, str) or not isinstance(value, Sequence | np.ndarray):
        value = [] if pd.isna(value) else [value]
    names = [_one_line(name) for name in value]
    wrong = [name for name in names if _BETWEEN in name]
    if wrong:
        raise UserError(f"items: category {wrong[0]!r} contains {_BETWEEN!r}, which separates categories in the file.")
    return _BETWEEN.join(names)


def _write(folder: Path, suffix: str, columns: dict[str, list[str]]) -> None:
    lines = ["\t".join(columns), *map("\t".join, zip(*columns.values(), strict=True))]
    write_text(folder / _NAME / f"{_NAME}.{suffix}", "\n".join(lines) + "\n")
