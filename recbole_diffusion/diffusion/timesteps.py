"""How training draws t, and the weights that each loss is multiplied by."""

import math

import torch
from torch import Tensor, nn


class TimestepSampler(nn.Module):
    """Draws timesteps for training. Subclasses keep state in buffers: it moves and is saved with the model.

    Args:
        timesteps: T.
    """

    _anchor: Tensor

    def __init__(self, timesteps: int) -> None:
        super().__init__()
        self.timesteps = timesteps
        self.register_buffer("_anchor", torch.empty(0), persistent=False)  # knows the device

    def draw(self, *shape: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Timesteps, long [*shape], and the weights of their losses, float [*shape], on the device of this module."""
        raise NotImplementedError

    def update(self, t: Tensor, losses: Tensor) -> None:
        """Learns from the losses of a batch, shaped like ``t``, as they are without the weights of ``draw``."""

    def _draw_device(self, generator: torch.Generator | None) -> torch.device:
        return self._anchor.device if generator is None else generator.device


class UniformTimesteps(TimestepSampler):
    """Every step has the same probability; the weight is 1."""

    def draw(self, *shape: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        device = self._draw_device(generator)
        t = torch.randint(self.timesteps, shape, generator=generator, device=device).to(self._anchor.device)
        return t, self._anchor.new_ones(shape)


class HighNoiseTimesteps(TimestepSampler):
    """``t = T - 1 - floor(T u^3)``, u uniform on [0, 1): half of all draws fall in the noisiest eighth.

    The weight is 1 on purpose. At small t, x_t shows the target and the guidance is not needed, so the objective itself
    moves to large t. Weights that undo the draw would move it back.
    """

    def draw(self, *shape: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        u = torch.rand(shape, generator=generator, device=self._draw_device(generator)).to(self._anchor.device)
        t = self.timesteps - 1 - (self.timesteps * u**3).long()
        return t.clamp(min=0), self._anchor.new_ones(shape)  # T u^3 can round up to T


class ModeTimesteps(TimestepSampler):
    """``t = floor(T (2u - sin^2(pi u/2)))``, u uniform on [0, 1): most draws are in the middle of the path.

    It is the mode sampling of Esser et al. (arXiv 2403.03206) with s = 1, as in FMRec. The weight is 1.
    """

    def draw(self, *shape: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        u = torch.rand(shape, generator=generator, device=self._draw_device(generator)).to(self._anchor.device)
        t = (self.timesteps * (2 * u - (math.pi / 2 * u).sin().square())).long()
        return t.clamp(0, self.timesteps - 1), self._anchor.new_ones(shape)


class LossSecondMomentTimesteps(TimestepSampler):
    """Importance sampling by the second moment of each step's last losses (Nichol & Dhariwal 2021, equation 18).

    The draw is uniform until every step has ``history`` losses. Then ``p_t`` is proportional to ``sqrt(mean of the
    squared losses)``, and a share of ``uniform_share`` stays uniform. The weights ``1/(T p_t)`` keep the mean unbiased.

    Args:
        timesteps: T.
        history: number of losses kept for each step.
        uniform_share: share of the draws that ignore the losses, from 0 to 1.
    """

    losses: Tensor
    seen: Tensor

    def __init__(self, timesteps: int, history: int = 10, uniform_share: float = 1e-3) -> None:
        super().__init__(timesteps)
        self.history = history
        self.uniform_share = uniform_share
        # A ring buffer for each step: loss number n (from 0) is at n % history.
        self.register_buffer("losses", torch.zeros(timesteps, history))
        self.register_buffer("seen", torch.zeros(timesteps, dtype=torch.long))  # number of losses so far

    def probabilities(self) -> Tensor:
        """``p_t``, [T]."""
        moments = self.losses.square().mean(dim=1).sqrt()  # [T]
        total = moments.sum()
        p = (1 - self.uniform_share) * moments / total + self.uniform_share / self.timesteps
        # If all losses are 0, stay uniform too. ``where`` instead of ``if``, which would wait for the device.
        ready = (self.seen >= self.history).all() & (total > 0)
        return torch.where(ready, p, 1 / self.timesteps)

    def draw(self, *shape: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        p = self.probabilities()
        source = p.to(self._draw_device(generator))
        t = torch.multinomial(source, math.prod(shape), replacement=True, generator=generator).view(shape).to(p.device)
        return t, 1 / (self.timesteps * p[t])

    @torch.no_grad()
    def update(self, t: Tensor, losses: Tensor) -> None:
        t, order = t.flatten().sort(stable=True)  # losses of one step side by side, in the order of their arrival
        losses = losses.detach().flatten().to(self.losses.dtype)[order]
        count = torch.zeros_like(self.seen).index_add_(0, t, torch.ones_like(t))  # [T]
        rank = torch.arange(len(t), device=t.device) - (count.cumsum(0) - count)[t]  # place among the rows of its step
        slot = t * self.history + (self.seen[t] + rank) % self.history
        # A loss that later ones of the same batch overwrite goes to a slot past the end: no slot is written twice.
        slot = torch.where(rank >= count[t] - self.history, slot, self.losses.numel())
        flat = torch.cat([self.losses.flatten(), self.losses.new_zeros(1)])
        self.losses.copy_(flat.index_copy_(0, slot, losses)[:-1].view_as(self.losses))
        self.seen.add_(count)


TIMESTEP_SAMPLERS: dict[str, type[TimestepSampler]] = {
    "uniform": UniformTimesteps,
    "high_noise": HighNoiseTimesteps,
    "mode": ModeTimesteps,
    "loss_second_moment": LossSecondMomentTimesteps,
}
