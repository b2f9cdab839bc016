"""The place of a training within an epoch: the batches that are done, their losses, and the random generators."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from recbole_diffusion import processes
from recbole_diffusion.config.settings import UserError

RandomState = dict[str, Any]
Losses = tuple[Any, ...]  # the terms of the loss, one of them or more


class Place(NamedTuple):
    """How far an epoch is.

    - ``done``: number of batches that the model has been trained on.
    - ``sums``: the sum of each term of the loss over these batches; None at the start.
    - ``start``, ``now``: the random generators when the epoch began, and after these batches.
    """

    done: int
    sums: list[float] | None
    start: RandomState
    now: RandomState


class Batches:
    """The batches of an epoch, from a place in it.

    The batches before the place are drawn again, from the random state that the epoch began with, and thrown away: so
    any loader can go on, and any sampling of negatives. Then the generators get the state that they had at the place.

    Args:
        loader: the loader.
        place: where to begin; None is the start of the epoch.
        after_step: called when the model has been trained on a batch.
        broken: called if the loader fails. It may raise a better error.
    """

    def __init__(
        self,
        loader: Any,
        place: Place | None = None,
        after_step: Callable[[], None] = lambda: None,
        broken: Callable[[], None] = lambda: None,
    ) -> None:
        self.loader, self._place, self._after_step, self._broken = loader, place, after_step, broken
        self.done = place.done if place else 0
        self._sums = None if place is None or place.sums is None else list(place.sums)
        self._pending: list[Losses] = []
        self._start: RandomState | None = None

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        if self._place is not None:
            set_random_state(self._place.start, self.loader)
        self._start = random_state(self.loader)
        source = iter(self.loader)
        if self._place is not None:
            for _ in range(self._place.done):
                next(source)
            set_random_state(self._place.now, self.loader)
        while True:
            try:
                batch = next(source)
            except StopIteration:
                return
            except RuntimeError:  # one of its processes has been ended
                self._broken()
                raise
            yield batch
            self.done += 1
            self._after_step()

    def add(self, losses: Any) -> None:
        """The losses of the next batch. Their values are not read before they are needed, which would wait for them."""
        terms = losses if isinstance(losses, tuple) else (losses,)
        self._pending.append(tuple(term.detach() if isinstance(term, Tensor) else term for term in terms))

    def sums(self) -> list[float] | None:
        """The sum of each term over all batches so far, added up in the order of the batches, as RecBole does."""
        for terms in self._pending:
            values = [float(term) for term in terms]
            self._sums = values if self._sums is None else [a + b for a, b in zip(self._sums, values, strict=False)]
        self._pending = []
        return self._sums

    def place(self) -> Place:
        """The present place."""
        assert self._start is not None
        return Place(self.done, self.sums(), self._start, random_state(self.loader))

    @property
    def is_resumed(self) -> bool:
        return self._place is not None


def random_state(loader: Any) -> RandomState:
    """The state of every random generator: of Python, numpy and torch, and those of the loader."""
    version, words, gauss = random.getstate()
    numpy_state: Mapping[str, Any] = np.random.get_state(legacy=False)
    return {
        "python": [version, torch.tensor(words), gauss],
        "numpy": {
            "key": torch.from_numpy(numpy_state["state"]["key"].astype(np.int64)),
            "pos": int(numpy_state["state"]["pos"]),
            "has_gauss": int(numpy_state["has_gauss"]),
            "gauss": float(numpy_state["gauss"]),
        },
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        "loader": [generator.get_state() for generator in _generators(loader)],
    }


def set_random_state(state: RandomState, loader: Any) -> None:
    """Set every random generator as :func:`random_state` found it.

    Raises:
        UserError: the loader has more or fewer generators.
    """
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words.tolist()), gauss))
    of_numpy = state["numpy"]
    np.random.set_state(
        ("MT19937", of_numpy["key"].numpy().astype(np.uint32), of_numpy["pos"], of_numpy["has_gauss"],
         of_numpy["gauss"])
    )  # fmt: skip
    torch.set_rng_state(state["torch"])
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    generators = _generators(loader)
    if len(generators) != len(state["loader"]):
        raise UserError(
            f"the checkpoint has the state of {len(state['loader'])} generators of batches; this run has "
            f"{len(generators)}."
        )
    for generator, own in zip(generators, state["loader"], strict=True):
        generator.set_state(own)


def others_states(random: RandomState, place: Place | None) -> list[list[RandomState]]:
    """What ``last`` keeps of the other processes of a training: they differ from the first only in random numbers."""
    return processes.gathered([random, *([place.start, place.now] if place else [])])[1:]


def take_own(training: dict[str, Any], where: str) -> None:
    """Put what :func:`others_states` has of this process into the place of the first one's.

    Raises:
        UserError: another number of processes has written ``last``.
    """
    others = training.get("others", [])
    if len(others) + 1 != processes.count():
        made = "one process" if not others else f"{len(others) + 1} processes"
        raise UserError(f"{where}: is a training by {made}; it cannot go on by {processes.count()}.")
    if processes.rank() > 0:
        training["random"], *of_place = others[processes.rank() - 1]
        if of_place:
            training["place"].update(zip(("start", "now"), of_place, strict=True))


def _generators(loader: Any) -> list[torch.Generator]:
    """The generators of a loader and of the loaders in it (RecBole's loader of knowledge graphs has two)."""
    own = [part for part in vars(loader).values() if isinstance(part, torch.Generator)]
    inner = [part for part in vars(loader).values() if isinstance(part, DataLoader)]
    return own + [generator for part in inner for generator in _generators(part)]
