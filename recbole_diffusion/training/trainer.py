"""Trainers: RecBole's with safe checkpoints, and ours, which also has named losses, diagnostics and stages."""

from __future__ import annotations

import functools
import math
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from recbole.trainer import Trainer

from recbole_diffusion import processes
from recbole_diffusion.config.launch import is_first
from recbole_diffusion.config.settings import UserError
from recbole_diffusion.config.stages import Stage, check_stages, stage_at
from recbole_diffusion.console.curves import writes_nothing_yet
from recbole_diffusion.console.progress import Progress
from recbole_diffusion.data.known import Known
from recbole_diffusion.evaluation.collapse import Validation
from recbole_diffusion.evaluation.collector import SafeCollector
from recbole_diffusion.evaluation.reference import Reference
from recbole_diffusion.evaluation.users import UserEvaluator, accuracy_metric
from recbole_diffusion.storage import checkpoint
from recbole_diffusion.storage.checkpoint import Vocabulary
from recbole_diffusion.storage.parts import check_model_parts, understood
from recbole_diffusion.storage.run_files import RunFiles
from recbole_diffusion.training.finite import FiniteLosses, loss_names
from recbole_diffusion.training.resume import ResumableTrainer
from recbole_diffusion.versions import versions

_SKIPPED_SETTINGS = ("device",)
_DIAGNOSED_ROWS = 512


class SafeTrainer(ResumableTrainer):
    """RecBole's trainer with checkpoints without code, training that can go on, and a collector that does not crash.

    A checkpoint contains ``config`` (the settings), ``items`` and ``users`` (their tokens in the order of their ids),
    ``versions``, the epoch, and the state of the model. The keys are those of RecBole where it has them, so that its
    models that start from a checkpoint can read ours. A checkpoint loads only with the same settings and data
    (:func:`recbole_diffusion.storage.checkpoint.check`).
    """

    vocabulary: Vocabulary  # of the data set, once it is known
    known: Known | None = None  # what a checkpoint tells of the data
    reference: Reference | None = None  # Pop, on the same splits
    progress: Progress = Progress()  # gets each batch
    saved_epoch: int | None = None
    saved_validation: Validation | None = None  # of the epoch in the checkpoint
    _validation: Validation | None = None  # the last one
    eval_step: int

    def __init__(self, config: Any, model: Any) -> None:
        self.files = RunFiles.of(config)
        with writes_nothing_yet(self.files.name):
            super().__init__(config, model)
        self.eval_collector = SafeCollector(config)
        self.evaluator = UserEvaluator(config)
        self.history: list[dict[str, Any]] = []
        self._epoch_seconds = 0.0
        self.evaluate_seconds = 0.0  # of the last evaluation, without reading the checkpoint
        # RecBole does this too, but too early: some of its trainers set ``epochs`` to 1 afterwards.
        self.eval_step = min(self.eval_step, self.epochs)
        self.saved_model_file = str(self.files.best)

    def _state(self, epoch: int) -> dict[str, Any]:
        config = {k: v for k, v in self.config.final_config_dict.items() if k not in _SKIPPED_SETTINGS}
        settings = checkpoint.plain(
            {
                "config": config,
                "versions": versions(),
                "epoch": epoch,
                "cur_step": self.cur_step,
                "best_valid_score": self.best_valid_score,
            }
        )
        # Modules among the other parameters are already in the state dictionary.
        others = {k: v for k, v in self.model.other_parameter().items() if not isinstance(v, torch.nn.Module)}
        return settings | {
            **self.vocabulary._asdict(),
            "state_dict": self.model.state_dict(),
            "other_parameter": checkpoint.pack(others),
        }

    def _save_checkpoint(self, epoch: int, verbose: bool = True, **kwargs: Any) -> None:
        path = kwargs.pop("saved_model_file", self.saved_model_file)
        known = None if self.known is None else {"known": self.known._asdict()}
        if is_first():
            checkpoint.save(self._state(epoch) | (known or {}), path)
        processes.wait()
        self._owns_files = True
        self.saved_epoch, self.saved_validation = epoch, self._validation
        if verbose:
            self.logger.info(f"Saved {path}")

    def save_pretrained_model(self, epoch: int, saved_model_file: str) -> None:
        # RecBole's name is the same for every run.
        self.saved_model_file = str(self.files.folder / f"{self.files.name}-epoch{epoch + 1}.safetensors")
        self._save_checkpoint(epoch)

    def _load(self, path: str | Path, resume: bool = False) -> dict[str, Any]:
        """Read a checkpoint, which must be of the same settings and data.

        Raises:
            UserError: the file is no checkpoint, or one of other settings or data.
        """
        state = checkpoint.load(path, self.config["trust_checkpoint"])
        if checkpoint.RECBOLES not in state:
            check_model_parts(state, str(path))
        checkpoint.check(state, str(path), self.vocabulary, self.config.final_config_dict, resume)
        return state

    def evaluate(
        self, eval_data: Any, load_best_model: bool = True, model_file: str | None = None, show_progress: bool = False
    ) -> Any:
        if eval_data and load_best_model:
            path = model_file or self.saved_model_file
            with understood(str(path)):
                checkpoint.restore(self.model, self._load(path), self.device)
            self.logger.info(f"Evaluating {path}")
        start = time.perf_counter()
        with self.eval_collector.shared(eval_data):
            result = super().evaluate(eval_data, load_best_model=False, show_progress=show_progress)
        self.evaluate_seconds = time.perf_counter() - start
        return result

    def _train_epoch(self, train_data: Any, epoch_idx: int, loss_func: Any = None, show_progress: bool = False) -> Any:
        if self.config["precision"] == "bf16":
            loss_func = torch.autocast(self.device.type, torch.bfloat16)(loss_func or self.model.calculate_loss)
        return super()._train_epoch(train_data, epoch_idx, loss_func, show_progress)

    def _after_batch(self, epoch: int, done: int, batches: int) -> None:
        self.progress.batch(epoch, done, batches)

    def _valid_epoch(self, valid_data: Any, show_progress: bool = False) -> tuple[float, dict[str, float]]:
        start = time.perf_counter()
        score, result = super()._valid_epoch(valid_data, show_progress)
        if math.isnan(score):  # e.g. AUC where all labels are the same
            raise UserError(
                f"valid_metric={self.config['valid_metric']}: is nan on the validation split, so it cannot choose an "
                "epoch."
            )
        self._validation = self._facts_of_validation(list(result))
        epoch = max(self.train_loss_dict)
        self.history.append(
            {
                "epoch": epoch,
                "train_seconds": self._epoch_seconds,
                "valid_seconds": time.perf_counter() - start,
                "train_loss": self.train_loss_dict[epoch],
                "valid": dict(result),
            }
        )
        return score, result

    def _facts_of_validation(self, computed: list[str]) -> Validation:
        accuracy = accuracy_metric(computed, self.config["valid_metric"].lower())
        values = None
        if accuracy is not None:
            values = self.evaluator.user_values([accuracy.partition("@")[0]])[accuracy]
        collected = self.evaluator.collected
        listed = collected["lists.items"] if "lists.items" in collected else None
        return Validation(accuracy, values, listed)


class DiffusionTrainer(SafeTrainer, FiniteLosses):
    """The trainer of our models.

    A model's ``calculate_loss`` may return several terms. They are logged with the names ``model.loss_names``, as means
    over the batches of the epoch. After each validation, the figures of the model's ``diagnose`` are logged, which show
    a collapse. If the model has ``stages``, the number of the epoch decides which stage is trained, also when training
    is resumed. Early stopping applies only to the last stage.
    """

    def __init__(self, config: Any, model: Any) -> None:
        super().__init__(config, model)
        self.stages: tuple[Stage, ...] = getattr(model, "stages", (Stage(),))
        self._trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        names = [name for name, _ in model.named_parameters()]
        check_stages(self.stages, self.epochs, names, getattr(model, "stage_losses", ()))

    def _build_optimizer(self, **kwargs: Any) -> torch.optim.Optimizer:
        """RecBole's optimiser. Adam and AdamW are torch's fused ones: one pass over the weights instead of a dozen."""
        optimizer = super()._build_optimizer(**kwargs)
        if not isinstance(optimizer, torch.optim.Adam | torch.optim.AdamW):
            return optimizer
        (group,) = optimizer.param_groups
        return type(optimizer)(group["params"], lr=group["lr"], weight_decay=group["weight_decay"], fused=True)

    def fit(self, *arguments: Any, **named: Any) -> Any:
        try:
            return super().fit(*arguments, **named)
        finally:
            self._freeze(Stage())

    def _freeze(self, stage: Stage) -> None:
        """Turn off the gradient of what a stage freezes, so that neither the optimiser nor weight decay changes it."""
        for name, parameter in self.model.named_parameters():
            if name in self._trainable and any(other.freezes(name) for other in self.stages):
                parameter.requires_grad_(not stage.freezes(name))

    def _check_losses(self, losses: Any, where: str) -> None:
        super()._check_losses(losses, where)
        if not any(term.requires_grad for term in (losses if isinstance(losses, tuple) else (losses,))):
            raise UserError(f"stages: {where}: the loss depends only on what this stage freezes.")

    def _train_epoch(self, train_data: Any, epoch_idx: int, loss_func: Any = None, show_progress: bool = False) -> Any:
        stage = stage_at(self.stages, epoch_idx)
        self._freeze(stage)
        if stage.loss is not None:
            loss_func = getattr(self.model, f"{stage.loss}_loss")
        # RecBole adds 1 after a validation without improvement, and stops above stopping_step, which may be 0. So -1
        # keeps an early stage from being stopped.
        self.cur_step = max(self.cur_step, 0) if stage.epochs is None else -1
        total = super()._train_epoch(train_data, epoch_idx, loss_func, show_progress)
        terms = total if isinstance(total, tuple) else (total,)
        return tuple(term / len(train_data) for term in terms)

    def _generate_train_loss_output(self, epoch_idx: int, s_time: float, e_time: float, losses: Any) -> str:
        form = f".{self.config['loss_decimal_place']}f"
        names = loss_names(self.model, losses)
        terms = ", ".join(f"{name}: {value:{form}}" for name, value in zip(names, losses, strict=True))
        return f"epoch {epoch_idx} training [{e_time - s_time:.2f}s, {terms}]"

    def _add_train_loss_to_tensorboard(self, epoch_idx: int, losses: Any, tag: str = "Loss/Train") -> None:
        self._last_losses = dict(zip(loss_names(self.model, losses), losses, strict=True))
        for name, value in self._last_losses.items():
            self.tensorboard.add_scalar(f"{tag}/{name}", value, epoch_idx)

    def _valid_epoch(self, valid_data: Any, show_progress: bool = False) -> tuple[float, dict[str, float]]:
        with self.model.validation() if hasattr(self.model, "validation") else nullcontext():
            score, result = super()._valid_epoch(valid_data, show_progress)
        self.history[-1]["losses"] = self._last_losses
        diagnose = getattr(self.model, "diagnose", None)
        if diagnose is not None:
            rows = range(min(len(valid_data.dataset), _DIAGNOSED_ROWS))
            values = diagnose(valid_data.dataset[list(rows)].to(self.device))
            self.history[-1]["diagnostics"] = values
            self.logger.info("diagnostics: " + ", ".join(f"{name} {value:.4g}" for name, value in values.items()))
            for name, value in values.items():
                self.tensorboard.add_scalar(f"Diagnostics/{name}", value, self.history[-1]["epoch"])
        return score, result


@functools.cache
def safe_trainer(trainer_class: type[Trainer]) -> type[Trainer]:
    """RecBole's ``trainer_class`` with our checkpoints and collector, and with checks that losses are finite."""
    # Both bases are already subclasses of RecBole's plain Trainer.
    bases = (SafeTrainer, FiniteLosses) if trainer_class is Trainer else (SafeTrainer, trainer_class, FiniteLosses)
    return type(trainer_class.__name__, bases, {})
