"""A trained model in use: lists in the user's own ids."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from recbole_diffusion.config.roles import that_count
from recbole_diffusion.config.settings import Settings, UserError, shown
from recbole_diffusion.recommend.accuracy import accuracy
from recbole_diffusion.recommend.explaining import Explanation, explained
from recbole_diffusion.recommend.fitting import fit
from recbole_diffusion.recommend.histories import (
    Histories,
    check_columns,
    of_anybody,
    of_users,
    token_of,
    user_ids,
)
from recbole_diffusion.recommend.index import EXACT, KINDS, Index
from recbole_diffusion.recommend.loading import load_model, read_checkpoint
from recbole_diffusion.recommend.ranking import Lists, Ranker
from recbole_diffusion.recommend.tables import lists_table, named, steps_table
from recbole_diffusion.recommend.vectors import index_of, item_vectors, user_vectors
from recbole_diffusion.storage import checkpoint


def load(path: str | Path, model: str | None = None, **settings: Any) -> Recommender:
    """The trained model of a run, from its checkpoint alone.

    Args:
        path: ``NAME-best.safetensors``.
        model: ``package.module:Class``, for a model of another package that is not registered.
        settings: settings of generation (``sampling_steps``, ``num_channels``, ``eval_seed``, ...), ``mmr_weight``, and
            of speed and place (``use_gpu``, ``max_cells``); see docs/settings.md.

    Raises:
        UserError: it is no checkpoint with interactions, or a setting cannot be changed after training.
    """
    return Recommender(path, read_checkpoint(path), settings, model)


class Recommender:
    """Recommends items by a trained model. Made by :func:`load` or :meth:`fit`.

    ``result`` is what :func:`recbole_diffusion.quick_start.run` returned, after :meth:`fit`.
    """

    result: dict[str, Any] | None = None

    def __init__(self, path: str | Path, state: dict[str, Any], settings: Settings, model: str | None = None) -> None:
        self.path, self._state, self._settings, self._model = str(path), state, dict(settings), model
        self._ranker, self._indexes = Ranker(load_model(state, path, settings, model)), dict[str, Index]()
        vocabulary = self._ranker.loaded.vocabulary
        self._items = {token: index for index, token in enumerate(vocabulary.items) if index}
        self._users = {token: index for index, token in enumerate(vocabulary.users) if index}
        ids = state.get("ids")
        ids = ids if isinstance(ids, dict) else {}
        self._item_names = named(vocabulary.items, ids.get("item"))
        self._user_names = named(vocabulary.users, ids.get("user"))

    @classmethod
    def fit(
        cls,
        interactions: pd.DataFrame,
        model: str = "DiffDiv",
        items: pd.DataFrame | None = None,
        preset: str | None = None,
        **settings: Any,
    ) -> Recommender:
        """Train a model on a table. The last two interactions of each user choose the best epoch and test it.

        Args:
            interactions: ``user``, ``item``, and perhaps ``time``, in seconds or as dates; without it, the rows are in
                the order of time.
            model: name of a model.
            items: ``item``, and ``title`` or ``category`` (a text, or a list of texts) or both.
            preset: ``default`` or ``paper``.
            settings: any settings of a run, such as ``epochs=20``.

        Raises:
            UserError: a column or a value is missing, or a setting is not allowed.
        """
        state, result = fit(interactions, model, items, settings, preset)
        made = cls(result["checkpoint"], state, {})
        made.result = result
        return made

    @property
    def model(self) -> Any:
        """The torch module, in evaluation mode."""
        return self._ranker.model

    @property
    def users(self) -> list[Any]:
        """The users of the data set, in the order of :meth:`user_vectors`."""
        return self._user_names[1:].tolist()

    @property
    def items(self) -> list[Any]:
        """The items of the catalogue."""
        return self._item_names[1:].tolist()

    def get_params(self) -> dict[str, Any]:
        """The settings of training and generation that can change a result."""
        return that_count(self._ranker.config.final_config_dict)

    def __repr__(self) -> str:
        config = self._ranker.config
        return (
            f"Recommender({config['model']} of {config['dataset']}, preset {config['preset']}: "
            f"{len(self._users):,} users, {len(self._items):,} items)"
        )

    def with_settings(self, **settings: Any) -> Recommender:
        """The same trained model with other settings; see :func:`load`. It is itself if nothing changes."""
        if not settings:
            return self
        return Recommender(self.path, self._state, {**self._settings, **settings}, self._model)

    def save(self, path: str | Path) -> None:
        """Write a checkpoint that :func:`load` reads. It contains the interactions of the users."""
        checkpoint.save(self._state, path)

    def recommend(
        self,
        users: Iterable[Any] | None = None,
        histories: Any = None,
        k: int = 10,
        filter_seen: bool = True,
        allow: Iterable[Any] | None = None,
        block: Iterable[Any] | None = None,
        channels: int | None = None,
        seed: int | None = None,
        index: str = EXACT,
        **settings: Any,
    ) -> pd.DataFrame:
        """The ``k`` best items for each user.

        Args:
            users: users of the data set; by default all of them, if there are no ``histories``.
            histories: of anybody: a DataFrame with the columns ``user`` and ``item``, and perhaps ``time``; a mapping
                from user to items, the oldest first; or a list of lists of items, whose users are 0, 1, ...
            k: length of the lists.
            filter_seen: leave out the items of the user's history.
            allow, block: items that alone may be listed, and items that may not.
            channels, seed: the settings ``num_channels`` and ``eval_seed``.
            index: ``exact``, or ``hnsw`` or ``ivf``: faster where there are many items, and may miss some (faiss).
            settings: other settings, as for :func:`load`.

        Returns:
            One row per listed item: ``user``, ``item``, ``rank`` (from 1), ``score``; ``title`` if the model knows
            titles; and ``by``: ``model``, or ``popularity`` for a user of whom the model knows nothing.

        Raises:
            UserError: a user or item is unknown, or an argument is not allowed.
        """
        named = {"num_channels": channels, "eval_seed": seed}
        other = self.with_settings(**{key: value for key, value in named.items() if value is not None}, **settings)
        rows = self.rows(users, histories)
        return other.frame(rows, other.lists(rows, k, filter_seen, allow, block, index))

    def rows(self, users: Iterable[Any] | None = None, histories: Any = None) -> Histories:
        """The histories of ``users`` or those given, as for :meth:`recommend`."""
        if histories is not None:
            if users is not None:
                raise UserError("users and histories: give one of them.")
            rows = of_anybody(histories, self._items, self._users)
            if rows.unknown:
                total = rows.unknown + len(rows.items)
                some = f"{rows.unknown:,} of {total:,} items are unknown, such as {shown(rows.example)}, and left out."
                self.model.logger.warning(f"histories: {some}")
            if not self._ranker.sequential and bool((rows.users == 0).any()):
                raise UserError(
                    f"histories: {self._ranker.config['model']} knows users only by their ids, not by a history. Give "
                    "users of the data set, or train a sequential model."
                )
            return rows
        if users is None:
            ids, names = torch.arange(1, len(self._user_names)), self._user_names[1:].tolist()
        else:
            ids, names = user_ids(users, self._users)
        return of_users(self._ranker.loaded.known, ids, names)

    def lists(
        self,
        rows: Histories,
        k: int = 10,
        filter_seen: bool = True,
        allow: Iterable[Any] | None = None,
        block: Iterable[Any] | None = None,
        index: str = EXACT,
        after_batch: Callable[[int], None] | None = None,
    ) -> Lists:
        """The lists of some rows, in ids of the model; see :meth:`recommend`. ``after_batch`` gets numbers of rows."""
        if type(k) is not int or k < 1:
            raise UserError(f"k={shown(k)}: must be a whole number >= 1.")
        if index not in KINDS:
            raise UserError(f"index={index!r}: must be one of {', '.join(KINDS)}.")
        ranker, allowed = self._ranker, self._allowed(allow, block)
        if index == EXACT:
            return ranker.lists(rows, k, filter_seen, allowed, after_batch)
        if allowed is not None or ranker.categories is not None:
            raise UserError(f"index={index!r}: cannot be combined with allow, block or mmr_weight. Take index='exact'.")
        if index not in self._indexes:
            self._indexes[index] = index_of(ranker, index)
        return ranker.lists_by_index(
            rows, k, filter_seen, self._indexes[index], lambda these: user_vectors(ranker, these), after_batch
        )

    def _allowed(self, allow: Iterable[Any] | None, block: Iterable[Any] | None) -> Tensor | None:
        if allow is None and block is None:
            return None
        allowed = torch.ones(len(self._item_names), dtype=torch.bool)
        if allow is not None:
            allowed[:] = False
            allowed[self._item_ids("allow", allow)] = True
        if block is not None:
            allowed[self._item_ids("block", block)] = False
        return allowed

    def _item_ids(self, argument: str, items: Iterable[Any]) -> list[int]:
        if isinstance(items, str):
            raise UserError(f"{argument}={items!r}: must be a list of items.")
        ids = [(item, self._items.get(token_of(item))) for item in items]
        unknown = [item for item, index in ids if index is None]
        if unknown:
            raise UserError(f"{argument}: {shown(unknown[0])} is not an item of the data set ({len(unknown):,} such).")
        return [index for _, index in ids if index is not None]

    def explain(
        self, users: Iterable[Any] | None = None, histories: Any = None, k: int = 10, nearest: int = 5, **settings: Any
    ) -> Explanation:
        """Where the items of lists come from; for models that generate an embedding.

        Args:
            users, histories, k, settings: as for :meth:`recommend`, with whose defaults the lists are made.
            nearest: how many items to name at each step.
        """
        other, rows = self.with_settings(**settings), self.rows(users, histories)
        lists = other.lists(rows, k)
        kind, origins, steps = explained(other._ranker, rows, lists, nearest)
        frame = other.frame(rows, lists)
        frame[kind] = origins.numpy()[np.nonzero(lists.items.numpy())]
        return Explanation(frame, steps_table(rows, steps, self._item_names))

    def user_vectors(self, users: Iterable[Any] | None = None, histories: Any = None, **settings: Any) -> np.ndarray:
        """The vectors whose inner products with :meth:`item_vectors` are the scores, [users, dim] float32.

        With several channels [users, channels, dim]; then the largest product counts.
        """
        other = self.with_settings(**settings)
        return user_vectors(other._ranker, other.rows(users, histories)).numpy()

    def item_vectors(self) -> np.ndarray:
        """The embeddings of :attr:`items`, [items, dim] float32."""
        return item_vectors(self._ranker).numpy()

    def evaluate(
        self,
        test: pd.DataFrame,
        histories: Any = None,
        metrics: Sequence[str] = ("Hit", "NDCG", "MRR"),
        topk: Sequence[int] = (10,),
        filter_seen: bool = False,
        **settings: Any,
    ) -> dict[str, float]:
        """Accuracy for held-out interactions of your own: the whole catalogue is ranked.

        Args:
            test: ``user`` and ``item``; a user may have several items. An item that the model does not know is never
                found.
            histories: what the users of ``test`` had taken before, as for :meth:`recommend`; default: their
                interactions in the model's data set.
            metrics, topk: RecBole's metrics of accuracy, and lengths of the lists.
            filter_seen: do not rank what is in the history.
            settings: as for :meth:`recommend`.

        Returns:
            ``ndcg@10`` and so on: means over users, not rounded.
        """
        other = self.with_settings(**settings)
        check_columns(test, ("user", "item"), "test")
        rows = other.rows(None if histories is not None else list(dict.fromkeys(test["user"])), histories)
        unknown = sum(token_of(item) not in self._items for item in test["item"])
        if unknown:
            self.model.logger.warning(f"test: {unknown:,} of {len(test):,} items are unknown; they are never found.")
        lists = other.lists(rows, max(topk, default=1), filter_seen)
        return accuracy(other._ranker.config, lists, rows, test, self._items, metrics, topk)

    def frame(self, rows: Histories, lists: Lists) -> pd.DataFrame:
        """Lists as a table, as :meth:`recommend` returns it."""
        return lists_table(rows, lists, self._item_names, self._ranker.loaded.known.titles)
