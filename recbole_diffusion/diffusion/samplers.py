"""Generation: step rules from ``x_t`` to ``x_s``, and the one loop that applies them.

A step rule takes ``(process, x_t, x_0, t, s, noise)``:

- ``x_t`` is the state at step ``t``, [*leading, dim];
- ``x_0`` is the denoiser's estimate at ``t``;
- ``s`` is the next chosen step, any ``s < t``; -1 is the end, where no noise is added and the result is ``x_0``;
- ``noise`` is a function that draws standard normal noise shaped like ``x_t``. It is a function, so that a rule draws
  noise only if it adds some.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from recbole_diffusion.diffusion.discrete import ReplacementDiffusion, draw_states
from recbole_diffusion.diffusion.process import GaussianDiffusion, Process, StraightPath

# The samplers of each process.
SAMPLERS = {"gaussian": ("ddpm", "ddim"), "straight": ("euler", "euler_start"), "replacement": ("bayes",)}
VARIANCES = ("small", "large", "none")

Noise = Callable[[], Tensor]
StepRule = Callable[..., Tensor]


def select_timesteps(timesteps: int, sampling_steps: int) -> list[int]:
    """Evenly spaced steps in descending order. They always contain T-1, and 0 too if there is more than one.

    Raises:
        ValueError: ``sampling_steps`` is outside 1 ... T.
    """
    if not 1 <= sampling_steps <= timesteps:
        raise ValueError(f"sampling_steps={sampling_steps!r}: must be from 1 to timesteps={timesteps}.")
    if sampling_steps == 1:
        return [timesteps - 1]
    gaps = sampling_steps - 1
    # Rounds to the nearest step. Neighbours are at least one step apart, so no step is chosen twice.
    return [(2 * i * (timesteps - 1) + gaps) // (2 * gaps) for i in reversed(range(sampling_steps))]


def ancestral_step(
    process: GaussianDiffusion, x_t: Tensor, x_0: Tensor, t: int, s: int, noise: Noise, variance: str = "small"
) -> Tensor:
    """DDPM: a draw from the posterior ``q(x_s | x_t, x_0)`` (Ho et al. 2020, algorithm 2), shaped like ``x_t``.

    If steps are skipped, it is the posterior with ``beta = 1 - abar_t/abar_s`` (Nichol & Dhariwal 2021, equation 19).

    Args:
        variance: ``small`` is the variance of the posterior, ``large`` is beta, ``none`` adds no noise to the mean.
            DiffuRec's ``large`` is smaller at step 0. This makes no difference, because the last step adds no noise.
    """
    beta, var_t, var_s = process.beta_between(t, s), process.beta_between(t, -1), process.beta_between(s, -1)
    mean = process.alpha_bar(s).sqrt() * beta / var_t * x_0 + process.alpha_bar(t, s).sqrt() * var_s / var_t * x_t
    if variance == "none" or s < 0:
        return mean
    return mean + {"small": beta * var_s / var_t, "large": beta}[variance].sqrt() * noise()


def ddim_step(
    process: GaussianDiffusion, x_t: Tensor, x_0: Tensor, t: int, s: int, noise: Noise, eta: float = 0.0
) -> Tensor:
    """DDIM (Song et al. 2021, equations 12 and 16), shaped like ``x_t``.

    Args:
        eta: noise relative to ``ancestral_step``: 0 is deterministic, 1 has its mean and variance.
    """
    beta, var_t, var_s = process.beta_between(t, s), process.beta_between(t, -1), process.beta_between(s, -1)
    sigma = eta * (var_s / var_t * beta).sqrt()
    # With eta = 1, rounding can make the argument of the root negative.
    x_s = process.alpha_bar(s).sqrt() * x_0 + (var_s - sigma**2).clamp(min=0).sqrt() * process.eps_from(x_0, x_t, t)
    return x_s if eta == 0 or s < 0 else x_s + sigma * noise()


def euler_step(process: StraightPath, x_t: Tensor, x_0: Tensor, t: int, s: int, noise: Noise) -> Tensor:
    """An Euler step along the velocity at ``t``, ``x_s = x_t + (s_s - s_t) (x_t - x_0)/s_t``, shaped like ``x_t``.

    It draws no noise.
    """
    share_t, share_s = process.noise_share(t), process.noise_share(s)
    return x_0 + share_s / share_t * (x_t - x_0)


def euler_start_step(
    process: StraightPath, x_t: Tensor, x_0: Tensor, t: int, s: int, noise: Noise, start: Tensor
) -> Tensor:
    """An Euler step along ``start - x_0`` (FMRec, arXiv 2505.16298), shaped like ``x_t``; it draws no noise.

    :func:`euler_step` takes the velocity from x_t, this rule from the chain's start. So the end of a chain from pure
    noise is the mean of all x_0, weighted by the lengths of the steps.

    Args:
        start: the state that the chain began with.
    """
    return x_t + (process.noise_share(t) - process.noise_share(s)) * (x_0 - start)


def bayes_step(
    process: ReplacementDiffusion, x_t: Tensor, x_0: Tensor, t: int, s: int, noise: Noise, law: Tensor, prediction: str
) -> Tensor:
    """A draw from ``p(x_s | x_t)`` of a discrete process, shaped like ``x_t`` [rows, 1].

    Args:
        x_0: probabilities of x_0, or ratios of x_t, [rows, n]; ``prediction`` says which.
        noise: draws uniform numbers, shaped like ``x_t``.
        law: of the replacements, [n].
    """
    step = process.step_from_x0 if prediction == "x0" else process.step_from_ratios
    return draw_states(step(x_0, x_t.squeeze(-1), t, s, law), noise().squeeze(-1)).unsqueeze(-1)


def make_step(sampler: str, eta: float = 0.0, variance: str = "small") -> StepRule:
    """The step rule of a sampler. ``ddim`` reads ``eta``, ``ddpm`` reads ``variance``; both are always checked.

    Raises:
        ValueError: a value is not allowed.
    """
    samplers = [name for names in SAMPLERS.values() for name in names]
    for setting, value, allowed in (("sampler", sampler, samplers), ("variance", variance, VARIANCES)):
        if value not in allowed:
            raise ValueError(f"{setting}={value!r}: must be one of {', '.join(allowed)}.")
    if not 0 <= eta <= 1:
        raise ValueError(f"eta={eta!r}: must be from 0 to 1.")
    rules: dict[str, StepRule] = {
        "ddpm": partial(ancestral_step, variance=variance),
        "ddim": partial(ddim_step, eta=eta),
        "euler": euler_step,
        "euler_start": euler_start_step,
        "bayes": bayes_step,
    }
    return rules[sampler]


def sample(
    predict_x0: Callable[[Tensor, Tensor], Tensor],
    process: Process,
    x_T: Tensor,
    timesteps: Sequence[int],
    step: StepRule,
    noise: Callable[[Tensor, int], Tensor] | None = None,
    project: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Runs the reverse process from ``x_T`` down to the data.

    Args:
        predict_x0: ``(x_t, t) -> x_0`` with ``x_t`` [*leading, dim] and ``t`` a LongTensor [*leading].
        x_T: the start, [*leading, dim]: pure noise, or data noised to the first of ``timesteps``.
        timesteps: the chosen steps in descending order.
        step: a step rule of this process, see :func:`make_step`.
        noise: ``(x_t, t) ->`` standard normal noise shaped like ``x_t``, for the step from ``t``. None draws from
            torch's global generator.
        project: applied to ``x_t`` before every denoising step, if a model keeps ``x_t`` on a sphere.

    Returns:
        The generated x_0, shaped like ``x_T``.
    """
    x_t = x_T
    for t, s in zip(timesteps, [*timesteps, -1][1:], strict=True):
        if project is not None:
            x_t = project(x_t)
        x_0 = predict_x0(x_t, torch.full(x_t.shape[:-1], t, dtype=torch.long, device=x_t.device))
        draw = partial(torch.randn_like, x_t) if noise is None else partial(noise, x_t, t)
        x_t = step(process, x_t, x_0, t, s, draw)
    return x_t
