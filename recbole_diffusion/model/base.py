"""What every diffusion recommender shares: the training step, the steps of generation, and RecBole's interface."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, ClassVar, NamedTuple

import torch
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.utils import InputType
from torch import Tensor

from recbole_diffusion import processes
from recbole_diffusion.config.stages import Stage
from recbole_diffusion.diffusion.noise import RowNoise, history_keys
from recbole_diffusion.diffusion.samplers import make_step, select_timesteps
from recbole_diffusion.diffusion.step import Step, draw_step
from recbole_diffusion.diffusion.timesteps import TIMESTEP_SAMPLERS
from recbole_diffusion.model.settings import DiffusionConfig


class Example(NamedTuple):
    """What a model takes from a batch to train on. ``[*leading]`` is the shape of its states, equal in all fields."""

    x_0: Tensor  # [*leading, dim], what is diffused
    guidance: Any  # what the denoiser is conditioned on
    target: Tensor  # the item of each state, [*leading]; 0 at padding
    losses: dict[str, Tensor] = {}  # weighted losses without a training step; scalars
    real: Tensor | None = None  # which states are not padding, bool [*leading]; None: all


class DiffusionRecommender(SequentialRecommender):
    """The training step, the reverse process and the RecBole interface around them.

    A subclass builds its denoiser. It defines what it trains on (``training_example``), its losses
    (``denoising_losses``), and how it generates and scores (``generate``, ``score``, ``score_items``).
    """

    input_type = InputType.POINTWISE
    config_class: ClassVar[type[DiffusionConfig]] = DiffusionConfig
    loss_names: tuple[str, ...] = ()
    stages: tuple[Stage, ...] = (Stage(),)  # of training
    stage_losses: ClassVar[tuple[str, ...]] = ()  # NAMEs of losses for stages: methods NAME_loss(interaction)
    read_in_training: ClassVar[tuple[str, ...]] = ("timestep_sampler.",)  # prefixes of names in the state dictionary

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.settings = self.config_class.from_config(config)
        self.precision = config["precision"]
        self.max_cells = config["max_cells"]
        self.process = self.settings.make_process()
        self.timestep_sampler = TIMESTEP_SAMPLERS[self.settings.timestep_sampler](self.settings.timesteps)
        self.reverse_timesteps = select_timesteps(self.settings.timesteps, self.settings.sampling_steps)
        self.reverse_step = make_step(self.settings.sampler, self.settings.eta, self.settings.variance)

    def training_example(self, interaction: Interaction) -> Example:
        """What is diffused, its guidance and target, and the losses of the model that do not denoise."""
        raise NotImplementedError

    def denoising_losses(self, step: Step, guidance: Any, target: Tensor) -> dict[str, Tensor]:
        """``name -> loss`` of every state, [*leading], already times the weight of its term; finite at padding too.

        Args:
            step: from :func:`recbole_diffusion.diffusion.step.draw_step`. To add noise to something else at the same
                timestep (a negative item, in PreferDiff), call :meth:`noised`.
            guidance: from :class:`Example`, after :meth:`drop_guidance`.
            target: from :class:`Example`.
        """
        raise NotImplementedError

    def training_step(self, x_0: Tensor, guidance: Any, real: Tensor | None, noise: Tensor | None = None) -> Step:
        """Draws timesteps and noises ``x_0`` [*leading, dim], by standard normal noise or by ``noise`` of its shape."""
        noiseless = self.settings.ablate == "noise"
        return draw_step(self.process, self.timestep_sampler, x_0, real, self.seen, noiseless, noise)

    def drop_guidance(self, guidance: Any) -> Any:
        """Drops the guidance of some states, for classifier-free guidance. Called once for each training step."""
        return guidance

    def project(self, x_t: Tensor) -> Tensor:
        """Applied to x_t before the denoiser sees it, in training and at every step of generation."""
        return x_t

    def seen(self, x_t: Tensor) -> Tensor:
        """What the denoiser sees of ``x_t``: :meth:`project`, or 0 with ``ablate=state``."""
        return torch.zeros_like(x_t) if self.settings.ablate == "state" else self.project(x_t)

    def noised(self, x_0: Tensor, t: Tensor) -> Tensor:
        """``x_0`` [*leading, dim] with new noise of the steps ``t`` [*leading], as the denoiser sees it."""
        noise = torch.randn_like(x_0)
        if self.settings.ablate == "noise":  # drawn all the same, so that later draws stay as they are
            noise = torch.zeros_like(noise)
        return self.seen(self.process.q_sample(x_0, t, noise))

    def calculate_loss(self, interaction: Interaction) -> tuple[Tensor, ...]:
        """The loss terms, scalars. ``loss_names`` has their names; training minimises their sum.

        A denoising loss is the mean over all states that are not padding, each times the weight of its timestep.
        """
        x_0, guidance, target, losses, real = self.training_example(interaction)
        step = self.training_step(x_0, guidance, real)
        denoising = self.denoising_losses(step, self.drop_guidance(guidance), target)
        twice = losses.keys() & denoising.keys()
        assert not twice, f"two losses are called {', '.join(twice)}"
        terms = losses | {name: (step.weight * loss).mean() for name, loss in denoising.items()}
        t, total = step.t, torch.stack([loss.detach() for loss in denoising.values()]).sum(dim=0)
        of_states = (t, total) if real is None else (t[real], total[real])
        # It learns from the states of all processes, so that it stays the same in all.
        self.timestep_sampler.update(*(processes.rows_of_all(values) for values in of_states))
        self.loss_names = tuple(terms)
        return tuple(terms.values())

    def evaluation_noise(self, interaction: Interaction) -> RowNoise:
        """Noise for generation. It depends only on ``eval_seed`` and each row's history, not on the batch."""
        keys = history_keys(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN], self.settings.eval_seed)
        return RowNoise(keys)

    def chain_noise(self, noise: RowNoise, purpose: int, size: int, t: int = 0) -> Tensor:
        """Noise of the chain at its start and in its steps, [rows, size]; 0 with ``ablate=noise``."""
        if self.settings.ablate == "noise":
            return torch.zeros(len(noise.keys), size, device=noise.keys.device)
        return noise.normal(purpose, size, t=t)

    def validation(self) -> AbstractContextManager[None]:
        """A context for the validations of training: it generates in ``valid_sampling_steps`` steps, if that is set."""
        return self.generating_in(self.settings.valid_sampling_steps or len(self.reverse_timesteps))

    @contextmanager
    def generating_in(self, sampling_steps: int) -> Iterator[None]:
        """A context in which the model generates in ``sampling_steps`` steps, 1 ... T."""
        before = self.reverse_timesteps
        self.reverse_timesteps = select_timesteps(self.settings.timesteps, sampling_steps)
        try:
            yield
        finally:
            self.reverse_timesteps = before

    def generate(self, interaction: Interaction) -> Tensor:
        """x0_hat of each row and channel, [batch, channels, dim]."""
        raise NotImplementedError

    def score(self, x_0: Tensor) -> Tensor:
        """Scores of items 0 ... N, [batch, N + 1], from the result of :meth:`generate`."""
        raise NotImplementedError

    def score_items(self, x_0: Tensor, rows: Tensor, items: Tensor) -> Tensor:
        """Scores of some items only, [pairs]: of item ``items[i]`` for row ``rows[i]`` of :meth:`generate`'s result."""
        raise NotImplementedError

    @torch.no_grad()
    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """Scores of every item for every row, [batch, N + 1]. The padding item has -inf."""
        scores = self.score(self._generate_in_precision(interaction))
        scores[:, 0] = -torch.inf
        return scores

    @torch.no_grad()
    def predict(self, interaction: Interaction) -> Tensor:
        """Score of each row's item, [batch]: the same as in :meth:`full_sort_predict`, without scoring other items.

        The candidates of one user are rows with the same history: x0_hat is generated once for them.
        """
        history, length = interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN]
        inside = torch.arange(history.shape[1], device=history.device) < length.unsqueeze(-1)
        rows = torch.cat([length.unsqueeze(-1), history * inside], dim=1)
        unique, row = torch.unique(rows, dim=0, return_inverse=True)
        x_0 = self._generate_in_precision(Interaction({self.ITEM_SEQ: unique[:, 1:], self.ITEM_SEQ_LEN: unique[:, 0]}))
        items = interaction[self.ITEM_ID]
        return self.score_items(x_0, row, items).masked_fill_(items == 0, -torch.inf)

    def _generate_in_precision(self, interaction: Interaction) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            x_0 = self.generate(interaction)
        return x_0.float()  # scores are in full precision: in bfloat16 many items would have equal ones
