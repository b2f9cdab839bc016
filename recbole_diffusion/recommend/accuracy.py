"""Metrics of accuracy for held-out interactions that a user gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from recbole.evaluator.register import metrics_dict

from recbole_diffusion.config.settings import UserError, shown
from recbole_diffusion.evaluation.users import tells_accuracy
from recbole_diffusion.recommend.histories import Histories, token_of
from recbole_diffusion.recommend.ranking import Lists


def accuracy(
    config: Any, lists: Lists, rows: Histories, test: pd.DataFrame, items: Mapping[str, int], metrics: Sequence[str],
    topk: Sequence[int],
) -> dict[str, float]:  # fmt: skip
    """RecBole's metrics of lists, as means over users.

    Args:
        config: the model's.
        lists: of the rows, as long as the largest of ``topk``.
        test: the held-out ``user`` and ``item``.
        items: from token to id.
        metrics, topk: which.

    Raises:
        UserError: no such metric of accuracy, or a user of ``test`` has no list.
    """
    names = [name.lower() for name in metrics]
    wrong = [name for name in names if name not in metrics_dict or not tells_accuracy(name)]
    if wrong:
        raise UserError(f"metrics: {wrong[0]!r} is no metric of accuracy of single lists, such as NDCG, Hit or MRR.")
    if not topk or any(type(k) is not int or k < 1 for k in topk):
        raise UserError(f"topk={shown(topk)}: must be a list of whole numbers >= 1.")
    row_of = {token_of(name): row for row, name in enumerate(rows.names)}
    missing = [user for user in test["user"] if token_of(user) not in row_of]
    if missing:
        raise UserError(f"test: user {shown(missing[0])} has no history ({len(set(missing)):,} such).")
    pairs = {(row_of[token_of(user)], token_of(item)) for user, item in zip(test["user"], test["item"], strict=True)}
    wanted = torch.zeros(len(rows), dtype=torch.long)  # how many items
    found = torch.zeros_like(lists.items, dtype=torch.bool)
    for row, token in pairs:
        wanted[row] += 1
        found[row] |= lists.items[row] == items.get(token, -1)
    tested = wanted > 0
    found, wanted = found[tested], wanted[tested]
    short = max(topk) - found.shape[1]  # a catalogue smaller than the lists
    found = torch.nn.functional.pad(found, (0, max(short, 0)))
    of_topk = {**config.final_config_dict, "topk": sorted(topk), "metric_decimal_place": 16}
    data = {"rec.topk": torch.cat([found.int(), wanted.int().unsqueeze(-1)], dim=1)}
    results: dict[str, float] = {}
    for name in dict.fromkeys(names):
        results |= {key: float(value) for key, value in _computed(name, of_topk, data).items()}
    return results


class _Collected:
    """What RecBole's metrics read."""

    def __init__(self, data: dict[str, Any]) -> None:
        self._data = data

    def get(self, name: str) -> Any:
        return self._data[name]


def _computed(name: str, config: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    try:
        computed: dict[str, Any] = metrics_dict[name](config).calculate_metric(_Collected(data))
    except KeyError as error:
        raise UserError(f"metrics: {name!r} needs more than lists ({error}).") from None
    return computed
