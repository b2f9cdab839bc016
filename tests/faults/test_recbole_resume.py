"""RecBole's models whose epoch has several passes over the data: after a stop they go on to the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Built

from recbole_diffusion.console.progress import Progress
from recbole_diffusion.testing.fixtures import builder
from recbole_diffusion.training.stopping import Stopped

SETTINGS: dict[str, Any] = {"epochs": 4, "eval_step": 1, "train_batch_size": 16}
MODELS: dict[str, dict[str, Any]] = {
    "RecVAE": {"hidden_dimension": 8, "latent_dimension": 4},
    "MKR": {"embedding_size": 8},
    "CKE": {"embedding_size": 8, "kg_embedding_size": 8},
}


class _StopAt(Progress):
    def __init__(self, trainer: Any, epoch: int, batch: int) -> None:
        self.trainer, self.at = trainer, (epoch, batch)

    def batch(self, epoch: int, done: int, batches: int) -> None:
        if (epoch, done) == self.at:
            self.trainer._asked.number = 15


@pytest.fixture
def graph(random_data: Path, tmp_path: Path) -> Path:
    """The data set ``random`` with a knowledge graph of its items."""
    folder = tmp_path / "graph/random"
    folder.mkdir(parents=True)
    (folder / "random.inter").write_bytes((random_data / "random/random.inter").read_bytes())
    lines = (folder / "random.inter").read_text().splitlines()
    place = [column.partition(":")[0] for column in lines[0].split("\t")].index("item_id")
    items = sorted({line.split("\t")[place] for line in lines[1:]})
    links = "".join(f"{item}\te{number}\n" for number, item in enumerate(items))
    (folder / "random.link").write_text("item_id:token\tentity_id:token\n" + links)
    triples = "".join(f"e{n}\tr{n % 2}\te{(3 * n + 1) % len(items)}\n" for n in range(len(items)))
    (folder / "random.kg").write_text("head_id:token\trelation_id:token\ttail_id:token\n" + triples)
    return folder.parent


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("at", [(1, 1), (2, 2)])
def test_a_stop_changes_no_number(graph: Path, model: str, at: tuple[int, int]) -> None:
    build: Callable[..., Built] = builder(graph)
    columns = {"inter": ["user_id", "item_id", "timestamp"]}
    if model != "RecVAE":
        columns |= {"kg": ["head_id", "relation_id", "tail_id"], "link": ["item_id", "entity_id"]}
    settings = {**SETTINGS, **MODELS[model], "load_col": columns}
    whole = build(model, checkpoint_dir="whole", **settings)
    whole.trainer.fit(whole.loaders.train, whole.loaders.valid)
    first = build(model, checkpoint_dir="stopped", **settings)
    first.trainer.progress = _StopAt(first.trainer, *at)
    with pytest.raises(Stopped):
        first.trainer.fit(first.loaders.train, first.loaders.valid)
    rest = build(model, checkpoint_dir="stopped", resume="auto", **settings)
    assert "going on from" in rest.trainer.resumed
    rest.trainer.fit(rest.loaders.train, rest.loaders.valid)
    assert rest.trainer.train_loss_dict == whole.trainer.train_loss_dict
    assert all(map(torch.equal, rest.model.state_dict().values(), whole.model.state_dict().values()))
