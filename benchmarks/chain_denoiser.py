"""Ways to train a chain, tried on the denoiser alone: the histories' states stay those of a trained model.

    python benchmarks/chain_denoiser.py PLAN.yaml OUT_DIR RUN [--tries base mixture ...] [--steps 400] [--users 4096]

RUN is a finished run of ``chain.py``. Its guidance is computed once for some training targets. From its weights, each
try then trains denoiser and items on these for some steps, and ranks the users of the validation split. So all tries
begin with the same model, and a try takes seconds. OUT_DIR/RUN+TRY.npz has the users' values, as from ``chain.py``.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path
from typing import Any

import chain_trials
import numpy as np
import torch
from chain import load_best, rank_with
from sweep import prepare_run, read_plan

ROWS, BATCH, LEARNING_RATE = 30_000, 1024, 0.001
LEGIBLE = {"space": "sphere", "log_snr": [3, -10]}  # the noise hides an item in the noisier half of the steps
STARTS = ("1x1", "1x1-seed1", "1x1-zero")
STEPS = ("2x1", "3x1")
CHAINS = ("1x4", "1x16")
BETWEEN = ("3x1-nearest", "3x1-mean")
TRIES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "base": ({}, ("3x1", *CHAINS)),
    "sphere": ({**LEGIBLE, "uniform": True}, (*STEPS, *BETWEEN)),
    "min_snr": ({**LEGIBLE, "min_snr": 5}, (*STEPS, *BETWEEN)),
    "unroll": ({**LEGIBLE, "unroll": True}, ("2x1", "3x1")),
    "mixture": ({"mixture": 4, "last": True}, CHAINS),
}


class FixedStates:
    """Training rows of a model whose guidance is known: guidance [rows, ...] and target items [rows]."""

    def __init__(self, model: Any, loader: Any) -> None:
        guidance, targets = [], []
        model.eval()
        with torch.no_grad():
            while sum(map(len, targets)) < ROWS:
                for batch in loader:
                    state, target = model.training_pairs(batch.to(model.device))
                    guidance.append(model.training_guidance(state, target)[0])
                    targets.append(target)
                    if sum(map(len, targets)) >= ROWS:
                        break
        self.guidance, self.targets = torch.cat(guidance), torch.cat(targets)

    def train(self, model: Any, steps: int) -> None:
        """Steps of Adam on denoiser and items."""
        model.training_guidance = lambda state, target: (state, {})
        parameters = [model.item_embedding.weight, *model.denoiser.parameters()]
        optimizer = torch.optim.Adam(parameters, lr=LEARNING_RATE)
        for _ in range(steps):
            rows = torch.randint(len(self.targets), (BATCH,))
            model.training_pairs = lambda _, rows=rows: (self.guidance[rows], self.targets[rows])
            loss = torch.stack(model.calculate_loss(None)).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def some_users(loader: Any, count: int) -> list[Any]:
    """Evenly spaced batches of a loader, with about ``count`` users: neighbours have histories of like length."""
    batches = list(loader)
    total = sum(len(batch[3]) for batch in batches)
    return batches[:: max(total // count, 1)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("run")
    parser.add_argument("--tries", nargs="+", choices=TRIES, default=list(TRIES))
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--users", type=int, default=4096)
    arguments = parser.parse_args()
    (run,) = read_plan(arguments.plan, arguments.run)
    prepared = prepare_run({**run, "mse_weight": 0.0, "checkpoint_dir": str(arguments.out / "saved")})
    load_best(prepared.model, arguments.out / "saved" / run["name"])
    states = FixedStates(prepared.model, prepared.loaders.train)
    users = some_users(prepared.loaders.valid, arguments.users)
    for name in arguments.tries:
        kept = arguments.out / f"{run['name'].removesuffix('-s0')}+{name}-s0.npz"
        if kept.exists():
            continue
        trial, choices = TRIES[name]
        model = copy.deepcopy(prepared.model)
        chain_trials.apply(model, trial)
        torch.manual_seed(0)
        with model.generating_in(3):  # the chain that unroll trains
            states.train(model, arguments.steps)
        found: dict[str, np.ndarray] = {}
        for choice in (*STARTS, *choices):
            values = rank_with(model, choice, users)
            found |= {f"{what}-{choice}": value for what, value in values.items()}
            print(run["name"], name, choice, f"{values['ndcg'].mean():.4f} {values['loss'].mean():.4f}", flush=True)
        np.savez(kept, **found)


if __name__ == "__main__":
    main()
