"""The settings that diffusion models share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from recbole_diffusion.config.settings import UserError, check_heads
from recbole_diffusion.config.stages import Stage, read_stages
from recbole_diffusion.config.typed import TypedSettings
from recbole_diffusion.diffusion.process import GaussianDiffusion, Process, StraightPath
from recbole_diffusion.diffusion.samplers import SAMPLERS
from recbole_diffusion.diffusion.schedules import make_betas


@dataclass(frozen=True)
class DiffusionConfig(TypedSettings):
    """The settings of every diffusion model. ``schedule_parameters`` names those of the noise schedule."""

    schedule_parameters: ClassVar[tuple[str, ...]] = ("beta_start", "beta_end")

    timesteps: int
    noise_schedule: str | None
    beta_start: float | None
    beta_end: float | None
    prediction: str
    timestep_sampler: str
    sampler: str
    sampling_steps: int
    valid_sampling_steps: int | None
    eta: float
    variance: str
    eval_seed: int
    ablate: str | None

    def __post_init__(self) -> None:
        """Refuse combinations that make no sense."""
        for name in ("sampling_steps", "valid_sampling_steps"):
            steps = getattr(self, name)
            if steps is not None and steps > self.timesteps:
                raise UserError(f"{name}={steps}: must be from 1 to timesteps={self.timesteps}.")
            if steps == 1 and self.prediction == "eps":
                raise UserError(
                    f"{name}=1 with prediction=eps: the one step divides by sqrt(abar_T), which is near 0. Set more "
                    "steps, or prediction=x0 or v."
                )
        process = getattr(self, "process", "gaussian")
        if self.sampler not in SAMPLERS[process]:
            raise UserError(
                f"sampler={self.sampler} with process={process}: must be one of {', '.join(SAMPLERS[process])}. "
                "sampler=euler, process=straight and noise_schedule=~ go together."
            )
        if self.ablate == "state" and self.prediction != "x0":
            raise UserError(
                f"ablate=state with prediction={self.prediction}: x0 is computed from x_t then. Set prediction=x0."
            )
        if self.ablate == "noise" and self.prediction == "eps":
            raise UserError("ablate=noise with prediction=eps: there is no noise to predict. Set prediction=x0.")
        if self.eta > 0 and self.sampler != "ddim":
            raise UserError(f"eta={self.eta:g}: only sampler=ddim reads it, not sampler={self.sampler}. Set eta=0.")

    def make_process(self) -> Process:
        """The process between data and noise."""
        return GaussianDiffusion(self.betas())

    def betas(self) -> Tensor:
        """The noise schedule, float64 [T]."""
        if self.noise_schedule is None:
            raise UserError("noise_schedule=~: is allowed only with process=straight. Set a noise_schedule.")
        given = {name: getattr(self, name) for name in self.schedule_parameters}
        params = {name: value for name, value in given.items() if value is not None}
        try:
            return make_betas(self.noise_schedule, self.timesteps, **params)
        except ValueError as error:
            raise UserError(str(error)) from error


@dataclass(frozen=True)
class CatalogueLossConfig(TypedSettings):
    """The settings of a loss over the catalogue, or over sampled negatives (model/negatives.py)."""

    catalogue_loss: str
    num_negatives: int | None
    negative_sampler: str | None
    gbce_t: float | None
    ce_temperature: float

    def check_catalogue_loss(self) -> None:
        """Refuse settings that the others would ignore."""
        if self.num_negatives is None and self.negative_sampler is not None:
            raise UserError(
                f"negative_sampler={self.negative_sampler} with num_negatives=~: the loss is over the whole catalogue. "
                "Set num_negatives, or negative_sampler=~."
            )
        if self.catalogue_loss != "gbce":
            if self.gbce_t is not None:
                raise UserError(f"gbce_t={self.gbce_t:g}: only catalogue_loss=gbce reads it. Set gbce_t=~.")
        elif self.num_negatives is None:
            raise UserError("catalogue_loss=gbce with num_negatives=~: it needs sampled negatives. Set num_negatives.")
        elif self.negative_sampler not in (None, "uniform"):
            raise UserError(
                f"catalogue_loss=gbce with negative_sampler={self.negative_sampler}: its beta is for uniform "
                "negatives. Set negative_sampler=uniform or ~."
            )


@dataclass(frozen=True)
class EmbeddingDiffusionConfig(DiffusionConfig, CatalogueLossConfig):
    """The settings of models that diffuse the embedding of the target item. Each has a Transformer.

    ``draws_elsewhere``: whether generation also draws something that is no noise of a chain.
    """

    draws_elsewhere: ClassVar[bool] = False

    process: str
    noise_schedule: str | None
    sampler: str
    train_on: str
    embedding_size: int
    item_init_std: float
    num_layers: int
    num_heads: int
    dropout: float
    stop_gradient_target: bool
    mse_weight: float
    ce_weight: float
    rescale_x0: bool
    num_chains: int
    chain_start: str
    pretrained_item_table: str | None
    stages: list | None  # type: ignore[type-arg]  # settings are declared by this text: "list"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_catalogue_loss()
        check_heads(("num_heads", self.num_heads), ("embedding_size", self.embedding_size))
        if self.pretrained_item_table is None and self.training_stages()[0].freezes("item_embedding.weight"):
            raise UserError("stages: the first one freezes item_embedding, which needs a pretrained_item_table.")
        if self.process == "straight":
            self._check_straight()
        if self.num_chains > 1:
            self._check_chains()
        if not self.has_loss():
            raise UserError(
                "mse_weight=0 and ce_weight=0: one of them must be above 0, otherwise there is no loss to learn from."
            )
        if self.ce_weight > 0 and self.prediction == "eps":
            raise UserError(
                f"ce_weight={self.ce_weight:g} with prediction=eps: x0_hat is then divided by sqrt(abar_t), which is "
                "near 0 at most steps. Set ce_weight=0, or prediction=x0 or v."
            )

    def _check_chains(self) -> None:
        noise_between = self.sampling_steps > 1 and (
            self.eta > 0 or (self.sampler == "ddpm" and self.variance != "none")
        )
        for name, cause in (
            ("ablate", self.ablate is not None),
            ("chain_start", self.chain_start == "zero" and not noise_between),
        ):
            if cause and not self.draws_elsewhere:
                raise UserError(
                    f"num_chains={self.num_chains} with {name}={getattr(self, name)}: all chains of a history are the "
                    f"same then. Set {name}={'~' if name == 'ablate' else 'noise'}, or num_chains=1."
                )

    def _check_straight(self) -> None:
        for name in ("noise_schedule", *self.schedule_parameters):
            value = getattr(self, name)
            if value is not None:
                raise UserError(f"{name}={value} with process=straight: a straight path has no schedule. Set {name}=~.")
        if self.prediction not in StraightPath.predictions:
            raise UserError(
                f"prediction={self.prediction} with process=straight: must be one of "
                f"{', '.join(StraightPath.predictions)}; at the last step x0 cannot be computed from the noise."
            )

    def has_loss(self) -> bool:
        """Whether a term of the loss trains the denoiser."""
        return self.mse_weight > 0 or self.ce_weight > 0

    def reads_catalogue_loss(self) -> bool:
        """Whether a term of the loss, or a stage of training, ranks items."""
        return self.ce_weight > 0 or any(stage.loss is not None for stage in self.training_stages())

    def make_process(self) -> Process:
        return StraightPath(self.timesteps) if self.process == "straight" else super().make_process()

    def training_stages(self) -> tuple[Stage, ...]:
        """The stages of training. If ``stages`` is None, it is one stage that trains everything."""
        return read_stages(self.stages)
