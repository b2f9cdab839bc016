"""Recommendations a person can read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import torch
from recbole.data.dataset import Dataset

from recbole_diffusion.settings import UserError


def item_titles(config: Any, dataset: Dataset) -> list[str]:
    """A name for each item id: the ``title_field`` of the data set's .item file, or the item's token."""
    tokens = [str(token) for token in dataset.field2id_token[dataset.iid_field]]
    if config["title_field"] is None:
        return tokens
    path = Path(config["data_path"]) / f"{config['dataset']}.item"
    if not path.is_file():
        raise UserError(f"title_field={config['title_field']!r}: there is no file {path}.")
    table = pd.read_csv(path, sep=config["field_separator"], dtype=str, encoding=config["encoding"] or "utf-8")
    table.columns = [column.split(":")[0] for column in table.columns]
    for field in (config["ITEM_ID_FIELD"], config["title_field"]):
        if field not in table:
            raise UserError(
                f"title_field={config['title_field']!r}: {path} has no column {field!r}, only {list(table)}."
            )
    titles = dict(zip(table[config["ITEM_ID_FIELD"]], table[config["title_field"]].fillna(""), strict=True))
    return [titles.get(token) or token for token in tokens]


@torch.no_grad()
def example_recommendations(model: Any, test_data: Any, config: Any, count: int) -> list[str]:
    """Lines on the first test user: the latest items, the item held out, and the ``count`` best-scored new ones."""
    dataset = test_data.dataset
    titles = item_titles(config, dataset)
    row = dataset[[0]].to(config["device"])
    model.eval()
    scores = model.full_sort_predict(row).view(-1)
    user = dataset.field2id_token[dataset.uid_field][row[dataset.uid_field].item()]
    lines = []
    sequence_field = dataset.iid_field + config["LIST_SUFFIX"]
    if sequence_field in row:
        history = row[sequence_field][0]
        history = history[history != 0]
        scores[history] = -torch.inf
        lines.append(f"User {user} watched last: " + "; ".join(titles[item] for item in history[-3:].tolist()))
    scores[0] = -torch.inf
    lines.append(f"Held out for user {user}: {titles[row[dataset.iid_field].item()]}")
    lines.append(f"{count} recommendations for user {user}:")
    best = scores.topk(min(count, len(titles) - 1)).indices.tolist()
    return lines + [f"  {rank}. {titles[item]}" for rank, item in enumerate(best, start=1)]
