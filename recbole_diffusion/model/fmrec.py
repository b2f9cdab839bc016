"""FMRec (Liu et al., "Flow Matching based Sequential Recommender Model", IJCAI 2025, arXiv 2505.16298).

DiffuRec's network on a straight path between noise and target, with a decoder that gives the history back.

==================================  ===========================================================================
paper                               here
==================================  ===========================================================================
x_1 = e_a, the target               ``x_0``: this package counts t from the data to the noise
z_0, the noise                      ``Step.noise``
z_t = t x_1 + (1 - t) z_0           ``process=straight``, x0 predicted
law of t ("mode", s = 1)            ``timestep_sampler=mode``
z_i = e_i + lambda_i (z_t + tau)    :class:`Approximator` of DiffuRec
L_MSE, alpha L_CE                   the ``mse`` and ``ce`` terms, alpha = ``ce_weight``
beta L_D                            the ``reconstruction`` term, beta = ``reconstruction_weight``
Euler steps from z_0                ``sampler=euler_start``: their end is the mean of the predictions
==================================  ===========================================================================

**One step, after FAVE** (SIGIR 2026, arXiv 2604.04427). With ``prior=history`` a path begins at a random item of the
history, of which a share of the coordinates is kept. ``one_step_weight`` asks for the same x0_hat along the path as at
its beginning, so one evaluation there is enough. With the mean velocity ``u = x0_hat - z_0`` that is ``z_0 + u(z_0)``;
the authors' code returns u alone. They penalise the derivative of u along the path, and give the network two times.
Here it is the difference of x0_hat between a place on the path and its beginning, which is 0 for the same functions.
They train this in a second stage with a frozen item table, which ``stages`` can do.

Differences from the authors' code:

- those of DiffuRec (padding is masked as attention keys, dropout, initial weights, early stopping);
- t has T values (theirs is continuous, down to a thousandth of signal), and of N steps the last one is short (theirs
  are equal);
- of the decoder's zeros, one is drawn uniformly for each position of a history (theirs: as many as there are ones);
- the learning rate stays as it is (theirs is divided by 10 every 100 epochs).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_diffusion.config.settings import UserError
from recbole_diffusion.diffusion.noise import START, RowNoise
from recbole_diffusion.diffusion.step import Step
from recbole_diffusion.model.diffurec import Approximator, DiffuRec, DiffuRecConfig, History
from recbole_diffusion.model.losses import squared_error
from recbole_diffusion.model.settings import DiffusionConfig

_HIDDEN, _OWN_WIDTH = 512, 2048  # of the decoder, as the authors have it


@dataclass(frozen=True)
class FMRecConfig(DiffuRecConfig, model="FMRec"):
    """FMRec's own settings. It predicts x0."""

    reconstruction_weight: float
    tied_decoder: bool
    prior: str
    prior_keep: float
    one_step_weight: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prior == "history" and self.prior_keep == 0:
            raise UserError("prior_keep=0 with prior=history: every path would begin at 0. Set prior_keep above 0.")
        if self.prior == "history" and self.chain_start == "zero":
            raise UserError("chain_start=zero with prior=history: a chain starts at an item. Set chain_start=noise.")


class HistoryDecoder(nn.Module):
    """``sum_i (y_i - w_i . MLP(h))^2 / N`` over the items of a history (y = 1) and as many others (y = 0).

    Args:
        dim: size of h.
        width: size of the vectors w_i.
    """

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(dim, _HIDDEN), nn.Tanh(), nn.Linear(_HIDDEN, width))

    def forward(self, h: Tensor, item_seq: Tensor, length: Tensor, table: Tensor) -> Tensor:
        """The loss of each row [batch].

        Args:
            h: [batch, dim].
            item_seq, length: the histories [batch, length], and their numbers of items [batch].
            table: w of items 0 ... N, [N + 1, width].
        """
        place = torch.arange(item_seq.shape[1], device=length.device)
        real = place < length.unsqueeze(-1)  # [batch, length]
        history = item_seq * real
        same = history.unsqueeze(-1) == history.unsqueeze(1)  # [batch, length, length]
        once = real & ~same.tril(-1).any(dim=-1)  # an item that comes twice counts once
        others = torch.randint_like(history, 1, len(table))
        absent = real & ~(others.unsqueeze(-1) == history.unsqueeze(1)).any(dim=-1)
        items, columns = torch.cat([history, others], dim=1).unique(return_inverse=True)  # [batch, 2 length]
        scores = (self.mlp(h) @ F.embedding(items, table).T).gather(1, columns)
        wanted = torch.cat([once, torch.zeros_like(absent)], dim=1)
        counted = torch.cat([once, absent], dim=1)
        return ((scores - wanted.to(scores.dtype)).square() * counted).sum(dim=-1) / (len(table) - 1)


class FMRec(DiffuRec):
    """Generates the embedding of the next item along a straight path."""

    config_class: ClassVar[type[DiffusionConfig]] = FMRecConfig
    settings: FMRecConfig
    denoiser: Approximator
    read_in_training: ClassVar[tuple[str, ...]] = (*DiffuRec.read_in_training, "decoder")

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        s = self.settings
        self.decoder = self.decoder_table = None
        if s.reconstruction_weight > 0:
            self.decoder = HistoryDecoder(s.embedding_size, s.embedding_size if s.tied_decoder else _OWN_WIDTH)
            if not s.tied_decoder:
                self.decoder_table = nn.Parameter(torch.empty(self.n_items, _OWN_WIDTH))
                nn.init.xavier_normal_(self.decoder_table)

    def denoising_losses(self, step: Step, guidance: History, target: Tensor) -> dict[str, Tensor]:
        s = self.settings
        x_0_hat, middle = self.denoiser.with_middle(step.x_t, step.t, guidance)
        losses = {}
        if s.mse_weight > 0:
            losses["mse"] = s.mse_weight * squared_error(x_0_hat, step.x_0)
        if s.ce_weight > 0:
            losses["ce"] = s.ce_weight * self.cross_entropy(x_0_hat, target)
        if self.decoder is not None:
            table = self.item_embedding.weight if self.decoder_table is None else self.decoder_table
            given_back = self.decoder(middle, guidance.item_seq, guidance.length, table)
            losses["reconstruction"] = s.reconstruction_weight * given_back
        if s.one_step_weight > 0:
            last = torch.full_like(step.t, s.timesteps - 1)
            at_start = self.denoiser(self.seen(step.noise), last, guidance)
            losses["one_step"] = s.one_step_weight * squared_error(x_0_hat, at_start)
        return losses

    def training_step(self, x_0: Tensor, guidance: History, real: Tensor | None, noise: Tensor | None = None) -> Step:
        if self.settings.prior == "history":
            noise = self.from_history(guidance, torch.rand(len(x_0), x_0.shape[-1] + 1, device=x_0.device))
        return super().training_step(x_0, guidance, real, noise)

    def start_noise(self, noise: RowNoise, guidance: History) -> Tensor:
        start = super().start_noise(noise, guidance)
        if self.settings.prior == "noise" or self.settings.ablate == "noise":
            return start
        return self.from_history(guidance, noise.uniform(START, self.settings.embedding_size + 1))

    def from_history(self, guidance: History, uniform: Tensor) -> Tensor:
        """A random item of each history with some coordinates kept, [rows, dim].

        Args:
            uniform: uniform numbers in [0, 1], [rows, dim + 1]. The first ``dim`` choose the coordinates, the last one
                the item.
        """
        length, item_seq = guidance.length, guidance.item_seq
        choice = (uniform[:, -1] * length).long().clamp(max=length - 1)
        item = item_seq.gather(1, choice.unsqueeze(-1)).squeeze(-1)
        return self.item_embedding(item).detach() * (uniform[:, :-1] < self.settings.prior_keep)
