"""Ranks items for histories, in batches whose matrices are bounded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from recbole.data.interaction import Interaction
from recbole.utils import ModelType
from torch import Tensor

from recbole_diffusion import registry
from recbole_diffusion.config.refusals import using
from recbole_diffusion.config.settings import UserError, rows_at_once
from recbole_diffusion.data.times import ages_of
from recbole_diffusion.evaluation.diversity import category_matrix
from recbole_diffusion.evaluation.rerank import maximal_marginal_relevance
from recbole_diffusion.names import AGE_LIST
from recbole_diffusion.recommend.histories import Histories
from recbole_diffusion.recommend.index import Index, best_of
from recbole_diffusion.recommend.loading import Loaded

_ROWS_SORTED = 8192  # rows among which those of similar length share a batch


class Lists(NamedTuple):
    """The best items of each row, best first. A list may be shorter than k: the rest is item 0 with score -inf."""

    items: Tensor  # ids, [rows, k]
    scores: Tensor  # [rows, k]
    popular: Tensor  # whether the list is the most popular items, because the model knows nothing of the row, [rows]


class Ranker:
    """Scores and lists of a trained model."""

    def __init__(self, loaded: Loaded) -> None:
        self.loaded, config = loaded, loaded.config
        self.model, self.config = loaded.model, config
        self.n_items = len(loaded.vocabulary.items)
        self.sequential = config["MODEL_TYPE"] == ModelType.SEQUENTIAL
        self.n_channels = getattr(self.model, "num_channels", 1)
        self.reads_ages = registry.reads_ages(loaded.resolved)
        counts = torch.bincount(loaded.known.items.long(), minlength=self.n_items).float()
        self.popularity = (counts + 1).log()  # [n_items]
        self.popularity[0] = -torch.inf
        self.categories = None
        if config["mmr_weight"] is not None:
            texts, separator = loaded.known.categories, loaded.known.separator
            if texts is None:
                raise UserError(f"mmr_weight={config['mmr_weight']}: {loaded.path} has no categories of items.")
            self.categories = category_matrix(texts, separator).to(config["device"])

    def known_to_the_model(self, rows: Histories) -> Tensor:
        """Which rows the model can say something of, bool [rows]."""
        return rows.counts > 0 if self.sequential else rows.users > 0

    def batch(self, rows: Histories) -> Interaction:
        """The rows as a batch of the model, on its device. A row without items has one padding item.

        Raises:
            UserError: the model reads times, and the histories have none.
        """
        config = self.config
        if not self.sequential:
            return Interaction({config["USER_ID_FIELD"]: rows.users}).to(config["device"])
        most = config["MAX_ITEM_LIST_LENGTH"]
        length = rows.counts.clamp(max=most)
        width = max(1, int(length.max())) if registry.takes_short_batches(self.loaded.resolved) else most
        place = torch.arange(width)
        inside = place < length.unsqueeze(-1)  # [rows, width]
        events = torch.where(inside, (rows.starts[1:] - length).unsqueeze(-1) + place, 0)
        items = rows.items if len(rows.items) else rows.items.new_zeros(1)
        suffix = config["LIST_SUFFIX"]
        columns = {
            config["USER_ID_FIELD"]: rows.users,
            f"{config['ITEM_ID_FIELD']}{suffix}": torch.where(inside, items[events], 0),
            config["ITEM_LIST_LENGTH_FIELD"]: length.clamp(min=1),
        }
        if self.reads_ages:
            if rows.times is None:
                raise UserError(f"histories: have no times, and {config['model']} reads them. Give a column 'time'.")
            times = (rows.times if len(rows.times) else rows.times.new_zeros(1))[events]
            columns[AGE_LIST] = ages_of(times, inside)
        return Interaction(columns).to(config["device"])

    @torch.no_grad()
    def scores(self, rows: Histories) -> Tensor:
        """The scores of all items, [rows, n_items]; the padding item has -inf."""
        batch = self.batch(rows)
        with using(self.model):
            try:
                scores = self.model.full_sort_predict(batch).view(len(rows), -1).float()
            except NotImplementedError:  # models that score pairs only
                scores = torch.stack([self._pairwise(batch[[row]]) for row in range(len(rows))])
        scores[:, 0] = -torch.inf
        return scores

    def _pairwise(self, row: Interaction) -> Tensor:
        every = row.repeat_interleave(self.n_items)
        items = torch.arange(self.n_items, device=self.config["device"])
        every.update(Interaction({self.config["ITEM_ID_FIELD"]: items}))
        return self.model.predict(every).float()

    def batches(self, rows: Histories, cells: int | None = None) -> Iterator[Tensor]:
        """Row numbers in batches, those of similar length together.

        Args:
            cells: numbers that each row needs; default: a score for each item. A batch has at most ``max_cells``.
        """
        at_once = rows_at_once(self.config["max_cells"], cells or self.n_items)
        at_once = min(self.config["eval_batch_size"], at_once)
        for part in torch.arange(len(rows)).split(_ROWS_SORTED):
            if len(part):
                yield from part[rows.counts[part].argsort(stable=True)].split(at_once)

    def lists(
        self,
        rows: Histories,
        k: int,
        filter_seen: bool,
        allowed: Tensor | None = None,
        after_batch: Callable[[int], None] | None = None,
    ) -> Lists:
        """The ``k`` best items of each row.

        Args:
            filter_seen: leave out the items of the row's history.
            allowed: which items may be listed, bool [n_items]; None: all.
            after_batch: called with the number of rows that are done.
        """
        listed = self._empty(rows, k)
        for part in self.batches(rows):
            scores = self._masked_scores(rows.part(part), filter_seen, allowed)
            best, items = self._reranked(scores, k).topk(listed.items.shape[1], dim=-1)
            listed.scores[part] = scores.gather(1, items).cpu()
            listed.items[part] = items.masked_fill(best.isneginf(), 0).cpu()
            if after_batch is not None:
                after_batch(len(part))
        return listed

    def lists_by_index(
        self,
        rows: Histories,
        k: int,
        filter_seen: bool,
        index: Index,
        vectors: Callable[[Histories], Tensor],
        after_batch: Callable[[int], None] | None = None,
    ) -> Lists:
        """The same by an index, which may miss some items.

        Args:
            index: of the item vectors.
            vectors: from rows to their vectors.
        """
        listed = self._empty(rows, k)
        if bool(listed.popular.any()):  # the most popular items, not by vectors
            strangers = torch.nonzero(listed.popular).squeeze(-1)
            of_strangers = self.lists(rows.part(strangers), k, filter_seen, after_batch=after_batch)
            listed.items[strangers], listed.scores[strangers] = of_strangers[:2]
        known = torch.nonzero(~listed.popular).squeeze(-1)
        for place in self.batches(rows.part(known), cells=self.n_channels * index.dim * (int(rows.counts.max()) + k)):
            part = known[place]
            these = rows.part(part)
            seen = int(these.counts.max()) if filter_seen else 0
            scores, items = index.search(vectors(these), listed.items.shape[1] + seen)
            if filter_seen:
                row = torch.repeat_interleave(torch.arange(len(these)), these.counts)
                found = torch.arange(len(these)).unsqueeze(1) * self.n_items + items
                scores = scores.masked_fill(torch.isin(found, row * self.n_items + these.items), -torch.inf)
            listed.scores[part], listed.items[part] = best_of(scores, items, listed.items.shape[1])
            if after_batch is not None:
                after_batch(len(part))
        return listed

    def _empty(self, rows: Histories, k: int) -> Lists:
        shape = len(rows), min(k, self.n_items - 1)
        items, scores = torch.zeros(shape, dtype=torch.long), torch.full(shape, -torch.inf)
        return Lists(items, scores, ~self.known_to_the_model(rows))

    def _reranked(self, scores: Tensor, k: int) -> Tensor:
        if self.categories is None:
            return scores
        weight, candidates = self.config["mmr_weight"], self.config["mmr_candidates"]
        return maximal_marginal_relevance(scores, self.categories, weight, candidates, k)

    def _masked_scores(self, rows: Histories, filter_seen: bool, allowed: Tensor | None) -> Tensor:
        device, known = self.config["device"], self.known_to_the_model(rows)
        scores = self.popularity.to(device).repeat(len(rows), 1)
        if bool(known.any()):
            scores[known.to(device)] = self.scores(rows.part(torch.nonzero(known).squeeze(-1)))
        if allowed is not None:
            scores[:, ~allowed.to(device)] = -torch.inf
        if filter_seen:
            row = torch.repeat_interleave(torch.arange(len(rows)), rows.counts)
            scores[row.to(device), rows.items.to(device)] = -torch.inf
        return scores
