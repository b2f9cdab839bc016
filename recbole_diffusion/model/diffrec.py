"""DiffRec (Wang et al., "Diffusion Recommender Model", SIGIR 2023, arXiv 2304.04971), on sequences.

==================================  ======================================================================
paper                               here
==================================  ======================================================================
x_0, a user's interactions          ``interaction_vectors``: one entry per item of the catalogue
T-DiffRec, w_min ... w_max          ``time_aware``: the weights rise from the oldest item to the newest
f_theta(x_t, t)                     ``VectorDenoiser``; predicts x_0, or the noise
L_t, (SNR(t-1) - SNR(t))/2 and L_1  the ``mse`` term with ``snr_weighting``: mean over items, weight 1 at the
                                    first step, and no factor 1/2
p_t of importance sampling          ``timestep_sampler: loss_second_moment``
T', steps of noise to start from    ``start_steps``; 0 starts from the history itself
s, noise_min, noise_max             ``noise_scale``, ``noise_min``, ``noise_max`` of ``linear_variance``
==================================  ======================================================================

In training, the vector of a row contains its history and its target, the newest item. In evaluation it contains the
history only.

Memory: only the vectors of one batch are in memory, ``[batch, N]`` for N items. That is 4 MB per row for a million
items; a training step holds about six such tensors at its peak. The input layer and the output layer have
``N * hidden_size`` weights each, at any batch size. With the gradient and Adam's two moments that is four times
``2 * N * hidden_size`` numbers: 32 GB for a million items and ``hidden_size`` 1,000.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from recbole.data.interaction import Interaction
from torch import Tensor, nn

from recbole_diffusion.config.settings import UserError
from recbole_diffusion.diffusion.denoiser import sinusoidal_embedding
from recbole_diffusion.diffusion.noise import START, STEP
from recbole_diffusion.diffusion.process import GaussianDiffusion
from recbole_diffusion.diffusion.samplers import sample
from recbole_diffusion.diffusion.step import Step
from recbole_diffusion.model.base import DiffusionRecommender, Example
from recbole_diffusion.model.layers import Dropout
from recbole_diffusion.model.losses import squared_error
from recbole_diffusion.model.settings import DiffusionConfig

_BIAS_STD = 0.001  # of every bias at the start


@dataclass(frozen=True)
class DiffRecConfig(DiffusionConfig, model="DiffRec"):
    """DiffRec's own settings."""

    schedule_parameters: ClassVar[tuple[str, ...]] = (
        *DiffusionConfig.schedule_parameters, "noise_scale", "noise_min", "noise_max", "first_beta",
    )  # fmt: skip

    noise_schedule: str
    noise_scale: float | None
    noise_min: float | None
    noise_max: float | None
    first_beta: float | None
    snr_weighting: bool
    start_steps: int
    time_aware: bool
    w_min: float
    w_max: float
    normalize: bool
    hidden_size: int
    time_embedding_size: int
    dropout: float
    train_on: str

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ablate == "state":
            raise UserError(
                "ablate=state: DiffRec reads the history from x_t alone, so without it nothing is left to learn from. "
                "Set ablate=noise or ~."
            )
        if self.snr_weighting and self.prediction != "x0":
            raise UserError(
                f"snr_weighting=True with prediction={self.prediction}: SNR(t-1) - SNR(t) weighs an error on x0. Set "
                "snr_weighting=False or prediction=x0."
            )
        if self.w_min > self.w_max:
            raise UserError(f"w_min={self.w_min:g}: must be <= w_max={self.w_max:g}, the weight of the newest item.")
        if self.start_steps > self.timesteps:
            raise UserError(f"start_steps={self.start_steps}: must be from 0 to timesteps={self.timesteps}.")


def interaction_vectors(
    item_seq: Tensor, length: Tensor, num_items: int, w_min: float = 1.0, w_max: float = 1.0
) -> Tensor:
    """x_0 of each row: the weight of each item of the history, 0 for other items. Column ``i - 1`` is item ``i``.

    Args:
        item_seq: items from oldest to newest, then padding of any content, [batch, width].
        length: number of real items, [batch].
        num_items: N.
        w_min, w_max: weights of the oldest and the newest item, linear between them; 0 < w_min <= w_max. A single item
            has w_max. An item that occurs twice has the weight of its newest place.

    Returns:
        Float tensor [batch, N].
    """
    age = length.unsqueeze(-1) - 1 - torch.arange(item_seq.shape[1], device=item_seq.device)  # [batch, width]
    weight = w_max - (w_max - w_min) * age / (length - 1).clamp(min=1).unsqueeze(-1)
    weight = torch.where(age >= 0, weight, 0.0)
    columns = (item_seq - 1).clamp(min=0)  # padding goes to the first item with weight 0, which changes nothing
    vectors = weight.new_zeros(len(item_seq), num_items)
    return vectors.scatter_reduce_(1, columns, weight, reduce="amax")  # the newest weight is the largest


class VectorDenoiser(nn.Module):
    """``[dropout(x_t) ; emb(t)]``, Linear to ``hidden_size``, tanh, Linear to N. emb(t) is a Linear of sinusoids.

    Args:
        num_items: N.
        hidden_size: width of the one hidden layer.
        time_embedding_size: size of emb(t).
        dropout: share of the entries of x_t that are set to 0.
        normalize: whether each x_t is scaled to length 1 first.
    """

    def __init__(
        self, num_items: int, hidden_size: int, time_embedding_size: int, dropout: float, normalize: bool
    ) -> None:
        super().__init__()
        self.normalize = normalize
        self.time_embedding = nn.Linear(time_embedding_size, time_embedding_size)
        self.dropout = Dropout(dropout)
        self.hidden = nn.Linear(num_items + time_embedding_size, hidden_size)
        self.output = nn.Linear(hidden_size, num_items)
        for layer in (self.time_embedding, self.hidden, self.output):
            nn.init.xavier_normal_(layer.weight)
            nn.init.normal_(layer.bias, std=_BIAS_STD)

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """From x_t [batch, N] and t [batch]: x0_hat, or the noise, [batch, N]."""
        if self.normalize:
            x_t = F.normalize(x_t, dim=-1)
        embedded = self.time_embedding(sinusoidal_embedding(t, self.time_embedding.in_features))
        return self.output(torch.tanh(self.hidden(torch.cat([self.dropout(x_t), embedded], dim=-1))))


class DiffRec(DiffusionRecommender):
    """Denoises the vector of a user's interactions. The entries of x0_hat are the scores of the items."""

    config_class: ClassVar[type[DiffusionConfig]] = DiffRecConfig
    settings: DiffRecConfig
    process: GaussianDiffusion

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        s = self.settings
        self.denoiser = VectorDenoiser(self.n_items - 1, s.hidden_size, s.time_embedding_size, s.dropout, s.normalize)

    def vectors(self, item_seq: Tensor, length: Tensor) -> Tensor:
        """x_0 of histories [batch, width] with ``length`` [batch] real items each, [batch, N]."""
        s = self.settings
        weights = (s.w_min, s.w_max) if s.time_aware else ()
        return interaction_vectors(item_seq, length, self.n_items - 1, *weights)

    def training_vectors(self, interaction: Interaction) -> Tensor:
        """x_0 of each row's history and target, [batch, N]."""
        length, target = interaction[self.ITEM_SEQ_LEN], interaction[self.ITEM_ID]
        item_seq = F.pad(interaction[self.ITEM_SEQ], (0, 1)).scatter(1, length.unsqueeze(-1), target.unsqueeze(-1))
        return self.vectors(item_seq, length + 1)

    def training_example(self, interaction: Interaction) -> Example:
        return Example(self.training_vectors(interaction), None, interaction[self.ITEM_ID])

    def denoising_losses(self, step: Step, guidance: None, target: Tensor) -> dict[str, Tensor]:
        """``mse``: squared error, mean over items; with ``snr_weighting``, times :meth:`snr_weight`."""
        wanted = self.process.target(step.x_0, step.noise, step.t, self.settings.prediction)
        mse = squared_error(self.denoiser(step.x_t, step.t), wanted)
        return {"mse": self.snr_weight(step.t) * mse if self.settings.snr_weighting else mse}

    def snr_weight(self, t: Tensor) -> Tensor:
        """``SNR(t-1) - SNR(t)``, and 1 at t = 0, in the shape of ``t``."""
        return torch.where(t == 0, 1.0, self.process.snr(t - 1) - self.process.snr(t))

    def predict_x0(self, x_t: Tensor, t: Tensor) -> Tensor:
        """The denoiser's estimate of x_0, [batch, N]."""
        return self.process.x0_from(self.denoiser(x_t, t), x_t, t, self.settings.prediction)

    @torch.no_grad()
    def generate(self, interaction: Interaction) -> Tensor:
        """x0_hat, [batch, 1, N]. It starts from the history, with the noise of ``start_steps`` steps."""
        noise, size = self.evaluation_noise(interaction), self.n_items - 1
        x_T = self.vectors(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN])
        if self.settings.start_steps > 0:
            x_T = self.process.q_sample(x_T, self.settings.start_steps - 1, self.chain_noise(noise, START, size))
        x_0 = sample(
            self.predict_x0, self.process, x_T, self.reverse_timesteps, self.reverse_step,
            lambda x_t, t: self.chain_noise(noise, STEP, size, t),
        )  # fmt: skip
        return x_0.unsqueeze(1)

    def score(self, x_0: Tensor) -> Tensor:
        """The entry of each item, [batch, N + 1]; -inf for padding."""
        return F.pad(x_0.squeeze(1), (1, 0), value=-torch.inf)

    def score_items(self, x_0: Tensor, rows: Tensor, items: Tensor) -> Tensor:
        return x_0[rows, 0, (items - 1).clamp(min=0)]
