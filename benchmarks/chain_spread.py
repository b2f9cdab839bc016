"""Whether a mixture of chains has something to win: how wide targets scatter, and how wide the model says.

    python benchmarks/chain_spread.py PLAN.yaml OUT_DIR RUN [--targets 8000]

RUN is a finished run of ``chain.py`` with DreamRec. x0_hat is that of one step from x_T = 0. ``e`` is the embedding of
the target, ``m`` the mean of the items under ``softmax(x0_hat . e)``, C their covariance under it, M the mean of
``(e - m)(e - m)'``. If x0_hat scatters by ``w z``, z standard normal, the log of the mean probability changes by
``w'(M - C)w / 2`` to second order. Shown are ``trace M / trace C - 1``, and the extremes of ``w'Mw / w'Cw - 1``.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from chain import load_best
from sweep import prepare_run, read_plan
from torch import Tensor


def spread(predictions: Tensor, targets: Tensor, table: Tensor) -> dict[str, float]:
    """The figures for x0_hat [rows, d] and target items [rows]; ``table`` has items 1 ... N, [N, d]."""
    observed = stated = torch.zeros(table.shape[1], table.shape[1], dtype=torch.float64)
    loss = 0.0
    for x_0, target in zip(predictions.double().split(256), targets.split(256), strict=True):
        probability = (x_0 @ table.T).softmax(dim=-1)
        mean = probability @ table
        rest = table[target - 1] - mean
        observed = observed + rest.T @ rest
        stated = stated + (probability.sum(dim=0).unsqueeze(1) * table).T @ table - mean.T @ mean
        loss -= float(probability.gather(1, target.unsqueeze(1) - 1).log().sum())
    root = torch.linalg.cholesky(stated)
    half = torch.linalg.solve_triangular(root, observed, upper=False)
    ratios = torch.linalg.eigvalsh(torch.linalg.solve_triangular(root, half.T, upper=False)) - 1
    total = float(observed.trace() / stated.trace()) - 1
    return {"-log p": loss / len(targets), "trace": total, "least": float(ratios[0]), "most": float(ratios[-1])}


@torch.no_grad()
def predicted(model: Any, batches: Any, count: int) -> tuple[Tensor, Tensor]:
    """x0_hat from x_T = 0 and the targets, of at least ``count`` targets, if there are as many."""
    predictions, targets = [], []
    for batch in batches:
        state, target = model.training_pairs(batch)
        x_T = torch.zeros(len(target), state.shape[-1])
        predictions.append(model.predict_x0(x_T, torch.full_like(target, model.settings.timesteps - 1), state))
        targets.append(target)
        if sum(map(len, targets)) >= count:
            break
    return torch.cat(predictions), torch.cat(targets)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("run")
    parser.add_argument("--targets", type=int, default=8000)
    arguments = parser.parse_args()
    (run,) = read_plan(arguments.plan, arguments.run)
    prepared = prepare_run(run, checkpoint_dir=str(arguments.out / "saved"))
    model = prepared.model
    load_best(model, arguments.out / "saved" / run["name"])
    model.eval()
    table = model.item_embedding.weight.detach()[1:].double()
    valid = (batch[0] for batch in prepared.loaders.valid)
    for split, batches in (("train", prepared.loaders.train), ("valid", valid)):
        figures = spread(*predicted(model, batches, arguments.targets), table)
        print(run["name"], split, " ".join(f"{name} {value:.3f}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
