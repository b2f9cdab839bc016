"""Each repair of RecBole: what goes wrong without it, and the right result with it."""

from __future__ import annotations

import inspect
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from recbole.config import Config
from recbole.data.dataset import Dataset, KnowledgeBasedDataset, SequentialDataset
from recbole.data.dataset import dataset as dataset_module
from recbole.data.interaction import Interaction
from recbole.evaluator.metrics import GiniIndex, ItemCoverage, ShannonEntropy, TailPercentage
from recbole.model.general_recommender.pop import Pop
from recbole.trainer import trainer as recbole_trainer
from scipy.sparse import dok_matrix

from recbole_diffusion import compat, mending
from recbole_diffusion.data.dataset import AtomicDataset
from recbole_diffusion.mending import any_file_has, replace_in_source

compat.apply()

REPLACED = [
    (Dataset, "_normalize"),
    (Dataset, "_discretization"),
    (Dataset, "_remap"),
    (Dataset, "_fill_nan"),
    (Dataset, "_dataframe_to_interaction"),
    (Dataset, "_download"),
    (Interaction, "sort"),
    (KnowledgeBasedDataset, "_reset_ent_remapID"),
    (SequentialDataset, "_benchmark_presets"),
    (Pop, "calculate_loss"),
    (Pop, "full_sort_predict"),
    (ItemCoverage, "get_coverage"),
    (GiniIndex, "get_gini"),
    (ShannonEntropy, "get_entropy"),
    (TailPercentage, "get_tail"),
]
# u3 has a row without values; u4 and i2 have none, so that their interactions are dropped.
ATOMIC_FILES = {
    "inter": "user_id:token\titem_id:token\ttimestamp:float\n"
    + "u1\ti1\t1\nu2\ti1\t2\nu3\ti1\t3\nu4\ti1\t4\nu3\ti2\t5\n",
    "user": (
        "user_id:token\tage:float\tjob:token\ttags:token_seq\tscores:float_seq\n"
        "u1\t10\tcook\ta b\t1 3\nu2\t30\tcook\tc\t5\nu3\t\t\t\t\n"
    ),
    "item": "item_id:token\tclass:token_seq\ni1\tx y z\n",
}
MakeConfig = Callable[..., Config]


@pytest.fixture
def make_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeConfig:
    """RecBole's own Config over a tiny data set with missing values."""
    monkeypatch.setattr(sys, "argv", ["x"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # RecBole's Config sets it: put it back afterwards
    (tmp_path / "tiny").mkdir()
    for suffix, text in ATOMIC_FILES.items():
        (tmp_path / "tiny" / f"tiny.{suffix}").write_text(text)

    def make(model: str = "BPR", **settings: Any) -> Config:
        load_col = {"inter": "*", "user": "*", "item": "*"}
        settings = {"data_path": str(tmp_path), "use_gpu": False, "load_col": load_col, **settings}
        return Config(model=model, dataset="tiny", config_dict=settings)

    return make


def undo(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Put RecBole's own methods back until the end of the test."""
    for owner, name in REPLACED:
        if name in names:
            monkeypatch.setattr(owner, name, vars(owner)[name].original)


# numpy aliases


def test_numpy_aliases_let_recboles_config_run(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("float", "float_", "complex_", "unicode_"):
        monkeypatch.delattr(np, name)
    with pytest.raises(AttributeError, match=r"np\.float_"):
        make_config()
    compat.numpy_aliases()
    make_config()
    assert np.float is np.float64  # type: ignore[attr-defined]


def test_numpy_aliases_leave_what_numpy_has(monkeypatch: pytest.MonkeyPatch) -> None:
    own = object()
    monkeypatch.setattr(np, "bool", own)
    compat.numpy_aliases()
    assert np.bool is own


# dok_matrix


def test_dok_matrix_update(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(dok_matrix, "_update")
    matrix = dok_matrix((2, 3), dtype=np.float32)
    with pytest.raises(AttributeError, match="_update"):
        matrix._update({(0, 1): 1})
    compat.dok_matrix_update()
    matrix._update({(0, 1): 1, (1, 2): 1})
    assert matrix.tocsr().toarray().tolist() == [[0, 1, 0], [0, 0, 1]]
    assert (matrix > 0).sum() == 2


# lengths of sequences


def test_token_sequences_load(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = AtomicDataset(make_config())
    tags = [dataset.field2id_token["tags"][ids].tolist() for ids in dataset.user_feat["tags"]]
    assert tags == [[], ["a", "b"], ["c"], []]
    undo(monkeypatch, "_remap")
    with pytest.raises(ValueError, match="does not match length"):
        AtomicDataset(make_config())


def test_normalised_sequences_keep_their_lengths(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"normalize_field": ["scores"]}
    assert [row.tolist() for row in AtomicDataset(make_config(**settings)).user_feat["scores"]] == [
        [],
        [0, 0.5],
        [1],
        [],
    ]
    undo(monkeypatch, "_normalize")
    with pytest.raises(ValueError, match="does not match length"):
        AtomicDataset(make_config(**settings))


@pytest.mark.parametrize(
    ("discretization", "values"),
    [({"scores": {"method": "ED", "bucket": 2}}, [[], [1, 1], [2], []]), (None, [[], [1, 3], [5], []])],
)
def test_discretised_sequences_keep_their_lengths(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, discretization: Any, values: list[list[float]]
) -> None:
    settings = {"numerical_features": ["scores"], "discretization": discretization}
    pairs = AtomicDataset(make_config(**settings)).user_feat["scores"]
    columns = [pair[1 if discretization else 0] for pair in pairs]
    assert [row.tolist() for row in columns] == values
    undo(monkeypatch, "_discretization")
    with pytest.raises(ValueError, match="does not match length"):
        AtomicDataset(make_config(**settings))


def test_benchmark_histories_have_their_own_lengths(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    head = "user_id:token\titem_id_list:token_seq\titem_id:token\n"
    (tmp_path / "tiny" / "tiny.train.inter").write_text(f"{head}u1\ti1\ti2\nu2\ti1 i2\ti3\nu3\ti3 i2 i1\ti3\n")
    (tmp_path / "tiny" / "tiny.test.inter").write_text(f"{head}u1\ti1 i2\ti3\n")
    settings = {
        "load_col": {"inter": ["user_id", "item_id_list", "item_id"]},
        "benchmark_filename": ["train", "test"],
        "alias_of_item_id": ["item_id_list"],
        "train_neg_sample_args": None,
    }

    def lengths() -> list[int]:
        return SequentialDataset(make_config("SASRec", **settings)).inter_feat["item_length"].tolist()

    assert lengths() == [1, 2, 3, 2]
    undo(monkeypatch, "_benchmark_presets")
    assert lengths() == [4, 4, 4, 4]  # silently the number of rows


def test_knowledge_graph_sequences_keep_their_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    def renumber() -> list[list[int]]:
        feat = pd.DataFrame({"items": pd.Series([np.array([0, 1]), np.array([2])], dtype=object)})
        dataset = SimpleNamespace(
            field2id_token={},
            field2token_id={},
            field2type={"items": dataset_module.FeatureType.TOKEN_SEQ},
            field2feats=lambda field: [feat],
        )
        KnowledgeBasedDataset._reset_ent_remapID(dataset, "items", np.array([0, 7, 8]), None, None)
        return [ids.tolist() for ids in feat["items"]]

    assert renumber() == [[0, 7], [8]]
    undo(monkeypatch, "_reset_ent_remapID")
    with pytest.raises(ValueError, match="does not match length"):
        renumber()


# missing values


def test_missing_values_are_filled(make_config: MakeConfig) -> None:
    dataset = AtomicDataset(make_config())
    dataset._change_feat_format()
    user, item = dataset.get_user_feature(), dataset.get_item_feature()  # rows: [PAD], u1, u2, u3
    assert user["age"].tolist() == [20, 10, 30, 20]  # the mean
    assert user["job"].tolist() == [0, 1, 1, 0]
    assert user["tags"].tolist() == [[0, 0], [1, 2], [3, 0], [0, 0]]
    assert user["scores"].tolist() == [[0, 0], [1, 3], [5, 0], [0, 0]]
    assert item["class"].tolist() == [[0, 0, 0], [1, 2, 3]]


@pytest.mark.filterwarnings("ignore::pandas.errors.ChainedAssignmentError")
def test_missing_values_were_not(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    undo(monkeypatch, "_fill_nan")
    dataset = AtomicDataset(make_config())
    assert dataset.user_feat["age"].isna().tolist() == [True, False, False, True]
    assert dataset.user_feat["job"].isna().tolist() == [True, False, False, False]


def test_tensors_do_not_share_read_only_columns(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def shares() -> bool:
        dataset = AtomicDataset(make_config())
        column = dataset.user_feat["user_id"].to_numpy()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch warns once per process
            tensor = dataset._dataframe_to_interaction(dataset.user_feat)["user_id"]
        return bool(np.shares_memory(column, tensor.numpy()))

    assert not shares()
    undo(monkeypatch, "_dataframe_to_interaction")
    assert shares()


def test_sorting_does_not_lean_on_array_wrap(monkeypatch: pytest.MonkeyPatch) -> None:
    def order() -> list[int]:
        columns = {"user": [2, 1, 2, 1], "time": [3.0, float("nan"), 3.0, 1.0], "row": [0, 1, 2, 3]}
        interaction = Interaction({name: torch.tensor(column) for name, column in columns.items()})
        interaction.sort(["user", "time"])
        return interaction["row"].tolist()

    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        assert order() == [3, 1, 0, 2]
    undo(monkeypatch, "sort")
    with pytest.warns(DeprecationWarning, match="__array_wrap__"):
        assert order() == [3, 1, 0, 2]


# anomaly detection


def test_anomaly_detection_stays_as_it_was() -> None:
    script = """
import sys, torch
import recbole.model.sequential_recommender
print(torch.is_anomaly_enabled())
from recbole_diffusion import compat
from recbole_diffusion import mending
for before in (False, True):
    for name in [name for name in sys.modules if name.startswith("recbole.model.sequential_recommender")]:
        del sys.modules[name]
    torch.autograd.set_detect_anomaly(before)
    compat.apply()
    import recbole.model.sequential_recommender.sine
    print(torch.is_anomaly_enabled())
"""
    root = Path(compat.__file__).parents[1]
    ran = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    without, off_before, on_before = ran.stdout.split()
    assert (without, off_before, on_before) == ("True", "False", "True")


# the barrier after a download


@pytest.fixture
def download(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[int], None]:
    """``Dataset._download`` for a rank, with nothing downloaded."""
    for name in ("makedirs", "extract_zip", "rename_atomic_files"):
        monkeypatch.setattr(dataset_module, name, lambda *args: None)
    monkeypatch.setattr(dataset_module, "decide_download", lambda url: True)
    archive = tmp_path / "tiny.zip"

    def download_url(url: str, folder: str) -> str:
        archive.touch()
        return str(archive)

    monkeypatch.setattr(dataset_module, "download_url", download_url)
    dataset = SimpleNamespace(
        config={}, dataset_name="tiny", dataset_path="", _get_download_url=str, logger=SimpleNamespace(info=str)
    )

    def run(rank: int) -> None:
        dataset.config["local_rank"] = rank
        Dataset._download(dataset)

    return run


@pytest.mark.parametrize("rank", [0, 1])
def test_download_waits_only_for_other_processes(
    rank: int, download: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    download(rank)
    waits: list[bool] = []
    with monkeypatch.context() as patch:
        patch.setattr(torch.distributed, "is_initialized", lambda: True)
        patch.setattr(torch.distributed, "barrier", lambda: waits.append(True))
        download(rank)
    assert waits == [True]
    undo(monkeypatch, "_download")
    with pytest.raises((ValueError, RuntimeError), match="process group"):
        download(rank)


# mixed precision


def test_mixed_precision_without_deprecation(monkeypatch: pytest.MonkeyPatch) -> None:
    def use() -> tuple[Any, Any]:
        return recbole_trainer.amp.GradScaler(enabled=False), recbole_trainer.amp.autocast(enabled=False)

    monkeypatch.setattr(recbole_trainer, "amp", torch.cuda.amp)
    with pytest.warns(FutureWarning, match=r"torch\.cuda\.amp"):
        use()
    compat.mixed_precision()
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        scaler, autocast = use()
    assert scaler.state_dict() == {} and autocast.device == "cuda"


# The mechanism


def test_apply_twice_changes_nothing() -> None:
    def state() -> list[Any]:
        methods = [vars(owner)[name] for owner, name in REPLACED]
        aliases = [vars(np)[name] for name in compat._NUMPY_ALIASES]
        return [*methods, *aliases, dok_matrix._update, recbole_trainer.amp]

    before = state()
    compat.apply()
    assert all(new is old for new, old in zip(state(), before, strict=True))


@pytest.mark.parametrize(("owner", "name"), REPLACED)
def test_a_replaced_method_looks_like_its_original(owner: type, name: str) -> None:
    method = vars(owner)[name]
    for attribute in ("__name__", "__qualname__", "__module__", "__doc__", "__globals__", "__defaults__"):
        assert getattr(method, attribute) == getattr(method.original, attribute)
    assert inspect.signature(method) == inspect.signature(method.original)
    assert inspect.getsource(method) != inspect.getsource(method.original)


class Sample:
    def double(self, number: int) -> int:
        return number * 2

    def fails(self) -> None:
        raise ValueError("old")

    def closes(self) -> str:
        return super().__repr__()


def test_replacing_leaves_mended_text_alone() -> None:
    before = Sample.double
    replace_in_source(Sample, "double", {"number * 3": "number * 2"})
    assert Sample.double is before


def test_replacing_refuses_what_is_neither_old_nor_mended() -> None:
    with pytest.raises(compat.CannotMend, match=r"Sample\.double contains neither .*'number \* 3'.*'number \* 4'"):
        replace_in_source(Sample, "double", {"number * 2": "number + number", "number * 3": "number * 4"})
    with pytest.raises(compat.CannotMend, match=r"there is no Sample\.no_such_method"):
        replace_in_source(Sample, "no_such_method", {"number": "n"})
    without_source = {}
    exec("class Built:\n    def double(self): pass", without_source)
    with pytest.raises(compat.CannotMend, match=r"the source of Built\.double cannot be read"):
        replace_in_source(without_source["Built"], "double", {"a": "b"})


@pytest.mark.parametrize(("owner", "name"), REPLACED)
def test_another_text_of_a_recbole_method_is_refused(owner: type, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    undo(monkeypatch, name)
    changed = vars(owner)[name]

    def getsource(method: Any) -> str:
        return "    def changed(self): ..." if method is changed else inspect.getsource(method)

    monkeypatch.setattr(mending, "inspect", SimpleNamespace(getsource=getsource))
    with pytest.raises(
        ImportError, match=rf"compat\.\w+ does not fit RecBole 1\.2\.1: {owner.__name__}\.{name} contains neither"
    ):
        compat.apply()
    assert vars(owner)[name] is changed


@pytest.mark.parametrize(
    ("body", "message"),
    [("np.float128ths = np.float_", "float128ths of numpy"), ("setattr(numpy, 'float', float)", "no name of numpy")],
)
def test_other_aliases_of_numpy_are_refused(monkeypatch: pytest.MonkeyPatch, body: str, message: str) -> None:
    monkeypatch.setattr(compat.inspect, "getsource", lambda method: f"def compatibility_settings(self):\n    {body}")
    with pytest.raises(compat.CannotMend, match=message):
        compat.numpy_aliases()


def test_another_dok_matrix_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat, "dok_matrix", lambda shape: SimpleNamespace())
    with pytest.raises(compat.CannotMend, match="dok_matrix has no _dict"):
        compat.dok_matrix_update()


def test_a_file_of_recbole_that_is_gone_is_refused() -> None:
    with pytest.raises(compat.CannotMend, match=r"it has no file model/gone\.py"):
        any_file_has("nn.Module", "model/layers.py", "model/gone.py")


def test_mixed_precision_by_another_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(recbole_trainer, "amp")
    with pytest.raises(compat.CannotMend, match=r"trainer/trainer\.py uses torch\.cuda\.amp under another name"):
        compat.mixed_precision()


def test_tracebacks_show_the_replaced_line() -> None:
    replace_in_source(Sample, "fails", {'"old"': '"new"'})
    with pytest.raises(ValueError, match="new") as caught:
        Sample().fails()
    assert 'raise ValueError("new")' in "".join(traceback.format_exception(caught.value))


def test_replacing_refuses_a_closure() -> None:
    with pytest.raises(TypeError, match="super"):
        replace_in_source(Sample, "closes", {"__repr__": "__str__"})


def test_mends_go_away_once_recbole_is_mended(monkeypatch: pytest.MonkeyPatch) -> None:
    """If RecBole's source has no such problem, nothing is changed: alias, ``_update``, import and ``amp``."""
    monkeypatch.setattr(compat, "Config", SimpleNamespace())  # without compatibility_settings
    monkeypatch.setattr(compat, "any_file_has", lambda text, *paths: False)
    monkeypatch.setattr(compat, "importlib", SimpleNamespace(import_module=pytest.fail))
    monkeypatch.setattr(recbole_trainer, "amp", torch.amp)
    monkeypatch.delattr(np, "float_")
    monkeypatch.delattr(dok_matrix, "_update")
    compat.apply()
    assert "float_" not in vars(np) and not hasattr(dok_matrix, "_update") and recbole_trainer.amp is torch.amp


def test_pop_counts_every_interaction_of_a_batch() -> None:
    def counts(calculate_loss: Any) -> list[int]:
        model = SimpleNamespace(ITEM_ID="item_id", device="cpu", item_cnt=torch.zeros(4, 1, dtype=torch.long))
        calculate_loss(model, {"item_id": torch.tensor([1, 3, 1, 1])})
        return model.item_cnt.squeeze(-1).tolist()

    assert counts(Pop.calculate_loss) == [0, 3, 0, 1]
    assert counts(Pop.calculate_loss.original) == [0, 1, 0, 1]


def test_pop_ranks_items_of_equal_counts_by_their_id() -> None:
    counts = torch.tensor([0, 2, 5, 5, 2**30, 2, 2**30]).unsqueeze(-1)
    pop = SimpleNamespace(USER_ID="user_id", n_items=7, item_cnt=counts, max_cnt=counts.max(dim=0).values)

    def scores(predict: Any) -> torch.Tensor:
        return predict(pop, {"user_id": torch.tensor([1, 2])}).view(2, 7)

    assert scores(Pop.full_sort_predict).argsort(dim=1, descending=True).tolist() == [[4, 6, 2, 3, 1, 5, 0]] * 2
    assert len(scores(Pop.full_sort_predict.original)[0].unique()) == 4


def test_entropy_grows_with_the_variety_of_the_items() -> None:
    few, many = np.arange(4).reshape(2, 2) % 2 + 1, np.arange(4).reshape(2, 2) + 1
    assert ShannonEntropy.get_entropy(None, few) == pytest.approx(np.log(2))
    assert ShannonEntropy.get_entropy(None, many) == pytest.approx(np.log(4))
    original = ShannonEntropy.get_entropy.original
    assert original(None, many) == pytest.approx(original(None, few))  # ln 4 / 4 is ln 2 / 2


def test_a_place_without_an_item_is_no_item() -> None:
    lists, short = np.array([[1, 2], [1, 3]]), np.array([[1, 2, 0], [1, 3, 0]])
    for method, rest in ((ItemCoverage.get_coverage, [4]), (GiniIndex.get_gini, [4]), (ShannonEntropy.get_entropy, [])):
        assert method(None, short, *rest) == pytest.approx(method(None, lists, *rest))
        assert method.original(None, short, *rest) != pytest.approx(method(None, lists, *rest))
    assert ItemCoverage.get_coverage(None, short, 4) == 3 / 4
    # Counts 0, 1, 1, 2 of four items: (-3 * 0 - 1 * 1 + 1 * 1 + 3 * 2) / (4 * 4).
    assert GiniIndex.get_gini(None, short, 4) == pytest.approx(6 / 16)


@pytest.mark.parametrize(("tail", "expected"), [(0.4, [[0, 1], [0, 1]]), (2, [[0, 1], [0, 1]])])
def test_the_tail_is_what_it_was(tail: float, expected: list[list[int]]) -> None:
    metric = TailPercentage({"metric_decimal_place": 4, "topk": [2], "tail_ratio": tail})
    lists, counts = np.array([[1, 2], [1, 3]]), {1: 9, 2: 1, 3: 2, 4: 8, 5: 7}
    assert metric.get_tail(lists, counts).tolist() == expected
    assert TailPercentage.get_tail.original(metric, lists, counts).tolist() == expected
