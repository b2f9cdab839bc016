"""Whose lists are wanted: users of the data set, or histories of anybody."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from recbole_diffusion.config.settings import UserError, shown
from recbole_diffusion.data.known import Known
from recbole_diffusion.data.sequences import spans

_SHOWN = 3


@dataclass(frozen=True)
class Histories:
    """What each row has taken: ``items[starts[r] : starts[r + 1]]``, the oldest first."""

    names: list[Any]  # of the users, as they were given
    users: Tensor  # their ids, [rows]; 0 for somebody who is not in the data set
    starts: Tensor  # [rows + 1]
    items: Tensor  # ids, [events], int64
    times: Tensor | None  # in seconds, [events]
    unknown: int = 0  # events that were left out, because the data set does not have their items
    example: Any = None  # an item of them

    def __len__(self) -> int:
        return len(self.names)

    @property
    def counts(self) -> Tensor:
        """How many items each row has, [rows]."""
        return self.starts.diff()

    def part(self, rows: Tensor) -> Histories:
        """Some of the rows, in this order, [rows]."""
        counts = self.counts[rows]
        events = spans(self.starts[rows], counts)
        starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        times = None if self.times is None else self.times[events]
        return Histories(
            [self.names[row] for row in rows.tolist()], self.users[rows], starts, self.items[events], times
        )


def of_users(known: Known, ids: Tensor, names: Sequence[Any]) -> Histories:
    """The histories of users of the data set.

    Args:
        ids: their ids, [rows].
        names: their names in the result, one for each.
    """
    rows = Histories([None] * (len(known.starts) - 1), torch.arange(len(known.starts) - 1), *known[:3]).part(ids)
    return replace(rows, names=list(names), items=rows.items.long())


def user_ids(users: Iterable[Any], tokens: Mapping[str, int]) -> tuple[Tensor, list[Any]]:
    """The ids of users, [rows], and the users as they were given.

    Raises:
        UserError: one of them is not in the data set, or comes twice.
    """
    if isinstance(users, str):
        raise UserError(f"users={users!r}: must be a list of users.")
    names = list(users)
    ids = [tokens.get(token_of(user), 0) for user in names]
    strange = [user for user, index in zip(names, ids, strict=True) if index == 0]
    if strange:
        raise UserError(
            f"users: {_some(strange)} {'is' if len(strange) == 1 else 'are'} not in the model's data set. Give the "
            "histories of new users."
        )
    _refuse_twice(names)
    return torch.tensor(ids, dtype=torch.long), names


def of_anybody(histories: Any, items: Mapping[str, int], users: Mapping[str, int]) -> Histories:
    """Histories that are given.

    Args:
        histories: a DataFrame with the columns ``user`` and ``item``, and perhaps ``time``, in the unit of the data's
            times or as dates, by which it is sorted (else the order is that of the rows); or a mapping from user to
            items, the oldest first; or a sequence of such lists, whose users are 0, 1, ... and nobody of the data set.
        items, users: from token to id.

    Raises:
        UserError: it is none of these, or a value is missing.
    """
    frame, names = _frame(histories)
    _refuse_twice(names)
    times = None
    if "time" in frame:
        check_columns(frame, ("time",), "histories")
        frame = frame.assign(time=seconds(frame["time"], "histories")).sort_values("time", kind="stable")
        times = torch.tensor(frame["time"].to_numpy(), dtype=torch.float64)
    row_of = {name: row for row, name in enumerate(names)}
    rows = torch.tensor([row_of[user] for user in frame["user"]], dtype=torch.long)
    ids = torch.tensor([items.get(token_of(item), 0) for item in frame["item"]], dtype=torch.long)
    order = rows.argsort(stable=True)
    order = order[ids[order] != 0]
    starts = torch.searchsorted(rows[order].contiguous(), torch.arange(len(names) + 1))
    strangers = isinstance(histories, Sequence)
    of_users = [0 if strangers else users.get(token_of(name), 0) for name in names]
    return Histories(
        names, torch.tensor(of_users, dtype=torch.long), starts, ids[order],
        None if times is None else times[order], int((ids == 0).sum()),
        next((item for item, index in zip(frame["item"], ids.tolist(), strict=True) if index == 0), None),
    )  # fmt: skip


def _frame(histories: Any) -> tuple[pd.DataFrame, list[Any]]:
    """One row per event, with ``user`` and ``item``, and all users in their order, also those without an event."""
    if isinstance(histories, pd.DataFrame):
        check_columns(histories, ("user", "item"), "histories")
        return histories, list(dict.fromkeys(histories["user"]))
    pairs: list[tuple[Any, Any]]
    if isinstance(histories, Mapping):
        pairs = list(histories.items())
    elif isinstance(histories, Sequence) and not isinstance(histories, str):
        pairs = list(enumerate(histories))
    else:
        raise UserError(
            f"histories={shown(histories)}: must be a DataFrame with the columns user and item, a mapping from user to "
            "items, or a list of lists."
        )
    for user, taken in pairs:
        if isinstance(taken, str | bytes) or not isinstance(taken, Iterable):
            raise UserError(f"histories: of {shown(user)} is {shown(taken)}: must be a list of items.")
    events = [(user, item) for user, taken in pairs for item in taken]
    names = [user for user, _ in pairs]
    return pd.DataFrame(
        {"user": [user for user, _ in events], "item": [item for _, item in events]}, dtype=object
    ), names


def check_columns(frame: pd.DataFrame, columns: Sequence[str], what: str) -> None:
    """Refuse a table without these columns, or with a missing value in one of them.

    Raises:
        UserError: the message names the column.
    """
    for column in columns:
        if column not in frame:
            raise UserError(f"{what}: has no column {column!r}, only {[str(name) for name in frame.columns]}.")
        missing = int(frame[column].isna().sum())
        if missing:
            raise UserError(f"{what}: {missing:,} of {len(frame):,} rows have no {column}.")


def seconds(times: pd.Series, what: str) -> pd.Series:
    """Numbers as they are, and dates, also as ISO texts, as seconds since 1970; float64.

    Raises:
        UserError: they are neither.
    """
    texts = times.dtype == object or pd.api.types.is_string_dtype(times)
    # Only those that begin with a year: pandas knows words such as "now".
    if texts and times.map(lambda text: isinstance(text, str) and text[:4].isdigit()).all():
        with suppress(ValueError, pd.errors.OutOfBoundsDatetime):
            times = pd.to_datetime(times, utc=True, format="ISO8601")
    if pd.api.types.is_datetime64_any_dtype(times):
        zero = pd.Timestamp(0, tz=times.dt.tz)
        return (times - zero).dt.total_seconds()
    if pd.api.types.is_numeric_dtype(times) and not pd.api.types.is_bool_dtype(times):
        return times.astype("float64")
    raise UserError(f"{what}: times such as {shown(times.iloc[0])} are neither numbers nor dates.")


def token_of(name: Any) -> str:
    """A user or an item as the text that atomic files have: 7, 7.0 and '7' are the same."""
    if isinstance(name, float | np.floating) and float(name).is_integer():
        return str(int(name))  # pandas makes whole numbers floats where a value is missing
    return str(name)


def _refuse_twice(names: Sequence[Any]) -> None:
    if len(set(map(token_of, names))) < len(names):
        tokens = pd.Series([token_of(name) for name in names])
        raise UserError(f"users: {_some(list(tokens[tokens.duplicated()].unique()))} come twice.")


def _some(values: Sequence[Any]) -> str:
    more = f" and {len(values) - _SHOWN:,} more" if len(values) > _SHOWN else ""
    return ", ".join(map(shown, values[:_SHOWN])) + more
