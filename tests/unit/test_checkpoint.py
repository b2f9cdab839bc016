"""Checkpoints: plain data, whole or not at all, and nothing runs when they are read."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from conftest import Built

from recbole_diffusion.config import roles
from recbole_diffusion.config.settings import UserError
from recbole_diffusion.model.pretrained import load_item_table
from recbole_diffusion.storage import checkpoint, tensor_file


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
    with pytest.raises(UserError, match=r"there is no checkpoint .*, only a folder"):
        checkpoint.load(tmp_path)
    (tmp_path / "empty.pth").touch()
    with pytest.raises(UserError, match=r"empty\.pth' is not a checkpoint: the file is empty"):
        checkpoint.load(tmp_path / "empty.pth")


def test_recbole_models_are_saved_safely_too(build: Callable[..., Built]) -> None:
    built = build("Pop")
    built.trainer.fit(built.loaders.train, built.loaders.valid)
    state = checkpoint.load(built.trainer.saved_model_file)
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

    stages = [{"epochs": 1, "freeze": ["item_embedding"]}, {}]
    target = build("DreamRec", embedding_size=16, pretrained_item_table=path, item_init_std=0.7, stages=stages)
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
    with pytest.raises(UserError, match="1 items are not in it; the first is 'new'"):
        load_item_table(path, [*tokens, "new"], 16)


# --------------------------------------------------------------------------------------------------------------
# What a checkpoint is bound to

_DREAMREC = {"embedding_size": 8, "num_layers": 1, "num_heads": 1, "timesteps": 20}


def _trained(build: Callable[..., Built], model: str = "DreamRec", **settings: Any) -> tuple[str, dict[str, float]]:
    """A checkpoint, and the test metrics of its run."""
    built = build(model, **{**(_DREAMREC if model == "DreamRec" else {}), "epochs": 1, "eval_step": 1, **settings})
    built.trainer.fit(built.loaders.train, built.loaders.valid)
    return built.trainer.saved_model_file, built.trainer.evaluate(built.loaders.test)


def _evaluated(built: Built, path: str) -> dict[str, float]:
    built.trainer.eval_collector.data_collect(built.loaders.train)
    return built.trainer.evaluate(built.loaders.test, model_file=path)


@pytest.mark.parametrize(
    ("model", "change", "message"),
    [
        (
            "DreamRec",
            {"mask_history": True},
            r"was made with mask_history=False and not True\. Set each as its run had it",
        ),
        ("DreamRec", {"MAX_ITEM_LIST_LENGTH": 9}, r"was made with MAX_ITEM_LIST_LENGTH=10 and not 9\."),
        ("DreamRec", {"noise_schedule": "cosine"}, r"was made with noise_schedule='linear' and not 'cosine'\."),
        ("DreamRec", {"rm_dup_inter": "last"}, r"was made with rm_dup_inter=None and not 'last'\."),
        (
            "DreamRec",
            {"embedding_size": 16, "p_uncond": 0.5},
            r"embedding_size=8 and not 16, p_uncond=0\.1 and not 0\.5\.",
        ),
        ("DreamRec", {"eval_args": {"mode": "uni10"}}, r"was made with eval_args=.*'full'.* and not .*'uni10'"),
        (
            "SASRec",
            {"hidden_size": 32, "mask_history": True},
            r"hidden_size=64 and not 32, mask_history=False and not T",
        ),
        ("Pop", {"mask_history": True}, r"was made with mask_history=False and not True"),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused(
    build: Callable[..., Built], model: str, change: dict[str, Any], message: str
) -> None:
    path, _ = _trained(build, model)
    other = build(model, **{**(_DREAMREC if model == "DreamRec" else {}), "epochs": 1, "eval_step": 1, **change})
    for load in (lambda: _evaluated(other, path), lambda: other.trainer.resume_checkpoint(path)):
        with pytest.raises(UserError, match=message) as raised:
            load()
        assert str(raised.value).startswith(path) and "\n" not in str(raised.value)


def test_generation_and_measuring_may_differ_where_a_model_is_only_used(build: Callable[..., Built]) -> None:
    path, result = _trained(build, sampling_steps=1)
    free = {
        "sampling_steps": 4, "sampler": "ddpm", "eval_seed": 5, "guidance_strength": 1.0, "variance": "none",
        "eval_batch_size": 16, "topk": [5, 10], "metrics": ["NDCG"], "epochs": 9, "stopping_step": 1,
    }  # fmt: skip
    other = build("DreamRec", **_DREAMREC, **free)
    used = _evaluated(other, path)
    assert set(used) == {"ndcg@5", "ndcg@10"} and used["ndcg@10"] != result["ndcg@10"]
    with pytest.raises(
        UserError, match=r"was made with eval_seed=2024 and not 5, guidance_strength=0\.0 and not 1\.0, "
    ):
        other.trainer.resume_checkpoint(path)
    same = build("DreamRec", **_DREAMREC, sampling_steps=1, epochs=3, eval_step=1)
    with pytest.raises(UserError, match="holds only the model of the best epoch; training goes on from a file"):
        same.trainer.resume_checkpoint(path)
    same.trainer.resume_checkpoint(path.replace("-best.", "-last."))
    assert same.trainer.start_epoch == 1
    same.trainer.fit(same.loaders.train, same.loaders.valid)
    assert list(same.trainer.train_loss_dict) == [0, 1, 2]


# The settings that a model is trained with, then those that it is used with.
_OF_ALL = {
    "learner": "sgd", "learning_rate": 0.5, "weight_decay": 0.1, "clip_grad_norm": {"max_norm": 5},
    "train_batch_size": 7, "shuffle": False, "reproducibility": False,
}  # fmt: skip
_OF_SEQUENCES = {"bucket_by_length": False, "prefixes_per_user": 2}
_OF_WINDOWS = ({"window_overlap": 0.7}, {"train_on": "prefixes", **_OF_SEQUENCES})
_OF_EMBEDDINGS = {
    "dropout": 0.7, "item_init_std": 0.5, "mse_weight": 3.0, "ce_weight": 0.5,
    "stop_gradient_target": False, "timestep_sampler": "loss_second_moment",
    "catalogue_loss": "gbce", "num_negatives": 5, "negative_sampler": "uniform", "gbce_t": 0.5,
}  # fmt: skip
_TRAININGS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("DreamRec", {**_DREAMREC, **_OF_WINDOWS[0]}, {**_OF_WINDOWS[1], **_OF_EMBEDDINGS}),
    ("DiffDiv", {**_DREAMREC, "latent_size": 8, **_OF_WINDOWS[0]}, {
        **_OF_WINDOWS[1], **_OF_EMBEDDINGS, "w_dagl": 2.0, "kl_weight": 1.0, "stop_gradient_latent": False,
        "divergence": "alpha", "divergence_order": 0.2, "divergence_variance": 0.5,
    }),
    ("ADIGRec", {**_DREAMREC, **_OF_WINDOWS[0]}, {
        **_OF_WINDOWS[1], **_OF_EMBEDDINGS, "interest_weight": 0.0, "penalty_weight": 0.0, "catalogue_loss": "softmax",
        "gbce_t": None, "negative_sampler": "in_batch",
    }),
    ("DiffuRec", {**_DREAMREC, "prefixes_per_user": 3}, {
        **_OF_SEQUENCES, **_OF_EMBEDDINGS, "stop_gradient_target": True, "embedding_dropout": 0.9,
    }),
    ("ADRec", {**_DREAMREC, **_OF_WINDOWS[0], "num_negatives": None, "negative_sampler": None}, {
        "window_overlap": 0.7, **_OF_EMBEDDINGS, "embedding_dropout": 0.9,
    }),
    ("FMRec", {**_DREAMREC, "prefixes_per_user": 3}, {
        **_OF_SEQUENCES, **_OF_EMBEDDINGS, "stop_gradient_target": True, "embedding_dropout": 0.9,
        "reconstruction_weight": 0.0, "tied_decoder": False, "one_step_weight": 0.3,
    }),
    ("PreferGrow", {**_DREAMREC, **_OF_WINDOWS[0], "num_negatives": None, "negative_sampler": None}, {
        **_OF_WINDOWS[1], **_OF_EMBEDDINGS, "mse_weight": 0.0,
    }),
    ("PreferDiff", {**_DREAMREC, **_OF_WINDOWS[0], "num_negatives": None, "negative_sampler": None}, {
        **_OF_WINDOWS[1], **_OF_EMBEDDINGS, "preference_weight": 0.5, "preference_scale": 2.0, "preference_of": "batch",
    }),
    ("DiffRec", {"hidden_size": 16}, {
        "train_on": "prefixes", **_OF_SEQUENCES, "dropout": 0.1, "snr_weighting": False, "timestep_sampler": "uniform",
    }),
    ("SASRec", {"hidden_size": 16}, {**_OF_SEQUENCES, "hidden_dropout_prob": 0.9, "attn_dropout_prob": 0.1}),
    ("WindowSASRec", {"hidden_size": 16, "window_overlap": 0.0}, {
        "hidden_dropout_prob": 0.9, "num_negatives": 5, "negative_sampler": "popularity",
    }),
    ("BPR", {}, {"train_neg_sample_args": {"distribution": "popularity", "sample_num": 3}}),
]  # fmt: skip


@pytest.mark.parametrize(("model", "trained", "used"), _TRAININGS, ids=[model for model, *_ in _TRAININGS])
def test_how_a_model_was_trained_may_differ_where_it_is_only_used(
    build: Callable[..., Built], model: str, trained: dict[str, Any], used: dict[str, Any]
) -> None:
    exact = {"metric_decimal_place": 8, "epochs": 1, "eval_step": 1}
    path, result = _trained(build, model, **exact, **trained)
    kept = {key: value for key, value in trained.items() if key != "window_overlap"}  # prefixes have none
    other = build(model, **exact, **{**kept, **_OF_ALL, **used})
    assert _evaluated(other, path) == pytest.approx(result, abs=1e-7)
    bound = roles.that_bind(other.config.final_config_dict, resume=True)
    assert bound.keys() >= {*_OF_ALL, *used}
    with pytest.raises(UserError, match=r"was made with .*and not "):
        other.trainer.resume_checkpoint(path)


def test_every_setting_of_training_alone_is_tried() -> None:
    tried = {key for _, trained, used in _TRAININGS for key in (*_OF_ALL, *trained, *used)}
    assert set(roles.TRAINING) <= tried


@pytest.mark.parametrize(
    "wrong", [{"indices": [100_000_000, 1, 0]}, {"format": "dia"}, {"shape": [1, 2**40]}, {"indptr": [0, 9]}]
)
def test_a_crafted_sparse_matrix_is_not_followed(wrong: dict[str, Any]) -> None:
    right = {"data": [1.0, 2.0, 3.0], "indices": [0, 1, 2], "indptr": [0, 3], "shape": [1, 3], "format": "csc"}
    packed = {"__kind__": "sparse", **right, **wrong}
    for name in ("data", "indices", "indptr"):
        packed[name] = torch.tensor(packed[name], dtype=torch.float64 if name == "data" else torch.int32)
    with pytest.raises(ValueError):
        checkpoint.unpack(packed)


def test_another_models_checkpoint_is_one_line(build: Callable[..., Built]) -> None:
    path, _ = _trained(build, "SASRec")
    with pytest.raises(UserError, match=r": is of SASRec and not of WindowSASRec\.$"):
        _evaluated(build("WindowSASRec"), path)


def test_many_differences_are_cut_short(build: Callable[..., Built]) -> None:
    state = checkpoint.load(_trained(build)[0])
    config = {**state["config"], **{f"key{n}": 1 for n in range(20)}}
    with pytest.raises(UserError, match=r"key0=\(no such setting\) and not 1, .*, 12 more\."):
        checkpoint.check(state, "x.pth", checkpoint.Vocabulary.read(state), config, resume=False)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\ti7\t", "\ti99\t", r"was made from other data: its item \d+ is 'i7' and not 'i99'"),
        ("u3\t", "u99\t", r"was made from other data: its user 4 is 'u3' and not 'u99'"),
        ("\ti7\t", "\ti8\t", r"was made from 30 items and not 29"),
        ("u3\t", "u2\t", r"was made from 40 users and not 39"),
    ],
)
@pytest.mark.parametrize("model", ["DreamRec", "BPR"])
def test_a_checkpoint_of_other_items_or_users_is_refused(
    build: Callable[..., Built], random_data: Path, tmp_path: Path, model: str, old: str, new: str, message: str
) -> None:
    path, _ = _trained(build, model)
    shutil.copytree(random_data / "random", tmp_path / "other" / "random")
    file = tmp_path / "other" / "random" / "random.inter"
    file.write_text(file.read_text().replace(old, new))
    settings = {**(_DREAMREC if model == "DreamRec" else {}), "epochs": 1, "eval_step": 1}
    other = build(model, data_path=str(tmp_path / "other"), **settings)
    with pytest.raises(UserError, match=message):
        _evaluated(other, path)


def test_values_of_other_columns_are_compared_too() -> None:
    made = checkpoint.Vocabulary(["[PAD]", "i1"], ["[PAD]", "u1"], {"class": "aa", "only there": "bb"})
    checkpoint.check_vocabulary(made, "x.pth", made._replace(fields={"class": "aa", "only here": "cc"}))
    with pytest.raises(UserError, match=r"x\.pth: was made from other data: the values of 'class' differ"):
        checkpoint.check_vocabulary(made, "x.pth", made._replace(fields={"class": "ab"}))


def test_an_older_checkpoint_is_one_clear_error(build: Callable[..., Built]) -> None:
    path, _ = _trained(build, "Pop")
    tensor_file.write(checkpoint.load(path), path, "recbole_diffusion 4")
    with pytest.raises(UserError, match=r"is not a checkpoint of this version, .* 3' \(its format is '.* 4'\)\.$"):
        _evaluated(build("Pop"), path)
    torch.save({"format": 2, "state_dict": {}}, path)
    with pytest.raises(UserError, match=r"it is a pickle, of RecBole or of an earlier version\. Opening it would run"):
        _evaluated(build("Pop"), path)


def test_what_recboles_models_start_from_is_of_the_same_items_and_users(
    build: Callable[..., Built], random_data: Path, tmp_path: Path
) -> None:
    path, _ = _trained(build, "NeuMF", mlp_train=False)
    files = {"use_pretrain": True, "mf_pretrain_path": path, "mlp_pretrain_path": "nowhere.pth"}
    with pytest.raises(UserError, match=r"^mlp_pretrain_path: there is no checkpoint 'nowhere\.pth'"):
        build("NeuMF", **files)
    shutil.copytree(random_data / "random", tmp_path / "other" / "random")
    file = tmp_path / "other" / "random" / "random.inter"
    file.write_text(file.read_text().replace("\ti7\t", "\ti99\t"))
    with pytest.raises(UserError, match=r"mf_pretrain_path='.*': was made from other data: its item \d+ is 'i7' and n"):
        build("NeuMF", data_path=str(tmp_path / "other"), **files)


def test_a_checkpoint_of_an_earlier_version_says_so(build: Callable[..., Built]) -> None:
    built = build("DreamRec", embedding_size=8)
    built.trainer._save_checkpoint(0, verbose=False)
    state = checkpoint.load(built.trainer.saved_model_file)
    state["config"]["cut_points"] = state["config"].pop("prefixes_per_user")
    checkpoint.save(state, "renamed.safetensors")
    built.trainer._load("renamed.safetensors", resume=True)  # a setting that is called differently now is the same
    del state["config"]["process"]
    checkpoint.save(state, "older.safetensors")
    with pytest.raises(UserError, match=r"with process=\(no such setting\) and not 'gaussian'\. An earlier"):
        built.trainer._load("older.safetensors")
