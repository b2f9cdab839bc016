"""Reading settings: YAML values, strict keys, precedence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Built

from recbole_diffusion import registry
from recbole_diffusion.config.model_files import model_files
from recbole_diffusion.config.reading import load_settings, parse_value
from recbole_diffusion.config.settings import UserError
from recbole_diffusion.config.strict import Config


def _config(model: str = "DreamRec", dataset: str = "ml-100k", preset: str = "default", **user: Any) -> Config:
    resolved = registry.get_model(model)
    return Config(resolved.model_class, dataset, user, resolved.ours, preset)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.1", 0.1),
        ("1e-4", 1e-4),
        ("5e3", 5000.0),
        ("7", 7),
        ("True", True),
        ("~", None),
        ("None", None),
        ("[5, 10]", [5, 10]),
        ("{LS: valid_and_test}", {"LS": "valid_and_test"}),
        ("__import__('os').getcwd()", "__import__('os').getcwd()"),
        ("1+1", "1+1"),
    ],
)
def test_values_are_yaml_and_never_code(text: str, value: Any) -> None:
    parsed = parse_value(text)
    assert parsed == value and type(parsed) is type(value)


def test_intervals_are_text(build: Callable[..., Built]) -> None:
    assert parse_value("[4,inf)", "user_inter_num_interval") == "[4,inf)"
    assert parse_value("[4,9]", "user_inter_num_interval") == "[4,9]"
    assert parse_value("{rating: '[3,inf)'}", "val_interval") == {"rating": "[3,inf)"}
    assert parse_value("[4,9]", "topk") == [4, 9]
    users = build("DreamRec", embedding_size=8).loaders.train.dataset.user_num
    few = build("DreamRec", embedding_size=8, user_inter_num_interval="[10,inf)")
    assert few.loaders.train.dataset.user_num < users


def test_python_objects_in_yaml_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("epochs: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(UserError, match=r"bad\.yaml is not valid YAML"):
        load_settings([file])


def test_command_line_beats_files_and_files_beat_our_yaml(tmp_path: Path) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("epochs: 7\ndropout: 0.4\nlearning_rate: 0.01\n")
    second.write_text("epochs: 8\nlearning_rate: 0.02\n")
    user = load_settings([first, second], {"learning_rate": 0.03})
    config = _config(**user)
    assert (config["learning_rate"], config["epochs"], config["dropout"]) == (0.03, 8, 0.4)
    assert config["stop_gradient_target"] is True  # properties/model/DreamRec.yaml
    assert config["valid_metric"] == "NDCG@10"  # properties/overall.yaml, over RecBole's MRR@10
    assert config["NEG_PREFIX"] == "neg_"  # RecBole's own


def test_the_paper_preset_is_between_the_models_yaml_and_the_user() -> None:
    config = _config(preset="paper", dropout=0.25)
    assert (config["noise_schedule"], config["dropout"], config["p_uncond"]) == ("exp", 0.25, 0.1)


@pytest.mark.parametrize(
    ("model", "user", "message"),
    [
        ("DreamRec", {"learning_rat": 0.1}, r"unknown setting 'learning_rat'. Did you mean 'learning_rate'"),
        ("DreamRec", {"timestep": 5}, r"Did you mean 'timesteps'"),
        ("SASRec", {"timesteps": 5}, r"timesteps=5: SASRec does not read it; DiffRec, DreamRec, "),
        ("DreamRec", {"steps": 5}, r"unknown setting 'steps'"),  # a key of RecBole's DiffRec
        ("DreamRec", {"epochs": "many"}, r"epochs='many': must be a whole number >= 1"),
        ("DreamRec", {"epochs": 1.5}, r"epochs=1\.5"),
        ("DreamRec", {"train_batch_size": 0}, r"train_batch_size=0: must be a whole number >= 1"),
        ("SASRec", {"learning_rate": -1}, r"learning_rate=-1: must be a number > 0"),
        ("DreamRec", {"learner": "adamx"}, r"learner='adamx': must be one of adam, .*Did you mean 'adam"),
        ("DreamRec", {"mask_history": "yes"}, r"mask_history='yes': must be True or False"),
        ("DreamRec", {"rm_dup_inter": "newest"}, r"rm_dup_inter='newest': must be one of first, last or ~"),
        ("DreamRec", {"normalize_all": "yes"}, r"normalize_all='yes': must be True or False or ~"),
        ("DreamRec", {"repeatable": True}, r"use mask_history"),
        ("DreamRec", {"valid_metric": "MAP@10"}, r"valid_metric='MAP@10' is not computed.*Hit@5"),
        ("DreamRec", {"valid_metric": "NDCG@7"}, r"valid_metric='NDCG@7' is not computed"),
        ("DreamRec", {"metrics": ["Nonsense"]}, r"there is no metric 'Nonsense'"),
        ("DreamRec", {"train_neg_sample_args": {"distribution": "uniform"}}, r"train_neg_sample_args=.*Only ~"),
        ("DreamRec", {"eval_args": {"splt": {"LS": "valid_and_test"}}}, r"eval_args: unknown key 'splt'"),
        ("DreamRec", {"save_dataset": True}, r"save_dataset=True: cannot be set; pickled data sets"),
        ("SASRec", {"enable_amp": True}, r"enable_amp=True: cannot be set; use precision=bf16"),
        ("SASRec", {"enable_scaler": True}, r"enable_scaler=True: cannot be set; use precision=bf16"),
        ("SASRec", {"POSITION_FIELD": "place"}, r"POSITION_FIELD='place': cannot be set; no model reads it"),
        ("SASRec", {"nproc": 2}, r"nproc=2: cannot be set; torchrun starts the processes of a run"),
        ("SASRec", {"local_rank": 0}, r"local_rank=0: cannot be set"),
        ("SASRec", {"single_spec": False}, r"single_spec=False: cannot be set; torchrun starts the processes of a run"),
        ("SASRec", {"world_size": False}, r"world_size=False: cannot be set"),
        ("SASRec", {"device": "cuda"}, r"device='cuda': cannot be set; use gpu_id, or use_gpu=False"),
        (
            "SASRec",
            {"valid_metric_bigger": False},
            r"valid_metric_bigger=False: cannot be set; it follows from valid_m",
        ),
        ("SASRec", {"preload_weight": {"item_id": "v"}}, r"preload_weight=.*: cannot be set; only GRU4RecKG and KSR"),
        ("SASRec", {"require_pow": True}, r"require_pow=True: cannot be set; only LightGCN and SimpleX read it"),
        ("SASRec", {"reg_weight": 0.1}, r"unknown setting 'reg_weight'"),
        (
            "SASRec",
            {"kg_reverse_r": True},
            r"kg_reverse_r=True: cannot be set; only models of knowledge graphs read it",
        ),
        ("SASRec", {"wandb_project": "mine"}, r"wandb_project='mine': has an effect only with log_wandb=True"),
        ("SASRec", {"log_wandb": True}, r"log_wandb=True: needs the package wandb"),
        ("SASRec", {"state": "loud"}, r"state='LOUD': must be one of DEBUG, INFO"),
        ("SASRec", {"learner": "sparse_adam"}, r"learner='sparse_adam': must be one of adam, adamw, sgd"),
        ("SASRec", {"learning_rate": float("inf")}, r"learning_rate=inf: must be finite"),
        ("SASRec", {"hidden_dropout_prob": float("nan")}, r"hidden_dropout_prob=nan: must be finite"),
        ("SASRec", {"clip_grad_norm": {"max_norm": float("inf")}}, r"clip_grad_norm=.*: must be finite"),
        ("SASRec", {"clip_grad_norm": {"max_norm": -1}}, r"clip_grad_norm={'max_norm': -1}: must be ~, or max_norm"),
        ("SASRec", {"clip_grad_norm": {"max_norm": True}}, r"clip_grad_norm={'max_norm': True}: must be ~"),
        ("SASRec", {"clip_grad_norm": {"norm_type": 2}}, r"clip_grad_norm={'norm_type': 2}: must be ~"),
        ("SASRec", {"clip_grad_norm": {"max_norm": 5, "norm_type": 0}}, r"'norm_type': 0}: must be ~"),
        ("SASRec", {"clip_grad_norm": {"max_norm": 5, "maxnorm": 5}}, r"'maxnorm': 5}: must be ~"),
        ("SASRec", {"clip_grad_norm": 5}, r"clip_grad_norm=5: must be ~"),
        ("NAIS", {"reg_weights": [1e-7, float("nan")]}, r"reg_weights=.*nan.*: must be finite"),
    ],
)
def test_mistakes_are_named(model: str, user: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        _config(model, **user)


def test_a_gpu_that_is_not_there_is_not_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for asked in (3, "0"):
        with pytest.raises(UserError) as raised:
            _config("SASRec", gpu_id=asked)
        assert str(raised.value) == f"gpu_id={asked!r}: torch finds no such GPU. Set use_gpu=False to use the CPU."
        assert _config("SASRec", gpu_id=asked, use_gpu=False)["device"].type == "cpu"
    for allowed in ({}, {"gpu_id": ""}, {"gpu_id": None}, {"use_gpu": True}):
        assert _config("SASRec", **allowed)["device"].type == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert _config("SASRec", gpu_id=3)["device"].type == "cuda"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"noise_schedule": "linea"}, r"noise_schedule='linea': must be one of .*Did you mean 'linear'"),
        ({"timesteps": 0}, r"timesteps=0: must be a whole number >= 1"),
        ({"timesteps": True}, r"timesteps=True: must be a whole number"),
        ({"sampling_steps": 2000}, r"sampling_steps=2000: must be from 1 to timesteps=1000"),
        ({"eta": 2}, r"eta=2: must be a number >= 0 and <= 1"),
        ({"beta_end": 1.0}, r"beta_end=1.0: must be a number > 0 and < 1 or ~"),
        ({"mse_weight": 0, "ce_weight": 0}, r"mse_weight=0 and ce_weight=0"),
        ({"guidance_strength": 2, "p_uncond": 0}, r"guidance_strength=2 needs p_uncond above 0"),
        ({"train_on": "window"}, r"train_on='window': must be one of windows, prefixes"),
        ({"noise_schedule": "cosine", "beta_end": 0.1}, r"beta_end"),
        ({"pretrained_item_table": "nowhere.pth"}, r"there is no checkpoint 'nowhere.pth'"),
    ],
)
def test_settings_of_the_models_are_checked(
    build: Callable[..., Built], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        build("DreamRec", **settings)


def test_divergence_order_of_the_alpha_divergence(build: Callable[..., Built]) -> None:
    with pytest.raises(UserError, match=r"divergence_order=1.5: the alpha divergence needs a number below 1"):
        build("DiffDiv", divergence="alpha", divergence_order=1.5)


def test_too_little_noise_is_warned_of(build: Callable[..., Built], caplog: pytest.LogCaptureFixture) -> None:
    build("DreamRec", timesteps=50, sampling_steps=5)
    assert "abar_T = 0.60" in caplog.text  # 0.6 for 50 steps of 1e-4 ... 0.02
    caplog.clear()
    build("DreamRec")
    assert "abar_T" not in caplog.text


def test_unknown_models_and_presets() -> None:
    with pytest.raises(UserError, match=r"model='DreamRek'.*Did you mean 'DreamRec'"):
        registry.get_model("DreamRek")
    with pytest.raises(UserError, match=r"preset=pape: DreamRec has no such preset. Allowed: default, paper"):
        _config(preset="pape")
    with pytest.raises(UserError, match=r"preset=model: DreamRec has no such preset"):  # a folder of properties/
        _config(preset="model")
    with pytest.raises(UserError, match=r"preset=paper: SASRec has no such preset. Allowed: default"):
        _config("SASRec", preset="paper")


def test_our_names_come_first_and_recboles_stay_reachable() -> None:
    assert registry.get_model("DreamRec").ours
    assert registry.get_model("SASRec").model_class.__module__ == "recbole.model.sequential_recommender.sasrec"
    theirs = registry.get_model("recbole.DiffRec")
    assert not theirs.ours and theirs.model_class.__module__ == "recbole.model.general_recommender.diffrec"


def test_our_yaml_for_a_model_of_recboles_has_its_own_name() -> None:
    theirs, ours = (model_files(registry.get_model(name).model_class) for name in ("recbole.DiffRec", "DiffRec"))
    assert (theirs.name, ours.name) == ("recbole.DiffRec.yaml", "DiffRec.yaml") and theirs.folder == ours.folder
    assert "eval_seed" in _config("DiffRec") and "eval_seed" not in _config("recbole.DiffRec")


def test_negatives_are_drawn_only_for_those_who_learn_from_them() -> None:
    def distribution(model: str, **user: Any) -> str:
        return _config(model, **user)["train_neg_sample_args"]["distribution"]

    assert distribution("DreamRec") == distribution("SASRec") == distribution("Pop") == "none"
    assert distribution("BPR") == distribution("SASRec", loss_type="BPR") == "uniform"


def test_mask_history_decides_what_recbole_calls_repeatable() -> None:
    assert _config("BPR")["repeatable"] is True
    assert _config("BPR", mask_history=True)["repeatable"] is False
    assert _config("DreamRec", mask_history=True)["repeatable"] is True  # the loader masks; RecBole requires True


def test_what_asks_for_nothing_is_no_mistake() -> None:
    shipped = {
        "save_dataset": False, "enable_amp": False, "preload_weight": None, "POSITION_FIELD": "position_id",
        "require_pow": False, "kg_reverse_r": False,
    }  # fmt: skip
    config = _config("SASRec", **shipped, state="debug")
    assert config["state"] == "DEBUG"
    for clip in (None, {"max_norm": 5}, {"max_norm": 0.5, "norm_type": float("inf")}):
        assert _config("SASRec", clip_grad_norm=clip)["clip_grad_norm"] == clip
    assert _config("LightGCN", require_pow=True, reg_weight=0.1)["require_pow"] is True
    assert _config("HRM", reg_weight=0.1)["reg_weight"] == 0.1
    assert _config("CFKG", kg_reverse_r=True)["kg_reverse_r"] is True


def test_a_setting_of_an_earlier_name_is_refused_with_the_present_one() -> None:
    with pytest.raises(UserError, match="cut_points=3: is called prefixes_per_user now"):
        _config("SASRec", cut_points=3)
