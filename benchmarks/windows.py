"""Windows compared with prefixes: seconds per pass over all training targets, and NDCG@10 after equal training time.

    python benchmarks/windows.py --data_path=DIR --dataset=ml-1m [--models DreamRec DiffDiv] [--minutes 4]
        [--preset paper] [--times 4]

In one process. The pass is timed on batches drawn at random from it, windows and prefixes in turn, and the mean is
multiplied by the number of batches. Then each kind of row trains for ``--minutes`` (validation not counted) from the
same start; ``--minutes 0`` leaves that out. Prefixes come 512 a batch, about as many targets as 16 windows hold; with
``--times N`` both batches are N times as large.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch
from loader import batch_seconds, sample_batches

from recbole_diffusion import registry
from recbole_diffusion.config.strict import Config
from recbole_diffusion.quick_start import Prepared, prepare

KINDS: dict[str, dict[str, Any]] = {
    "windows": {"train_on": "windows", "train_batch_size": 16, "window_overlap": 0.0},
    "prefixes": {"train_on": "prefixes", "train_batch_size": 512},
}
VALIDATIONS = 4


def pass_seconds(prepared: Prepared, count: int, rng: np.random.Generator) -> float:
    """Seconds a pass over the training rows would take."""
    loader, trainer = prepared.loaders.train, prepared.trainer
    prepared.model.train()
    batches, gather = sample_batches(loader, count, rng)
    return len(loader) * (gather + batch_seconds(prepared.model, trainer.optimizer, batches))


def train_for(prepared: Prepared, seconds: float) -> list[float]:
    """Validation NDCG@10 at equal steps of training time."""
    model, trainer, loaders = prepared.model, prepared.trainer, prepared.loaders
    trainer.eval_collector.data_collect(loaders.train)
    spent, curve, batches = 0.0, [], iter(loaders.train)
    while len(curve) < VALIDATIONS:
        start = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            batches = iter(loaders.train)
            continue
        model.train()
        batch_seconds(model, trainer.optimizer, [batch])
        spent += time.perf_counter() - start
        if spent >= seconds * (len(curve) + 1) / VALIDATIONS:
            curve.append(trainer.evaluate(loaders.valid, load_best_model=False)["ndcg@10"])
    return curve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_path", required=True)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--models", nargs="+", default=["DreamRec", "DiffDiv"])
    parser.add_argument("--preset", default="default")
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=4)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    for model in arguments.models:
        resolved = registry.get_model(model)
        prepared = {}
        for kind, settings in KINDS.items():
            user = {"data_path": arguments.data_path, "seed": 0, **settings}
            user["train_batch_size"] *= arguments.times
            config = Config(resolved.model_class, arguments.dataset, user, resolved.ours, arguments.preset)
            prepared[kind] = prepare(resolved, config)
        start = {name: value.clone() for name, value in prepared["windows"].model.state_dict().items()}
        for kind in KINDS:
            pass_seconds(prepared[kind], 2, rng)
        times = {kind: [pass_seconds(prepared[kind], arguments.batches, rng) for _ in range(3)] for kind in KINDS}
        ratios = sorted(p / w for w, p in zip(times["windows"], times["prefixes"], strict=True))
        print(
            f"{model}, {arguments.preset}, on {arguments.dataset}, {torch.get_num_threads()} threads: "
            f"a pass by windows {sorted(times['windows'])[1]:.0f} s, by prefixes {sorted(times['prefixes'])[1]:.0f} s, "
            f"{ratios[1]:.1f} times ({ratios[0]:.1f} to {ratios[2]:.1f})",
            flush=True,
        )
        for kind in KINDS if arguments.minutes > 0 else ():
            prepared[kind].model.load_state_dict(start)
            prepared[kind].trainer.optimizer.state.clear()
            curve = train_for(prepared[kind], arguments.minutes * 60)
            print(f"  {kind}: validation NDCG@10 by time {', '.join(f'{v:.4f}' for v in curve)}", flush=True)


if __name__ == "__main__":
    main()
