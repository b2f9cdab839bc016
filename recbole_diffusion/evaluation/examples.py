"""Example recommendations with titles, for a person to read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from recbole.data.dataset import Dataset
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_diffusion.data.items import item_column
from recbole_diffusion.data.loaders import Loaders


def item_titles(config: Any, dataset: Dataset) -> list[str]:
    """A title for each item id: from the column ``title_field`` of the .item file, else the item's token."""
    tokens = [str(token) for token in dataset.field2id_token[dataset.iid_field]]
    if config["title_field"] is None:
        return tokens
    titles = item_column(config, "title_field").texts
    return [titles.get(token) or token for token in tokens]


@torch.no_grad()
def example_recommendations(
    model: Any,
    loaders: Loaders,
    titles: list[str],
    config: Any,
    count: int,
    rerank: Callable[[Tensor, int], Tensor],
) -> list[str]:
    """Lines about the first test user: the latest items, the held-out item, and the ``count`` best recommendations.

    The list is the one that is evaluated. Without ``mask_history``, it may hold items that the user has seen; these are
    marked.

    Args:
        rerank: ``(scores, count) -> scores``, both [1, n_items], as the evaluation re-ranks.
    """
    dataset = loaders.test.dataset
    row = dataset[[0]].to(config["device"])
    user, target = row[dataset.uid_field].item(), row[dataset.iid_field].item()
    if getattr(dataset, "events", None) is not None:
        seen = dataset.seen_items(dataset.target_rows[:1])[1]
    else:
        known = [part._dataset.inter_feat for part in (loaders.train, loaders.valid)]
        seen = torch.cat([feat[dataset.iid_field][feat[dataset.uid_field] == user] for feat in known])
    model.eval()
    scores = _scores(model, row, dataset)
    if config["mask_history"]:
        scores[seen[seen != target]] = -torch.inf
    count = min(count, int((scores > -torch.inf).sum()))
    best = rerank(scores[None], count)[0].topk(count).indices.tolist()
    marks = {item: " (seen)" for item in seen[seen != target].tolist()}
    token = dataset.field2id_token[dataset.uid_field][user]
    return [
        f"User {token}, last items: " + "; ".join(titles[item] for item in seen[-3:].tolist()),
        f"Held out for user {token}: {titles[target]}",
        f"{count} recommendations for user {token}:",
        *(f"  {rank}. {titles[item]}{marks.get(item, '')}" for rank, item in enumerate(best, start=1)),
    ]


def _scores(model: Any, row: Interaction, dataset: Dataset) -> Tensor:
    """Scores of every item for a batch of one, [items], on the CPU; the padding item's is -inf."""
    scores: Tensor
    try:
        scores = model.full_sort_predict(row).view(-1)
    except NotImplementedError:
        every = row.repeat_interleave(dataset.item_num)
        every.update(dataset.get_item_feature().to(row[dataset.iid_field].device))
        scores = model.predict(every)
    scores = scores.cpu().float()
    scores[0] = -torch.inf
    return scores
