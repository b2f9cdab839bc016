"""DreamRec (Yang et al., "Generate What You Prefer", NeurIPS 2023, arXiv 2310.20453).

======================  ==============================================================================
paper                   here
======================  ==============================================================================
e_n^0, the target       ``x_0``, a row of ``item_embedding``
c_{n-1}, the guidance   ``encode``: the last state of a Transformer over the history
Phi, dummy token        ``denoiser``'s null condition, taken with probability p_u = ``p_uncond``
f_theta(e_t, c, t)      ``denoiser``: an MLP over [x_t ; c ; tau(t)] that predicts x_0
L = ||e^0 - f||^2       the ``mse`` term
w, guidance strength    ``guidance_strength``: (1 + w) f(e_t, c, t) - w f(e_t, Phi, t)
======================  ==============================================================================

Differences from the authors' code:

- evaluation is in evaluation mode and keeps its last partial batch; the padding item is not ranked;
- the epoch is chosen on validation;
- the encoder is this package's Transformer block (theirs takes keys and values from the unnormalised input, has no
  output projection, and a feed-forward layer of size d with ReLU);
- the sinusoids of tau have the frequencies of Vaswani et al. (the authors' reach the lowest one a step earlier).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from recbole_diffusion.config.settings import UserError
from recbole_diffusion.diffusion.denoiser import ClassifierFreeGuidance, MLPDenoiser
from recbole_diffusion.model.embedding import EmbeddingDiffusionRecommender
from recbole_diffusion.model.settings import DiffusionConfig, EmbeddingDiffusionConfig


@dataclass(frozen=True)
class DreamRecConfig(EmbeddingDiffusionConfig):
    """DreamRec's own settings."""

    encoder_input_norm: bool
    denoiser: str
    denoiser_skip: bool
    guidance_strength: float
    p_uncond: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.denoiser_skip and self.prediction != "x0":
            raise UserError(
                f"denoiser_skip=True with prediction={self.prediction}: the guidance can be added to a prediction of "
                "x0 only. Set denoiser_skip=False, or prediction=x0."
            )
        if self.guidance_strength > 0 and self.p_uncond == 0:
            raise UserError(
                f"guidance_strength={self.guidance_strength:g} needs p_uncond above 0: with p_uncond=0 the prediction "
                "without guidance is never trained."
            )


class DreamRec(EmbeddingDiffusionRecommender):
    """Generates the embedding of the next item from noise, guided by the encoded history."""

    config_class: ClassVar[type[DiffusionConfig]] = DreamRecConfig
    settings: DreamRecConfig
    denoiser: ClassifierFreeGuidance
    stage_losses: ClassVar[tuple[str, ...]] = ("next_item",)

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        s = self.settings
        dim = s.embedding_size
        self.encoder = self.causal_encoder(s.encoder_input_norm)
        denoiser = MLPDenoiser(dim, dim, s.denoiser, s.denoiser_skip)
        self.denoiser = ClassifierFreeGuidance(denoiser, dim, s.p_uncond)

    def encode(self, item_seq: Tensor) -> Tensor:
        return self.encoder(self.item_embedding(item_seq))

    def drop_guidance(self, guidance: Tensor) -> Tensor:
        return self.denoiser.drop(guidance)

    def guided_denoiser(self, x_t: Tensor, t: Tensor, guidance: Tensor) -> Tensor:
        return self.denoiser.guided(x_t, t, guidance, self.settings.guidance_strength)
