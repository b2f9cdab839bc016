"""Peak memory of training and ranking by the size of the catalogue.

    python benchmarks/catalogue_memory.py [--models WindowSASRec DiffDiv ADIGRec] [--items 10000 100000 1000000]
        [--key=value ...]

Each measurement is a process of its own on synthetic data (windows of 50 items, each item of the catalogue in one of
them): it trains a few batches, runs the model's diagnostics and ranks 256 users with default settings and the ones
given. ``peak`` is the highest resident memory of the process, the libraries included.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

LENGTH, BATCHES, RANKED = 50, 3, 256


def write_data(folder: Path, items: int) -> None:
    """``folder/synthetic/synthetic.inter``: a random order of the items, then more of them, cut into users."""
    rng = np.random.default_rng(0)
    users = max(-(-items // (LENGTH - 2)), 2 * RANKED)  # the last two of a user are held out
    rows = np.resize(rng.permutation(items), (users, LENGTH))
    (folder / "synthetic").mkdir(parents=True)
    with (folder / "synthetic" / "synthetic.inter").open("w", encoding="utf-8") as file:
        file.write("user_id:token\titem_id:token\ttimestamp:float\n")
        file.writelines(f"{u}\t{i}\t{t}\n" for u, row in enumerate(rows) for t, i in enumerate(row))


def measure(model: str, folder: str, settings: list[str]) -> dict[str, float]:
    """Train, diagnose and rank in this process."""
    import torch

    from recbole_diffusion.console.arguments import read_arguments
    from recbole_diffusion.data.batches import BatchSampler
    from recbole_diffusion.quick_start import prepare, request

    user = {"data_path": folder, "MAX_ITEM_LIST_LENGTH": LENGTH, **read_arguments(settings)}
    wanted = request(model, "synthetic", user, preset=None)
    prepared = prepare(wanted.resolved, wanted.config())
    trainer, loaders = prepared.trainer, prepared.loaders
    loaded = _peak()
    start = time.perf_counter()
    for _, batch in zip(range(BATCHES), loaders.train, strict=False):
        losses = prepared.model.calculate_loss(batch)
        trainer.optimizer.zero_grad()
        (sum(losses) if isinstance(losses, tuple) else losses).backward()
        trainer.optimizer.step()
    trained = time.perf_counter()
    peak_training = _peak()
    valid = loaders.valid
    rows = torch.arange(RANKED)
    BatchSampler(lambda: rows, valid.dataset.inter_feat["item_length"], None, valid.step, bucket=True).attach(valid)
    prepared.model.eval()
    trainer.eval_collector.data_collect(loaders.train)
    ready = time.perf_counter()
    trainer.evaluate(valid, load_best_model=False)
    ranked = time.perf_counter()
    if hasattr(prepared.model, "diagnose"):
        prepared.model.diagnose(valid.dataset[list(range(RANKED))])
    return {
        "items": prepared.dataset.item_num - 1,
        "loaded": loaded,
        "peak_training": peak_training,
        "peak": _peak(),
        "batch_seconds": (trained - start) / BATCHES,
        "rank_seconds": ranked - ready,
        "diagnose_seconds": time.perf_counter() - ranked,
    }


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["WindowSASRec", "DiffDiv", "ADIGRec"])
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--measure", nargs=2, metavar=("MODEL", "FOLDER"), help=argparse.SUPPRESS)
    arguments, settings = parser.parse_known_args()
    if arguments.measure:
        print(json.dumps(measure(*arguments.measure, settings)))
        return
    for items in arguments.items:
        with tempfile.TemporaryDirectory() as folder:
            write_data(Path(folder), items)
            for model in arguments.models:
                command = [sys.executable, __file__, "--measure", model, folder, *settings]
                made = subprocess.run(
                    command, cwd=folder, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
                )
                row = json.loads(made.stdout)
                print(
                    f"{model}, {row['items']:,} items: peak {row['peak']:.1f} GB (after loading {row['loaded']:.1f}, "
                    f"after training {row['peak_training']:.1f}); {row['batch_seconds']:.2f} s per batch, "
                    f"{row['rank_seconds']:.1f} s to rank {RANKED} users, "
                    f"{row['diagnose_seconds']:.1f} s of diagnostics",
                    flush=True,
                )


if __name__ == "__main__":
    main()
