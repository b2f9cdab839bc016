"""What a trained model knows of its data: the interactions of each user, and the titles and categories of items.

It is in the checkpoint, so that recommendations need no other file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from recbole.utils import ModelType
from torch import Tensor

from recbole_diffusion.config.settings import UserError
from recbole_diffusion.data.items import item_column_if_any
from recbole_diffusion.data.times import file_times


class Known(NamedTuple):
    """The events of the user with id u are ``items[starts[u] : starts[u + 1]]``, in the order of the data. User 0
    has none.

    They are all of the data set: also the held-out ones, which a list for tomorrow has to know.
    """

    starts: Tensor  # [users + 1], int64; users with the padding
    items: Tensor  # ids, [events], int32
    times: Tensor | None  # in seconds as in the file, [events], float64; None if the model does not read times
    titles: list[str] | None  # of the item ids, with the padding
    categories: list[str] | None  # of the item ids, with the padding
    separator: str | None  # between the categories of an item; None: an item has one

    @classmethod
    def of(cls, config: Any, dataset: Any, with_times: bool) -> Known | None:
        """What ``dataset`` says, after its loaders are built; None if it has histories, but no whole sequences."""
        events = getattr(dataset, "events", None)
        if events is None:
            if config["MODEL_TYPE"] == ModelType.SEQUENTIAL:
                return None
            events = dataset.inter_feat
        users = events[dataset.uid_field]
        order = slice(None) if bool((users[1:] >= users[:-1]).all()) else users.argsort(stable=True)
        times = None
        if with_times:
            times = file_times(dataset, events[dataset.time_field][order])
        tokens = [str(token) for token in dataset.field2id_token[dataset.iid_field]]
        title, category = (item_column_if_any(config, setting) for setting in ("title_field", "category_field"))
        return cls(
            torch.searchsorted(users[order].contiguous(), torch.arange(dataset.user_num + 1)),
            events[dataset.iid_field][order].to(torch.int32),
            times,
            None if title is None else [title.texts.get(token, "") for token in tokens],
            None if category is None else [category.texts.get(token, "") for token in tokens],
            config["seq_separator"] if category is not None and category.kind == "token_seq" else None,
        )

    @classmethod
    def read(cls, state: Mapping[str, Any], where: str) -> Known:
        """From a checkpoint with ``items`` and ``users``.

        Raises:
            UserError: it has no interactions, or they do not fit the rest.
        """
        parts = state.get("known")
        if parts is None:
            raise UserError(
                f"{where}: has no interactions of users. It is the 'last' of a run or of an earlier version, or its "
                "data set keeps no whole sequences (benchmark_filename). Take the 'best' of a run."
            )
        try:
            known = cls(**parts)
            fits = known._fits(len(state["users"]), len(state["items"]))
        except (TypeError, AttributeError, RuntimeError):
            fits = False
        if not fits:
            raise UserError(f"{where}: is no checkpoint of this version: its 'known' does not fit its users and items.")
        return known

    def _fits(self, users: int, items: int) -> bool:
        starts = self.starts
        return (
            starts.dtype == torch.int64
            and starts.shape == (users + 1,)
            and int(starts[0]) == 0
            and int(starts[-1]) == len(self.items)
            and bool((starts[1:] >= starts[:-1]).all())
            and self.items.dtype == torch.int32
            and self.items.dim() == 1
            and (not len(self.items) or (int(self.items.min()) > 0 and int(self.items.max()) < items))
            and (self.times is None or (self.times.dtype == torch.float64 and self.times.shape == self.items.shape))
            and all(
                texts is None or (len(texts) == items and all(isinstance(text, str) for text in texts))
                for texts in (self.titles, self.categories)
            )
            and (self.separator is None or isinstance(self.separator, str))
        )
