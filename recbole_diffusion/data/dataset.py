"""How data sets of all RecBole's classes read their files and order their rows."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
import torch
from recbole.data.dataset import Dataset, SequentialDataset
from recbole.data.interaction import Interaction
from recbole.utils import FeatureSource, FeatureType

from recbole_diffusion.config.rows_run import RUN_ROWS
from recbole_diffusion.config.settings import UserError
from recbole_diffusion.config.splitting import own_split
from recbole_diffusion.data.atomic import AtomicFile, rows_and_lines
from recbole_diffusion.data.columns import (
    IDENTIFIERS,
    check_columns_of_file,
    check_interactions,
    check_named_columns,
)
from recbole_diffusion.data.splitting import split_rows

_PADDING = "[PAD]"  # RecBole's name of id 0, which is no user and no item


class AtomicDataset(Dataset):
    """A RecBole data set that is read by :class:`AtomicFile`, with rows in the exact order of their times.

    RecBole rounds times to 32 bits before it sorts, and then a Unix time is a multiple of 128 seconds. Here rows are
    sorted by the times of the file, before anything changes them. Rows with equal times keep the file's order. Times
    stay 64 bits wide until a batch is made, so that every later sort and split compares them exactly.
    """

    inter_feat: Any
    interactions: int  # number in the whole data set, before the split
    longest: int  # interactions of the user who has the most
    _read = 0  # interactions in the files
    _left: list[str]  # how many each filter leaves, as text
    times: tuple[float, float] | None = None  # the first and the last, if there are times
    split_note: str = ""  # what a reader should know of the split, if it is ours
    _cut_lists: Sequence[str] = ()  # columns with the histories of pre-split files

    def _get_field_from_config(self) -> None:
        super()._get_field_from_config()
        # RecBole reads this attribute, but sets it only if the items are called item_id.
        self.item_id_list_field = f"{self.iid_field}{self.config['LIST_SUFFIX']}"

    def _load_feat(self, filepath: str, source: Any) -> pd.DataFrame | None:
        suffix = source.value if isinstance(source, FeatureSource) else source
        load_col, unload_col = self._get_load_and_unload_col(source)
        if load_col == set():
            if suffix == "inter":
                raise UserError(f"load_col={self.config['load_col']!r}: names no column of the .inter file.")
            return None
        file = AtomicFile(filepath, self.config["field_separator"], self.config["encoding"])
        check_columns_of_file(self, file, suffix)
        names = [
            name
            for name in file.columns
            if (load_col is None or name in load_col) and (unload_col is None or name not in unload_col)
        ]
        if suffix == "inter":
            check_interactions(self, file, names)
        if not names:
            self.logger.warning(f"No columns has been loaded from [{source}]")
            return None
        if suffix != "link":  # its columns are columns of other files
            for name in names:
                self.set_field_property(name, file.columns[name], source, 1)
                if "float" in file.columns[name].value:
                    self.field2bucketnum[name] = 2
        table = self._with_identifiers(file, file.read(names), suffix)
        if suffix == "inter" and self._is_ordered_by_time(names):
            file.check_times(table[str(self.time_field)])
        for name in names:
            if file.columns[name] in (FeatureType.TOKEN_SEQ, FeatureType.FLOAT_SEQ):
                table[name] = self._sequences(file, table[name])
        return table.reset_index(drop=True)

    def _is_ordered_by_time(self, names: list[str]) -> bool:
        if self.benchmark_filename_list is not None or self.time_field not in names:
            return False
        return self.config["eval_args"]["order"] == "TO" or self.config["rm_dup_inter"] is not None

    def _with_identifiers(self, file: AtomicFile, table: pd.DataFrame, suffix: str) -> pd.DataFrame:
        """``table`` without the rows that have no user or no item."""
        keys = [self.config[key] for key in IDENTIFIERS.get(suffix, ())]
        keys = [key for key in keys if key in table]
        for key in keys:
            padding = table.index[table[key] == _PADDING] if table[key].dtype == object else table.index[:0]
            if len(padding):
                raise file.refuse(key, padding[0], "is RecBole's name of the padding: give it another name")
        without = table.index[table[keys].isna().any(axis=1)] if keys else table.index[:0]
        if not len(without):
            return table
        if len(without) == len(table):
            raise UserError(f"{file.path}: no row has a value in {' and '.join(keys)}.")
        self.logger.warning(f"{file.path}: {rows_and_lines(without)} without {' or '.join(keys)} left out.")
        return table.drop(index=without)

    def _sequences(self, file: AtomicFile, texts: pd.Series) -> pd.Series:
        name, separator = str(texts.name), self.config["seq_separator"]
        if not isinstance(separator, str) or not separator:
            raise RUN_ROWS["seq_separator"].error("seq_separator", separator)
        values = file.sequences(texts, separator)
        lengths = values.map(len)
        if name == self.item_id_list_field and self.benchmark_filename_list and isinstance(self, SequentialDataset):
            empty = lengths.index[lengths == 0]
            if len(empty):
                raise UserError(f"{file.path}: {rows_and_lines(empty)} without a history in {name!r}.")
        most = (self.config["seq_len"] or {}).get(name)
        self.field2seqlen[name] = int(lengths.max() if most is None else min(most, lengths.max()))
        return values if most is None else values.map(lambda value: value[:most])

    def _init_alias(self) -> None:
        check_named_columns(self)
        super()._init_alias()

    def _set_alias(self, alias_name: str, default_value: list[str | None]) -> None:
        # The items in pre-split histories share their ids with the item column, even if the user does not say so.
        history = [self.item_id_list_field] if self.benchmark_filename_list and alias_name == "item_id" else []
        super()._set_alias(alias_name, [*default_value, *(name for name in history if name in self.field2type)])

    def _benchmark_presets(self) -> None:
        """Cut pre-split histories to their last ``MAX_ITEM_LIST_LENGTH`` items, like all other histories."""
        most = self.config["MAX_ITEM_LIST_LENGTH"]
        lists = [f"{name}{self.config['LIST_SUFFIX']}" for name in self.inter_feat]
        self._cut_lists = [name for name in lists if name in self.inter_feat]
        for name in self._cut_lists:
            self.inter_feat[name] = self.inter_feat[name].map(lambda value: value[-most:])
            self.field2seqlen[name] = most
        super()._benchmark_presets()

    def _filter_nan_user_or_item(self) -> None:
        """Nothing to do: these rows were left out when the file was read."""

    def _filter_by_field_value(self) -> None:
        with self._counting("val_interval"):
            super()._filter_by_field_value()

    def _filter_inter_by_user_or_item(self) -> None:
        with self._counting("filter_inter_by_user_or_item"):
            super()._filter_inter_by_user_or_item()

    def _filter_by_inter_num(self) -> None:
        with self._counting("user_inter_num_interval", "item_inter_num_interval"):
            super()._filter_by_inter_num()

    @contextmanager
    def _counting(self, *keys: str) -> Iterator[None]:
        """A context in which these settings leave out rows."""
        before = len(self.inter_feat)
        yield
        if len(self.inter_feat) < before:
            named = ", ".join(f"{key}={self.config[key]}" for key in keys if self.config[key] is not None)
            self._left.append(f"{len(self.inter_feat):,} after {named}")

    @property
    def counted(self) -> str:
        """How many interactions the files have, and how many each filter leaves, as text."""
        return "; ".join([f"{self._read:,} interactions in the files", *self._left])

    def _reset_index(self) -> None:
        for name in self.feat_name_list:
            if getattr(self, name).empty:
                suffix = name.removesuffix("_feat")
                raise UserError(
                    f"dataset={self.dataset_name!r}: nothing is left of the .{suffix} file: {self.counted}."
                )
        super()._reset_index()

    def _remove_duplication(self) -> None:
        keep = self.config["rm_dup_inter"]
        self._read, self._left = len(self.inter_feat), []
        if keep is None:
            return
        if self.time_field in self.inter_feat:
            self.inter_feat = self.inter_feat.sort_values(self.time_field, kind="stable")
        else:
            self.logger.warning(f"rm_dup_inter={keep}: there are no times; the order is the file's.")
        with self._counting("rm_dup_inter"):
            self.inter_feat = self.inter_feat.drop_duplicates([self.uid_field, self.iid_field], keep=keep)

    def _remap_ID_all(self) -> None:
        """Number the tokens as RecBole does, in the order of the file. Then sort the rows if time orders them."""
        super()._remap_ID_all()
        self.interactions = len(self.inter_feat)
        self.longest = int(np.bincount(self.inter_feat[self.uid_field]).max())
        if self.time_field in self.inter_feat:
            self.times = self.inter_feat[self.time_field].min(), self.inter_feat[self.time_field].max()
        self._warn_of_what_is_odd()
        if self.benchmark_filename_list is not None or self.config["eval_args"]["order"] != "TO":
            return
        self.inter_feat = self.inter_feat.sort_values(self.time_field, kind="stable", ignore_index=True)
        users, times = (self.inter_feat[field].to_numpy() for field in (self.uid_field, self.time_field))
        by_user = np.argsort(users, kind="stable")
        users, times = users[by_user], times[by_user]
        neighbours = users[1:] == users[:-1]
        ties = np.count_nonzero(neighbours & (times[1:] == times[:-1]))
        order = "; their order is the file's" if ties else ""
        self.logger.info(f"{ties:,} of {neighbours.sum():,} neighbouring events of a user share a time{order}.")

    def _warn_of_what_is_odd(self) -> None:
        """Warn of data that is allowed but rarely intended: repeated rows, items that nobody has taken."""
        columns = [name for name in (self.uid_field, self.iid_field, self.time_field) if name in self.inter_feat]
        twice = 0 if self.benchmark_filename_list is not None else int(self.inter_feat.duplicated(columns).sum())
        if twice:
            self.logger.warning(
                f"{twice:,} of {self.interactions:,} interactions repeat another's {', '.join(columns)}; each counts. "
                "rm_dup_inter=first keeps the first of each user and item."
            )
        untaken = self.item_num - 1 - self.inter_feat[self.iid_field].nunique()
        if self.item_feat is not None and untaken > 0 and self.benchmark_filename_list is None:
            self.logger.warning(
                f"{untaken:,} of {self.item_num - 1:,} items are in the .item file only; they join the catalogue."
            )

    def _dataframe_to_interaction(self, data: pd.DataFrame) -> Interaction:
        interaction = super()._dataframe_to_interaction(data)
        for name in set(self._cut_lists) & set(data):  # as wide as all other histories, because some models need it
            values = interaction[name]  # [rows, longest, ...]
            short = self.config["MAX_ITEM_LIST_LENGTH"] - values.shape[1]
            padded = torch.nn.functional.pad(values, (0, 0) * (values.dim() - 2) + (0, short))
            interaction.update(Interaction({name: padded}))
        time = self.time_field
        if time in data and data[time].dtype == np.float64:
            interaction.update(Interaction({time: torch.from_numpy(data[time].to_numpy(copy=True))}))
        return interaction

    def __getitem__(self, index: Any, join: bool = True) -> Interaction:
        batch = super().__getitem__(index, join)
        return Interaction({field: as_in_batches(values) for field, values in batch.interaction.items()})

    def build(self) -> list[Dataset]:
        """Training, validation and test; ``split_note`` says what a reader should know of them."""
        kind = own_split(self.config)
        if kind is None:
            return super().build()
        self._change_feat_format()
        *parts, self.split_note = split_rows(self, kind)
        self.logger.info(f"split={kind}: {self.split_note}")
        self._drop_unused_col()
        return [self.copy(self.inter_feat[rows]) for rows in parts]

    @property
    def counts(self) -> str:
        """Users, items and interactions, and how dense they are, in words."""
        users, items = self.user_num - 1, self.item_num - 1  # without the padding
        graph = f", {len(self.kg_feat):,} triples" if hasattr(self, "kg_feat") else ""
        return (
            f"{users:,} users, {items:,} items, {self.interactions:,} interactions{graph} "
            f"({self.interactions / users:.1f} per user, {self.interactions / items:.1f} per item, "
            f"{self.interactions / users / items:.4%} of all pairs)"
        )

    def __str__(self) -> str:
        return f"{self.dataset_name}: {self.counts}. Fields: {', '.join(self.field2type)}"


def as_in_batches(values: torch.Tensor) -> torch.Tensor:
    """``values`` as they are in a batch: 64-bit times become 32-bit floats."""
    return values.float() if values.dtype == torch.float64 else values


@functools.cache
def with_atomic_files(dataset_class: type[Dataset]) -> type[Dataset]:
    """RecBole's ``dataset_class`` as an :class:`AtomicDataset`."""
    return type(dataset_class.__name__, (AtomicDataset, dataset_class), {})
