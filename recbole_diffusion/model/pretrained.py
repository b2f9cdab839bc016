"""Reads the item table that another model has learned."""

from __future__ import annotations

import torch
from torch import Tensor

from recbole_diffusion.config.settings import UserError
from recbole_diffusion.storage import checkpoint

_TABLE = "item_embedding.weight"


def load_item_table(path: str, tokens: list[str], dim: int) -> Tensor:
    """The item table of a checkpoint, with its rows in the order of ``tokens``.

    Args:
        path: a checkpoint of this package whose model has an ``item_embedding`` (WindowSASRec, SASRec, ours).
        tokens: item tokens in the order of this data set's ids. The first is the padding item.
        dim: the embedding size that the table must have.

    Returns:
        [len(tokens), dim]; the first row is 0.

    Raises:
        UserError: the file cannot be read, has no item table, has one of another width, or lacks some of the items.
    """
    state = checkpoint.load_named("pretrained_item_table", path)
    if _TABLE not in state["state_dict"]:
        raise UserError(f"pretrained_item_table={path!r}: the {state['config'].get('model')} in it has no item table.")
    table = state["state_dict"][_TABLE]
    if table.shape[1] != dim:
        raise UserError(f"pretrained_item_table={path!r}: its width is {table.shape[1]}, embedding_size is {dim}.")
    row = {token: index for index, token in enumerate(state["items"])}
    missing = [token for token in tokens if token not in row]
    if missing:
        raise UserError(
            f"pretrained_item_table={path!r}: {len(missing)} items are not in it; the first is {missing[0]!r}."
        )
    table = table[torch.tensor([row[token] for token in tokens])].clone()
    table[0] = 0
    return table
