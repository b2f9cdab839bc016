"""One run: settings in, a trained and tested model out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

from recbole.data.dataset import Dataset
from recbole.utils import init_seed

from recbole_diffusion import processes, registry
from recbole_diffusion.config.model_files import class_path
from recbole_diffusion.config.reading import load_settings
from recbole_diffusion.config.recbole_models import check_data
from recbole_diffusion.config.refusals import setting_up, using
from recbole_diffusion.config.roles import GENERATION, that_count
from recbole_diffusion.config.settings import Settings, UserError
from recbole_diffusion.config.strict import Config
from recbole_diffusion.console import facts
from recbole_diffusion.console.account import Account
from recbole_diffusion.console.curves import CURVES
from recbole_diffusion.console.log import RunLog, run_log
from recbole_diffusion.console.progress import Progress, shown_progress
from recbole_diffusion.data.fingerprint import dataset_hash
from recbole_diffusion.data.items import check_named_columns
from recbole_diffusion.data.known import Known
from recbole_diffusion.data.loaders import Loaders, create_dataset, fetch_files, prepare_loaders
from recbole_diffusion.evaluation.examples import example_recommendations, item_titles
from recbole_diffusion.evaluation.reference import reference_for
from recbole_diffusion.evaluation.signs import signs_of_collapse
from recbole_diffusion.storage.checkpoint import Vocabulary, check_sources, plain, read_by_recbole
from recbole_diffusion.storage.files import check_folder
from recbole_diffusion.storage.run_files import Found, continuing, find
from recbole_diffusion.training.processes import own_random_numbers
from recbole_diffusion.versions import versions


def run(
    model: str | None = None,
    dataset: str | None = None,
    config_files: Sequence[str | Path] = (),
    settings: Mapping[str, Any] | None = None,
    preset: str | None = None,
    examples: int = 0,
    test_model: Callable[[Prepared], Mapping[str, float]] | None = None,
    verbose: bool = False,
    resume: str | None = None,
) -> dict[str, Any]:
    """Train a model, keep the epoch that validates best, and test it.

    Args:
        model: name of a model, or ``package.module:Class``. It can be in a config file instead (``model``).
        dataset: name of the data set. It can be in a config file instead (``dataset``).
        config_files: YAML files of settings; later files win.
        settings: settings that win over the files.
        preset: ``default`` or ``paper``. It can be in a config file instead (``preset``).
        examples: how many recommendations for one user to show and log.
        test_model: computes the test metrics of the trained model; default: :func:`best_epoch_metrics`.
        verbose: whether the console shows every line of the log.
        resume: go on from this checkpoint ``NAME-last.safetensors`` of a run with the same settings and data; ``auto``
            takes the newest in ``checkpoint_dir``, and starts anew if there is none. The result is that of a run that
            was never stopped.

    Returns:
        ``model``, ``model_class``, ``dataset``, ``seed``, ``processes``, ``preset``, ``mask_history``, ``generation``
        (the settings of generation), ``settings`` (all that can change a result, as plain data), ``valid`` and ``test``
        (metric to value), ``pop`` (Pop's ``valid`` and ``test`` on the same splits; None for Pop itself and for metrics
        of single predictions), ``warnings`` (texts; each is a sign that the model has collapsed), ``best_epoch``,
        ``epochs``, ``train_seconds``, ``test_seconds``, ``parameters``, ``checkpoint``, ``history`` (one entry per
        validation) and ``versions``.

    Raises:
        UserError: a setting, model or data set does not exist, or they do not fit together.
        Stopped: a signal has stopped training; it can go on.
    """
    wanted = request(model, dataset, load_settings(config_files, settings), preset)
    registry.check_shares(wanted.resolved)
    config = wanted.config()
    with processes.joined(config), run_log(config, verbose) as log:
        own = facts.settings(wanted.user, settings or {}, config_files, wanted.preset)
        return _run(wanted, config, examples, test_model or best_epoch_metrics, log, own, resume)


def _run(
    wanted: Request,
    config: Config,
    examples: int,
    test_model: Callable[[Prepared], Mapping[str, float]],
    log: RunLog,
    own: str,
    resume: str | None,
) -> dict[str, Any]:
    """:func:`run` of a configuration, while its log is open. ``own`` says which settings the user made."""
    resolved, settings = wanted.resolved, settings_of(config)
    account = Account(log)
    origin = f"{resolved.origin} ({class_path(resolved.model_class)})"
    account.begins(wanted.model, wanted.dataset, wanted.preset, config["seed"], origin)
    prepared = prepare(resolved, config, resume)
    titles = item_titles(config, prepared.dataset) if examples else []
    log.begin()  # not before: a run that is refused leaves no file
    account.is_prepared(config, prepared.dataset, prepared.loaders, prepared.model, own, prepared.trainer.resumed)
    with shown_progress(log.screen, prepared.trainer) as progress:
        trained = train(prepared, progress=progress)
    start = time.perf_counter()
    with using(prepared.model):
        test = test_model(prepared)
    test_seconds = time.perf_counter() - start
    test = {name: float(value) for name, value in (test or {}).items()}
    pop = _pop_beside(prepared, trained["valid"], test)
    account.has_results(trained["valid"], test, pop, config["mask_history"])
    warnings = signs_of_collapse(wanted.model, prepared.trainer, prepared.loaders)
    if examples:
        rerank = prepared.trainer.eval_collector.rerank
        with using(prepared.model):
            lines = example_recommendations(prepared.model, prepared.loaders, titles, config, examples, rerank)
        account.recommends(lines)
    account.ends(trained["checkpoint"], prepared.trainer.tensorboard.log_dir, warnings)
    return {
        "model": wanted.model,
        "model_class": class_path(resolved.model_class),
        "dataset": wanted.dataset,
        "seed": config["seed"],
        "processes": processes.count(),
        "preset": wanted.preset,
        "mask_history": config["mask_history"],
        "generation": {key: config[key] for key in GENERATION if key in config},
        "settings": settings,
        **trained,
        "test": test,
        "test_seconds": test_seconds,
        "pop": pop,
        "warnings": warnings,
        "versions": versions(),
    }


def settings_of(config: Config) -> dict[str, Any]:
    """The settings that can change a result, as plain data, exactly as they are read back from a JSON file."""
    return json.loads(json.dumps(plain(that_count(config.final_config_dict))))


class Request(NamedTuple):
    """What the user asked for: a model, a data set, and settings that win over the shipped YAML files."""

    model: str
    dataset: str
    preset: str
    resolved: registry.Resolved
    user: Settings
    beside_data: bool = True  # whether the YAML file beside the data set is read

    def config(self, **settings: Any) -> Config:
        """The configuration. ``settings`` win over the user's.

        Raises:
            UserError: a setting is unknown, or a value is not allowed.
        """
        resolved, user = self.resolved, {**self.user, **settings}
        return Config(resolved.model_class, self.dataset, user, resolved.ours, self.preset, self.beside_data)


def request(model: str | None, dataset: str | None, user: Settings, preset: str | None) -> Request:
    """Look up the model's class. Model, data set and preset that are None are taken from the settings ``user``.

    Raises:
        UserError: no model or no data set is given, or there is no such model.
    """
    user = dict(user)
    model, dataset = _name("model", model, user), _name("dataset", dataset, user)
    of_file = user.pop("preset", "default")
    preset = preset or of_file
    with setting_up(f"model={model}", ours=True):
        resolved = registry.get_model(model)
    return Request(model, dataset, preset, resolved, user)


class Prepared(NamedTuple):
    """A model that is ready to train, with its data and trainer."""

    dataset: Dataset
    loaders: Loaders
    model: Any
    trainer: Any


def best_epoch_metrics(prepared: Prepared) -> Mapping[str, float]:
    """Test metrics of the epoch that validated best."""
    trainer = prepared.trainer
    return trainer.evaluate(prepared.loaders.test, show_progress=trainer.config["show_progress"])


def prepare(resolved: registry.Resolved, config: Config, resume: str | None = None) -> Prepared:
    """Build data set, loaders, model and trainer of a configuration. Its ``seed`` seeds everything.

    Args:
        resolved: the class of the model.
        config: the configuration.
        resume: the checkpoint to go on from, or ``auto``, as in :func:`run`.

    Raises:
        UserError: settings, model and data set do not fit together.
    """
    init_seed(config["seed"], config["reproducibility"])
    for key, folder in (("checkpoint_dir", config["checkpoint_dir"]), ("the curves", CURVES)):
        check_folder(key, folder)
    with setting_up(f"{config['model']} on {config['dataset']}", resolved.ours):
        fetch_files(config)
        data_sha256 = dataset_hash(config)
        found = processes.from_first(lambda: Found(None, "") if resume is None else find(resume, config, data_sha256))
        dataset = create_dataset(config)
        check_named_columns(config)
        if not resolved.ours:
            check_data(config, dataset)
        vocabulary = Vocabulary.of(dataset)
        check_sources(config, vocabulary)
        rows, short = registry.training_rows(resolved, config), registry.takes_short_batches(resolved)
        ages = registry.reads_ages(resolved)
        loaders = prepare_loaders(config, dataset, rows, short, ages)
        init_seed(config["seed"], config["reproducibility"])
        with nullcontext() if resolved.ours else read_by_recbole(config["trust_checkpoint"]):
            model = resolved.model_class(config, loaders.train._dataset).to(config["device"])
        with continuing(found.last):
            trainer = registry.get_trainer(resolved)(config, model)
    trainer.eval_collector.check(dataset)
    trainer.vocabulary, trainer.data_sha256 = vocabulary, data_sha256
    trainer.known = Known.of(config, dataset, with_times=ages)
    trainer.reference = reference_for(trainer, loaders)
    trainer.resumed = found.text
    own_random_numbers()
    if found.last is not None:
        trainer.resume_checkpoint(found.last)
        trainer.resumed += f": {trainer.place}"
    return Prepared(dataset, loaders, model, trainer)


def train(
    prepared: Prepared, after_validation: Callable[[int, float], None] | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Train a model and keep the epoch that validates best. The test split is not read.

    Args:
        prepared: from :func:`prepare`.
        after_validation: called with the epoch (from 0) and its validation score. An exception from it ends training.
        progress: gets each batch and each validation, to show them.

    Returns:
        The entries of :func:`run`'s result that training gives: ``valid``, ``best_epoch``, ``epochs``,
        ``train_seconds``, ``parameters``, ``checkpoint``, ``history``.
    """
    loaders, trainer = prepared.loaders, prepared.trainer
    trainer.progress = progress or Progress()

    def validated(epoch: int, score: float) -> None:
        trainer.progress.validated(epoch)
        if after_validation is not None:
            after_validation(epoch, score)

    start = time.perf_counter()
    try:
        with using(prepared.model):
            shown = trainer.config["show_progress"]
            _, valid = trainer.fit(loaders.train, loaders.valid, show_progress=shown, callback_fn=validated)
    finally:
        trainer.tensorboard.close()  # it holds a file and a thread
    return {
        "valid": {name: float(value) for name, value in (valid or {}).items()},
        "best_epoch": trainer.saved_epoch,
        "epochs": len(trainer.train_loss_dict),
        "train_seconds": trainer.seconds_before + time.perf_counter() - start,
        "parameters": facts.parameters(prepared.model),
        "checkpoint": trainer.saved_model_file,
        "history": trainer.history,
    }


def _pop_beside(
    prepared: Prepared, valid: Mapping[str, float], test: Mapping[str, float]
) -> dict[str, dict[str, float]] | None:
    """Pop's metrics on the splits that the model was evaluated on, and nothing for other splits."""
    reference = prepared.trainer.reference
    if reference is None:
        return None
    return {"valid": reference.valid.metrics if valid else {}, "test": reference.test.metrics if test else {}}


def _name(key: str, given: str | None, user: Settings) -> str:
    """``given``, or the value of ``key`` in ``user``, from which it is removed."""
    of_file = user.pop(key, None)
    name = of_file if given is None else given
    if name is None:
        raise UserError(f"{key} is not set: give --{key}=NAME, or '{key}: NAME' in a config file.")
    if not isinstance(name, str):
        raise UserError(f"{key}={name!r}: must be a text; write it in quotation marks.")
    return name
