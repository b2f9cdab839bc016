"""RecBole's own models by our command: they run, or say in one line why not."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recbole_diffusion.__main__ import main
from recbole_diffusion.config.settings import UserError
from recbole_diffusion.data.prefixes import PrefixDataLoader
from recbole_diffusion.quick_start import prepare, request, run
from recbole_diffusion.testing.markov import write_atomic
from recbole_diffusion.training.finite import Diverged


@pytest.fixture
def graph_data(tmp_path: Path) -> Path:
    """Data set ``graph``: 30 users, 20 items, each an entity with two relations to others."""
    rng = np.random.default_rng(4)
    folder = write_atomic(tmp_path / "data", "graph", [rng.integers(1, 21, size=8) for _ in range(30)])
    links = [f"i{i}\te{i}" for i in range(1, 21)]
    triples = [f"e{i}\tr{r}\te{rng.integers(1, 31)}" for i in range(1, 21) for r in (1, 2)]
    file = folder / "graph" / "graph"
    file.with_suffix(".link").write_text("\n".join(["item_id:token\tentity_id:token", *links]) + "\n")
    header = "head_id:token\trelation_id:token\ttail_id:token"
    file.with_suffix(".kg").write_text("\n".join([header, *triples]) + "\n")
    return folder


@pytest.fixture(scope="session")
def item_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data set ``shop``: 30 users, 20 items with a class, a brand and a price."""
    rng = np.random.default_rng(5)
    folder = write_atomic(tmp_path_factory.mktemp("shop"), "shop", [rng.permutation(20)[:8] + 1 for _ in range(30)])
    rows = [f"i{item}\tc{item % 4} c{item % 3}\tb{item % 5}\t{item / 2}" for item in range(1, 21)]
    header = "item_id:token\tclass:token_seq\tbrand:token\tprice:float"
    (folder / "shop" / "shop.item").write_text("\n".join([header, *rows]) + "\n")
    return folder


def _command(folder: Path, model: str, *arguments: str) -> list[str]:
    return ["run", f"--model={model}", "--dataset=shop", f"--data_path={folder}", "--topk=[5]", "--valid_metric=NDCG@5",
            "--MAX_ITEM_LIST_LENGTH=10", *arguments]  # fmt: skip


def test_a_model_of_item_columns_loads_them_by_itself(item_data: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = {"data_path": str(item_data), "topk": [5], "valid_metric": "NDCG@5", "epochs": 1}
    with caplog.at_level("INFO"):
        assert run("GRU4RecF", "shop", settings=settings)["valid"]["ndcg@5"] > 0
    assert "selected_features=['class']: read from shop.item" in caplog.text
    features = {"selected_features": ["class", "brand", "price"], "numerical_features": ["price"]}
    assert run("SASRecF", "shop", settings={**settings, **features})["valid"]["ndcg@5"] > 0


def test_an_item_without_a_row_in_the_item_file_keeps_its_interactions(item_data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "part" / "shop"
    shutil.copytree(item_data / "shop", folder)
    rows = (folder / "shop.item").read_text().splitlines()
    (folder / "shop.item").write_text("\n".join([*rows[:-1], "new\tc1\tb1\t2"]) + "\n")
    settings = {"data_path": str(folder.parent), "topk": [5], "valid_metric": "NDCG@5"}
    datasets = {}
    for model in ("FDSA", "SASRec"):
        wanted = request(model, "shop", settings, None)
        datasets[model] = prepare(wanted.resolved, wanted.config()).dataset
    assert datasets["FDSA"].inter_num == datasets["SASRec"].inter_num
    assert {"new", "i20"} <= set(datasets["FDSA"].field2id_token["item_id"])


def test_a_model_of_stages_trains_them_in_turn(item_data: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = ["--train_stage=pretrain", "--pretrain_epochs=1"]
    assert main(_command(item_data, "S3Rec", *first)) == 0
    (saved,) = Path("saved").glob("S3Rec-shop-*-epoch1.safetensors")
    with caplog.at_level("INFO"):
        assert (
            main(_command(item_data, "S3Rec", "--train_stage=finetune", f"--pre_model_path={saved}", "--epochs=1")) == 0
        )
    assert f"Load pretrained model from {saved}" in caplog.text and "valid: hit@5" in caplog.text


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        ("S3Rec", [], "train_stage is not given: S3Rec trains in stages"),
        ("FDSA", ["--selected_features=[colour]"], "column 'colour' of shop.item is missing, or load_col="),
        ("FDSA", ["--load_col={inter: [user_id, item_id, timestamp]}"], "column 'class' of shop.item is missing"),
        (
            "FDSA",
            ["--selected_features=[class, price]"],
            "'price' of shop.item is of type float: name it in numerical_",
        ),
        ("S3Rec", ["--train_stage=pretrain", "--item_attribute=price"], "is of type float: must be token or token_seq"),
        ("GRU4RecCPR", [], "reranker_CAN_NUM=100: must be from 1 to 21, the items of 'shop' and the padding"),
        ("SASRecCPR", ["--reranker_CAN_NUM=10,x"], "reranker_CAN_NUM='10,x': must be from 1 to 21"),
        ("RaCT", ["--train_stage=actor_pretrain"], "metrics_k=100: must be from 1 to 21"),
        ("SASRec", ["--hidden_size=abc"], "hidden_size='abc': must be a whole number >= 1"),
        ("SASRec", ["--hidden_size=63"], "n_heads=2: must divide hidden_size=63"),
        ("GRU4Rec", ["--loss_type=X"], "loss_type='X': must be one of BPR, CE"),
        ("BPR", [f"--embedding_size={10**15}"], "must be a whole number >= 1 and <= 1000000"),
        ("DreamRec", [f"--embedding_size={10**15}", "--num_heads=1"], "must be a whole number >= 1 and <= 65536"),
        ("KSR", [], "shop.ent] not found"),
        ("DGCF", [], "DGCF failed in RecBole's code at dgcf.py:51: ValueError: Sample larger than population"),
    ],
)
def test_a_model_that_cannot_run_says_so_in_one_line(
    item_data: Path, model: str, arguments: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(_command(item_data, model, *arguments)) == 2
    printed = capfd.readouterr().err
    errors = [line for line in printed.splitlines() if line.startswith("recbole-diffusion: error:")]
    assert len(errors) == 1 and message in errors[0]
    assert "Traceback" not in printed


@pytest.mark.skipif(find_spec("faiss") is not None, reason="faiss is installed")
def test_a_package_that_is_not_installed_is_named(item_data: Path) -> None:
    with pytest.raises(UserError, match=r"NCL .*it needs the package 'faiss', which is not"):
        run("NCL", "shop", settings={"data_path": str(item_data), "topk": [5], "valid_metric": "NDCG@5"})


@pytest.mark.parametrize("place", ["__init__", "collate_fn"])
def test_what_is_wrong_in_this_package_is_not_blamed_on_recbole(
    item_data: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scope: dict[str, Any] = {"__name__": PrefixDataLoader.__module__}
    exec("def fail(*_, **__):\n    raise KeyError('ours')", scope)
    monkeypatch.setattr(PrefixDataLoader, place, scope["fail"])
    with pytest.raises(KeyError, match="ours"):
        run("GRU4Rec", "shop", settings={"data_path": str(item_data), "topk": [5], "valid_metric": "NDCG@5"})


def test_a_knowledge_graph_model_trains_and_is_measured(graph_data: Path) -> None:
    settings = {"data_path": str(graph_data), "epochs": 1, "metrics": ["NDCG", "Novelty"], "topk": [5]}
    result = run("CFKG", "graph", settings={**settings, "valid_metric": "NDCG@5"}, examples=3)
    assert result["test"]["novelty@5"] > 0


def test_bert4rec_is_spared_batches_that_have_nothing_to_predict(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    folder = write_atomic(tmp_path / "data", "short", [rng.integers(1, 31, size=5) for _ in range(64)])
    settings = {"data_path": str(folder), "epochs": 4, "train_batch_size": 32, "MAX_ITEM_LIST_LENGTH": 10}
    assert run("BERT4Rec", "short", settings=settings)["epochs"] == 4
    with pytest.raises(Diverged, match="the training loss is nan"):  # histories of one item meet in a batch
        run("BERT4Rec", "short", settings={**settings, "bucket_by_length": True})


def test_bf16_is_for_sequential_models(random_data: Path) -> None:
    with pytest.raises(UserError, match="precision=bf16: only sequential models can use it; LightGCN is not"):
        run("LightGCN", "random", settings={"data_path": str(random_data), "precision": "bf16"})


def test_a_model_of_item_columns_on_data_without_them_names_the_file(
    random_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--model=FDSA", "--dataset=random", f"--data_path={random_data}"]) == 2
    assert "column 'class' of random.item is needed, but there is no such file in" in capsys.readouterr().err
