"""Discrete diffusion of one token: a state is kept, or replaced by a draw from a fixed law.

(Lou et al. 2024, SEDD: "Discrete Diffusion Modeling by Estimating the Ratios of the Data Distribution", arXiv
2310.16834.) The states are 0 ... n-1, and the law ``e`` has a probability for each. After the steps up to t,

    ``P_t = k_t I + (1 - k_t) 1 e^T``, ``k_t = exp(-sigma_t)``,

so ``P_t(y|x)`` is row x, column y: the state x is kept with probability ``k_t``. From step s to step t the same holds
with ``sigma_t - sigma_s``. The inverse is ``exp(sigma) I + (1 - exp(sigma)) 1 e^T``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_SIGMA_MIN, _SIGMA_MAX = 1e-3, 10.0
_FIRST = 1e-3  # u at t = 0
_TINY = 1e-30


class ReplacementDiffusion(nn.Module):
    """``sigma_t = 0.001^(1 - u) 10^u`` with u from 0.001 at t = 0 to 1 at t = T-1; ``sigma_{-1} = 0``.

    Args:
        timesteps: T.
    """

    predictions: tuple[str, ...] = ("x0", "ratio")
    _sigma: Tensor

    def __init__(self, timesteps: int) -> None:
        super().__init__()
        u = torch.linspace(_FIRST, 1, timesteps, dtype=torch.float64) if timesteps > 1 else torch.ones(1).double()
        sigma = _SIGMA_MIN ** (1 - u) * _SIGMA_MAX**u
        self.register_buffer("_sigma", torch.cat([sigma.new_zeros(1), sigma]).float(), persistent=False)

    @property
    def timesteps(self) -> int:
        """T."""
        return len(self._sigma) - 1

    def sigma(self, t: Tensor | int) -> Tensor:
        """``sigma_t`` in the shape of ``t``."""
        return self._sigma[t + 1]

    def rate(self, t: Tensor | int) -> Tensor:
        """``d sigma / du`` in the shape of ``t``: the weight of a step in the bound of the likelihood."""
        return self.sigma(t) * math.log(_SIGMA_MAX / _SIGMA_MIN)

    def alpha_bar(self, t: Tensor | int) -> Tensor:
        """``k_t``, the probability that a state is kept, in the shape of ``t``."""
        return (-self.sigma(t)).exp()

    def q_sample(self, x_0: Tensor, t: Tensor, drawn: Tensor, uniform: Tensor) -> Tensor:
        """``x_t``: the state x_0, or the ``drawn`` one if ``uniform`` is k_t or more. All have the same shape."""
        return torch.where(uniform < self.alpha_bar(t), x_0, drawn)

    def step_from_x0(self, p: Tensor, x_t: Tensor, t: int, s: int, law: Tensor) -> Tensor:
        """``p(x_s | x_t)`` [rows, n] by Bayes' rule from the probabilities ``p`` [rows, n] of x_0 given x_t [rows]."""
        weights = p / _likelihood(self.alpha_bar(t), x_t, law).clamp(min=_TINY)
        kept = self.alpha_bar(s)
        q = kept * weights + (1 - kept) * law * weights.sum(dim=-1, keepdim=True)  # proportional to p(x_s)
        return self._bayes(q, x_t, t, s, law)

    def step_from_ratios(self, ratios: Tensor, x_t: Tensor, t: int, s: int, law: Tensor) -> Tensor:
        """``p(x_s | x_t)`` [rows, n] from ``ratios`` [rows, n], proportional to the probability of each state at t.

        The inverse of P takes them back to s (SEDD's analytic step). A network's ratios can give negative numbers,
        which become 0.
        """
        grown = torch.expm1(self.sigma(t) - self.sigma(s))
        q = (1 + grown) * ratios - grown * law * ratios.sum(dim=-1, keepdim=True)
        return self._bayes(q.clamp_(min=0), x_t, t, s, law)

    def _bayes(self, q: Tensor, x_t: Tensor, t: int, s: int, law: Tensor) -> Tensor:
        kept = (self.sigma(s) - self.sigma(t)).exp()
        p = q * _likelihood(kept, x_t, law)
        return p / p.sum(dim=-1, keepdim=True).clamp(min=_TINY)


def _likelihood(kept: Tensor, x_t: Tensor, law: Tensor) -> Tensor:
    """``P(x_t | y)`` for every state y, [rows, n]."""
    others = ((1 - kept) * law[x_t]).unsqueeze(-1).repeat(1, len(law))
    return others.scatter_add_(1, x_t.unsqueeze(-1), kept.expand(len(x_t), 1))


def draw_states(p: Tensor, uniform: Tensor) -> Tensor:
    """A state of each row [rows] from probabilities [rows, n], or one law [n] for all, and uniform numbers [rows].

    It is where the cumulative probability passes the uniform number.
    """
    cumulative = p.double().cumsum(dim=-1)
    at = uniform * cumulative[..., -1]  # rounding can leave the sum a little off 1
    place = torch.searchsorted(cumulative, at.unsqueeze(-1) if p.dim() > 1 else at, right=True)
    return place.view(-1).clamp(max=p.shape[-1] - 1)


def score_entropy(log_ratios: Tensor, x_0: Tensor, x_t: Tensor, sigma: Tensor, law: Tensor) -> Tensor:
    """SEDD's loss: ``e_x sum_{y != x} [exp(s_y) - r_y s_y + r_y (log r_y - 1)]`` with x = x_t, [rows].

    ``r_y = P(y|x_0)/P(x|x_0)``, and e_x is the rate at which a state becomes x. It is 0 if and only if ``exp(s) = r``.

    ``e_x r_y`` is ``c e_y`` for all y but one. With ``k = exp(sigma) - 1``: if x_0 was replaced, c is 1, and x_0 itself
    has ``1/k`` more. If it was not, ``c = k e_x/(1 + k e_x)``. So the sums over the states need s and exp(s) only.

    Args:
        log_ratios: s, [rows, n]; what it says of x_t itself is not read.
        x_0, x_t: states, [rows].
        sigma: [rows].
        law: e, [n].
    """
    k = torch.expm1(sigma)
    e_x, e_a = law[x_t], law[x_0]
    same = x_t == x_0
    c = torch.where(same, k * e_x / (1 + k * e_x), 1.0)
    more = torch.where(same, 0.0, 1 / k)  # of x_0, if it is another state
    s_x, s_a = (log_ratios.gather(1, state.unsqueeze(-1)).squeeze(-1) for state in (x_t, x_0))
    grown = e_x * (log_ratios.exp().sum(dim=-1) - s_x.exp())
    linear = c * (log_ratios @ law - e_x * s_x) + more * s_a
    # The sum of R log(R/e_x) - R with R = e_x r_y, first as if R were c e_y for every y but x.
    e_log_e = torch.special.xlogy(law, law)
    rest = 1 - e_x
    log = torch.log(e_x.clamp(min=_TINY))
    constant = torch.special.xlogy(c, c) * rest + c * (e_log_e.sum() - e_log_e[x_t]) - c * rest * (log + 1)
    whole = e_a + more
    change = torch.special.xlogy(whole, whole) - whole * (log + 1) - (e_log_e[x_0] - e_a * (log + 1))
    return grown - linear + constant + torch.where(same, 0.0, change)
