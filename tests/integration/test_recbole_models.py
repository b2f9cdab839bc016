"""RecBole's models of other kinds than the sequential and general ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from markov import write_atomic

from recbole_diffusion.quick_start import run
from recbole_diffusion.settings import UserError
from recbole_diffusion.trainer import Diverged


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
    with pytest.raises(UserError, match="precision=bf16: only sequential models train in it; LightGCN is none"):
        run("LightGCN", "random", settings={"data_path": str(random_data), "precision": "bf16"})
