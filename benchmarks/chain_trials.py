"""Ways to train and to generate that were tried so that a chain earns its steps. The package has none of them.

A run of a plan for ``chain.py`` names them in ``trial``, a mapping of:

- ``continues``: the run of the same OUT_DIR whose weights the training starts from.
- ``space``: ``sphere``: noise is added to items of length sqrt(d).
- ``log_snr``: the logarithm of the signal-to-noise ratio at each of the T steps, or at the first and the last.
- ``min_snr``: the losses at t are multiplied by ``min(SNR(t), min_snr)``, scaled to the mean 1 (Hang et al. 2023).
- ``uniform``: t is uniform; ``last``: t is always T - 1.
- ``between``: what x0_hat becomes between steps. ``nearest``: the item with the largest score; ``mean``: the mean of
  the items under ``softmax(x0_hat . e)``.
- ``mixture``: K draws of noise for each state; the loss is ``-log mean_k softmax(x0_hat_k . e)_target``.
- ``unroll``: training runs the whole chain from noise, with its gradient; the loss is the mean cross-entropy of x0_hat
  after every step. No state is made from the target.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_diffusion.diffusion.process import GaussianDiffusion
from recbole_diffusion.diffusion.timesteps import UniformTimesteps
from recbole_diffusion.model.embedding import EmbeddingDiffusionRecommender


class Tried(EmbeddingDiffusionRecommender):
    """A model with ``trial``. It is mixed into the model's own class."""

    trial: dict[str, Any]

    def in_space(self, x: Tensor) -> Tensor:
        """Items or x0_hat, [..., dim], as noise is added to them."""
        if self.trial.get("space") == "sphere":
            return F.normalize(x, dim=-1) * math.sqrt(x.shape[-1])
        return x

    def training_example(self, interaction: Any) -> Any:
        example = super().training_example(interaction)
        return example._replace(x_0=self.in_space(example.x_0))

    def step_from(self, process: Any, x_t: Tensor, x_0: Tensor, t: int, s: int, noise: Any) -> Tensor:
        if s >= 0:
            table, between = self.item_embedding.weight[1:].detach(), self.trial.get("between")
            if between == "nearest":
                x_0 = table[(x_0 @ table.T).argmax(dim=-1)]
            elif between == "mean":
                x_0 = (x_0 @ table.T).softmax(dim=-1) @ table
            elif self.settings.rescale_x0:
                x_0 = F.normalize(x_0, dim=-1) * table.norm(dim=-1).mean()
            x_0 = self.in_space(x_0)
        return self.reverse_step(process, x_t, x_0, t, s, noise)

    def calculate_loss(self, interaction: Any) -> tuple[Tensor, ...]:
        draws = self.trial.get("mixture")
        if draws is None and "unroll" not in self.trial:
            return super().calculate_loss(interaction)
        x_0, guidance, target, losses, _ = self.training_example(interaction)
        guidance = self.drop_guidance(guidance)
        terms = self._mixture(x_0, guidance, target, draws) if draws else self._unrolled(x_0, guidance, target)
        self.loss_names = tuple(losses | terms)
        return tuple((losses | terms).values())

    def _mixture(self, x_0: Tensor, guidance: Any, target: Tensor, draws: int) -> dict[str, Tensor]:
        t, weight = self.timestep_sampler.draw(len(x_0))
        logs = []
        for _ in range(draws):
            x_t = self.seen(self.process.q_sample(x_0, t, torch.randn_like(x_0)))
            logs.append(-self.cross_entropy(self.denoiser(x_t, t, guidance), target))
        return {"ce": (weight * (math.log(draws) - torch.stack(logs).logsumexp(dim=0))).mean()}

    def _unrolled(self, x_0: Tensor, guidance: Any, target: Tensor) -> dict[str, Tensor]:
        x_t, losses = torch.randn_like(x_0), []
        for t, s in zip(self.reverse_timesteps, [*self.reverse_timesteps[1:], -1], strict=True):
            x_0_hat = self.denoiser(self.seen(x_t), torch.full_like(target, t), guidance)
            losses.append(self.cross_entropy(x_0_hat, target).mean())
            x_t = self.step_from(self.process, x_t, x_0_hat, t, s, lambda: torch.zeros_like(x_0))
        return {"ce": torch.stack(losses).mean()}


class LastTimestep(UniformTimesteps):
    """Always T - 1, where x_t is noise alone."""

    def draw(self, *shape: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        t, weight = super().draw(*shape, generator=generator)
        return torch.full_like(t, self.timesteps - 1), weight


class MinSnrTimesteps(UniformTimesteps):
    """Uniform timesteps with the weights ``min(SNR(t), limit)``, whose mean is 1."""

    def __init__(self, process: GaussianDiffusion, limit: float) -> None:
        super().__init__(process.timesteps)
        weight = process.snr(torch.arange(process.timesteps)).clamp(max=limit)
        self.weight = weight / weight.mean()

    def draw(self, *shape: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        t, _ = super().draw(*shape, generator=generator)
        return t, self.weight[t]


def apply(model: Any, trial: dict[str, Any]) -> None:
    """Change a model."""
    if not isinstance(model, Tried):
        model.__class__ = type(f"Tried{type(model).__name__}", (Tried, type(model)), {})
    model.trial = trial
    if "log_snr" in trial:
        given, count = torch.tensor(trial["log_snr"], dtype=torch.float64), model.settings.timesteps
        if len(given) != count:
            given = torch.linspace(float(given[0]), float(given[-1]), count, dtype=torch.float64)
        abar = given.sigmoid()
        model.process = GaussianDiffusion(1 - abar / torch.cat([abar.new_ones(1), abar[:-1]]))
    if "uniform" in trial:
        model.timestep_sampler = UniformTimesteps(model.process.timesteps)
    if "last" in trial:
        model.timestep_sampler = LastTimestep(model.process.timesteps)
    if "min_snr" in trial:
        model.timestep_sampler = MinSnrTimesteps(model.process, trial["min_snr"])
