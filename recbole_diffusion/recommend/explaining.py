"""Where the items of a list come from, and what a model sees at each step of generation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor

from recbole_diffusion.config.settings import UserError
from recbole_diffusion.model.embedding import EmbeddingDiffusionRecommender
from recbole_diffusion.recommend.histories import Histories
from recbole_diffusion.recommend.ranking import Lists, Ranker


class Explanation(NamedTuple):
    """Tables about lists.

    ``lists`` is as from ``recommend``, with one more column: the ``channel`` (DiffDiv) or ``interest`` (ADIGRec) that
    an item comes from, from 0. ``steps`` has the items with the largest scores at each step of generation: ``user``,
    ``step`` (from 1), ``t``, ``channel``, ``rank``, ``item``, ``score``.
    """

    lists: pd.DataFrame
    steps: pd.DataFrame


class Seen(NamedTuple):
    """One of the items with the largest scores at a step of generation."""

    row: int
    step: int  # from 1
    t: int
    channel: int
    rank: int  # from 1
    item: int  # its id
    score: float


@torch.no_grad()
def explained(ranker: Ranker, rows: Histories, lists: Lists, nearest: int) -> tuple[str, Tensor, list[Seen]]:
    """The kind of origin, the origin of each listed item [rows, k], and the nearest items at each step.

    Raises:
        UserError: the model does not generate an embedding.
    """
    model = ranker.model
    if not isinstance(model, EmbeddingDiffusionRecommender):
        raise UserError(f"explain: {type(model).__name__} does not generate an embedding, as DreamRec does.")
    origins, steps = torch.zeros_like(lists.items), list[Seen]()
    for part in ranker.batches(rows, cells=ranker.n_items * model.num_channels * model.num_chains):
        these = rows.part(part)
        batch = ranker.batch(these)
        with recorded(model) as seen:
            x_0 = model.generate(batch)  # [rows, chains, dim]
        items = lists.items[part].to(x_0.device)
        row_of = torch.arange(len(part), device=x_0.device).repeat_interleave(items.shape[1])
        origins[part] = model.origins(batch, x_0, row_of, items.flatten()).view_as(items).cpu()
        for number, (t, x_0_hat) in enumerate(seen, start=1):
            scores = model.item_scores(x_0_hat)
            scores[:, 0] = -torch.inf
            best, found = scores.topk(min(nearest, ranker.n_items - 1), dim=-1)
            chains = len(x_0_hat) // len(part)
            for place, (of_chain, ids) in enumerate(zip(best.tolist(), found.tolist(), strict=True)):
                row, channel = int(part[place // chains]), place % chains // model.num_chains
                steps += [
                    Seen(row, number, t, channel, rank, item, score)
                    for rank, (item, score) in enumerate(zip(ids, of_chain, strict=True), start=1)
                ]
    return model.origin, origins, sorted(steps)


@contextmanager
def recorded(model: EmbeddingDiffusionRecommender) -> Iterator[list[tuple[int, Tensor]]]:
    """A context in which the timestep and x0_hat [chains, dim] of each step of generation are noted."""
    seen: list[tuple[int, Tensor]] = []
    predict = model.predict_x0

    def noting(x_t: Tensor, t: Tensor, guidance: Any) -> Tensor:
        x_0 = predict(x_t, t, guidance)
        seen.append((int(t[0]), x_0))
        return x_0

    model.predict_x0 = noting  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        del model.predict_x0
