"""Repairs of RecBole 1.2.1 for today's numpy, pandas, scipy and torch.

There is one function for each problem. :func:`apply` runs all of them; each part of this package that imports RecBole
calls it first. A function may run twice. It does nothing if RecBole itself has fixed the problem; the docstring says
how the function sees this. If RecBole has neither the problem nor the fix, an error says so.

A method with a wrong expression inside is compiled again from its own source, with the expression replaced.
"""

from __future__ import annotations

import importlib
import inspect
import re
from functools import partial
from types import SimpleNamespace

import numpy as np
import torch

from recbole_diffusion.names import RecBoleMissing

try:
    import recbole
except ModuleNotFoundError as error:
    if error.name != "recbole":
        raise
    raise RecBoleMissing from error
from recbole.config import Config
from recbole.data.dataset.dataset import Dataset
from recbole.data.dataset.kg_dataset import KnowledgeBasedDataset
from recbole.data.dataset.sequential_dataset import SequentialDataset
from recbole.data.interaction import Interaction
from recbole.evaluator.metrics import GiniIndex, ItemCoverage, ShannonEntropy, TailPercentage
from recbole.model.general_recommender.pop import Pop
from recbole.trainer import trainer as recbole_trainer
from scipy.sparse import dok_matrix

from recbole_diffusion.mending import CannotMend, any_file_has, replace_in_source

_NUMPY_ALIASES = {
    "bool": np.bool_,
    "int": np.int_,
    "long": np.int_,
    "float": np.float64,
    "float_": np.float64,
    "complex": np.complex128,
    "complex_": np.complex128,
    "object": np.object_,
    "str": np.str_,
    "unicode": np.str_,
    "unicode_": np.str_,
}
_DOK_UPDATE_FILES = (
    "model/general_recommender/gcmc.py",
    "model/general_recommender/lightgcn.py",
    "model/general_recommender/ncl.py",
    "model/general_recommender/ngcf.py",
    "model/general_recommender/spectralcf.py",
    "model/knowledge_aware_recommender/kgin.py",
    "model/knowledge_aware_recommender/mcclk.py",
)
_SINE_FILE = "model/sequential_recommender/sine.py"
_TRAINER_FILE = "trainer/trainer.py"
_TORCH_AMP = SimpleNamespace(
    GradScaler=partial(torch.amp.GradScaler, "cuda"), autocast=partial(torch.amp.autocast, "cuda")
)


def apply() -> None:
    """Repair RecBole in this process. It can be called again.

    Raises:
        CannotMend: a repair was written for another version of RecBole; the message names the repair and the version.
    """
    for mend in (
        numpy_aliases,
        dok_matrix_update,
        lengths_of_sequences,
        missing_values,
        writable_columns,
        sort_of_tensors,
        anomaly_detection,
        download_in_one_process,
        mixed_precision,
        popularity_counts,
        popularity_ties,
        metrics_of_all_lists,
    ):
        try:
            mend()
        except CannotMend as error:
            raise CannotMend(
                f"recbole_diffusion.compat.{mend.__name__} does not fit RecBole {recbole.__version__}: {error} "
                "Install recbole==1.2.1."
            ) from error


def numpy_aliases() -> None:
    """Give numpy back the names that RecBole still uses. Names that numpy has are left alone.

    ``Config.compatibility_settings`` (config/configurator.py) sets names such as ``np.float``, which the metrics, the
    data set and the layers use. It takes them from ``np.float_`` and others, which numpy 2 has removed (RecBole pull
    request 2203). Does nothing if RecBole no longer has that method.
    """
    setter = getattr(Config, "compatibility_settings", None)
    if setter is None:
        return
    used = re.findall(r"\bnp\.(\w+)", inspect.getsource(setter))
    # vars(), because hasattr() makes numpy 1.26 warn about removed names.
    missing = [name for name in used if name not in vars(np)]
    unknown = [name for name in missing if name not in _NUMPY_ALIASES]
    if unknown or not used:
        raise CannotMend(f"Config.compatibility_settings uses {', '.join(unknown) or 'no name'} of numpy.")
    for name in missing:
        setattr(np, name, _NUMPY_ALIASES[name])


def dok_matrix_update() -> None:
    """Give ``dok_matrix`` back ``_update``, which scipy 1.13 removed (RecBole issue 2034).

    Seven graph models (``_DOK_UPDATE_FILES``) fill their adjacency matrix with it. Does nothing if none of them does.
    """
    if hasattr(dok_matrix, "_update") or not any_file_has("._update(", *_DOK_UPDATE_FILES):
        return
    if not hasattr(dok_matrix((1, 1)), "_dict"):
        raise CannotMend("scipy's dok_matrix has no _dict, which its _update filled.")
    dok_matrix._update = lambda self, data: self._dict.update(data)


def lengths_of_sequences() -> None:
    """Take the length of each element. In pandas 3, ``.agg(len)`` returns the length of the column instead.

    There are six such places in data/dataset/: in dataset.py, kg_dataset.py and sequential_dataset.py. Most of them
    fail on any token_seq or float_seq field. With ``benchmark_filename``, each history gets the number of rows as its
    length, without an error. Does nothing where there is no ``.agg(len)``.
    """
    each = {".agg(len)": ".map(len)"}
    for name in ("_normalize", "_discretization", "_remap"):
        replace_in_source(Dataset, name, each)
    replace_in_source(KnowledgeBasedDataset, "_reset_ent_remapID", each)
    replace_in_source(SequentialDataset, "_benchmark_presets", each)


def missing_values() -> None:
    """Fill missing values. In pandas 3, ``df[column].fillna(value, inplace=True)`` fills a copy.

    In data/dataset/dataset.py. Missing floats and the [PAD] row of user and item features then stay NaN, and missing
    tokens become a huge negative id, without an error. Does nothing if RecBole assigns the filled column.
    """
    replace_in_source(
        Dataset,
        "_fill_nan",
        {
            "feat[field].fillna(value=0, inplace=True)": "feat[field] = feat[field].fillna(value=0)",
            "feat[field].fillna(value=feat[field].mean(), inplace=True)": (
                "feat[field] = feat[field].fillna(value=feat[field].mean())"
            ),
        },
    )


def writable_columns() -> None:
    """Copy a column before it becomes a tensor. In pandas 3, ``.values`` is read-only, and a LongTensor shares it.

    torch then warns, in every run, that writing to the tensor is undefined. In ``Dataset._dataframe_to_interaction``
    (data/dataset/dataset.py). Does nothing if RecBole makes the same copy.
    """
    replace_in_source(
        Dataset, "_dataframe_to_interaction", {"value = data[k].values": "value = data[k].to_numpy(copy=True)"}
    )


def sort_of_tensors() -> None:
    """Sort a tensor with torch. numpy 2 warns that its results will no longer be tensors (``__array_wrap__``).

    ``Interaction.sort`` (data/interaction.py) sorts tensors with numpy, for every sequential data set. Both sorts are
    stable, so the order is the same. Does nothing if RecBole sorts with torch there.
    """
    replace_in_source(Interaction, "sort", {'np.argsort(key, kind="stable")': "torch.argsort(key, stable=True)"})


def anomaly_detection() -> None:
    """Import RecBole's sequential models without the anomaly detection of torch, which one of them turns on.

    Importing ``SINE`` (model/sequential_recommender/sine.py) turns it on for the whole process, and importing any
    sequential model imports ``SINE``. Each backward pass then takes about a fifth longer. Here the setting stays what
    it was before the import. If a program imported RecBole's models earlier, anomaly detection stays on, because it
    could be the user's own setting. Does nothing if that line is gone from sine.py.
    """
    if any_file_has("set_detect_anomaly", _SINE_FILE):
        with torch.autograd.set_detect_anomaly(torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()):
            importlib.import_module("recbole.model.sequential_recommender")


def download_in_one_process() -> None:
    """After a download, wait for other processes only if there are any (RecBole issue 1989).

    ``Dataset._download`` (data/dataset/dataset.py) always calls ``torch.distributed.barrier()``, which is an error in a
    single process. Does nothing if RecBole makes the same check.
    """
    barrier = "torch.distributed.barrier()"
    asked = f"torch.distributed.is_available() and torch.distributed.is_initialized() and {barrier}"
    line = "\n            "  # matches a statement only at this depth, not inside an ``if``
    replace_in_source(Dataset, "_download", {line + barrier: line + asked})


def mixed_precision() -> None:
    """Let RecBole's trainers (trainer/trainer.py) use torch.amp: torch 2.4 and newer warn about torch.cuda.amp.

    These are the same classes for the same device, with the name ``amp`` that the file uses. Does nothing if the file
    has no torch.cuda.amp.
    """
    amp = getattr(recbole_trainer, "amp", None)
    if amp is _TORCH_AMP or not any_file_has("torch.cuda.amp", _TRAINER_FILE):
        return
    if amp is not torch.cuda.amp:
        raise CannotMend(f"{_TRAINER_FILE} uses torch.cuda.amp under another name than amp.")
    recbole_trainer.amp = _TORCH_AMP


def popularity_counts() -> None:
    """Count every interaction in ``Pop`` (model/general_recommender/pop.py), with any versions of libraries.

    ``counts[items] = counts[items] + 1`` counts an item only once per batch, even if the batch contains it many times.
    With RecBole's batches of 2,048, the most popular items then have equal counts. Does nothing if RecBole has the same
    fix.
    """
    once_a_batch = "self.item_cnt[item, :] = self.item_cnt[item, :] + 1"
    every = "self.item_cnt.index_add_(0, item, torch.ones_like(self.item_cnt[item, :]))"
    replace_in_source(Pop, "calculate_loss", {once_a_batch: every})


def popularity_ties() -> None:
    """Rank equally popular items by their id in ``Pop`` (model/general_recommender/pop.py), with any libraries.

    RecBole leaves the order to ``torch.topk``. Its choice among equal scores depends on the rest of the row and on the
    device, which changes NDCG@10 on ml-100k by three per cent. Only ``full_sort_predict`` is changed, because metrics
    of single predictions count ties. Does nothing if RecBole has the same fix.
    """
    counts = "self.item_cnt.to(torch.float64)"
    by_id = "torch.arange(self.n_items, device=self.item_cnt.device).unsqueeze(1) / self.n_items"
    replace_in_source(Pop, "full_sort_predict", {f"{counts} / self": f"({counts} - {by_id}) / self"})


def metrics_of_all_lists() -> None:
    """Repair RecBole's metrics of all lists together (evaluator/metrics.py), with any versions of libraries.

    ``ShannonEntropy`` divides by the number of items, against its own formula, so that more diverse lists have a lower
    value (RecBole pull request 2165). ``TailPercentage`` searches each recommended item in a Python list, which takes
    most of a minute for 20,000 users and 12,000 items. ``ItemCoverage``, ``GiniIndex`` and ``ShannonEntropy`` count the
    padding item, which fills up short lists here. Leaves a method alone if RecBole has the same fix.
    """
    counts = {
        "Counter(item_matrix.flatten())": "Counter(item_matrix[item_matrix > 0])",
        "total_num = item_matrix.shape[0] * item_matrix.shape[1]": "total_num = np.count_nonzero(item_matrix)",
    }
    unique = {"np.unique(item_matrix)": "np.unique(item_matrix[item_matrix > 0])"}
    replace_in_source(ItemCoverage, "get_coverage", unique)
    replace_in_source(GiniIndex, "get_gini", counts)
    replace_in_source(ShannonEntropy, "get_entropy", {**counts, "return result / len(item_count)\n": "return result\n"})
    line = "\n        value = np.zeros_like(item_matrix)\n"
    replace_in_source(TailPercentage, "get_tail", {line: f"\n        tail_items = set(tail_items){line}"})
