"""Finds items with large inner products without looking at all of them, by faiss (the extra ``index``)."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from recbole_diffusion.config.settings import UserError

EXACT, KINDS = "exact", ("exact", "hnsw", "ivf")
_NEIGHBOURS, _BUILD, _SEARCH = 32, 100, 64  # of HNSW: links of an item, and how widely it builds and searches
_LOOKED_AT = 0.05  # of IVF: share of the lists that a search looks at
_LISTS_PER_ROOT = 4  # of IVF: lists for each square root of the number of items, as faiss advises
_PER_LIST = 40  # items for each list from which the lists are learned


class Index:
    """An index of the items' vectors.

    Args:
        vectors: of items 1 ... N, [N, dim].
        kind: ``hnsw`` (a graph of neighbours) or ``ivf`` (lists around centres).

    Raises:
        UserError: faiss is not installed.
    """

    def __init__(self, vectors: Tensor, kind: str) -> None:
        if find_spec("faiss") is None:
            raise UserError(f"index={kind!r}: needs the package faiss-cpu. Install it (pip install faiss-cpu).")
        import faiss

        faiss.omp_set_num_threads(torch.get_num_threads())
        self._vectors = vectors.float().contiguous()
        array = self._vectors.numpy()
        items, dim = array.shape
        self._index: Any
        self.dim = dim
        if kind == "hnsw":
            self._index = faiss.IndexHNSWFlat(dim, _NEIGHBOURS, faiss.METRIC_INNER_PRODUCT)
            self._index.hnsw.efConstruction, self._index.hnsw.efSearch = _BUILD, _SEARCH
        else:
            lists = max(1, min(int(_LISTS_PER_ROOT * items**0.5), items // _PER_LIST))
            centres = faiss.IndexFlatIP(dim)
            self._index = faiss.IndexIVFFlat(centres, dim, lists, faiss.METRIC_INNER_PRODUCT)
            self._index.own_fields = False
            self._centres = centres  # faiss keeps no reference to it
            self._index.nprobe = max(1, round(_LOOKED_AT * lists))
            self._index.train(array)
        self._index.add(array)

    def search(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The items with the largest products: scores and ids, both [rows, k]; item 0 with -inf where none was found.

        Args:
            queries: [rows, dim], or [rows, channels, dim]: then the largest product of the channels counts.
        """
        rows, channels = len(queries), queries.shape[1] if queries.dim() == 3 else 1
        flat = queries.reshape(rows * channels, -1).float().contiguous().numpy()
        found, places = (torch.from_numpy(part) for part in self._index.search(flat, min(k, self._index.ntotal)))
        items = (places + 1).view(rows, -1)  # [rows, channels * k]; faiss says -1 where it found none
        scores = found.view(rows, -1).masked_fill(items == 0, -torch.inf)
        if channels > 1:
            items = items.sort(dim=1).values
            again = torch.zeros_like(items, dtype=torch.bool)
            again[:, 1:] = items[:, 1:] == items[:, :-1]  # several channels have found it
            # One channel may find an item that has a larger product with another one, which has missed it.
            of_channels = torch.einsum("rcd,rid->rci", queries.float(), self._vectors[items - 1])
            scores = of_channels.amax(dim=1).masked_fill(again | (items == 0), -torch.inf)
        return best_of(scores, items, k)


def best_of(scores: Tensor, items: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` best of some items [rows, some]: scores and ids, [rows, k]; item 0 with -inf fills up."""
    best, place = scores.topk(min(k, scores.shape[1]), dim=1)
    found = items.gather(1, place).masked_fill(best.isneginf(), 0)
    missing = k - best.shape[1]
    if missing > 0:
        best = torch.nn.functional.pad(best, (0, missing), value=-torch.inf)
        found = torch.nn.functional.pad(found, (0, missing))
    return best, found
