"""PreferDiff (Liu et al., "Preference Diffusion for Recommendation", ICLR 2025, arXiv 2410.13117).

DreamRec with two changes: the error is a cosine, and the target is preferred to the mean of the other targets.

==============================  ==============================================================================
paper                           here
==============================  ==============================================================================
e_0^+, the target               ``x_0``, a row of ``item_embedding``
e_0^-, the negative             ``others_mean``: the mean of the other targets of the training step
d(x0_hat, e_0)                  ``cosine_error``: ``(1 - cos)^2``
lambda L_simple                 the ``error`` term, lambda = ``mse_weight``
(1 - lambda) L_BPR-Diff         the ``preference`` term, 1 - lambda = ``preference_weight``:
                                ``-log sigmoid(gamma (d^- - d^+))``, gamma = ``preference_scale``
(none)                          the ``ce`` term, cross-entropy of x0_hat over the catalogue; off in the paper
==============================  ==============================================================================

Target and negative have the same timestep and the same guidance, but noise of their own. The cosine says nothing about
the length of x0_hat, and ranking is by inner product: the length is the same for all items of a row.

Differences from the authors' code:

- the encoder is this package's (theirs divides logits by the root of the full width, and adds a residual twice);
- their 21 states of DDIM are 0, 100 ... 2000 with abar a step behind, and 2000 is one past what was trained; here they
  are even steps from 0 to 1999;
- a training row is a window or a prefix (theirs: the last item of each of 80 % of the users; the others are tested).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from recbole_diffusion import processes
from recbole_diffusion.diffusion.step import Step
from recbole_diffusion.model.dreamrec import DreamRec, DreamRecConfig
from recbole_diffusion.model.settings import DiffusionConfig


@dataclass(frozen=True)
class PreferDiffConfig(DreamRecConfig, model="PreferDiff"):
    """PreferDiff's own settings."""

    preference_weight: float
    preference_scale: float
    preference_of: str

    def has_loss(self) -> bool:
        return super().has_loss() or self.preference_weight > 0


class PreferDiff(DreamRec):
    """Generates the embedding of the next item; training prefers it to the mean of the others."""

    config_class: ClassVar[type[DiffusionConfig]] = PreferDiffConfig
    settings: PreferDiffConfig

    def denoising_losses(self, step: Step, guidance: Tensor, target: Tensor) -> dict[str, Tensor]:
        s = self.settings
        x_0_hat = self.denoiser(step.x_t, step.t, guidance)
        error = cosine_error(x_0_hat, step.x_0)
        losses = {}
        if s.mse_weight > 0:
            losses["error"] = s.mse_weight * error
        if s.preference_weight > 0:
            others = others_mean(step.x_0)
            others_hat = self.denoiser(self.noised(others, step.t), step.t, guidance)
            worse = cosine_error(others_hat, others) - error
            if s.preference_of == "batch":
                worse = (processes.sum_of_all(worse.sum()) / processes.count_rows(worse)).expand_as(worse)
            losses["preference"] = -s.preference_weight * F.logsigmoid(s.preference_scale * worse)
        if s.ce_weight > 0:
            losses["ce"] = s.ce_weight * self.cross_entropy(x_0_hat, target)
        return losses


def cosine_error(prediction: Tensor, x_0: Tensor) -> Tensor:
    """``(1 - cos(prediction, x_0))^2``, [*leading, dim] to [*leading]."""
    return (1 - F.cosine_similarity(prediction, x_0, dim=-1)).square()


def others_mean(x_0: Tensor) -> Tensor:
    """The mean of all other rows of the step, for each row of [rows, dim]. It is 0 for a row that is alone."""
    return (processes.sum_of_all(x_0.sum(dim=0)) - x_0) / max(processes.count_rows(x_0) - 1, 1)
