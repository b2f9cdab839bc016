"""Checkpoints: plain data, whole or not at all, and nothing runs when they are read."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import torch
from conftest import Built

from recbole_diffusion import checkpoint
from recbole_diffusion.model.pretrained import load_item_table
from recbole_diffusion.settings import UserError


def test_round_trip_of_plain_data(tmp_path: Path) -> None:
    state = {
        "tensor": torch.arange(3.0),
        "number": np.float64(0.5),
        "nested": {"list": (1, None, "x"), 3: True},
        "object": torch.device("cpu"),
    }
    checkpoint.save(checkpoint.plain(state), tmp_path / "deep" / "a.pth")
    loaded = checkpoint.load(tmp_path / "deep" / "a.pth")
    assert torch.equal(loaded["tensor"], state["tensor"])
    assert loaded["number"] == 0.5 and loaded["nested"] == {"list": [1, None, "x"], 3: True}
    assert loaded["object"] == "cpu"


def test_matrices_of_recboles_models_come_back_as_they_were(tmp_path: Path) -> None:
    sparse = scipy.sparse.random(4, 5, density=0.4, format="lil", random_state=0)
    value = {"dense": np.arange(6.0).reshape(2, 3), "sparse": sparse, "set": {3: [(1, 2), None]}, "count": np.int64(4)}
    checkpoint.save({"other_parameter": checkpoint.pack(value)}, tmp_path / "a.pth")
    loaded = checkpoint.unpack(checkpoint.load(tmp_path / "a.pth")["other_parameter"])
    np.testing.assert_array_equal(loaded["dense"], value["dense"])
    assert loaded["sparse"].format == "lil" and (loaded["sparse"] != sparse).nnz == 0
    assert loaded["set"] == value["set"] and loaded["count"] == 4
    with pytest.raises(TypeError, match="cannot hold a object"):
        checkpoint.pack({"x": object()})


def test_an_interrupted_write_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.pth"
    checkpoint.save({"value": 1}, path)

    def full_disk(descriptor: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="no space left"):
        checkpoint.save({"value": 2}, path)
    assert checkpoint.load(path)["value"] == 1 and list(tmp_path.iterdir()) == [path]


class _Bomb:
    def __reduce__(self) -> tuple:
        return os.mkdir, ("exploded",)


def test_a_file_with_code_in_it_is_refused_and_not_run(tmp_path: Path) -> None:
    torch.save({"format": checkpoint.FORMAT, "bomb": _Bomb()}, tmp_path / "bomb.pth")
    (tmp_path / "pickle.pth").write_bytes(pickle.dumps(_Bomb()))
    (tmp_path / "text.pth").write_text("not a checkpoint")
    torch.save({"state_dict": {}}, tmp_path / "foreign.pth")
    for name in ("bomb", "pickle", "text", "foreign"):
        with pytest.raises(UserError, match=rf"{name}\.pth' is not a checkpoint"):
            checkpoint.load(tmp_path / f"{name}.pth")
    assert not Path("exploded").exists()
    with pytest.raises(UserError, match="there is no checkpoint"):
        checkpoint.load(tmp_path / "absent.pth")


def test_recbole_models_are_saved_safely_too(build: Callable[..., Built]) -> None:
    built = build("Pop")
    built.trainer.fit(built.loaders.train, built.loaders.valid)
    state = torch.load(built.trainer.saved_model_file, weights_only=True)
    assert state["other_parameter"]["item_cnt"].sum() == len(built.loaders.train.dataset)
    assert built.trainer.evaluate(built.loaders.test)["hit@10"] > 0


def test_two_runs_in_one_second_write_two_files(build: Callable[..., Built]) -> None:
    first = build("DreamRec", embedding_size=16)
    first.trainer._save_checkpoint(0, verbose=False)
    second = build("DreamRec", embedding_size=16)
    assert first.trainer.saved_model_file != second.trainer.saved_model_file


def test_pretrained_item_table_goes_by_token_and_is_scaled(build: Callable[..., Built]) -> None:
    source = build("WindowSASRec", hidden_size=16, inner_size=32)
    source.trainer._save_checkpoint(0, verbose=False)
    path = source.trainer.saved_model_file
    tokens = source.trainer.vocabulary.items
    table = load_item_table(path, [tokens[0], *reversed(tokens[1:])], 16)
    torch.testing.assert_close(table[1:].flip(0), source.model.item_embedding.weight[1:].detach().cpu())
    assert (table[0] == 0).all()

    target = build("DreamRec", embedding_size=16, pretrained_item_table=path, item_init_std=0.7, freeze_epochs=1)
    weight = target.model.item_embedding.weight.detach().clone()
    assert weight[1:].std().item() == pytest.approx(0.7, rel=1e-4)
    ratio = weight[1:] / source.model.item_embedding.weight[1:].detach()
    torch.testing.assert_close(ratio, ratio[0, 0].expand_as(ratio))
    target.trainer._train_epoch(target.loaders.train, 0)
    assert torch.equal(target.model.item_embedding.weight, weight)
    target.trainer._train_epoch(target.loaders.train, 1)
    assert not torch.equal(target.model.item_embedding.weight, weight)

    with pytest.raises(UserError, match="its width is 16, embedding_size is 8"):
        load_item_table(path, tokens, 8)
    with pytest.raises(UserError, match="1 items are not in it, the first is 'new'"):
        load_item_table(path, [*tokens, "new"], 16)
