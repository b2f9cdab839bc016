"""Lists and steps of generation as tables with the user's own ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from recbole_diffusion.config.settings import UserError
from recbole_diffusion.recommend.explaining import Seen
from recbole_diffusion.recommend.histories import Histories
from recbole_diffusion.recommend.ranking import Lists


def named(tokens: list[str], kind: str | None) -> np.ndarray:
    """Tokens as the ids that the user has given: whole numbers if ``kind`` is ``int``, else texts."""
    if kind == "int":
        try:
            return np.asarray([0, *map(int, tokens[1:])], dtype=np.int64)
        except (ValueError, OverflowError):
            raise UserError("this is no checkpoint of this version: its ids are no whole numbers.") from None
    return np.asarray(tokens, dtype=object)


def lists_table(rows: Histories, lists: Lists, item_names: np.ndarray, titles: list[str] | None) -> pd.DataFrame:
    """One row per listed item: ``user``, ``item``, ``rank`` (from 1), ``score``, perhaps ``title``, and ``by``."""
    items = lists.items.numpy()
    row, place = np.nonzero(items)
    listed = items[row, place]
    columns: dict[str, Any] = {
        "user": _users(rows, row),
        "item": item_names[listed],
        "rank": place + 1,
        "score": lists.scores.numpy()[row, place],
    }
    if titles is not None:
        columns["title"] = np.asarray(titles, dtype=object)[listed]
    columns["by"] = np.where(lists.popular.numpy()[row], "popularity", "model")
    return pd.DataFrame(columns)


def steps_table(rows: Histories, steps: Sequence[Seen], item_names: np.ndarray) -> pd.DataFrame:
    """What was seen at each step of generation, with ``user`` in the place of the row."""
    table = pd.DataFrame(steps, columns=Seen._fields)
    table.insert(0, "user", _users(rows, table.pop("row").to_numpy()))
    table["item"] = item_names[table["item"].to_numpy()]
    return table


def _users(rows: Histories, row: np.ndarray) -> np.ndarray:
    return pd.Series(rows.names).take(row).to_numpy()  # a number stays a number
