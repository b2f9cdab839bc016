"""What RecBole 1.2.1 needs on today's numpy, pandas, scipy and torch.

One function per problem; :func:`apply` runs them all, and every room of this package that imports RecBole calls it
first. Each can run twice, and does nothing once RecBole has mended its problem: its docstring says by which sign it
knows. A RecBole that has neither the problem nor that sign is refused.
Methods with a wrong expression inside are compiled again from their own source with that expression replaced.
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
    """Mend RecBole in this process; safe to call again.

    Raises:
        CannotMend: this RecBole is not the one that a mend was written for; the message names both.
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
    """Give numpy back the names RecBole still uses; those numpy has are left alone.

    ``Config.compatibility_settings`` (config/configurator.py) sets names such as ``np.float`` for the metrics, the
    data set and the layers, but from ``np.float_`` and others that numpy 2 has removed (RecBole pull request 2203).
    Goes with that method: without it RecBole itself needs no such name.
    """
    setter = getattr(Config, "compatibility_settings", None)
    if setter is None:
        return
    used = re.findall(r"\bnp\.(\w+)", inspect.getsource(setter))
    # vars(), because hasattr() makes numpy 1.26 warn about the names it has dropped.
    missing = [name for name in used if name not in vars(np)]
    unknown = [name for name in missing if name not in _NUMPY_ALIASES]
    if unknown or not used:
        raise CannotMend(f"Config.compatibility_settings uses {', '.join(unknown) or 'no name'} of numpy.")
    for name in missing:
        setattr(np, name, _NUMPY_ALIASES[name])


def dok_matrix_update() -> None:
    """Give ``dok_matrix`` back ``_update``, which scipy 1.13 removed (RecBole issue 2034).

    Seven graph models (``_DOK_UPDATE_FILES``) fill their adjacency matrix with it. Goes once none of them does.
    """
    if hasattr(dok_matrix, "_update") or not any_file_has("._update(", *_DOK_UPDATE_FILES):
        return
    if not hasattr(dok_matrix((1, 1)), "_dict"):
        raise CannotMend("scipy's dok_matrix has no _dict, which its _update filled.")
    dok_matrix._update = lambda self, data: self._dict.update(data)


def lengths_of_sequences() -> None:
    """Take the length of each element where pandas 3 gives the length of the column: ``.agg(len)``.

    Six places in data/dataset/: dataset.py, kg_dataset.py and sequential_dataset.py. Most then fail on any token_seq
    or float_seq field; with ``benchmark_filename`` every history silently gets the number of rows as its length.
    Goes with the last ``.agg(len)``.
    """
    each = {".agg(len)": ".map(len)"}
    for name in ("_normalize", "_discretization", "_remap"):
        replace_in_source(Dataset, name, each)
    replace_in_source(KnowledgeBasedDataset, "_reset_ent_remapID", each)
    replace_in_source(SequentialDataset, "_benchmark_presets", each)


def missing_values() -> None:
    """Fill missing values, which pandas 3 does not: ``df[column].fillna(value, inplace=True)`` fills a copy.

    In data/dataset/dataset.py. Silently, missing floats and the [PAD] row of user and item features then stay NaN, and
    missing tokens become a huge negative id. Goes once RecBole assigns.
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
    """Copy a column before it becomes a tensor: in pandas 3 ``.values`` is read-only, and a LongTensor shares it.

    torch then warns, in every run, that writing to the tensor is undefined. In ``Dataset._dataframe_to_interaction``
    (data/dataset/dataset.py). Goes once RecBole no longer takes ``.values`` there.
    """
    replace_in_source(
        Dataset, "_dataframe_to_interaction", {"value = data[k].values": "value = data[k].to_numpy(copy=True)"}
    )


def sort_of_tensors() -> None:
    """Sort a tensor with torch: numpy 2 will stop giving its results the type of a tensor (``__array_wrap__``).

    ``Interaction.sort`` (data/interaction.py), which every sequential data set runs, relies on that. Both sorts are
    stable, so the order is the same. Goes once RecBole does not call numpy there.
    """
    replace_in_source(Interaction, "sort", {'np.argsort(key, kind="stable")': "torch.argsort(key, stable=True)"})


def anomaly_detection() -> None:
    """Import RecBole's sequential models without the anomaly detection that one of them switches on.

    ``SINE`` (model/sequential_recommender/sine.py) does so for the whole process when it is imported, and every
    sequential model imports it; each backward pass then takes about a fifth longer. What was set before is kept, so
    an import that came before ours stays: it cannot be told from a user's own setting. Goes with that line.
    """
    if any_file_has("set_detect_anomaly", _SINE_FILE):
        with torch.autograd.set_detect_anomaly(torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()):
            importlib.import_module("recbole.model.sequential_recommender")


def download_in_one_process() -> None:
    """Wait for the other processes after a download only where there are any (RecBole issue 1989).

    ``Dataset._download`` (data/dataset/dataset.py) calls ``dist.barrier()`` always, an error in a single process.
    Goes once RecBole asks first.
    """
    barrier = "torch.distributed.barrier()"
    asked = f"torch.distributed.is_available() and torch.distributed.is_initialized() and {barrier}"
    line = "\n            "  # whole statements at their present depth: inside an `if` they are left alone
    replace_in_source(Dataset, "_download", {line + barrier: line + asked})


def mixed_precision() -> None:
    """Point RecBole's trainers (trainer/trainer.py) to torch.amp: torch 2.4 and newer warn of torch.cuda.amp.

    The same classes for the same device, under the module's own name ``amp``. Goes once the file has no torch.cuda.amp.
    """
    amp = getattr(recbole_trainer, "amp", None)
    if amp is _TORCH_AMP or not any_file_has("torch.cuda.amp", _TRAINER_FILE):
        return
    if amp is not torch.cuda.amp:
        raise CannotMend(f"{_TRAINER_FILE} uses torch.cuda.amp under another name than amp.")
    recbole_trainer.amp = _TORCH_AMP


def popularity_counts() -> None:
    """Count every interaction in ``Pop`` (model/general_recommender/pop.py), on any stack.

    ``counts[items] = counts[items] + 1`` counts an item once a batch, however often it is in it: with RecBole's batches
    of 2,048 the most popular items tie. Goes with that line.
    """
    once_a_batch = "self.item_cnt[item, :] = self.item_cnt[item, :] + 1"
    every = "self.item_cnt.index_add_(0, item, torch.ones_like(self.item_cnt[item, :]))"
    replace_in_source(Pop, "calculate_loss", {once_a_batch: every})


def popularity_ties() -> None:
    """Rank items that are equally popular by their id in ``Pop`` (model/general_recommender/pop.py), on any stack.

    RecBole leaves it to ``torch.topk``, whose choice among equal scores depends on the rest of the row and on the
    device; on ml-100k that moves NDCG@10 by three per cent. In ``full_sort_predict`` alone: metrics of single
    predictions count ties. Goes once RecBole ranks ties itself.
    """
    counts = "self.item_cnt.to(torch.float64)"
    by_id = "torch.arange(self.n_items, device=self.item_cnt.device).unsqueeze(1) / self.n_items"
    replace_in_source(Pop, "full_sort_predict", {f"{counts} / self": f"({counts} - {by_id}) / self"})


def metrics_of_all_lists() -> None:
    """Mend RecBole's metrics of all the lists together (evaluator/metrics.py), on any stack.

    ``ShannonEntropy`` divides by the number of items, against its own formula: more diverse lists then score lower
    (RecBole pull request 2165). ``TailPercentage`` looks for every recommended item in a list of the tail, which takes
    most of a minute for 20,000 users of 12,000 items. ``ItemCoverage``, ``GiniIndex`` and ``ShannonEntropy`` count the
    padding item, which here fills up short lists. Goes method by method with those lines.
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
