"""A data set by name, and the three loaders of a model."""

from __future__ import annotations

import shutil
import urllib.error
from logging import getLogger
from pathlib import Path
from typing import Any, NamedTuple

import recbole.data.dataset as recbole_datasets
import torch
from recbole.config import Config as RecBoleConfig
from recbole.data.dataloader import AbstractDataLoader, FullSortEvalDataLoader, TrainDataLoader
from recbole.data.dataset import Dataset, KnowledgeBasedDataset
from recbole.data.utils import create_samplers, get_dataloader
from recbole.sampler import KGSampler, Sampler
from recbole.utils import FeatureType, ModelType

from recbole_diffusion.data.sequences import LazySequentialDataset
from recbole_diffusion.data.windows import WindowDataLoader
from recbole_diffusion.settings import UserError, did_you_mean, load_settings

# RecBole's models that read the table of histories itself, which a lazy data set does not have.
_NEEDS_TABLE = ("FEARec",)


class Loaders(NamedTuple):
    """Training, validation and test batches."""

    train: AbstractDataLoader
    valid: AbstractDataLoader
    test: AbstractDataLoader


class MaskedEvalDataLoader(FullSortEvalDataLoader):
    """Whole-catalogue evaluation of a sequential model that also says which items the user has seen.

    The trainer scores those -inf. RecBole's own loader never does for a sequential model.
    """

    def collate_fn(self, index: Any) -> tuple:
        interaction, _, positive_u, positive_i = super().collate_fn(index)
        return (
            interaction,
            self._dataset.seen_items(self._dataset.target_rows[torch.as_tensor(index)]),
            positive_u,
            positive_i,
        )


def create_dataset(config: RecBoleConfig) -> Dataset:
    """The data set named in ``config``: histories lazy for sequential models, RecBole's class for the others.

    Raises:
        UserError: no such files on disk and none to be had, or files RecBole cannot read.
    """
    _fetch_files(config)
    name = config["model"]
    if config["MODEL_TYPE"] != ModelType.SEQUENTIAL:
        dataset_class = KnowledgeBasedDataset if config["MODEL_TYPE"] == ModelType.KNOWLEDGE else Dataset
    elif hasattr(recbole_datasets, f"{name}Dataset"):
        dataset_class = getattr(recbole_datasets, f"{name}Dataset")
    else:
        dataset_class = recbole_datasets.SequentialDataset if name in _NEEDS_TABLE else LazySequentialDataset
    where = f"dataset={config['dataset']!r} in {config['data_path']}"
    try:
        dataset = dataset_class(config)
    except (ValueError, KeyError) as error:
        raise UserError(f"{where}: {error}") from error
    if config["eval_args"]["order"] == "TO" and config["benchmark_filename"] is None:
        kind = dataset.field2type.get(config["TIME_FIELD"])
        if kind != FeatureType.FLOAT:
            found = "no such column" if kind is None else f"a column of type {kind.value}"
            raise UserError(f"{where}: TIME_FIELD={config['TIME_FIELD']!r} must be a float column; there is {found}.")
    return dataset


def _fetch_files(config: RecBoleConfig) -> None:
    """Make sure that the atomic files are on disk; download what RecBole knows, as RecBole does."""
    folder, name = Path(config["data_path"]), config["dataset"]
    suffixes = [f".{part}" for part in config["benchmark_filename"] or []] or [""]
    wanted = [folder / f"{name}{suffix}.inter" for suffix in suffixes]
    missing = [str(path) for path in wanted if not path.is_file()]
    if not missing:
        return
    put = (
        f"Put {' and '.join(missing)} there (RecBole's atomic format), or set --data_path to the folder that holds "
        f"{name}/."
    )
    if folder.exists():
        raise UserError(f"dataset={name!r}: {folder} has no {name}.inter. {put}")
    known = sorted(load_settings([Path(recbole_datasets.__file__).parents[2] / "properties" / "dataset" / "url.yaml"]))
    if name not in known:
        local = [path.name for path in folder.parent.iterdir() if path.is_dir()] if folder.parent.is_dir() else []
        hint = did_you_mean(name, [*known, *local, "ml-100k"])
        raise UserError(f"dataset={name!r}: not found in {folder}, and no download is known by that name.{hint} {put}")
    downloader = Dataset.__new__(Dataset)  # RecBole's download is a method of a data set that is not loaded yet
    downloader.config, downloader.dataset_name, downloader.dataset_path = config, name, str(folder)
    downloader.logger = getLogger()
    try:
        downloader._download()
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        shutil.rmtree(folder, ignore_errors=True)  # an empty folder would pass for a data set the next time
        raise UserError(f"dataset={name!r}: not found in {folder}, and the download failed ({error}). {put}") from error


def prepare_loaders(config: RecBoleConfig, dataset: Dataset, windows: bool) -> Loaders:
    """Split ``dataset`` and build its loaders.

    Args:
        config: settings of the run.
        dataset: from :func:`create_dataset`.
        windows: train on windows (:class:`WindowDataLoader`) in place of one row a prefix.

    Raises:
        UserError: a split is empty, lists are longer than the catalogue, or windows or masked histories are wanted of
            a data set that does not keep whole sequences (``benchmark_filename``).
    """
    splits = dataset.build()
    _check_splits(config, splits)
    samplers = create_samplers(config, dataset, splits)
    negatives = config["train_neg_sample_args"]
    if config["MODEL_TYPE"] != ModelType.SEQUENTIAL and negatives["distribution"] != "none":
        # What evaluation leaves in the ranking must not decide what training may draw: never the user's own items.
        sampler = Sampler(["train", "valid", "test"], splits, negatives["distribution"], negatives["alpha"])
        samplers = (sampler.set_phase("train"), *samplers[1:])
    if windows:
        if getattr(splits[0], "events", None) is None:
            raise UserError(
                "train_on=windows: needs the whole sequences, not benchmark_filename. Set train_on=prefixes."
            )
        train = WindowDataLoader(config, splits[0], samplers[0], shuffle=config["shuffle"])
    elif config["MODEL_TYPE"] == ModelType.KNOWLEDGE:
        kg_sampler = KGSampler(dataset, negatives["distribution"], negatives["alpha"])
        train = get_dataloader(config, "train")(config, splits[0], samplers[0], kg_sampler, shuffle=True)
    elif config["MODEL_TYPE"] == ModelType.SEQUENTIAL:
        # get_dataloader goes by the name: for DiffRec it is the loader of user ids that RecBole's own needs.
        train = TrainDataLoader(config, splits[0], samplers[0], shuffle=config["shuffle"])
    else:
        train = get_dataloader(config, "train")(config, splits[0], samplers[0], shuffle=config["shuffle"])
    evaluation = []
    for phase, split, sampler in zip(("valid", "test"), splits[1:], samplers[1:], strict=True):
        loader = get_dataloader(config, phase)
        if config["mask_history"] and config["MODEL_TYPE"] == ModelType.SEQUENTIAL:
            if getattr(split, "events", None) is None:
                raise UserError(
                    f"mask_history=True: {config['model']} on {config['dataset']} keeps no whole histories."
                )
            if config["eval_args"]["mode"][phase] != "full":
                raise UserError(f"mask_history=True: needs eval_args mode 'full' for {config['model']}.")
            loader = MaskedEvalDataLoader
        evaluation.append(loader(config, split, sampler, shuffle=False))
    return Loaders(train, *evaluation)


def _check_splits(config: RecBoleConfig, splits: list[Dataset]) -> None:
    for phase, split in zip(("training", "validation", "test"), splits, strict=True):
        if len(split) == 0:
            raise UserError(
                f"dataset={config['dataset']!r}: eval_args={config['eval_args']['split']} leaves nothing for {phase}. "
                "Leave-one-out needs users with four interactions or more."
            )
    items = splits[0].item_num - 1
    if max(config["topk"]) > items:
        raise UserError(f"topk={config['topk']}: dataset {config['dataset']!r} has only {items} items.")
