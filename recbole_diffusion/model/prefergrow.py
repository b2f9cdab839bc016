"""PreferGrow (NeurIPS 2025, arXiv 2509.26063): discrete diffusion on the id of the next item.

==================================  ===========================================================================
paper                               here
==================================  ===========================================================================
the state x                         an item, or the state without item ("disliked by all")
e, the law of replacement           ``law``: ``gamma / N`` for each item, ``1 - gamma`` for no item; gamma =
                                    ``item_share``. 1 is pairwise, 0 is pointwise, between them hybrid
P_t = alpha I + (1 - alpha) 1 e^T   ``ReplacementDiffusion``
s, the preference ratios            ``prediction=ratio``: ``s_y = f([e(x_t) ; c ; tau]) . e_y``, and 0 for x_t
score entropy                       the ``ratio`` term
analytic steps, last one ranked     ``sampler=bayes``
w, guidance of the ratios           ``1 + guidance_strength``
==================================  ===========================================================================

With ``prediction=x0``, this package's variant, ``softmax(f . e)`` is the probability of each item to be x_0 given x_t,
and is trained by cross-entropy. The steps follow from it by Bayes' rule. At the last timestep x_t is a random item, so
the network has to rank by the history alone, and can do it in one step. Ratios cannot: there they differ from those of
the law by a share of exp(-10).

Differences from the authors' code:

- encoder, training rows and early stopping are this package's; the learning rate has no warm-up, weights are not
  averaged;
- tau is of t, not of sigma; the last step is from sigma at u = 0.001;
- the adaptive law is not here (in the authors' code it is never trained, and stays uniform).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from recbole.data.interaction import Interaction
from torch import Tensor, nn

from recbole_diffusion.config.settings import UserError, rows_at_once
from recbole_diffusion.diffusion.discrete import ReplacementDiffusion, draw_states, score_entropy
from recbole_diffusion.diffusion.noise import START, RowNoise
from recbole_diffusion.diffusion.step import Step
from recbole_diffusion.model.base import Example
from recbole_diffusion.model.diagnostics import table_statistics
from recbole_diffusion.model.dreamrec import DreamRec, DreamRecConfig
from recbole_diffusion.model.losses import in_parts
from recbole_diffusion.model.settings import DiffusionConfig

_TINY = 1e-30
_COPIES = 4  # of the matrix of scores in the score entropy


@dataclass(frozen=True)
class PreferGrowConfig(DreamRecConfig, model="PreferGrow"):
    """PreferGrow's own settings. It has no noise schedule, and no squared error."""

    item_share: float

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, wanted in (
            ("noise_schedule", None),
            ("mse_weight", 0.0),
            ("rescale_x0", False),
            ("chain_start", "noise"),
        ):
            if getattr(self, name) != wanted:
                shown = "~" if wanted is None else f"{wanted}"
                raise UserError(f"{name}={getattr(self, name)} with process=replacement: must be {shown}.")
        if self.ablate == "noise":
            raise UserError("ablate=noise with process=replacement: a replaced item has no noise that could be 0.")
        if self.prediction == "ratio" and self.ce_weight > 0:
            raise UserError(
                f"ce_weight={self.ce_weight:g} with prediction=ratio: ratios have a loss of their own. Set "
                "ce_weight=0, or prediction=x0."
            )

    def has_loss(self) -> bool:
        return self.prediction == "ratio" or super().has_loss()

    def make_process(self) -> Any:
        return ReplacementDiffusion(self.timesteps)


class PreferGrow(DreamRec):
    """Generates the next item by replacing items. States are numbered from 0: item 1 is state 0; no item is state N."""

    config_class: ClassVar[type[DiffusionConfig]] = PreferGrowConfig
    settings: PreferGrowConfig
    process: Any  # a ReplacementDiffusion
    law: Tensor

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        s, items = self.settings, self.n_items - 1
        law, self.no_item = torch.full((items,), s.item_share / items), None
        if s.item_share < 1:
            law = torch.cat([law, torch.tensor([1 - s.item_share])])
            self.no_item = nn.Parameter(s.item_init_std * torch.randn(1, s.embedding_size))
        self.register_buffer("law", law, persistent=False)

    def states(self) -> Tensor:
        """The embeddings of all states, [n, dim]."""
        items = self.item_embedding.weight[1:]
        return items if self.no_item is None else torch.cat([items, self.no_item])

    def seen(self, x_t: Tensor) -> Tensor:
        return x_t  # a state; its embedding is what the denoiser sees

    def embedded(self, x_t: Tensor) -> Tensor:
        """The embeddings of states [rows, 1], [rows, dim]; 0 with ``ablate=state``."""
        return super().seen(F.embedding(x_t.squeeze(-1), self.states()))

    def training_example(self, interaction: Interaction) -> Example:
        state, target = self.training_pairs(interaction)
        return Example((target - 1).unsqueeze(-1), state, target)

    def training_step(self, x_0: Tensor, guidance: Any, real: Tensor | None, noise: Tensor | None = None) -> Step:
        t, weight = self.timestep_sampler.draw(len(x_0))
        drawn, uniform = draw_states(self.law, torch.rand(len(x_0), device=x_0.device)), torch.rand_like(weight)
        x_t = self.process.q_sample(x_0.squeeze(-1), t, drawn, uniform)
        return Step(x_0, x_t.unsqueeze(-1), t, drawn.unsqueeze(-1), weight)

    def denoising_losses(self, step: Step, guidance: Tensor, target: Tensor) -> dict[str, Tensor]:
        s, table = self.settings, self.states()
        output = self.denoiser(self.embedded(step.x_t), step.t, guidance)
        if s.prediction == "x0":
            return {"ce": s.ce_weight * self.cross_entropy(output, target)}

        def entropy(output: Tensor, x_0: Tensor, x_t: Tensor, sigma: Tensor) -> Tensor:
            return score_entropy(output @ table.T, x_0, x_t, sigma, self.law)

        states = (step.x_0.squeeze(-1), step.x_t.squeeze(-1), self.process.sigma(step.t))
        loss = in_parts(entropy, self.max_cells // _COPIES, len(table), output, *states)
        return {"ratio": self.process.rate(step.t) * loss}

    def start_noise(self, noise: RowNoise, guidance: Any) -> Tensor:
        return draw_states(self.law, noise.uniform(START, 1).squeeze(-1)).unsqueeze(-1)

    def chain_noise(self, noise: RowNoise, purpose: int, size: int, t: int = 0) -> Tensor:
        return noise.uniform(purpose, 1, t=t)

    def predict_x0(self, x_t: Tensor, t: Tensor, guidance: Any) -> Tensor:
        """The denoiser's output [rows, dim]; its inner products with the states are logits or log-ratios."""
        return self.guided_denoiser(self.embedded(x_t), t, guidance)

    def step_from(self, process: Any, x_t: Tensor, x_0: Tensor, t: int, s: int, noise: Any, start: Tensor) -> Tensor:
        """The next state [rows, 1]. At the end, the output itself; with ratios also the last state, [rows, dim + 1]."""
        if s < 0:
            return x_0 if self.settings.prediction == "x0" else torch.cat([x_0, x_t], dim=-1)
        rows = rows_at_once(self.max_cells // _COPIES, len(self.law))
        parts = zip(*(values.split(rows) for values in (x_t, x_0, noise())), strict=True)
        return torch.cat(
            [
                self.reverse_step(
                    process, of, self.probabilities(output, of), t, s, lambda u=u: u, self.law, self.settings.prediction
                )
                for of, output, u in parts
            ]
        )

    def probabilities(self, output: Tensor, x_t: Tensor) -> Tensor:
        """Of each state to be x_0, or with ratios proportional to that of being x_t; [rows, n]."""
        if self.settings.prediction == "x0":
            p = (output @ self.item_embedding.weight[1:].T / self.settings.ce_temperature).softmax(dim=-1)
            return F.pad(p, (0, len(self.law) - p.shape[-1]))
        return (output @ self.states().T).scatter(1, x_t, 0.0).softmax(dim=-1)

    def item_scores(self, x_0: Tensor) -> Tensor:
        if self.settings.prediction == "x0":
            return super().item_scores(x_0)
        output, x_t = x_0[:, :-1], x_0[:, -1:].long()
        t, ratios = self.reverse_timesteps[-1], self.probabilities(output, x_t)
        p = self.process.step_from_ratios(ratios, x_t.squeeze(-1), t, -1, self.law)
        return F.pad(p[:, : self.n_items - 1].clamp(min=_TINY).log(), (1, 0), value=-torch.inf)

    def score_items(self, x_0: Tensor, rows: Tensor, items: Tensor) -> Tensor:
        if self.settings.prediction == "x0":
            return super().score_items(x_0, rows, items)
        scores = x_0.new_empty(len(rows))  # a ratio counts only beside all others
        at_once = rows_at_once(self.max_cells // _COPIES, self.n_items)
        for first, part in zip(range(0, len(x_0), at_once), x_0.split(at_once), strict=True):
            here = (rows >= first) & (rows < first + len(part))
            scores[here] = self.score(part)[rows[here] - first, items[here]]
        return scores

    @torch.no_grad()
    def diagnose(self, interaction: Interaction) -> dict[str, float]:
        """Figures of the item table, ``abar_T`` (here k_T), and the target's mean rank after generation."""
        interaction = interaction[: rows_at_once(self.max_cells // _COPIES, self.n_items)]
        scores = self.full_sort_predict(interaction)
        target = scores.gather(1, interaction[self.ITEM_ID].unsqueeze(-1))
        rank = 1 + (scores > target).sum(dim=-1).float().mean().item()
        kept = float(self.process.alpha_bar(self.settings.timesteps - 1))
        return {**table_statistics(self.item_embedding.weight[1:]), "target_rank": rank, "abar_T": kept}
