"""Splits that RecBole does not have: at points in time for all users, and by users."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from recbole_diffusion.config.splitting import GLOBAL_TIME
from recbole_diffusion.console.facts import moment
from recbole_diffusion.data.times import file_times

_SHARES = (0.8, 0.9)  # of the interactions, or of the users: the ends of training and of validation


class Columns(NamedTuple):
    """Users, items and times (in the unit of the file) of some rows, [rows] each."""

    users: Tensor
    items: Tensor
    times: Tensor


class Parts(NamedTuple):
    """Rows for training, validation and test, [rows] each, and what a reader should know of them."""

    train: Tensor
    valid: Tensor
    test: Tensor
    note: str


def split_rows(dataset: Any, kind: str) -> Parts:
    """Split the rows of a data set that is built; see :func:`at_times` and :func:`by_users`."""
    rows, config = dataset.inter_feat, dataset.config
    events = getattr(dataset, "events", None)
    events = rows if events is None else events
    users, items = dataset.uid_field, dataset.iid_field
    of_rows, of_events = (
        Columns(part[users].long(), part[items].long(), file_times(dataset, part[dataset.time_field]))
        for part in (rows, events)
    )
    if kind == GLOBAL_TIME:
        _warn_of_positions(dataset, of_events)
        return at_times(of_rows, of_events, config["split_at"], config["split_targets"] != "each")
    return by_users(of_rows, config["split_seed"])


def at_times(rows: Columns, events: Columns, points: list[float] | None, first_only: bool) -> Parts:
    """Rows before the first point train, those before the second validate, and the others test.

    A user without an event before the first point is left out of validation and test: no model has seen it. Items that
    training does not have stay targets, which no model can find.

    Args:
        rows: what can be a target. Of a sequential model, that is an event with a history.
        events: all interactions.
        points: when validation and test begin; None takes the times at 80 % and 90 % of the events.
        first_only: keep only the first row of each user in validation and in test.
    """
    begin, middle = points or events.times.sort().values[[int(share * len(events.times)) for share in _SHARES]].tolist()
    early = events.times < begin
    known, trained = _among(events.users, early), _among(events.items, early)
    later = {"valid": (rows.times >= begin) & (rows.times < middle), "test": rows.times >= middle}
    parts, notes = {}, []
    for name, inside in later.items():
        kept = torch.nonzero(inside & known[rows.users]).squeeze(-1)
        if first_only:
            kept = _one_of_each(rows, kept, last=False)
        parts[name] = kept
        left_out = int((~known[rows.users[inside].unique()]).sum())
        notes.append(f"{name}: {left_out:,} new users left out, {_new_items(trained, rows.items[kept])}")
    when = " and ".join(map(moment, (begin, middle)))
    train = torch.nonzero(rows.times < begin).squeeze(-1)
    return Parts(train, parts["valid"], parts["test"], f"at {when}; {'; '.join(notes)}")


def by_users(rows: Columns, seed: int) -> Parts:
    """80 % of the users train with all their rows; the last row of each other user validates or tests.

    Args:
        rows: what can be a target.
        seed: of the draw of users.
    """
    every = rows.users.unique()
    order = every[torch.randperm(len(every), generator=torch.Generator().manual_seed(seed))]
    group = torch.empty(int(every.max()) + 1, dtype=torch.long)
    begin, middle = (int(share * len(every)) for share in _SHARES)
    group[order] = (torch.arange(len(every)) >= begin).long() + (torch.arange(len(every)) >= middle)
    train, *others = (torch.nonzero(group[rows.users] == part).squeeze(-1) for part in range(3))
    valid, test = (_one_of_each(rows, part, last=True) for part in others)
    trained = _among(rows.items, group[rows.users] == 0)
    new = (f"{name}: {_new_items(trained, rows.items[part])}" for name, part in (("valid", valid), ("test", test)))
    counts = f"{begin:,} users for training, {middle - begin:,} for validation, {len(every) - middle:,} for test"
    return Parts(train, valid, test, "; ".join([counts, *new]))


def _warn_of_positions(dataset: Any, events: Columns) -> None:
    """Many data sets number each user's events instead of giving times. A point in time has no meaning for them."""
    first = torch.full((int(events.users.max()) + 1,), torch.inf, dtype=events.times.dtype)
    first.scatter_reduce_(0, events.users, events.times, reduce="amin")
    first = first[first.isfinite()]
    share = float((first == first.min()).float().mean())
    if share > 0.5:
        dataset.logger.warning(
            f"split={GLOBAL_TIME}: {share:.0%} of the users have the same first time. {dataset.time_field} seems to "
            "number each user's events, so users cannot be compared by it."
        )


def _among(ids: Tensor, chosen: Tensor) -> Tensor:
    """For each id from 0 on, whether it is among the chosen ones."""
    found = torch.zeros(int(ids.max()) + 1, dtype=torch.bool)
    found[ids[chosen]] = True
    return found


def _new_items(trained: Tensor, items: Tensor) -> str:
    return f"{int((~trained[items]).sum()):,} of {len(items):,} targets are new items"


def _one_of_each(rows: Columns, kept: Tensor, last: bool) -> Tensor:
    """Of the rows ``kept``, the first or the last of each user by time, in the order of ``kept``; ties keep it too."""
    order = rows.times[kept].argsort(stable=True)
    order = order[rows.users[kept][order].argsort(stable=True)]
    users = rows.users[kept][order]
    edge = torch.ones(len(kept), dtype=torch.bool)
    inner = edge[:-1] if last else edge[1:]
    inner[:] = users[1:] != users[:-1]
    return kept[order[edge].sort().values]
