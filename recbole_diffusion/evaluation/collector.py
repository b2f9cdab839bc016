"""Collects the inputs of metrics: the recommended lists, and facts about items and training interactions."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice, zip_longest
from typing import Any

import torch
from recbole.evaluator import Collector
from recbole.evaluator.collector import DataStruct
from torch import Tensor

from recbole_diffusion import processes
from recbole_diffusion.config.settings import UserError
from recbole_diffusion.data.items import interaction_counts, item_column
from recbole_diffusion.evaluation.diversity import category_matrix, item_vectors
from recbole_diffusion.evaluation.rerank import maximal_marginal_relevance

_CATEGORY_TYPES = ("token", "token_seq")


class SafeCollector(Collector):
    """RecBole's collector, plus the inputs of our metrics. It does not crash on numbers and counters.

    ``data_collect`` gathers the facts that are the same for every evaluation. Only ``fit`` calls it, so call it with
    the training loader before you evaluate a checkpoint.

    - ``data.item_categories``: [n_items, n_categories] bool, from ``category_field``.
    - ``data.item_vectors``: [n_items, rank], :func:`~recbole_diffusion.evaluation.diversity.item_vectors`.
    - ``data.item_counts``: training interactions of each item, [n_items]. ``data.count_items``, RecBole's name, has the
      same numbers for every item of the catalogue.
    - ``data.num_items``: number of items of the catalogue, without the padding item.
    - ``lists.items``: number of different items in the lists of one evaluation, which have ``list_length`` items.

    Interactions are those of the training split, including the first of each user. RecBole leaves the first one out for
    sequential models, because they never predict it; then two models would have different popularities. With
    ``benchmark_filename`` RecBole keeps only the targets, so only these are counted.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.mmr_weight: float | None = config["mmr_weight"]
        self.list_length = int(config["valid_metric"].partition("@")[2] or max(self.topk))
        self._sizes: list[dict[str, int]] | None = None  # rows of each batch, if processes share an evaluation
        self._listed: Tensor | None = None  # whether each item was in a list, [n_items]; id 0 is no item

    @contextmanager
    def shared(self, loader: Any) -> Iterator[None]:
        """A context in which several processes share an evaluation: process r of N ranks the batches r, r + N, ...

        What they collect is put together in the order of the batches, in all of them. So each user is ranked once, in
        the same batch as in one process, and the metrics are the same numbers.
        """
        if processes.count() == 1 or not loader:
            yield
            return
        batches = loader.batch_sampler
        loader.__dict__["batch_sampler"] = _OwnBatches(batches)
        self._sizes = []
        try:
            yield
        finally:
            self._sizes, loader.__dict__["batch_sampler"] = None, batches

    def _put_together(self, sizes: list[dict[str, int]]) -> None:
        """Replace what this process has collected by what all have. ``sizes``: the rows of each of its batches."""
        data = self.data_struct
        split = {key: data[key].cpu().split([of_batch[key] for of_batch in sizes]) for key in (sizes or [{}])[0]}
        batches = [{key: split[key][number] for key in split} for number in range(len(sizes))]
        of_all = processes.gathered(batches)
        order = [batch for turn in zip_longest(*of_all) for batch in turn if batch is not None]
        for key in order[0]:
            data.set(key, torch.cat([batch[key] for batch in order]))
        listed = [of_one for of_one in processes.gathered(self._listed) if of_one is not None]
        self._listed = torch.stack([of_one.cpu() for of_one in listed]).any(dim=0) if listed else None

    def without_reranking(self) -> SafeCollector:
        """A second collector with the same facts. It does not re-rank."""
        other = copy.copy(self)
        other.mmr_weight, other._listed, other.data_struct = None, None, DataStruct()
        other.data_struct._data_dict.update(
            {key: value for key, value in self.data_struct._data_dict.items() if _is_fact(key)}
        )
        return other

    def data_collect(self, train_data: Any) -> None:
        super().data_collect(train_data)
        dataset, need = train_data._dataset, self.register.need
        if need("data.num_items"):
            self.data_struct.set("data.num_items", dataset.item_num - 1)
        if (categories := self.check(dataset)) is not None:
            self.data_struct.set("data.item_categories", categories)
        if need("data.item_counts") or need("data.count_items"):
            counts = interaction_counts(dataset)
            self.data_struct.set("data.item_counts", torch.from_numpy(counts))
            self.data_struct.set("data.count_items", Counter(dict(enumerate(counts.tolist()[1:], start=1))))
        if need("data.item_vectors"):
            self.data_struct.set("data.item_vectors", item_vectors(dataset.inter_matrix()))

    def check(self, dataset: Any) -> Tensor | None:
        """The categories of the items of ``dataset``, [n_items, n_categories]; None if nothing needs them.

        Raises:
            UserError: something needs them, and there are none.
        """
        if not self.register.need("data.item_categories") and self.mmr_weight is None:
            return None
        return item_categories(self.config, [str(token) for token in dataset.field2id_token[dataset.iid_field]])

    def rerank(self, scores: Tensor, k: int) -> Tensor:
        """Scores [users, n_items], re-ranked for lists of ``k`` items; unchanged if ``mmr_weight`` is None."""
        if self.mmr_weight is None:
            return scores
        categories = self.data_struct["data.item_categories"].to(scores.device)
        return maximal_marginal_relevance(scores, categories, self.mmr_weight, self.config["mmr_candidates"], k)

    def eval_batch_collect(
        self, scores_tensor: Tensor, interaction: Any, positive_u: Tensor, positive_i: Tensor
    ) -> None:
        scores_tensor = self.rerank(scores_tensor, max(self.topk))
        super().eval_batch_collect(scores_tensor, interaction, positive_u, positive_i)
        lists = None
        if self.register.need("rec.items"):
            lists = self.data_struct["rec.items"][-len(scores_tensor) :]  # a view: [batch, max k]
            # A list with too few other items is filled up with masked and unsampled ones. Id 0 is no item.
            lists[scores_tensor.gather(1, lists).isneginf()] = 0
        if scores_tensor.dim() == 2:  # else each score is a single prediction
            self._count_listed(scores_tensor, lists)
        if self._sizes is not None:
            before = {key: sum(of_batch[key] for of_batch in self._sizes) for key in self._collected()}
            self._sizes.append({key: len(self.data_struct[key]) - before[key] for key in before})

    def _collected(self) -> list[str]:
        """The keys of what is collected batch by batch."""
        return [key for key in self.data_struct._data_dict if not _is_fact(key)]

    def _count_listed(self, scores: Tensor, lists: Tensor | None) -> None:
        """Note the best ``list_length`` items: of ``lists`` [batch, max k] if given, else of ``scores``."""
        if self._listed is None:
            self._listed = torch.zeros(scores.shape[1], dtype=torch.bool, device=scores.device)
        if lists is None:
            best, items = scores.topk(self.list_length, dim=-1)
            items = items.masked_fill_(best.isneginf(), 0)
        else:
            items = lists[:, : self.list_length]
        self._listed[items] = True

    def get_data_struct(self) -> Any:
        """RecBole's method, without the facts: it would copy them to another device, which fails for numbers."""
        if self._sizes is not None:
            self._put_together(self._sizes)
        data = self.data_struct._data_dict
        facts = {key: data.pop(key) for key in list(data) if _is_fact(key)}
        collected = super().get_data_struct()
        data.update(facts)
        for key, value in facts.items():
            collected.set(key, value)
        if self._listed is not None:
            collected.set("lists.items", int(self._listed[1:].sum()))
            self._listed = None
        return collected


class _OwnBatches:
    """Those of ``batches`` that this process ranks. Its length is that of all: RecBole takes 0 for no data."""

    def __init__(self, batches: Any) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[Any]:
        return islice(self._batches, processes.rank(), None, processes.count())

    def __len__(self) -> int:
        return len(self._batches)


def _is_fact(key: str) -> bool:
    """Whether a resource is the same for every evaluation."""
    return key.startswith("data.") and key != "data.label"


def item_categories(config: Any, tokens: Sequence[str]) -> Tensor:
    """The categories of each item: [n_items, n_categories] bool.

    They come from the column ``category_field`` of the .item file. RecBole does not load this column: with item
    features it would rank every item of that file and drop interactions with other items, so a metric would change the
    results.

    Args:
        config: ``category_field``, and the place of the data set.
        tokens: the token of each item id, [n_items]. An item that is not in the file has no category.

    Raises:
        UserError: ``category_field`` is not set, there is no such column, it holds numbers, or no item has a category.
    """
    field = config["category_field"]
    if field is None:
        weight = config["mmr_weight"]
        what = f"metrics={config['metrics']}: metrics of categories need"
        what = what if weight is None else f"mmr_weight={weight}: re-ranking by categories needs"
        raise UserError(f"{what} category_field, a token or token_seq column of the data set's .item file; it is ~.")
    column = item_column(config, "category_field")
    if column.kind not in _CATEGORY_TYPES:
        raise UserError(
            f"category_field={field!r}: must be a column of type {' or '.join(_CATEGORY_TYPES)}; it is {column.kind}."
        )
    separator = config["seq_separator"] if column.kind == "token_seq" else None
    categories = category_matrix([column.texts.get(token, "") for token in tokens], separator)
    if not categories.any():
        raise UserError(f"category_field={field!r}: no item of {config['dataset']!r} has a value there.")
    return categories
