"""What models that diffuse the embedding of the target item share: item table, losses, generation."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from recbole.data.interaction import Interaction
from torch import Tensor, nn

from recbole_diffusion.config.settings import UserError, rows_at_once
from recbole_diffusion.diffusion.noise import START, STEP, RowNoise
from recbole_diffusion.diffusion.process import Process
from recbole_diffusion.diffusion.samplers import Noise, euler_start_step, sample
from recbole_diffusion.diffusion.step import Step
from recbole_diffusion.model.base import DiffusionRecommender, Example
from recbole_diffusion.model.diagnostics import nearest_neighbour_rank, table_statistics
from recbole_diffusion.model.layers import CausalEncoder
from recbole_diffusion.model.losses import squared_error
from recbole_diffusion.model.negatives import SampledLoss, next_item_loss
from recbole_diffusion.model.pretrained import load_item_table
from recbole_diffusion.model.settings import DiffusionConfig, EmbeddingDiffusionConfig

_MOST_SIGNAL_LEFT = 0.02  # with abar_T above this, training never shows the pure noise that generation starts from
_DIAGNOSED_SHARES = (1, 0.75, 0.5, 0.25, 0)  # of T - 1: the steps at which the target's rank is logged


class EmbeddingDiffusionRecommender(DiffusionRecommender):
    """Diffuses ``x0 = E[i*]``, the embedding of the target. The guidance comes from the history.

    A subclass sets ``self.denoiser`` and overrides :meth:`encode`. If it needs more, it overrides also:

    - :meth:`training_pairs` and :meth:`last_state`, if the guidance is not the state at one position (DiffuRec: the
      whole history);
    - :meth:`training_guidance` and :meth:`generation_guidance`, if the guidance is made from the state (DiffDiv: a draw
      of a latent variable);
    - :meth:`guided_denoiser`, if generation calls the denoiser in another way than training;
    - :meth:`denoising_losses`, if it has other losses of the denoiser.
    """

    config_class: ClassVar[type[DiffusionConfig]] = EmbeddingDiffusionConfig
    settings: EmbeddingDiffusionConfig
    denoiser: nn.Module
    num_channels = 1
    origin: ClassVar[str] = "channel"  # what :meth:`origins` numbers

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        settings = self.settings
        self.num_chains = settings.num_chains
        self.stages = settings.training_stages()
        self.TARGET_SEQ = config["TARGET_LIST_FIELD"]
        self.item_embedding = nn.Embedding(self.n_items, settings.embedding_size, padding_idx=0)
        nn.init.normal_(self.item_embedding.weight[1:], std=settings.item_init_std)
        if settings.pretrained_item_table is not None:
            tokens = [str(token) for token in dataset.field2id_token[self.ITEM_ID]]
            table = load_item_table(settings.pretrained_item_table, tokens, settings.embedding_size)
            self.item_embedding.weight.data.copy_(table * (settings.item_init_std / table[1:].std()))
        self.sampled_loss = None
        if settings.num_negatives is not None and settings.reads_catalogue_loss():
            self.sampled_loss = SampledLoss(settings, dataset, self.max_cells)
        elif config.external_config_dict.get("num_negatives") is not None:
            raise UserError(
                f"num_negatives={settings.num_negatives}: no loss reads it with ce_weight=0. Set num_negatives=~, or "
                "ce_weight above 0."
            )
        signal_left = self.process.alpha_bar(settings.timesteps - 1)
        if signal_left > _MOST_SIGNAL_LEFT:
            self.logger.warning(
                f"noise_schedule={settings.noise_schedule} with timesteps={settings.timesteps} ends at abar_T = "
                f"{float(signal_left):.3f}: generation starts from pure noise, which training never shows. Aim below "
                f"{_MOST_SIGNAL_LEFT}: more timesteps, or a larger beta_end."
            )

    def causal_encoder(self, input_norm: bool = True) -> CausalEncoder:
        """A causal Transformer of the sizes in the settings, for :meth:`encode`."""
        s = self.settings
        sizes = self.max_seq_length, s.embedding_size, s.num_layers, s.num_heads
        return CausalEncoder(*sizes, s.dropout, init_std=s.item_init_std, input_norm=input_norm)

    def encode(self, item_seq: Tensor) -> Any:
        """A state at every position of histories [batch, length], from the items up to it: [batch, length, ...]."""
        raise NotImplementedError

    def training_guidance(self, state: Any, target: Tensor) -> tuple[Any, dict[str, Tensor]]:
        """The guidance of each state, and the model's own weighted losses without a training step, scalars.

        Args:
            state, target: from :meth:`training_pairs`.
        """
        return state, {}

    def generation_guidance(self, state: Any, noise: RowNoise) -> Any:
        """The guidance of each chain, [chains, ...], from its state. The chains of a row are neighbours."""
        return state

    def training_pairs(self, interaction: Interaction) -> tuple[Any, Tensor]:
        """(states [rows, dim], target items [rows]): of every position of a window, or of the end of each prefix.

        A model that denoises whole sequences returns one state for the whole batch, and targets [batch, length] that
        are 0 at padding.
        """
        if self.TARGET_SEQ in interaction:
            targets = interaction[self.TARGET_SEQ]
            rows, columns = torch.nonzero(targets, as_tuple=True)
            return _at(self.encode(interaction[self.ITEM_SEQ]), rows, columns), targets[rows, columns]
        return self.last_state(interaction), interaction[self.ITEM_ID]

    def next_item_loss(self, interaction: Interaction) -> tuple[Tensor, ...]:
        """``-log softmax(state . e_i)`` of the next item, as in SASRec: a stage can pre-train encoder and items by it.

        A model whose states are vectors offers it by naming ``next_item`` in ``stage_losses``.
        """
        state, target = self.training_pairs(interaction)
        self.loss_names = ("next_item",)
        return (self.cross_entropy(state, target).sum() / (target != 0).sum(),)

    def training_example(self, interaction: Interaction) -> Example:
        state, target = self.training_pairs(interaction)
        guidance, losses = self.training_guidance(state, target)
        x_0 = self.item_embedding(target)  # [*leading, dim]
        if self.settings.stop_gradient_target:
            x_0 = x_0.detach()
        return Example(x_0, guidance, target, losses, None if target.dim() == 1 else target != 0)

    def denoising_losses(self, step: Step, guidance: Any, target: Tensor) -> dict[str, Tensor]:
        """``mse`` of the denoiser's output, and ``ce`` of x0_hat over the catalogue; without terms of weight 0."""
        s = self.settings
        output = self.denoiser(step.x_t, step.t, guidance)
        losses = {}
        if s.mse_weight > 0:
            wanted = self.process.target(step.x_0, step.noise, step.t, s.prediction)
            losses["mse"] = s.mse_weight * squared_error(output, wanted)
        if s.ce_weight > 0:
            x_0_hat = self.process.x0_from(output, step.x_t, step.t, s.prediction)
            losses["ce"] = s.ce_weight * self.cross_entropy(x_0_hat, target)
        return losses

    def last_state(self, interaction: Interaction) -> Any:
        """The state after the whole history, [batch, dim]."""
        last = self.history_length(interaction) - 1
        return _at(self.encode(interaction[self.ITEM_SEQ]), torch.arange(len(last), device=last.device), last)

    def history_length(self, interaction: Interaction) -> Tensor:
        """Number of items in each history, [batch]. An empty history counts as one padding item."""
        return interaction[self.ITEM_SEQ_LEN].clamp(min=1)

    def cross_entropy(self, prediction: Tensor, items: Tensor) -> Tensor:
        """``-log softmax`` of ``prediction . e_i / temperature`` at ``items``, [*leading]; 0 where an item is 0.

        With ``num_negatives``, :class:`SampledLoss` instead.
        """
        table, temperature = self.item_embedding.weight, self.settings.ce_temperature
        return next_item_loss(self.sampled_loss, prediction, table, items, temperature, self.max_cells)

    def start_noise(self, noise: RowNoise, guidance: Any) -> Tensor:
        """Pure noise for each chain, [chains, dim]: standard normal."""
        return self.chain_noise(noise, START, self.settings.embedding_size)

    def chain_start(self, noise: RowNoise, guidance: Any) -> Tensor:
        """Where each chain begins, [chains, dim]: pure noise, or its mean with ``chain_start=zero``."""
        start = self.start_noise(noise, guidance)
        return torch.zeros_like(start) if self.settings.chain_start == "zero" else start

    def guided_denoiser(self, x_t: Tensor, t: Tensor, guidance: Any) -> Tensor:
        """The denoiser as generation calls it: from x_t [rows, dim] and t [rows], its output [rows, dim]."""
        return self.denoiser(x_t, t, guidance)

    def predict_x0(self, x_t: Tensor, t: Tensor, guidance: Any) -> Tensor:
        """The output of :meth:`guided_denoiser`, converted to x0: [rows, dim]."""
        output = self.guided_denoiser(x_t, t, guidance)
        return self.process.x0_from(output, x_t, t, self.settings.prediction)

    @torch.no_grad()
    def generate(self, interaction: Interaction) -> Tensor:
        chains, dim = self.num_channels * self.num_chains, self.settings.embedding_size
        noise = self.evaluation_noise(interaction).channels(chains)
        guidance = self.generation_guidance(_repeat(self.last_state(interaction), chains), noise)
        start = self.chain_start(noise, guidance)
        x_0 = sample(
            lambda x_t, t: self.predict_x0(x_t, t, guidance),
            self.process, start, self.reverse_timesteps, partial(self.step_from, start=start),
            lambda x_t, t: self.chain_noise(noise, STEP, dim, t), self.seen,
        )  # fmt: skip
        return x_0.unflatten(0, (-1, chains))

    def step_from(
        self, process: Process, x_t: Tensor, x_0: Tensor, t: int, s: int, noise: Noise, start: Tensor
    ) -> Tensor:
        """One reverse step of chains that began at ``start``.

        With ``rescale_x0``, x0_hat is first scaled to the items' mean norm, but not in the last step. Cross-entropy
        makes x0_hat several times longer than any embedding. Without scaling, x_s would have a stronger signal than in
        training, and the error would grow at each step.
        """
        if self.settings.rescale_x0 and s >= 0:
            x_0 = F.normalize(x_0, dim=-1) * self.item_embedding.weight[1:].norm(dim=-1).mean()
        if self.reverse_step is euler_start_step:
            return self.reverse_step(process, x_t, x_0, t, s, noise, start)
        return self.reverse_step(process, x_t, x_0, t, s, noise)

    def score(self, x_0: Tensor) -> Tensor:
        """Scores of items 0 ... N, [batch, N + 1]: the largest over the channels.

        A channel's score is ``x0_hat . e_i``, or with several chains ``log mean_chains softmax(x0_hat . e)_i``.
        """
        first, *others = x_0.split(self.num_chains, dim=1)
        scores = self._channel_scores(first)
        for channel in others:  # one after the other: all at once would need [batch, channels, N + 1]
            scores = torch.maximum(scores, self._channel_scores(channel))
        return scores

    def _channel_scores(self, x_0: Tensor) -> Tensor:
        """Scores from the chains of one channel [batch, chains, dim]: [batch, N + 1]."""
        first, *others = x_0.unbind(dim=1)
        if not others:
            return self.item_scores(first)
        scores = self._log_probabilities(first)
        for chain in others:
            scores = torch.logaddexp(scores, self._log_probabilities(chain))
        return scores - math.log(1 + len(others))

    def item_scores(self, x_0: Tensor) -> Tensor:
        """``x0_hat . e_i`` of items 0 ... N, [rows, N + 1], from x0_hat [rows, dim]."""
        return x_0 @ self.item_embedding.weight.T

    def _log_probabilities(self, x_0: Tensor) -> Tensor:
        """``log softmax(x0_hat . e / temperature)`` of x0_hat [batch, dim] over the items 1 ... N, [batch, N + 1]."""
        logits = self.item_scores(x_0) / self.settings.ce_temperature
        logits[:, 0] = -torch.inf
        return logits.log_softmax(dim=-1)

    def score_items(self, x_0: Tensor, rows: Tensor, items: Tensor) -> Tensor:
        return self._scores_of_channels(x_0, rows, items).amax(dim=1)

    def origins(self, interaction: Interaction, x_0: Tensor, rows: Tensor, items: Tensor) -> Tensor:
        """Where items come from: the channel with the largest score, [pairs], for pairs as in :meth:`score_items`."""
        return self._scores_of_channels(x_0, rows, items).argmax(dim=1)

    def _scores_of_channels(self, x_0: Tensor, rows: Tensor, items: Tensor) -> Tensor:
        """The scores of pairs as in :meth:`score_items` in each channel, [pairs, channels]."""
        scores = torch.einsum("rcd,rd->rc", x_0[rows], self.item_embedding(items))  # [pairs, all chains]
        if self.num_chains > 1:
            temperature = self.settings.ce_temperature
            logs = scores / temperature - self._log_normalisers(x_0 / temperature)[rows]
            scores = logs.unflatten(1, (-1, self.num_chains)).logsumexp(dim=-1) - math.log(self.num_chains)
        return scores

    def _log_normalisers(self, x_0: Tensor) -> Tensor:
        """``logsumexp`` of the logits of items 1 ... N, [batch, all chains], from x0_hat [batch, all chains, dim]."""
        table = self.item_embedding.weight[1:]
        parts = x_0.flatten(0, 1).split(rows_at_once(self.max_cells, self.n_items))
        return torch.cat([(part @ table.T).logsumexp(dim=-1) for part in parts]).view(x_0.shape[:2])

    @torch.no_grad()
    def diagnose(self, interaction: Interaction) -> dict[str, float]:
        """Figures that show a collapse: of the item table, abar_T, and the target's mean rank after one denoising.

        ``target_rank`` is at t = T - 1, where x_t says nothing and only the guidance helps. ``target_rank@t`` is at
        less noise, where x_t helps too.
        """
        # Fewer rows, because each needs its distances to the whole catalogue.
        interaction = interaction[: rows_at_once(self.max_cells, self.n_items * self.num_channels)]
        noise = self.evaluation_noise(interaction).channels(self.num_channels)
        guidance = self.generation_guidance(_repeat(self.last_state(interaction), self.num_channels), noise)
        target = interaction[self.ITEM_ID].repeat_interleave(self.num_channels)
        x_0, table, last = self.item_embedding(target), self.item_embedding.weight, self.settings.timesteps - 1
        eps = self.start_noise(noise, guidance)
        ranks = {}
        for step in sorted({int(share * last) for share in _DIAGNOSED_SHARES}, reverse=True):
            t = torch.full_like(target, step)
            x_0_hat = self.predict_x0(self.seen(self.process.q_sample(x_0, t, eps)), t, guidance)
            rank = nearest_neighbour_rank(x_0_hat, table, target).float().mean().item()
            ranks["target_rank" if step == last else f"target_rank@{step}"] = rank
        return {**table_statistics(table[1:]), **ranks, "abar_T": float(self.process.alpha_bar(last))}


def _at(states: Any, rows: Tensor, columns: Tensor) -> Any:
    """The states at some positions of a tensor [batch, length, ...], or of each tensor in a named tuple."""
    if isinstance(states, Tensor):
        return states[rows, columns]
    return type(states)(*(part[rows, columns] for part in states))


def _repeat(states: Any, times: int) -> Any:
    """Each row of a tensor [batch, ...], or of each tensor in a named tuple, ``times`` times: [batch * times, ...]."""
    if times == 1:
        return states
    if isinstance(states, Tensor):
        return states.repeat_interleave(times, dim=0)
    return type(states)(*(part if part is None else part.repeat_interleave(times, dim=0) for part in states))
