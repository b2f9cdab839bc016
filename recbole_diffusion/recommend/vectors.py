"""The vectors whose inner products are a model's scores."""

from __future__ import annotations

import torch
from torch import Tensor

from recbole_diffusion.config.settings import UserError
from recbole_diffusion.model.embedding import EmbeddingDiffusionRecommender
from recbole_diffusion.model.next_item import NextItemRecommender
from recbole_diffusion.recommend.histories import Histories, of_users
from recbole_diffusion.recommend.index import Index
from recbole_diffusion.recommend.ranking import Ranker

_ROWS_AT_ONCE = 1024
_ROUNDING = 1e-3  # of a score, by which a product may differ


@torch.no_grad()
def user_vectors(ranker: Ranker, rows: Histories) -> Tensor:
    """What is multiplied with the item vectors: [rows, dim], or [rows, channels, dim] with several channels.

    Raises:
        UserError: the model's scores are no inner products with item vectors.
    """
    if not len(rows):
        raise UserError("users: there is nobody to compute a vector for.")
    model, found = ranker.model, []
    for part in torch.arange(len(rows)).split(_ROWS_AT_ONCE):
        batch = ranker.batch(rows.part(part))
        if isinstance(model, EmbeddingDiffusionRecommender):
            vectors = model.generate(batch)
            vectors = vectors.squeeze(1) if vectors.shape[1] == 1 else vectors
        elif isinstance(model, NextItemRecommender):
            vectors = model(batch)
        elif ranker.sequential and hasattr(model, "item_embedding"):
            vectors = model(batch[model.ITEM_SEQ], batch[model.ITEM_SEQ_LEN])
        elif hasattr(model, "user_embedding") and hasattr(model, "item_embedding"):
            vectors = model.user_embedding(batch[model.USER_ID])
        else:
            raise UserError(f"{type(model).__name__} has no vectors of users.")
        found.append(vectors.float().cpu())
    return torch.cat(found)


def item_vectors(ranker: Ranker) -> Tensor:
    """The embeddings of the items 1 ... N, [N, dim].

    Raises:
        UserError: the model has none.
    """
    table = getattr(ranker.model, "item_embedding", None)
    if table is None:
        raise UserError(f"{type(ranker.model).__name__} has no vectors of items.")
    vectors: Tensor = table.weight.detach()[1 : ranker.n_items].float().cpu()
    return vectors


def index_of(ranker: Ranker, kind: str) -> Index:
    """An index of the items for :meth:`Ranker.lists`.

    Raises:
        UserError: the model's scores are no inner products.
    """
    model, known = ranker.model, ranker.loaded.known
    users = torch.nonzero(known.starts.diff() > 0).flatten()[:1]
    items, row = item_vectors(ranker), of_users(known, users, users.tolist())
    products = user_vectors(ranker, row) @ items.T
    products = products.amax(dim=1) if products.dim() == 3 else products
    scores = ranker.scores(row)[:, 1:].cpu()
    if not torch.allclose(products, scores, rtol=_ROUNDING, atol=_ROUNDING * float(scores.abs().max())):
        raise UserError(
            f"index={kind!r}: the scores of {type(model).__name__} with these settings are no inner products of "
            "vectors. Take index='exact'."
        )
    return Index(items, kind)
