"""Seconds an epoch of RecBole's SASRec, through our loader and through RecBole's.

    python benchmarks/loader.py --data_path=DIR --dataset=amazon-beauty-5core [--batches 20] [--repeats 3]

The same model, targets and batch size, in one process. Batches are drawn at random from an epoch of each loader and
trained on in turn; the mean is multiplied by the number of batches.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import numpy as np
import torch
from recbole.data.dataset import SequentialDataset

from recbole_diffusion import registry
from recbole_diffusion.config.strict import Config
from recbole_diffusion.data.dataset import with_atomic_files
from recbole_diffusion.data.loaders import create_dataset, prepare_loaders


def batch_seconds(model: Any, optimizer: Any, batches: list[Any]) -> float:
    """Mean seconds of a training step, its batch gathered before."""
    start = time.perf_counter()
    for batch in batches:
        optimizer.zero_grad()
        losses = model.calculate_loss(batch)
        (sum(losses) if isinstance(losses, tuple) else losses).backward()
        optimizer.step()
    return (time.perf_counter() - start) / len(batches)


def sample_batches(loader: Any, count: int, rng: np.random.Generator) -> tuple[list[Any], float]:
    """Random batches of an epoch, and the seconds it took to gather one."""
    order = list(loader.batch_sampler)
    chosen = [order[i] for i in rng.choice(len(order), size=min(count, len(order)), replace=False)]
    start = time.perf_counter()
    batches = [loader.collate_fn(rows) for rows in chosen]
    return batches, (time.perf_counter() - start) / len(batches)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_path", required=True)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--model", default="SASRec", help="a sequential model that trains on prefixes")
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    resolved = registry.get_model(arguments.model)
    loaders: dict[str, Any] = {}
    for kind, bucket in (("ours", True), ("RecBole's", False)):
        user = {"data_path": arguments.data_path, "bucket_by_length": bucket}
        config = Config(resolved.model_class, arguments.dataset, user, resolved.ours)
        dataset = create_dataset(config) if bucket else with_atomic_files(SequentialDataset)(config)
        loaders[kind] = prepare_loaders(config, dataset, "prefixes", registry.takes_short_batches(resolved)).train
    model = resolved.model_class(config, loaders["ours"].dataset).to(config["device"])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    rng = np.random.default_rng(0)
    epochs: dict[str, list[float]] = {kind: [] for kind in loaders}
    for repeat in range(-1, arguments.repeats):  # the first is a warm-up
        for kind, loader in loaders.items():
            batches, gather = sample_batches(loader, arguments.batches if repeat >= 0 else 2, rng)
            seconds = len(loader) * (gather + batch_seconds(model, optimizer, batches))
            if repeat >= 0:
                epochs[kind].append(seconds)
                print(
                    f"{kind}: {seconds:.1f} s an epoch of {len(loader)} batches ({gather * 1e3:.1f} ms to gather one)"
                )
    ours, theirs = (statistics.median(epochs[kind]) for kind in ("ours", "RecBole's"))
    ratios = [b / a for a, b in zip(epochs["ours"], epochs["RecBole's"], strict=True)]
    print(
        f"{arguments.model} on {arguments.dataset}, {torch.get_num_threads()} threads: ours {ours:.1f} s an epoch, "
        f"RecBole's {theirs:.1f} s, {theirs / ours:.1f} times (pairs: {min(ratios):.1f} to {max(ratios):.1f})"
    )


if __name__ == "__main__":
    main()
