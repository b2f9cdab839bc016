"""A trained model is measured again: the verb ``evaluate``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recbole_diffusion.config.refusals import using
from recbole_diffusion.config.settings import Settings, UserError
from recbole_diffusion.console.log import run_log
from recbole_diffusion.data.items import interaction_counts
from recbole_diffusion.data.known import Known
from recbole_diffusion.evaluation.users import ranked_users
from recbole_diffusion.quick_start import Prepared, prepare
from recbole_diffusion.recommend.loading import read_checkpoint, request_of

SPLITS = ("valid", "test")
BY = ("activity", "popularity")
_GROUPS = 4


def evaluate(
    path: str | Path,
    splits: Sequence[str] = ("test",),
    settings: Settings | None = None,
    by: Sequence[str] = (),
    model: str | None = None,
    picture: str | None = None,
) -> dict[str, Any]:
    """Measure the model of a checkpoint on its data set.

    With the settings of its run it gives the same figures as the run, to the last digit.

    Args:
        path: ``NAME-best.safetensors`` of a run. The files of its data set are read from where they were, or from the
            setting ``data_path``.
        splits: ``valid`` and ``test``.
        settings: other settings of evaluation (``metrics``, ``topk``), generation (``sampling_steps``, ``eval_seed``,
            ...), speed and place.
        by: groups of rows with metrics of their own: by ``activity``, the user's number of interactions in training,
            or ``popularity``, that of the target.
        model: as for :func:`recbole_diffusion.recommend.loading.request_of`.
        picture: an HTML file for a picture of the groups.

    Returns:
        ``model``, ``dataset``, ``checkpoint``; for each split its metrics; and ``by``, split -> group -> metrics.

    Raises:
        UserError: the checkpoint is not of this data, or an argument is not allowed.
    """
    for value, allowed, name in ((splits, SPLITS, "split"), (by, BY, "by")):
        wrong = [part for part in value if part not in allowed]
        if wrong:
            raise UserError(f"{name}={wrong[0]!r}: must be {' or '.join(allowed)}.")
    if picture is not None and (not by or Path(picture).suffix != ".html"):
        raise UserError(f"picture={picture!r}: must end in .html, and needs --by.")
    state = read_checkpoint(path)
    wanted = request_of(state, str(path), settings or {}, model, evaluates=True)
    config = wanted.config()
    folder = Path(config["data_path"])
    if "data_path" not in (settings or {}) and not folder.is_dir():
        raise UserError(f"{path}: its data set was in {folder}, and there is no such folder here. Give --data_path.")
    with run_log(config, verbose=False) as log:
        prepared = prepare(wanted.resolved, config)
        log.begin()
        if not _same_interactions(state, prepared.trainer.known):
            prepared.trainer.logger.warning(
                f"{path}: the interactions in {folder} are not those that it was trained and tested on."
            )
        screen, measured = log.screen, dict[str, dict[str, float]]()
        screen.line(f"{wanted.model} on {wanted.dataset}, preset {wanted.preset}, from {path}")
        groups: dict[str, dict[str, dict[str, float]]] = {}
        prepared.trainer.eval_collector.data_collect(prepared.loaders.train)
        for split in splits:
            measured[split], of_groups = _measured(prepared, None if measured else str(path), split, by)
            groups |= {f"{split} by {name}": of_name for name, of_name in of_groups.items()}
        prepared.trainer.tensorboard.close()
        screen.line()
        screen.table(measured)
        for title, of_title in groups.items():
            screen.line(f"\n{title}")
            metrics = list(next(iter(of_title.values())))
            screen.table({name: {group: means[name] for group, means in of_title.items()} for name in metrics})
        if picture is not None:
            from recbole_diffusion.recommend.picture import draw

            draw(groups, config["valid_metric"].lower(), Path(picture))
            screen.fact("picture", picture)
    of_run = {"model": wanted.model, "dataset": wanted.dataset, "checkpoint": str(path)}
    return {**of_run, **measured, "by": groups}


def _same_interactions(state: Mapping[str, Any], now: Known | None) -> bool:
    """Whether the data set has the interactions that are in the checkpoint; True if one of them has none."""
    then = state.get("known")
    if now is None or then is None:
        return True
    return torch.equal(then["starts"], now.starts) and torch.equal(then["items"], now.items)


def _measured(
    prepared: Prepared, path: str | None, split: str, by: Sequence[str]
) -> tuple[dict[str, float], dict[str, dict[str, dict[str, float]]]]:
    """The metrics of a split, and those of groups of its rows. ``path``: the checkpoint, if it is not loaded yet."""
    trainer, loader = prepared.trainer, getattr(prepared.loaders, split)
    with using(prepared.model):
        found = trainer.evaluate(loader, load_best_model=path is not None, model_file=path)
    metrics = {name: float(value) for name, value in found.items()}
    if not by:
        return metrics, {}
    values = trainer.evaluator.user_values()
    return metrics, {name: grouped(values, _facts(prepared, loader, name)) for name in by}


def _facts(prepared: Prepared, loader: Any, by: str) -> np.ndarray:
    """What the rows are grouped by, [rows], in the order of the loader's batches: counts in the training split.

    A row with several targets counts as the mean of their popularities.
    """
    trained = prepared.loaders.train._dataset
    if by == "activity":
        return trained.inter_matrix("csr").getnnz(axis=1)[ranked_users(loader)]
    counts, found = interaction_counts(trained), []
    for _, _, row, item in loader:
        row, item = (values.cpu().numpy() for values in (row, item))
        found.append(np.bincount(row, counts[item]) / np.bincount(row))
    return np.concatenate(found)


def grouped(values: dict[str, np.ndarray], facts: np.ndarray) -> dict[str, dict[str, float]]:
    """The mean of each metric in groups of about equal size, from the rows with the smallest facts to the largest.

    Args:
        values: metric -> value of each row, [rows].
        facts: [rows]. Rows with equal facts are in the same group.

    Returns:
        group, such as ``5 to 9 (120 rows)`` -> metric -> mean.
    """
    edges = np.unique(np.quantile(facts, np.linspace(0, 1, _GROUPS + 1)[1:-1], method="lower"))
    group = np.searchsorted(edges, facts, side="left")
    groups = {}
    for index in np.unique(group):
        inside = group == index
        low, high = (f"{edge:,g}" for edge in (facts[inside].min(), facts[inside].max()))
        name = f"{low if low == high else f'{low} to {high}'} ({inside.sum():,} rows)"
        groups[name] = {metric: float(of_rows[inside].mean()) for metric, of_rows in values.items()}
    return groups
