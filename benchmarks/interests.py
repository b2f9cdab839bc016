"""What ADIGRec's covariance penalty does to the attention of its interests, on ml-100k.

    python benchmarks/interests.py saved/ADIGRec-*-best.safetensors

For each checkpoint, with and without the penalty (``--penalty_weight=0``), over the test histories of three items or
more: mean variance of an interest's attention over the positions, mean absolute covariance and correlation of two
interests, and the positions an interest spreads over (exponential of the entropy).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch.nn.functional import normalize

from recbole_diffusion import registry
from recbole_diffusion.config.reading import read_properties
from recbole_diffusion.config.strict import Config
from recbole_diffusion.quick_start import prepare
from recbole_diffusion.storage import checkpoint


@torch.no_grad()
def measure(weights: torch.Tensor, seen: torch.Tensor) -> dict[str, float]:
    """From W [rows, length, k] and the positions seen [rows, length]."""
    keep = seen.sum(dim=-1) > 2
    weights, seen = weights[keep], seen[keep]
    n = seen.sum(dim=-1).view(-1, 1, 1)
    centred = (weights - weights.sum(dim=1, keepdim=True) / n) * seen.unsqueeze(-1)
    covariance = centred.transpose(1, 2) @ centred / n  # [rows, k, k]
    unit = normalize(centred, dim=1)
    correlation = unit.transpose(1, 2) @ unit
    same = torch.eye(weights.shape[-1], dtype=torch.bool)
    entropy = -torch.special.xlogy(weights, weights).sum(dim=1)  # [rows, k]
    return {
        "variance": covariance[:, same].mean().item(),
        "|covariance|": covariance[:, ~same].abs().mean().item(),
        "|correlation|": correlation[:, ~same].abs().mean().item(),
        "positions": entropy.exp().mean().item(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", type=Path, nargs="+")
    arguments = parser.parse_args()
    resolved = registry.get_model("ADIGRec")
    for path in arguments.checkpoints:
        state = checkpoint.load(path)
        settings = {key: state["config"][key] for key in ("seed", *read_properties("model", "ADIGRec.yaml"))}
        _, loaders, model, _ = prepare(resolved, Config(resolved.model_class, "ml-100k", settings, resolved.ours))
        model.load_state_dict(state["state_dict"])
        dataset = loaders.test.dataset
        interests = model.eval().last_state(dataset[list(range(len(dataset)))])
        values = measure(interests.weights, interests.seen)
        shown = {name: settings[name] for name in ("penalty_weight", "seed")}
        print(shown, ", ".join(f"{name} {value:.3g}" for name, value in values.items()))


if __name__ == "__main__":
    main()
