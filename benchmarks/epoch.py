"""Seconds of a training epoch of WindowSASRec, one change after the other, in one process and in turn.

    python benchmarks/epoch.py --dataset=D [--data_path=DIR] [--rounds=3] [--seconds=6] [--threads=1]

Each side trains ``--seconds`` long in each round. An epoch is its time per batch times its number of batches; the
ratios are those of the same round. ``before`` has RecBole's dropout, GELU and Adam.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch
from recbole.model.layers import FeedForward
from recbole.trainer import Trainer
from torch import nn

from recbole_diffusion.model.layers import Dropout
from recbole_diffusion.quick_start import Prepared, prepare, request

_WHOLE = {"num_negatives": None, "negative_sampler": None, "catalogue_loss": "softmax", "gbce_t": None}
# Each contains the changes of the second.
SIDES: dict[str, dict[str, Any]] = {
    "before": {"train_batch_size": 16, **_WHOLE},
    "fused Adam, cheaper dropout and GELU": {"train_batch_size": 16, **_WHOLE},
    "128 windows": {"train_batch_size": 128, **_WHOLE},
    "128 windows, in-batch negatives": {
        **_WHOLE,
        "train_batch_size": 128,
        "num_negatives": 4096,
        "negative_sampler": "in_batch",
    },
    "64 windows, in-batch negatives": {
        **_WHOLE,
        "train_batch_size": 64,
        "num_negatives": 4096,
        "negative_sampler": "in_batch",
    },
    "128 windows, 256 uniform negatives": {**_WHOLE, "train_batch_size": 128, "num_negatives": 256},
}


def as_recbole(prepared: Prepared) -> None:
    """Give a model and its trainer RecBole's dropout, GELU and optimiser again."""
    for module in list(prepared.model.modules()):
        for name, child in module.named_children():
            if isinstance(child, Dropout):
                setattr(module, name, nn.Dropout(child.p))
        if isinstance(module, FeedForward):
            module.intermediate_act_fn = module.gelu
    prepared.trainer.optimizer = Trainer._build_optimizer(prepared.trainer)


class Side:
    """One way to train; :meth:`epoch_seconds` goes on where it stopped."""

    def __init__(self, name: str, dataset: str, user: dict[str, Any]) -> None:
        wanted = request("WindowSASRec", dataset, {**user, **SIDES[name]}, preset=None)
        self.prepared = prepare(wanted.resolved, wanted.config())
        if name == "before":
            as_recbole(self.prepared)
        self.prepared.model.train()
        self.batches = self._forever()

    def _forever(self) -> Any:
        while True:
            yield from self.prepared.loaders.train

    def epoch_seconds(self, seconds: float) -> float:
        model, optimizer = self.prepared.model, self.prepared.trainer.optimizer
        self._step(model, optimizer)
        start, done = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            self._step(model, optimizer)
            done += 1
        return (time.perf_counter() - start) / done * len(self.prepared.loaders.train)

    def _step(self, model: Any, optimizer: Any) -> None:
        optimizer.zero_grad()
        model.calculate_loss(next(self.batches)).backward()
        optimizer.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--data_path")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    user = {"data_path": arguments.data_path} if arguments.data_path else {}
    sides = {name: Side(name, arguments.dataset, user) for name in SIDES}
    found = np.array(
        [[side.epoch_seconds(arguments.seconds) for side in sides.values()] for _ in range(arguments.rounds)]
    )
    ratios = found[:, :1] / found
    print("| | s per epoch | times as fast |\n|---|---|---|")
    for name, seconds, ratio in zip(sides, found.T, ratios.T, strict=True):
        spread = "" if name == "before" else f" ({ratio.min():.1f}–{ratio.max():.1f})"
        print(f"| {name} | {np.median(seconds):.1f} | {np.median(ratio):.1f}{spread} |")


if __name__ == "__main__":
    main()
