"""Large data and long processes: memory, time and open files.

python benchmarks/load.py             every part, each in its own process; prints the table of docs/large.md
python benchmarks/load.py many-runs   one part, in this process
"""

from __future__ import annotations

import gc
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import torch

from recbole_diffusion import registry
from recbole_diffusion.config.strict import Config
from recbole_diffusion.quick_start import Prepared, prepare, run
from recbole_diffusion.testing.fixtures import write_random

STEPS, USERS = 200, 1000
SETTINGS = {"use_gpu": False, "train_batch_size": 256, "eval_batch_size": 64, "embedding_size": 64, "num_layers": 1}


def write(folder: Path, users: np.ndarray, items: np.ndarray, times: np.ndarray) -> None:
    """Write the data set ``load`` with these interactions."""
    (folder / "load").mkdir()
    table = pd.DataFrame({"user_id:token": users, "item_id:token": items, "timestamp:float": times})
    table.to_csv(folder / "load/load.inter", sep="\t", index=False)


def memory() -> float:
    """Resident memory of this process, in GB."""
    return psutil.Process().memory_info().rss / 1e9


def peak() -> float:
    """Peak resident memory of this process, in GB."""
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024 / 1e9


@contextmanager
def timed(figures: dict[str, Any], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    figures[f"{name} s"] = round(time.perf_counter() - start, 1)


def trains_and_ranks(folder: Path, **settings: Any) -> dict[str, Any]:
    """Load ``load``, train the first steps of an epoch and rank users. DreamRec, windows, whole catalogue."""
    figures: dict[str, Any] = {"before GB": round(memory(), 2)}
    resolved = registry.get_model("DreamRec")
    user = {"data_path": str(folder), **SETTINGS, **settings}
    config = Config(resolved.model_class, "load", user, resolved.ours)
    with timed(figures, "load"):
        built = prepare(resolved, config)
    figures["loaded GB"] = round(memory(), 2)
    with timed(figures, f"{STEPS} steps"):
        _train(built)
    with timed(figures, f"rank {USERS}"):
        figures["ranked"] = _rank(built)
    model = 4 * sum(parameter.numel() for parameter in built.model.parameters()) * 4 / 1e9  # with gradients and Adam
    figures |= {"model GB": round(model, 2), "peak GB": round(peak(), 2)}
    figures["beside the model GB"] = round(figures["peak GB"] - model, 2)
    return figures


def _train(built: Prepared) -> None:
    built.model.train()
    for batch in itertools.islice(built.loaders.train, STEPS):
        built.trainer.optimizer.zero_grad()
        losses = built.model.calculate_loss(batch)
        total = torch.stack(losses).sum() if isinstance(losses, tuple) else losses
        assert torch.isfinite(total)
        total.backward()
        built.trainer.optimizer.step()


@torch.no_grad()
def _rank(built: Prepared) -> int:
    built.model.eval()
    ranked = 0
    for interaction, *_ in built.loaders.test:
        scores = built.model.full_sort_predict(interaction).view(len(interaction), -1)
        assert torch.isfinite(scores[:, 1:].topk(10).values).all()
        ranked += len(interaction)
        if ranked >= USERS:
            break
    return ranked


def many_interactions(folder: Path) -> dict[str, Any]:
    """Ten million interactions of 100,000 users with 50,000 items."""
    rng = np.random.default_rng(0)
    count = 10_000_000
    items = (50_000 * rng.random(count, dtype=np.float32) ** 2).astype(np.int32)
    write(folder, rng.integers(0, 100_000, count, dtype=np.int32), items, rng.integers(0, 10**9, count, dtype=np.int32))
    del items
    return trains_and_ranks(folder)


def long_user(folder: Path) -> dict[str, Any]:
    """A user of 100,000 interactions among 2,000 users of 20."""
    rng = np.random.default_rng(0)
    users = np.concatenate([np.zeros(100_000, dtype=int), np.repeat(np.arange(1, 2001), 20)])
    write(folder, users, rng.integers(0, 5000, len(users)), np.arange(len(users)))
    return trains_and_ranks(folder)


def popular_item(folder: Path) -> dict[str, Any]:
    """An item that is 90 % of a million interactions."""
    rng = np.random.default_rng(0)
    count = 1_000_000
    items = np.where(rng.random(count) < 0.9, 0, rng.integers(1, 5000, count))
    write(folder, rng.integers(0, 20_000, count), items, np.arange(count))
    return trains_and_ranks(folder)


def many_items(folder: Path) -> dict[str, Any]:
    """A million items, two million interactions; the loss is over 512 sampled items."""
    rng = np.random.default_rng(0)
    items = np.concatenate([rng.permutation(1_000_000), rng.integers(0, 1_000_000, 1_000_000)])
    write(folder, rng.integers(0, 50_000, len(items)), items, np.arange(len(items)))
    return trains_and_ranks(folder, num_negatives=512, max_cells=50_000_000)


def many_runs(folder: Path) -> dict[str, Any]:
    """200 trainings, each with validation, test and examples, in one process."""
    data = str(write_random(folder))
    process = psutil.Process()
    figures: dict[str, Any] = {}
    models = ("DreamRec", "DiffRec", "WindowSASRec", "BPR")
    for done in range(1, 201):
        settings = {"data_path": data, "use_gpu": False, "epochs": 1, "MAX_ITEM_LIST_LENGTH": 10, "state": "ERROR"}
        run(models[done % 4], "random", settings=settings, examples=1)
        if done in (40, 200):
            gc.collect()
            figures |= {
                f"after {done} GB": round(memory(), 3),
                f"after {done} files": process.num_fds(),
                f"after {done} threads": process.num_threads(),
            }
    return figures


PARTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "many-interactions": many_interactions,
    "long-user": long_user,
    "popular-item": popular_item,
    "many-items": many_items,
    "many-runs": many_runs,
}


def main(names: list[str]) -> None:
    if len(names) == 1:
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            print(json.dumps(PARTS[names[0]](Path(folder))))
        return
    for name in names or PARTS:
        done = subprocess.run([sys.executable, __file__, name], capture_output=True, text=True, check=True)
        figures = json.loads(done.stdout.splitlines()[-1])
        print(f"| {name} | {', '.join(f'{key} {value}' for key, value in figures.items())} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
