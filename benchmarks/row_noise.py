"""What it costs to rank with noise that belongs to a row, against noise from one generator in the order of the batch.

    python benchmarks/row_noise.py --dataset=ml-100k [--data_path=DIR] [--models DreamRec ...] [--steps 1 32]
        [--pairs 7]

Ranks the test split with untrained models, in one process, the two kinds of noise in turn; the ratio is of each pair.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recbole_diffusion.diffusion.noise import RowNoise
from recbole_diffusion.quick_start import Prepared, prepare, request


@contextlib.contextmanager
def from_one_generator() -> Iterator[None]:
    """Noise as torch draws it."""
    generator = torch.Generator().manual_seed(0)

    def normal(self: RowNoise, purpose: int, *size: int, t: Tensor | int = 0) -> Tensor:
        return torch.randn(len(self.keys), *size, generator=generator)

    before, RowNoise.normal = RowNoise.normal, normal  # type: ignore[method-assign]
    try:
        yield
    finally:
        RowNoise.normal = before  # type: ignore[method-assign]


def seconds(prepared: Prepared, steps: int) -> float:
    start = time.perf_counter()
    with prepared.model.generating_in(steps):
        prepared.trainer.evaluate(prepared.loaders.test, load_best_model=False)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--data_path")
    parser.add_argument("--models", nargs="+", default=["DreamRec", "DiffDiv", "ADIGRec", "DiffuRec"])
    parser.add_argument("--steps", nargs="+", type=int, default=[1, 32])
    parser.add_argument("--pairs", type=int, default=7)
    arguments = parser.parse_args()
    user: dict[str, Any] = {"data_path": arguments.data_path} if arguments.data_path else {}
    for model in arguments.models:
        wanted = request(model, arguments.dataset, user, preset=None)
        prepared = prepare(wanted.resolved, wanted.config())
        prepared.trainer.eval_collector.data_collect(prepared.loaders.train)
        for steps in arguments.steps:
            seconds(prepared, steps)
            pairs = []
            for _ in range(arguments.pairs):
                with from_one_generator():
                    before = seconds(prepared, steps)
                pairs.append((seconds(prepared, steps), before))
            ratios = np.array([now / before for now, before in pairs])
            now, before = np.median(pairs, axis=0)
            print(
                f"{model} on {arguments.dataset}, {steps} steps, {torch.get_num_threads()} threads: {now:.2f} s, one "
                f"generator {before:.2f} s, ratio {np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f})",
                flush=True,
            )


if __name__ == "__main__":
    main()
