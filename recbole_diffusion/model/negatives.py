"""Losses of the next item against sampled negatives, for catalogues where the whole softmax is too expensive.

The softmax over the items 1 ... N needs ``Z = exp(s_pos) + sum_{j != pos} exp(s_j)``. A sum over a sample of negatives
estimates the second part without bias if each drawn item is divided by how often it is expected among the draws:

    ``Z_hat = exp(s_pos) + sum_{j drawn, j != pos} exp(s_j - log E[count_j])``

(importance sampling: Bengio and Senecal, "Adaptive Importance Sampling to Accelerate Training of a Neural Probabilistic
Language Model", 2008). This is the log-Q correction of Yi et al., "Sampling-Bias-Corrected Neural Modeling for Large
Corpus Item Recommendations", RecSys 2019, where ``Q`` is the expected count. Two consequences:

- **The positive has no correction.** It is always in the sum, so it is not a draw. A correction of it as well would
  make the loss of rare items too small.
- **Uniform negatives have a correction too**, the constant ``log(m / N)``. With it, m = N gives the whole softmax;
  without it, the negatives together weigh m / N of what they should. Klenitskiy and Vasilev ("Turning Dross Into Gold
  Loss", RecSys 2023) leave it out.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_diffusion import processes
from recbole_diffusion.model.losses import catalogue_cross_entropy, in_parts
from recbole_diffusion.model.settings import CatalogueLossConfig

_GBCE_T = 0.75


class Draws(NamedTuple):
    """Negatives that all rows of a training step share."""

    items: Tensor  # ids in 1 ... N, sorted, each once, [count]
    log_weight: Tensor  # log(how often it was drawn / how often that was expected), [count]


class Negatives(nn.Module):
    """Draws negatives, on the device of the targets and from torch's global generator.

    - ``uniform``: ``count`` different items of the catalogue, at most all N.
    - ``popularity``: ``count`` draws with repetition. The probability of an item is its number of training targets
      plus 1, so that every item can be drawn.
    - ``in_batch``: the targets of ``count`` other rows of the step, or of all if it has fewer. The expected count takes
      the other rows for independent draws from all training targets.

    If several processes share a step, ``in_batch`` draws from the targets of all of them. Each makes its own draw.

    Args:
        sampler: one of these names.
        count: m.
        target_counts: how often each item 0 ... N is a target in the training split, [N + 1].
    """

    cumulative: Tensor
    log_share: Tensor

    def __init__(self, sampler: str, count: int, target_counts: Tensor) -> None:
        super().__init__()
        self.sampler, self.count = sampler, count
        self.n_items = len(target_counts) - 1
        weights = target_counts.double()
        if sampler == "popularity":
            weights = weights + 1
        weights[0] = 0
        share = weights / weights.sum()
        self.register_buffer("cumulative", share.cumsum(0), persistent=False)
        self.register_buffer("log_share", share.log().float(), persistent=False)

    def forward(self, targets: Tensor) -> Draws:
        """Negatives for a step with these targets, [rows]."""
        if self.sampler == "uniform":
            count = min(self.count, self.n_items)
            drawn = torch.randperm(self.n_items, device=targets.device)[:count].sort().values + 1
            return Draws(drawn, torch.full((count,), self.n_items / count, device=targets.device).log())
        if self.sampler == "popularity":
            uniform = torch.rand(self.count, dtype=torch.float64, device=targets.device)
            drawn = torch.searchsorted(self.cumulative, uniform, right=True).clamp(max=self.n_items)
            expected = float(self.count)
        else:
            targets = processes.rows_of_all(targets)
            rows = len(targets)
            drawn = targets
            if self.count < rows:
                drawn = targets[torch.randperm(rows, device=targets.device)[: self.count]]
            expected = len(drawn) * max(rows - 1, 1) / rows  # a row's own target is no draw
        items, times = drawn.unique(return_counts=True)
        return Draws(items, (times / expected).log() - self.log_share[items])


class SampledLoss(nn.Module):
    """The loss of the next item against :class:`Negatives`, as the settings ask for it.

    Args:
        settings: with ``num_negatives``.
        dataset: the training split.
        max_cells: most numbers in one matrix of scores.
    """

    def __init__(self, settings: CatalogueLossConfig, dataset: Any, max_cells: int) -> None:
        super().__init__()
        assert settings.num_negatives is not None
        counts = torch.bincount(dataset.inter_feat[dataset.iid_field], minlength=dataset.item_num)
        self.negatives = Negatives(settings.negative_sampler or "uniform", settings.num_negatives, counts)
        self.temperature, self.max_cells = settings.ce_temperature, max_cells
        self.beta = None
        if settings.catalogue_loss == "gbce":
            t = _GBCE_T if settings.gbce_t is None else settings.gbce_t
            self.beta = gbce_beta(settings.num_negatives, self.negatives.n_items, t)

    def forward(self, prediction: Tensor, item_table: Tensor, items: Tensor) -> Tensor:
        """The loss of each item, [*leading].

        Args:
            prediction: [*leading, dim].
            item_table: embeddings of items 0 ... N, [N + 1, dim].
            items: ids in 1 ... N, [*leading]. With two or more dimensions, 0 is allowed too: padding, with loss 0.
        """
        if items.dim() > 1:
            real = items != 0
            loss = self(prediction[real], item_table, items[real])
            return loss.new_zeros(items.shape).masked_scatter(real, loss)
        draws, prediction = self.negatives(items), prediction / self.temperature
        if self.beta is None:
            return sampled_cross_entropy(prediction, item_table, items, draws, self.max_cells)
        return generalised_bce(prediction, item_table, items, draws.items, self.beta, self.max_cells)


def next_item_loss(
    sampled: SampledLoss | None,
    prediction: Tensor,
    item_table: Tensor,
    items: Tensor,
    temperature: float,
    max_cells: int,
) -> Tensor:
    """The loss of each item, [*leading]: ``sampled``, or without it the cross-entropy over the catalogue.

    Args:
        sampled: what :class:`SampledLoss` computes, with the same ``prediction``, ``item_table`` and ``items``.
        temperature, max_cells: as in :func:`~recbole_diffusion.model.losses.catalogue_cross_entropy`.
    """
    if sampled is not None:
        return sampled(prediction, item_table, items)
    return catalogue_cross_entropy(prediction, item_table, items, temperature, max_cells)


def gbce_beta(num_negatives: int, n_items: int, t: float) -> float:
    """``beta = alpha (t (1 - 1 / alpha) + 1 / alpha)`` with ``alpha = num_negatives / (N - 1)``, at most 1.

    With t = 0, beta is 1. With t = 1, beta is alpha.
    """
    alpha = min(num_negatives / max(n_items - 1, 1), 1.0)
    return alpha * (t * (1 - 1 / alpha) + 1 / alpha)


def sampled_cross_entropy(
    prediction: Tensor, item_table: Tensor, items: Tensor, draws: Draws, max_cells: int
) -> Tensor:
    """``-log(exp(s_pos) / Z_hat)`` of each row's item, see the head of this module, [rows].

    Args:
        prediction: already divided by the temperature, [rows, dim].
        item_table: embeddings of items 0 ... N, [N + 1, dim].
        items: ids in 1 ... N, [rows].
        draws: the negatives. A row leaves out one that is its own item.
        max_cells: most numbers in one matrix of scores.
    """
    own, others = _vectors(item_table, items, draws.items)

    def loss(prediction: Tensor, own: Tensor, items: Tensor) -> Tensor:
        negative = _without_own(F.linear(prediction, others, draws.log_weight), items, draws.items)
        positive = (prediction * own).sum(dim=-1)
        return F.softplus(torch.logsumexp(negative.float(), dim=-1) - positive)  # log(Z_hat) - s_pos

    return in_parts(loss, max_cells, len(draws.items), prediction, own, items)


def generalised_bce(
    prediction: Tensor, item_table: Tensor, items: Tensor, negatives: Tensor, beta: float, max_cells: int
) -> Tensor:
    """gBCE, ``-log(sigmoid(s_pos)^beta) - sum_j log(1 - sigmoid(s_j))`` over the negatives, [rows].

    (Petrov and Macdonald, "gSASRec: Reducing Overconfidence in Sequential Recommendation Trained with Negative
    Sampling", RecSys 2023, eq. 14.) It is their mean over positive and negatives times their number, so that its size
    is that of a cross-entropy.

    Args:
        prediction, item_table, items, max_cells: as in :func:`sampled_cross_entropy`.
        negatives: ids in 1 ... N, sorted, each once, [count]. A row leaves out one that is its own item.
        beta: exponent of the positive's probability, see :func:`gbce_beta`.
    """
    own, others = _vectors(item_table, items, negatives)

    def loss(prediction: Tensor, own: Tensor, items: Tensor) -> Tensor:
        negative = _without_own(F.linear(prediction, others), items, negatives)
        positive = (prediction * own).sum(dim=-1)
        return beta * F.softplus(-positive) + F.softplus(negative.float()).sum(dim=-1)

    return in_parts(loss, max_cells, len(negatives), prediction, own, items)


def _vectors(item_table: Tensor, items: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor]:
    """Embeddings of the items and of the negatives. One look-up has one dense gradient of the table, not two."""
    own, others = F.embedding(torch.cat([items, negatives]), item_table).split([len(items), len(negatives)])
    return own, others


def _without_own(scores: Tensor, items: Tensor, negatives: Tensor) -> Tensor:
    """``scores`` [rows, count], changed in place: -inf where a row's own item is among the sorted ``negatives``."""
    place = torch.searchsorted(negatives, items).clamp(max=len(negatives) - 1)  # [rows]
    rows = torch.nonzero(negatives[place] == items).squeeze(-1)
    return scores.index_put_((rows, place[rows]), scores.new_tensor(-torch.inf))
