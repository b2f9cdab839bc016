"""Plans a comparison: several models, data sets and seeds. All runs are checked before the first one starts."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from recbole_diffusion import registry
from recbole_diffusion.compare import report, runner
from recbole_diffusion.compare.run import Run
from recbole_diffusion.config import outside
from recbole_diffusion.config.model_files import PRESETS
from recbole_diffusion.config.reading import load_settings
from recbole_diffusion.config.roles import COMPARED, PATHS
from recbole_diffusion.config.settings import UserError, check_name, did_you_mean
from recbole_diffusion.config.strict import Config
from recbole_diffusion.data.fingerprint import dataset_hash
from recbole_diffusion.data.items import check_named_columns
from recbole_diffusion.data.loaders import fetch_files
from recbole_diffusion.evaluation.users import has_user_values
from recbole_diffusion.model.base import DiffusionRecommender
from recbole_diffusion.quick_start import settings_of
from recbole_diffusion.storage.files import file_name
from recbole_diffusion.tune.best import Best, read_best, study_title
from recbole_diffusion.tune.space import shipped_space

# Settings that compare takes as other arguments.
_NAMED_OTHERWISE = {
    "model": "--models=A,B",
    "dataset": "--datasets=A,B",
    "preset": "--models=A:paper",
    "seed": "--seeds=0,1,2",
    "eval_seed": "--eval_seeds=0,1,2",
}


class Entry(NamedTuple):
    """A model with its preset. ``label`` is how the user names it: ``DreamRec`` or ``DreamRec:paper``."""

    model: str
    preset: str
    label: str


def compare(
    models: Sequence[str],
    datasets: Sequence[str],
    seeds: Sequence[int],
    out: str | Path,
    settings: Mapping[str, Any] | None = None,
    config_files: Sequence[str | Path] = (),
    eval_seeds: Sequence[int] = (),
    baseline: str | None = None,
    metric: str | None = None,
    curve_steps: Sequence[int] = (),
    png: bool = False,
    tuned: str | Path | None = None,
) -> int:
    """Train and test each model on each data set with each seed, and write tables and a report.

    ``out`` gets ``results.csv``, ``results.md`` and ``report.html`` (:func:`recbole_diffusion.compare.report.write`).

    Finished runs in ``out`` are kept. Each run is a process, and one runs at a time. Standard output shows the
    progress. Several calls, in several processes, may share ``out``: each makes runs that no other has started.

    Args:
        models: names as in ``run``, with ``:paper`` for that preset.
        datasets: names of data sets.
        seeds: seeds of training.
        out: folder for everything that is written.
        settings: settings of every run; ``MODEL.key`` or ``MODEL:paper.key`` is only for that model.
        config_files: YAML files of such settings. Later files win, and ``settings`` win over all files.
        eval_seeds: each trained diffusion model is tested with each of these seeds of generation; default: its
            ``eval_seed``.
        baseline: the model that the others are tested against; default: the first one that is not a diffusion model.
        metric: metric of that test, e.g. ``NDCG@10``; default: ``valid_metric`` of the baseline.
        curve_steps: each trained diffusion model is validated again with each of these numbers of steps of generation.
            Numbers above its T are left out.
        png: whether the figures are also written as PNG files, at the end.
        tuned: folder with the studies ``MODEL-DATASET`` of ``tune``. Each model uses the ``best.yaml`` of its study;
            ``config_files`` and ``settings`` win over it. Only a model without a shipped search space needs no study.

    Returns:
        How many runs failed.

    Raises:
        UserError: a name or setting does not exist or does not fit, or a finished run had other settings.
    """
    user = load_settings(config_files, settings)
    curve_steps = sorted(set(curve_steps))
    if Path(out).exists() and not Path(out).is_dir():
        raise UserError(f"out={str(out)!r}: is not a folder.")
    if png:
        report.check_png()
    if min(curve_steps, default=1) < 1:
        raise UserError(f"curve_steps={curve_steps}: must be 1 or more.")
    runs = _plan(_entries(models), datasets, seeds, eval_seeds, curve_steps, user, tuned, Path(out).absolute())
    if eval_seeds and not any(run.eval_seeds for run in runs):
        raise UserError(f"eval_seeds={list(eval_seeds)}: none of --models is a diffusion model.")
    if curve_steps and not any(run.curve_steps for run in runs):
        raise UserError(f"curve_steps={curve_steps}: none of --models can generate in so many steps.")
    labels = list(dict.fromkeys(run.label for run in runs))
    if baseline is None:
        baseline = next((run.label for run in runs if not run.eval_seeds), labels[0])
    elif baseline not in labels:
        raise UserError(f"baseline={baseline!r}: is not one of --models, {', '.join(labels)}.")
    metric = _metric(metric, [run for run in runs if run.label == baseline])
    return runner.make(runs, Path(out), baseline, metric, png)


def _entries(models: Sequence[str]) -> list[Entry]:
    entries = []
    for name in models:
        entry = _entry(name)
        if entry in entries:
            raise UserError(f"models: {name} is given twice.")
        entries.append(entry)
    return entries


def _entry(name: str) -> Entry:
    """The entry for ``MODEL``, ``MODEL:preset``, ``package.module:Class`` or ``package.module:Class:preset``."""
    model, colon, last = name.rpartition(":")
    misspelt = registry.is_name(model) and not outside.is_module(model)
    if colon and (last in PRESETS or misspelt):
        return Entry(model, last, name.removesuffix(":default"))
    return Entry(name, "default", name)


def _plan(
    entries: Sequence[Entry],
    datasets: Sequence[str],
    seeds: Sequence[int],
    eval_seeds: Sequence[int],
    curve_steps: Sequence[int],
    user: Mapping[str, Any],
    tuned: str | Path | None,
    out: Path,
) -> list[Run]:
    """All runs, checked as far as possible without loading data. All models come with the first seed, then the next."""
    for key in user:
        owner, _, name = key.rpartition(".")
        if owner and not any(owner in (entry.model, entry.label) for entry in entries):
            labels = [entry.label for entry in entries]
            raise UserError(f"setting {key!r}: {owner!r} is not one of --models.{did_you_mean(owner, labels)}")
        if name in _NAMED_OTHERWISE:
            raise UserError(f"{key}={user[key]!r}: give it to compare as {_NAMED_OTHERWISE[name]}.")
    runs: list[Run] = []
    hashes: dict[str, str] = {}
    for dataset in datasets:
        check_name("datasets", dataset)  # before it becomes part of the path of a study
        for seed in seeds:
            for entry in entries:
                best = _tuned(entry, dataset, tuned)
                own = {**_own_settings(entry, {**best.settings, **user}), "seed": seed}
                config = _config(entry, dataset, own)
                generation, curve = [], []
                if issubclass(config.model_class, DiffusionRecommender):
                    curve = _possible_steps(curve_steps, entry, config)
                    generation = list(eval_seeds) or [config["eval_seed"]]
                    own["eval_seed"] = config["eval_seed"] = generation[0]
                fetch_files(config)
                with _named(entry, dataset):
                    check_named_columns(config)
                where = config["data_path"]
                hashes[where] = hashes.get(where) or dataset_hash(config)
                folder = out / "runs" / dataset / file_name(entry.label)
                runs.append(
                    Run(
                        dataset, entry.model, entry.preset, seed, generation, curve, own, settings_of(config),
                        best.cost, hashes[where], str(config["device"]), torch.get_num_threads(), str(folder),
                    )
                )  # fmt: skip
        _check_protocol([run for run in runs if run.dataset == dataset])
    return runs


def _own_settings(entry: Entry, user: Mapping[str, Any]) -> dict[str, Any]:
    """What the user set for one model. Paths become absolute, because runs are made in another folder."""
    own = {key: value for key, value in user.items() if "." not in key}
    for owner in dict.fromkeys((entry.model, entry.label)):
        of_owner = {key.rpartition(".")[2]: value for key, value in user.items() if key.rpartition(".")[0] == owner}
        own.update(of_owner)
    own["data_path"] = own.get("data_path") or "dataset"  # RecBole's default
    return {key: str(Path(value).absolute()) if key in PATHS and value else value for key, value in own.items()}


def _tuned(entry: Entry, dataset: str, folder: str | Path | None) -> Best:
    """The settings that ``tune`` found for a model. Empty for a model without a study and without a shipped space."""
    if folder is None:
        return Best({}, "")
    if not Path(folder).is_dir():
        raise UserError(f"tuned={str(folder)!r}: is not a folder.")
    study = Path(folder, study_title(entry.model, dataset, entry.preset))
    if not study.is_dir() and shipped_space(_resolved(entry, dataset).model_class) is None:
        return Best({}, "not tuned")
    return read_best(Path(folder), entry.model, dataset, entry.preset)


def _config(entry: Entry, dataset: str, own: Mapping[str, Any]) -> Config:
    resolved = _resolved(entry, dataset)
    with _named(entry, dataset):
        return Config(resolved.model_class, dataset, dict(own), resolved.ours, entry.preset)


def _resolved(entry: Entry, dataset: str) -> registry.Resolved:
    with _named(entry, dataset):
        return registry.get_model(entry.model)


@contextlib.contextmanager
def _named(entry: Entry, dataset: str) -> Iterator[None]:
    """A context in which error messages begin with the model and data set."""
    try:
        yield
    except (UserError, ImportError) as error:  # RecBole does not declare all packages that its models import
        raise UserError(f"{entry.label} on {dataset}: {error}") from error


def _possible_steps(curve_steps: Sequence[int], entry: Entry, config: Config) -> list[int]:
    """The numbers of steps of generation that the settings of a diffusion model allow."""
    if not curve_steps:
        return []
    with _named(entry, config["dataset"]):
        settings = _resolved(entry, config["dataset"]).model_class.config_class.from_config(config)
    possible = []
    for steps in curve_steps:
        with contextlib.suppress(UserError):
            dataclasses.replace(settings, sampling_steps=steps)
            possible.append(steps)
    return possible


def _check_protocol(runs: Sequence[Run]) -> None:
    """Refuse a comparison of models that do not solve the same task."""
    first = runs[0]
    for run in runs[1:]:
        for key in COMPARED:
            mine, theirs = run.resolved[key], first.resolved[key]
            if mine != theirs:
                raise UserError(
                    f"{key} on {first.dataset} is {theirs!r} for {first.label} and {mine!r} for {run.label}: results "
                    f"with different protocols cannot be compared. Set --{key}=... for all."
                )
        if run.data_sha256 != first.data_sha256:
            raise UserError(f"data_path on {first.dataset}: {first.label} and {run.label} have different files.")


def _metric(metric: str | None, runs: Sequence[Run]) -> str:
    """The metric of the test, in lower case as in results, e.g. ``ndcg@10``."""
    for run in runs:
        settings = run.resolved
        computed = [f"{name}@{k}" for name in settings["metrics"] if has_user_values(name) for k in settings["topk"]]
        metric = metric or settings["valid_metric"]
        if metric.lower() not in (name.lower() for name in computed):
            raise UserError(
                f"metric={metric!r}: the test needs a metric that has a value for each user. With metrics="
                f"{settings['metrics']} it can be one of {', '.join(computed) or '(none)'}."
            )
    assert metric is not None
    return metric.lower()
