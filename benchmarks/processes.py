"""How much faster several processes train and rank than one, pair by pair.

    OMP_NUM_THREADS=1 torchrun --standalone --nproc_per_node=2 benchmarks/processes.py --model=M --dataset=D
        [--data_path=DIR] [--rounds=5] [--steps=20] [--key=value ...]

In each round the first process makes ``--steps`` steps of training alone, while the others wait; then all make as many
together, on batches of the same size; then the first ranks the test split alone, and all rank it together. The ratios
are those of the same round. The loading of the batches is part of the time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from recbole_diffusion import processes
from recbole_diffusion.console.arguments import read_arguments
from recbole_diffusion.quick_start import Prepared, prepare, request
from recbole_diffusion.training.processes import over_processes


class Side:
    """A model that is trained and ranks. Both sides have the same batches."""

    def __init__(self, prepared: Prepared) -> None:
        self.prepared = prepared
        self.batches = self._forever()
        prepared.trainer.eval_collector.data_collect(prepared.loaders.train)

    def _forever(self) -> Any:
        while True:
            yield from self.prepared.loaders.train

    def train(self, steps: int) -> None:
        model, trainer = self.prepared.model.train(), self.prepared.trainer
        loss_func = over_processes(model.calculate_loss, model, trainer.config["TARGET_LIST_FIELD"])
        for _ in range(steps):
            losses = loss_func(next(self.batches).to(trainer.device))
            trainer.optimizer.zero_grad()
            (sum(losses) if isinstance(losses, tuple) else losses).backward()
            trainer.optimizer.step()

    def rank(self) -> None:
        self.prepared.trainer.evaluate(self.prepared.loaders.test, load_best_model=False)


def seconds(work: Callable[[], None], alone: bool) -> float:
    """How long ``work`` takes, in the first process alone or in all together."""
    processes.wait()
    start = time.perf_counter()
    if not alone:
        work()
    elif processes.rank() == 0:
        with processes.alone():
            work()
    processes.wait()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    known, rest = parser.parse_known_args()
    wanted = request(known.model, known.dataset, read_arguments(rest), preset=None)
    config = wanted.config()
    with processes.joined(config):
        one, all_ = (Side(prepare(wanted.resolved, wanted.config())) for _ in range(2))
        works = {
            "train": [(lambda: one.train(known.steps), True), (lambda: all_.train(known.steps), False)],
            "rank": [(one.rank, True), (all_.rank, False)],
        }
        for pair in works.values():  # the first time is slower
            for work, alone in pair:
                seconds(work, alone)
        found = np.array(
            [[[seconds(*side) for side in pair] for pair in works.values()] for _ in range(known.rounds)]
        )  # [rounds, works, sides]
        if processes.rank() == 0:
            number = processes.count()
            print(f"{known.model} on {known.dataset}, batches of {config['train_batch_size']}, ", end="")
            print(f"{torch.get_num_threads()} thread a process, {known.rounds} rounds")
            print(f"| | 1 process | {number} processes | times as fast |\n|---|---|---|---|")
            for name, times in zip(works, found.transpose(1, 2, 0), strict=True):
                ratio = times[0] / times[1]
                what = f"{known.steps} steps" if name == "train" else "the test split"
                middle = [f"{np.median(side):.2f} s" for side in times]
                print(f"| {what} | {middle[0]} | {middle[1]} | {np.median(ratio):.2f}", end="")
                print(f" ({ratio.min():.2f}–{ratio.max():.2f}) |")


if __name__ == "__main__":
    main()
