"""Reports a run: every detail goes to the log, and what a person wants to read goes to the screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from logging import getLogger
from typing import Any

import torch

from recbole_diffusion.config.launch import launched
from recbole_diffusion.console import facts
from recbole_diffusion.console.log import RunLog

Metrics = Mapping[str, float]


class Account:
    """Reports one run, step by step."""

    def __init__(self, log: RunLog) -> None:
        self._log, self._screen, self._logger = log, log.screen, getLogger()

    def begins(self, model: str, dataset: str, preset: str, seed: int, origin: str) -> None:
        """The run begins; no data are read yet. ``origin``: where the model's class comes from."""
        self._logger.info(f"{model}: {origin}")
        self._screen.line(f"{model} on {dataset}, preset {preset}, seed {seed}")

    def is_prepared(
        self, config: Any, dataset: Any, loaders: Sequence[Any], model: Any, settings: str, resumed: str
    ) -> None:
        """Data and model are prepared.

        Args:
            settings: text from :func:`facts.settings`.
            resumed: what the run goes on from; empty if nobody asked.
        """
        for part in (config, dataset, model):
            self._logger.info(part)
        self._screen.fact("data set", facts.data_set(dataset))
        self._screen.fact("split", facts.splits(loaders))
        threads = torch.get_num_threads()
        where = f"{config['device']}, {threads} thread{'s' if threads > 1 else ''}"  # both change the last digits
        where += f", {launched()} processes" if launched() > 1 else ""
        self._screen.fact("model", f"{facts.parameters(model):,} parameters, on {where}")
        self._screen.fact("settings", settings)
        if resumed:
            self._logger.info(f"resume: {resumed}")
            self._screen.fact("resume", resumed)

    def has_results(self, valid: Metrics, test: Metrics, pop: Mapping[str, Metrics] | None, mask_history: bool) -> None:
        """The model is trained and tested. ``pop``: Pop's metrics, by split."""
        self._logger.info(f"valid: {_listed(valid) or 'not measured'}")
        self._logger.info(f"test:  {_listed(test)}   (mask_history={mask_history})")
        beside = {split: of_pop for split, of_pop in (pop or {}).items() if of_pop}
        for split, of_pop in beside.items():
            self._logger.info(f"Pop, {split}: {_listed(of_pop)}")
        self._screen.line()
        columns = {"valid": valid, "test": test}
        self._screen.table({**columns, **{f"Pop {split}": of_pop for split, of_pop in beside.items()}})
        ranked = "are not ranked" if mask_history else "are ranked too"
        self._screen.line(f"mask_history={mask_history}: seen items {ranked}")
        self._screen.line()

    def recommends(self, lines: Sequence[str]) -> None:
        """Show example recommendations."""
        for line in lines:
            self._logger.info(line)
            self._screen.line(line)
        self._screen.line()

    def ends(self, checkpoint: str, curves: str, warnings: Sequence[str]) -> None:
        """The run ends: show where its files are, and the warnings."""
        for label, path in (("checkpoint", checkpoint), ("log", self._log.path), ("tensorboard", curves)):
            self._screen.fact(label, str(path))
        for text in warnings:
            self._logger.warning(text)


def _listed(metrics: Metrics) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
