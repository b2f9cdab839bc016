"""Creates a data set by name, and the three loaders of a model."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import urllib.error
from logging import getLogger
from pathlib import Path
from typing import Any, NamedTuple

import recbole.data.dataset as recbole_datasets
import torch
from recbole.config import Config as RecBoleConfig
from recbole.data.dataloader import (
    AbstractDataLoader,
    FullSortEvalDataLoader,
    NegSampleEvalDataLoader,
    TrainDataLoader,
)
from recbole.data.dataset import Dataset, KnowledgeBasedDataset
from recbole.data.utils import create_samplers, get_dataloader
from recbole.sampler import KGSampler, Sampler
from recbole.utils import ModelType
from torch import Tensor

from recbole_diffusion.config.protocol import is_sampled, phase_modes
from recbole_diffusion.config.reading import load_settings
from recbole_diffusion.config.settings import UserError, did_you_mean, rows_at_once
from recbole_diffusion.data.batches import BatchSampler
from recbole_diffusion.data.candidates import CandidateSampler, SampledEvalDataLoader
from recbole_diffusion.data.dataset import AtomicDataset, with_atomic_files
from recbole_diffusion.data.prefixes import PrefixDataLoader
from recbole_diffusion.data.sequences import LazySequentialDataset
from recbole_diffusion.data.windows import WindowDataLoader

# RecBole's models that read the table of histories directly. A lazy data set has no such table.
_NEEDS_TABLE = ("FEARec",)


class Loaders(NamedTuple):
    """Training, validation and test batches."""

    train: AbstractDataLoader
    valid: AbstractDataLoader
    test: AbstractDataLoader


class BoundedEvalDataLoader(FullSortEvalDataLoader):
    """Evaluation over the whole catalogue. The scores of a batch are at most ``max_cells`` numbers."""

    step: int

    def _init_batch_size_and_step(self) -> None:
        super()._init_batch_size_and_step()
        self.step = min(self.step, rows_at_once(self.config["max_cells"], self._dataset.item_num))


class SequenceEvalDataLoader(BoundedEvalDataLoader):
    """Evaluation of a data set that keeps the whole sequences.

    With ``bucket_by_length``, histories of similar length are in one batch. With ``mask_history``, the loader gives the
    items that the user has seen, and the trainer gives them the score -inf. RecBole never does this for a sequential
    model.
    """

    def __init__(self, config: Any, dataset: LazySequentialDataset, sampler: Any, shuffle: bool = False) -> None:
        super().__init__(config, dataset, sampler, shuffle=shuffle)
        if config["bucket_by_length"]:
            lengths = dataset.inter_feat[dataset.item_list_length_field]
            rows = torch.arange(len(lengths))
            BatchSampler(lambda: rows, lengths, None, self.step, bucket=True).attach(self)

    def collate_fn(self, index: Any) -> tuple[Any, tuple[Tensor, Tensor] | None, Tensor, Tensor]:
        interaction, history, positive_u, positive_i = super().collate_fn(index)
        if self.config["mask_history"]:
            history = self._dataset.seen_items(self._dataset.target_rows[torch.as_tensor(index)])
        return interaction, history, positive_u, positive_i


def create_dataset(config: RecBoleConfig) -> Dataset:
    """The data set named in ``config``: with lazy histories for sequential models, of RecBole's class for the others.

    Raises:
        UserError: the files are not on disk and cannot be downloaded, or they cannot be read.
    """
    fetch_files(config)
    name = config["model"]
    if config["MODEL_TYPE"] != ModelType.SEQUENTIAL:
        dataset_class = KnowledgeBasedDataset if config["MODEL_TYPE"] == ModelType.KNOWLEDGE else Dataset
    elif hasattr(recbole_datasets, f"{name}Dataset"):
        dataset_class = getattr(recbole_datasets, f"{name}Dataset")
    else:
        dataset_class = recbole_datasets.SequentialDataset if name in _NEEDS_TABLE else LazySequentialDataset
    if not issubclass(dataset_class, AtomicDataset):
        dataset_class = with_atomic_files(dataset_class)
    where = f"dataset={config['dataset']!r} in {config['data_path']}"
    try:
        dataset = dataset_class(config)
    except UserError:
        raise
    except (ValueError, KeyError) as error:
        raise UserError(f"{where}: {error}") from error
    label = config["LABEL_FIELD"]
    if "labeled" in config["eval_args"]["mode"].values() and label not in dataset.field2type:
        raise UserError(f"{where}: eval_args mode 'labeled' needs LABEL_FIELD={label!r}; no such column is loaded.")
    return dataset


def fetch_files(config: RecBoleConfig) -> None:
    """Make sure that the atomic files are on disk. Download them if RecBole knows the data set.

    Raises:
        UserError: the files are not on disk and cannot be downloaded.
    """
    folder, name = Path(config["data_path"]), config["dataset"]
    suffixes = [f".{part}" for part in config["benchmark_filename"] or []] or [""]
    wanted = [folder / f"{name}{suffix}.inter" for suffix in suffixes]
    lacking = [path for path in wanted if not path.is_file()]
    if not lacking:
        return
    put = (
        f"Put {' and '.join(map(str, lacking))} there (RecBole's atomic format), or set --data_path to the folder that "
        f"holds {name}/."
    )
    if folder.exists():
        raise UserError(f"dataset={name!r}: {folder} has no {' and no '.join(path.name for path in lacking)}. {put}")
    known = sorted(load_settings([Path(recbole_datasets.__file__).parents[2] / "properties" / "dataset" / "url.yaml"]))
    if name not in known:
        local = [path.name for path in folder.parent.iterdir() if path.is_dir()] if folder.parent.is_dir() else []
        hint = did_you_mean(name, [*known, *local, "ml-100k"])
        raise UserError(f"dataset={name!r}: not found in {folder}, and no download is known by that name.{hint} {put}")
    # Download to a temporary folder and rename it, so that another process never finds half of it.
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    downloader = Dataset.__new__(Dataset)  # RecBole's download is a method of the data set, which is not loaded yet
    downloader.config, downloader.dataset_name, downloader.dataset_path = config, name, str(temporary)
    downloader.logger = getLogger()
    try:
        downloader._download()
        if temporary.is_dir():  # only one of several processes downloads, the others wait
            with contextlib.suppress(OSError):  # another command was first
                os.replace(temporary, folder)
        if torch.distributed.is_initialized():
            torch.distributed.barrier()
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        raise UserError(f"dataset={name!r}: not found in {folder}, and the download failed ({error}). {put}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def prepare_loaders(
    config: RecBoleConfig, dataset: Dataset, train_on: str, trim: bool, with_ages: bool = False
) -> Loaders:
    """Split ``dataset`` and build its loaders.

    Args:
        config: settings of the run.
        dataset: from :func:`create_dataset`.
        train_on: training rows of a sequential model: ``prefixes``, one row per target; ``windows``, rows of up to L
            targets; ``users``, one row per user with the last target and the history before it.
        trim: whether the model accepts batches as long as their longest history; otherwise all have length L.
        with_ages: whether the model reads :data:`recbole_diffusion.names.AGE_LIST`.

    Raises:
        UserError: a split is empty, lists are longer than the catalogue, or a setting needs whole sequences that the
            data set does not keep (``benchmark_filename``).
    """
    splits = dataset.build()
    _check_splits(config, splits)
    samplers = create_samplers(config, dataset, splits)
    if config["MODEL_TYPE"] != ModelType.SEQUENTIAL:
        return _general_loaders(config, dataset, splits, samplers)
    whole = getattr(splits[0], "events", None) is not None
    _check_rows(config, train_on, whole)
    for split in splits:
        split.with_ages = with_ages
    train: AbstractDataLoader
    # Not RecBole's get_dataloader: it looks at the model's name, and its DiffRec has a special loader.
    if not whole:
        train = TrainDataLoader(config, splits[0], samplers[0], shuffle=config["shuffle"])
    elif train_on == "windows":
        train = WindowDataLoader(config, splits[0], samplers[0], shuffle=config["shuffle"])
    else:
        splits[0].trim = trim and config["bucket_by_length"]
        train = PrefixDataLoader(config, splits[0], samplers[0], config["shuffle"], last_only=train_on == "users")
    for split, mode in zip(splits[1:], phase_modes(config), strict=True):
        if mode != "full" and config["mask_history"]:
            raise UserError(f"mask_history=True: needs eval_args mode 'full' for {config['model']}.")
        if whole:  # other modes join pieces, which must have the same width
            split.trim = trim and config["bucket_by_length"] and mode == "full"
    ranked_whole = SequenceEvalDataLoader if whole else BoundedEvalDataLoader
    return Loaders(train, *_evaluation_loaders(config, splits, samplers, ranked_whole))


def _evaluation_loaders(
    config: RecBoleConfig, splits: list[Dataset], samplers: tuple[Any, ...], ranked_whole: type[BoundedEvalDataLoader]
) -> list[AbstractDataLoader]:
    """The loaders of validation and test, by their modes; ``ranked_whole`` is the class for mode ``full``."""
    loaders: list[AbstractDataLoader] = []
    for split, sampler, mode in zip(splits[1:], samplers[1:], phase_modes(config), strict=True):
        if mode == "full":
            loaders.append(ranked_whole(config, split, sampler))
        elif is_sampled(mode):
            loaders.append(SampledEvalDataLoader(config, split, CandidateSampler(config, splits, sampler)))
        else:
            loaders.append(NegSampleEvalDataLoader(config, split, sampler))
    return loaders


def _general_loaders(
    config: RecBoleConfig, dataset: Dataset, splits: list[Dataset], samplers: tuple[Any, ...]
) -> Loaders:
    """RecBole's own training batches, with negatives that are never the user's own items, and our evaluation."""
    for name in ("prefixes_per_user", "window_overlap"):
        if config.external_config_dict.get(name) is not None:
            raise UserError(f"{name}={config[name]}: only sequential models have histories to cut.")
    negatives = config["train_neg_sample_args"]
    if negatives["distribution"] != "none":
        # Training negatives are never the user's own items, whatever evaluation leaves in the ranking.
        sampler = Sampler(["train", "valid", "test"], splits, negatives["distribution"], negatives["alpha"])
        samplers = (sampler.set_phase("train"), *samplers[1:])
    if config["MODEL_TYPE"] == ModelType.KNOWLEDGE:
        kg_sampler = KGSampler(dataset, negatives["distribution"], negatives["alpha"])
        train = get_dataloader(config, "train")(config, splits[0], samplers[0], kg_sampler, shuffle=True)
    else:
        train = get_dataloader(config, "train")(config, splits[0], samplers[0], shuffle=config["shuffle"])
    return Loaders(train, *_evaluation_loaders(config, splits, samplers, BoundedEvalDataLoader))


def _check_rows(config: RecBoleConfig, train_on: str, whole: bool) -> None:
    """Refuse settings that do not fit the data set or the kind of training rows."""
    if not whole and train_on != "prefixes":
        hint = "" if config["train_on"] is None else " Set train_on=prefixes."
        raise UserError(f"train_on={train_on}: needs the whole sequences, not benchmark_filename.{hint}")
    if not whole and config["mask_history"]:
        raise UserError(f"mask_history=True: {config['model']} on {config['dataset']} keeps no whole histories.")
    if config["transform"] is not None and train_on == "windows":
        raise UserError(f"transform={config['transform']}: changes single histories; train_on=windows has none.")
    if "window_overlap" in config.external_config_dict and train_on != "windows":
        raise UserError(f"window_overlap={config['window_overlap']}: is of windows; train_on={train_on} has none.")
    if config["prefixes_per_user"] is not None and (train_on != "prefixes" or not whole):
        why = f"train_on={train_on}" if whole else "a data set without whole sequences"
        raise UserError(
            f"prefixes_per_user={config['prefixes_per_user']}: draws among prefixes; {why} has none to draw. Set ~."
        )


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
