"""Training that can go on after an end at any moment. The checkpoint ``last`` holds all that it needs.

A run writes two checkpoints. ``NAME-best.safetensors`` is the model of the epoch that validates best. ``NAME-last``
also has the optimiser, the place in the training and the random generators. Training that goes on from it gives the
same numbers, to the bit, as training that was never stopped.
"""

from __future__ import annotations

import contextlib
import math
import time
from pathlib import Path
from typing import Any

import torch
from recbole.trainer import Trainer

from recbole_diffusion import compat, processes
from recbole_diffusion.config.launch import is_first
from recbole_diffusion.config.roles import described, differences
from recbole_diffusion.config.settings import UserError
from recbole_diffusion.evaluation.collapse import Validation
from recbole_diffusion.storage import checkpoint
from recbole_diffusion.storage.parts import check_optimizer, check_training_parts, understood
from recbole_diffusion.storage.run_files import LAST, RunFiles, where
from recbole_diffusion.training.place import Batches, Place, others_states, random_state, set_random_state, take_own
from recbole_diffusion.training.stopping import Asked, Stopped, asked_to_stop
from recbole_diffusion.versions import versions

compat.apply()


class ResumableTrainer(Trainer):
    """RecBole's trainer, which writes ``last`` and goes on from it.

    It is written after each epoch, after ``checkpoint_minutes``, when a signal asks the process to stop, and at the
    end. RecBole's trainers that take several passes over the data for an epoch, or have their own loop, go on from the
    last epoch or from a place in the first pass.
    """

    files: RunFiles
    data_sha256: str = ""  # hash of the data set's files
    resumed: str = ""  # what it goes on from, as text; empty for a new run
    history: list[dict[str, Any]]
    saved_epoch: int | None
    saved_validation: Validation | None
    seconds_before: float = 0.0  # of training, in the processes that this one goes on from
    _epoch_seconds: float
    _owns_files = False  # whether the run has written them, here or before
    _asked = Asked()
    _fits: float | None = None  # when training began in this process; None outside of it
    _epoch = 0
    _epoch_began = 0.0
    _seconds_of_epoch_before = 0.0
    _passes = 0  # over the training data in this epoch
    _batches_now: Batches | None = None  # of the last pass
    _written = 0.0
    _from: dict[str, Any] | None = None  # the place to go on from, until it is reached

    def _state(self, epoch: int) -> dict[str, Any]:
        raise NotImplementedError

    def fit(
        self,
        train_data: Any,
        valid_data: Any = None,
        verbose: bool = True,
        saved: bool = True,
        *more: Any,
        **named: Any,
    ) -> Any:
        """RecBole's training, which can be stopped and go on. If it is not ``saved``, it cannot.

        Raises:
            Stopped: a signal has stopped it. ``last`` is written.
            UserError: another process trains the same run.
        """
        if not saved:
            return super().fit(train_data, valid_data, verbose, saved, *more, **named)
        claimed = self.files.claimed() if is_first() else contextlib.nullcontext()
        with claimed, asked_to_stop() as self._asked:
            if not self._owns_files and (self.files.last.exists() or self.files.best.exists()):
                raise UserError(f"{self.files.last}: is of another run that has the same name; start again.")
            self._owns_files = True
            self._fits = self._written = time.monotonic()
            try:
                if self.is_finished:
                    self.eval_collector.data_collect(train_data)
                    return self.best_valid_score, self.best_valid_result
                result = super().fit(train_data, valid_data, verbose, saved, *more, **named)
                self._epoch = self._epochs_done
                self._write_last(None, train_data)
            except RuntimeError:
                if self._asked.number is not None:  # the signal has ended the processes that load batches too
                    raise self._stopped() from None
                raise
            finally:
                self._fits = self._batches_now = None
            if self._asked.by_any():
                raise self._stopped()
            return result

    @property
    def _epochs_done(self) -> int:
        return max(self.train_loss_dict, default=self.start_epoch - 1) + 1

    @property
    def total_epochs(self) -> int:
        """RecBole's stages before ``finetune`` have their own number."""
        stage = getattr(self.model, "train_stage", "finetune")
        return int(self.epochs if stage == "finetune" else self.pretrain_epochs)

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to train."""
        return self._from is not None and (self.start_epoch >= self.total_epochs or self.cur_step > self.stopping_step)

    @property
    def place(self) -> str:
        """Where training goes on, as text."""
        if self.is_finished:
            return f"this run is finished, after {len(self.train_loss_dict)} epochs; nothing is left to train"
        done = self._from["place"].done if self._from is not None and self._from["place"] else 0
        batch = f", after batch {done}" if done else ""
        return f"epoch {self.start_epoch + 1} of {self.total_epochs}{batch}"

    # ---- an epoch

    def _train_epoch(self, train_data: Any, epoch_idx: int, loss_func: Any = None, show_progress: bool = False) -> Any:
        self._epoch, self._epoch_began = epoch_idx, time.perf_counter()
        self._passes, self._batches_now = 0, None
        self._seconds_of_epoch_before = 0.0
        if self._from is not None:
            self._seconds_of_epoch_before = self._from["epoch_seconds"]
            if self._from["random"] is not None:
                set_random_state(self._from["random"], train_data)
            if self._from["place"] is None:
                self._from = None
        elif self._fits is not None and epoch_idx > 0:
            self._write_last(None, train_data)
        if self._asked.by_any():
            raise self._stopped()
        losses = super()._train_epoch(train_data, epoch_idx, loss_func, show_progress)
        self._epoch_seconds = self._spent_on_epoch()
        return losses

    def _spent_on_epoch(self) -> float:
        return self._seconds_of_epoch_before + time.perf_counter() - self._epoch_began

    def _batches(self, train_data: Any) -> Batches:
        """The batches of one pass over the training data."""
        place, self._from = self._from["place"] if self._from is not None else None, None
        self._passes += 1
        self._batches_now = Batches(train_data, place, self._after_step, self._loader_broke)
        return self._batches_now

    def _after_step(self) -> None:
        assert self._batches_now is not None
        if self._fits is None or self._passes > 1:
            return
        minutes = self.config["checkpoint_minutes"]
        due = minutes is not None and time.monotonic() - self._written >= 60 * minutes
        asked = self._asked.by_any()
        if asked or processes.largest(due)[0]:
            self._write_last(self._batches_now.place(), None)
        if asked:
            raise self._stopped()

    def _loader_broke(self) -> None:
        if self._asked.number is not None and processes.count() == 1:
            self._after_step()

    def _valid_epoch(self, valid_data: Any, show_progress: bool = False) -> tuple[float, dict[str, float]]:
        batches, place = self._batches_now, None
        if self._fits is not None and batches is not None and self._passes == 1:
            place = batches.place()
        if processes.count() > 1:  # the others would wait for this one: a signal is obeyed after the validation
            return super()._valid_epoch(valid_data, show_progress)
        try:
            with self._asked.at_once() if self._fits is not None else contextlib.nullcontext():
                if self._asked.number is not None:
                    raise Stopped(self._asked.number)
                return super()._valid_epoch(valid_data, show_progress)
        except KeyboardInterrupt:
            if place is not None:  # validation changes no weight: it can be done again
                self._write_last(place, None)
            if self._asked.number is not None:
                raise self._stopped() from None
            raise

    def _stopped(self) -> Stopped:
        assert self._asked.number is not None
        how = "training has just begun; the same command starts it anew"
        if self.files.last.is_file():
            how = f"{self.files.last} has all that was done; the same command with --resume=auto goes on"
        return Stopped(self._asked.number, how)

    # ---- the file

    @property
    def where(self) -> dict[str, Any]:
        """What the bits of a result depend on, in addition to settings and versions."""
        return where(self.config, self.data_sha256)

    def _write_last(self, place: Place | None, train_data: Any) -> None:
        """Write ``last``: at ``place`` in the epoch ``_epoch``, or before it if ``place`` is None."""
        parts = {
            name: part
            for name, part in vars(self).items()
            if isinstance(part, torch.optim.Optimizer | torch.optim.lr_scheduler.LRScheduler)
        }
        # RecVAE's ``optimizer`` is now one, now the other of two that have names of their own.
        if any(part is parts.get("optimizer") for name, part in parts.items() if name != "optimizer"):
            del parts["optimizer"]
        optimizers = {name: part.state_dict() for name, part in parts.items()}
        assert self._fits is not None
        training = {
            "place": None if place is None else place._asdict(),
            "random": random_state(train_data) if place is None else place.start,
            "optimizers": optimizers,
            "loss_names": getattr(self.model, "loss_names", None),
            "train_losses": self.train_loss_dict,
            "history": self.history,
            "best_valid_result": None if self.best_valid_result is None else dict(self.best_valid_result),
            "saved_epoch": self.saved_epoch,
            "saved_validation": None if self.saved_validation is None else self.saved_validation._asdict(),
            "seconds": self.seconds_before + time.monotonic() - self._fits,
            "epoch_seconds": 0.0 if place is None else self._spent_on_epoch(),
        }
        if others := others_states(training["random"], place):
            training["others"] = others
        state = self._state(self._epoch)
        state["training"] = {"where": self.where, **checkpoint.pack(training)}
        if is_first():
            checkpoint.save(state, self.files.last)
        self._written = time.monotonic()

    def resume_checkpoint(self, resume_file: str | Path) -> None:
        """Go on with the training whose ``last`` this is. Its files are written again.

        Raises:
            UserError: it is no such file, or one of other settings or data.
        """
        with understood(str(resume_file)):
            self._go_on_from(Path(resume_file))
        self.logger.info(f"Resuming from {resume_file} at {self.place}")

    def _go_on_from(self, path: Path) -> None:
        state = self._load(path, resume=True)
        if "training" not in state:
            self._go_on_from_recbole(state, path)
            return
        there = state["training"].pop("where")
        if self.data_sha256 and there["data_sha256"] != self.data_sha256:
            raise UserError(f"{path}: was made from other files of the data set {self.config['dataset']!r}.")
        training = checkpoint.unpack(state["training"])
        check_training_parts(training, str(path))
        take_own(training, str(path))
        if other := differences({**there, "versions": state["versions"]}, {**self.where, "versions": versions()}):
            self.logger.warning(f"{path} was made with {described(other)}: the numbers may differ by rounding.")
        self.files, self._owns_files = RunFiles.of_last(path), True
        self.saved_model_file = str(self.files.best)
        if training["saved_epoch"] is not None and not self.files.best.is_file():
            raise UserError(f"{path}: its best epoch is not beside it: there is no {self.files.best}.")
        checkpoint.restore(self.model, state, self.device, resume=True)
        for name, part in training["optimizers"].items():
            before = getattr(self, name).state_dict()
            getattr(self, name).load_state_dict(part)
            check_optimizer(getattr(self, name), before, str(path))
        if training["loss_names"] is not None:
            self.model.loss_names = tuple(training["loss_names"])
        self.start_epoch, self.cur_step = state["epoch"], state["cur_step"]
        self.best_valid_score, self.best_valid_result = state["best_valid_score"], training["best_valid_result"]
        self.train_loss_dict, self.history = training["train_losses"], training["history"]
        self.saved_epoch = training["saved_epoch"]
        if training["saved_validation"] is not None:
            self.saved_validation = Validation(**training["saved_validation"])
        self.seconds_before = training["seconds"]
        place = training["place"]
        self._from = {
            "place": None if place is None else Place(**place),
            "random": training["random"],
            "epoch_seconds": training["epoch_seconds"],
        }

    def _go_on_from_recbole(self, state: dict[str, Any], path: Path) -> None:
        """RecBole's own checkpoint has model and optimiser, and no random state: the numbers are not the same."""
        if checkpoint.RECBOLES not in state:
            raise UserError(f"{path}: holds only the model of the best epoch; training goes on from a file *{LAST}.")
        checkpoint.restore(self.model, state, self.device, resume=True)
        self.optimizer.load_state_dict(state["optimizer"])
        self.start_epoch = state["epoch"] + 1
        self.cur_step = 0
        self.best_valid_score = -math.inf if self.valid_metric_bigger else math.inf
        self.logger.warning(
            f"{path} is RecBole's: training goes on at epoch {self.start_epoch + 1} with new random numbers, and it "
            "cannot be checked that the data are the same."
        )
