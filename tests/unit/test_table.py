"""The table of settings: it has every setting, and errors, help, docs and our YAML files agree with it."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from recbole.utils.argument_list import (
    dataset_arguments,
    evaluation_arguments,
    general_arguments,
    training_arguments,
)

from recbole_diffusion import registry
from recbole_diffusion.config import help, page, reading, roles
from recbole_diffusion.config.model_files import ModelFiles, shipped_files
from recbole_diffusion.config.row import Part, Role, Row
from recbole_diffusion.config.rows_run import RUN_ROWS
from recbole_diffusion.config.settings import UserError
from recbole_diffusion.config.strict import Config
from recbole_diffusion.config.table import SECTIONS, SHIPPED, TABLE, of_section
from recbole_diffusion.config.typed import TypedSettings, setting
from recbole_diffusion.diffusion.process import PREDICTIONS
from recbole_diffusion.diffusion.samplers import SAMPLERS, VARIANCES
from recbole_diffusion.diffusion.schedules import SCHEDULES
from recbole_diffusion.diffusion.timesteps import TIMESTEP_SAMPLERS
from recbole_diffusion.model.losses import DIVERGENCES

PROPERTIES = Path(__file__).resolve().parents[2] / "properties"
OURS = [file for file in PROPERTIES.rglob("*.yaml") if not file.name.startswith("recbole.")]
MODELS = list(registry.OURS)


@pytest.fixture(autouse=True)
def _table_as_it_was() -> Iterator[None]:
    """Settings that the models of a test add are removed after the test."""
    yield
    for key in TABLE.keys() - SHIPPED.keys():
        del TABLE[key]


# --------------------------------------------------------------------------------------------------------------
# It has every setting


@pytest.mark.parametrize("file", OURS, ids=lambda file: str(file.relative_to(PROPERTIES)))
def test_every_key_of_our_yaml_has_a_row(file: Path) -> None:
    keys = reading.load_settings([file]).keys() - {reading.EXTENDS}
    assert keys <= SHIPPED.keys()


def test_every_key_that_recbole_lists_has_a_row() -> None:
    listed = {*general_arguments, *training_arguments, *evaluation_arguments, *dataset_arguments}
    of_files = {
        key for parts in (("overall.yaml",), ("dataset", "sample.yaml")) for key in reading.recbole_properties(*parts)
    }
    assert listed | of_files <= RUN_ROWS.keys()


@pytest.mark.parametrize("model", MODELS)
def test_a_models_dataclass_and_yaml_have_the_same_settings(model: str) -> None:
    """A model reads every setting in its files. Its files have every setting that it reads, except those of any run."""
    rows = registry.get_model(model).model_class.config_class.rows
    files = shipped_files(model, recboles=False)
    keys = files.read("model").keys()
    assert rows.keys() <= keys and keys - rows.keys() <= RUN_ROWS.keys()
    assert files.read("paper").keys() <= keys | RUN_ROWS.keys()


def test_every_row_can_be_set_and_explained_or_says_why_not() -> None:
    for key, row in SHIPPED.items():
        assert bool(row.described() and row.help) == row.settable, key
    listed = [key for role, part, *_ in SECTIONS for key in of_section(SHIPPED, role, part)]
    assert sorted(listed) == sorted(SHIPPED)


def test_choices_are_what_the_code_can_do() -> None:
    for key, able in (
        ("prediction", PREDICTIONS), ("process", SAMPLERS), ("variance", VARIANCES), ("divergence", DIVERGENCES),
        ("timestep_sampler", TIMESTEP_SAMPLERS),
    ):  # fmt: skip
        assert TABLE[key].choices == tuple(able), key
    assert TABLE["sampler"].choices == tuple(name for names in SAMPLERS.values() for name in names)
    assert TABLE["sampler"].of["DiffRec"] == SAMPLERS["gaussian"]
    schedules = TABLE["noise_schedule"]
    assert schedules.choices is not None
    assert {*schedules.choices, "linear_variance"} == set(schedules.of["DiffRec"]) == set(SCHEDULES)


# --------------------------------------------------------------------------------------------------------------
# What follows from it


def test_a_setting_with_a_role_binds_or_frees_a_checkpoint() -> None:
    settings = {"eval_batch_size": 1, "epochs": 2, "dropout": 0.1, "topk": [5], "eta": 0.0, "timesteps": 5, "new": 1}
    assert roles.that_bind(settings) == {"timesteps": 5, "new": 1}
    assert roles.that_bind(settings, resume=True).keys() == settings.keys() - {"eval_batch_size", "epochs"}
    assert roles.that_count(settings).keys() == settings.keys() - {"eval_batch_size"}


def test_studies_search_what_changes_a_model_and_nothing_else() -> None:
    assert not {"MAX_ITEM_LIST_LENGTH", "learning_rate", "epochs", "sampling_steps", "timesteps"} & roles.FIXED
    assert {
        "seed",
        "eval_seed",
        "reproducibility",
        "load_col",
        "eval_args",
        "topk",
        "max_cells",
        "state",
    } <= roles.FIXED


def test_the_stamp_names_generation_and_what_figures_rest_on() -> None:
    stamp = roles.stamp()
    assert stamp["candidate_seed"] == "seed of the sampled candidates"
    assert stamp.keys() >= roles.GENERATION - {"eval_seed"} and "eval_seed" not in stamp


# --------------------------------------------------------------------------------------------------------------
# Errors, help, pages


@pytest.mark.parametrize(
    ("model", "key", "value"),
    [("DreamRec", "epochs", 0), ("SASRec", "precision", "fp8"), ("DreamRec", "mmr_weight", 2), ("BPR", "topk", [])],
)
def test_an_error_says_what_the_help_says(model: str, key: str, value: Any) -> None:
    resolved = registry.get_model(model)
    with pytest.raises(UserError) as raised:
        Config(resolved.model_class, "made", {key: value}, resolved.ours)
    allowed = TABLE[key].described()
    assert str(raised.value).startswith(f"{key}={value!r}: must be {allowed}.")
    assert f"({allowed}) {TABLE[key].help}" in _one_line(help.model_settings(model))


def test_a_models_own_choices_are_in_its_errors_and_its_help() -> None:
    for model, key, value, allowed in (
        ("ADIGRec", "prediction", "v", "x0"), ("DiffRec", "prediction", "v", "one of x0, eps"),
        ("DiffuRec", "train_on", "windows", "prefixes"), ("WindowSASRec", "loss_type", "BPR", "CE"),
    ):  # fmt: skip
        settings = {**help.model_defaults(model), key: value}
        with pytest.raises(UserError, match=f"{key}='{value}': must be {allowed}"):
            registry.get_model(model).model_class.config_class.from_config(settings)
        assert f"({allowed}) " in _one_line(help.model_settings(model)).partition(f"--{key}=")[2][:80]


def test_help_shows_every_setting_of_a_model_with_the_default_of_its_preset() -> None:
    text = help.model_settings("DreamRec")
    assert re.search(r"--timesteps=1000 +\(a whole number >= 1\) T, the steps of noise", text)
    assert re.search(r"--num_heads=1 .*--epochs=60 .*--field_separator=\"\\t\" .*--state=INFO", _one_line(text))
    assert "--sampling_steps=500 " in help.model_settings("DreamRec", "paper")
    shown = set(re.findall(r"--(\w+)=", text))
    defaults = help.model_defaults("DreamRec").keys()
    assert shown == {key for key in defaults if _is_offered(TABLE[key])}
    assert not {"num_channels", "hidden_size", "save_dataset", "kg_reverse_r", "require_pow"} & shown


def _is_offered(row: Row) -> bool:
    return row.settable and not row.read_by and row.part is not Part.KNOWLEDGE


def test_help_knows_recboles_models_too() -> None:
    text = help.model_settings("recbole.NAIS")
    assert re.search(r"--weight_size=64 +\(a whole number >= 1\)", text)
    assert re.search(r"--reg_weights=\[1.0e-07, .*\]\s+\(a list; each is a number >= 0\)", text)
    assert "--train_batch_size=2048 " in text
    assert "--require_pow=False " in help.model_settings("LightGCN")
    assert "--kg_reverse_r=False " in help.model_settings("CFKG")
    assert "Training" in help.model_settings("SASRec").partition("--hidden_dropout_prob")[0]


@pytest.mark.parametrize(
    ("model", "preset", "message"),
    [
        ("DreamRek", None, "model='DreamRek': there is no such model. Did you mean 'DreamRec'"),
        ("DiffRec", "papr", "preset=papr: DiffRec has no such preset. Allowed: default, paper."),
        ("SASRec", "paper", "preset=paper: SASRec has no such preset. Allowed: default."),
    ],
)
def test_help_for_what_is_not_there(model: str, preset: str | None, message: str) -> None:
    with pytest.raises(UserError) as raised:
        help.model_settings(model, preset)
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize("model", MODELS)
def test_help_shows_the_values_that_a_run_takes(model: str) -> None:
    resolved = registry.get_model(model)
    config = Config(resolved.model_class, "made", {}, resolved.ours)
    derived = {"load_col", "data_path"}  # the columns and the folder of the data set are added
    for key, value in help.model_defaults(model).items():
        if TABLE[key].settable and key not in derived | {"eval_args", "train_neg_sample_args"}:
            assert config[key] == value, key


def test_help_lists_the_main_settings() -> None:
    text = help.main_settings()
    assert all(f"--{key} " in text for key, row in TABLE.items() if row.main)
    assert "--sampler                       (one of ddpm, ddim, euler) " in text and "--nproc" not in text


def test_help_of_a_model_is_a_command_that_loads_neither_torch_nor_recbole() -> None:
    code = (
        "import sys; from recbole_diffusion.__main__ import main; code = main(['run', '--help', '--model=DiffDiv']); "
        "sys.exit(code or {'torch', 'numpy', 'pandas', 'recbole'} & set(sys.modules) or 0)"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "--num_channels=4 " in done.stdout


def test_pages_and_yaml_comments_are_what_the_table_gives() -> None:
    for file, text in page.files().items():
        assert file.read_text(encoding="utf-8") == text, f"{file}: run python -m recbole_diffusion.config.page"


def test_the_page_shows_limits_defaults_and_the_models_that_have_others() -> None:
    text = page.tables()
    assert "| `eta` | a number >= 0 and <= 1 | `0.0` for ADIGRec, DiffDiv, DiffRec, DiffuRec, DreamRec |" in text
    assert re.search(r"\| `stopping_step` \| a whole number >= 0 \| `10`; `5` for .*DreamRec.*; `6` for DiffRec \|", text)
    assert "ADIGRec: x0; DiffRec: x0, eps |" in text and r"KL(q(z\|c) \|\| N(0, I))" in text


def _one_line(text: str) -> str:
    return " ".join(text.split())


# --------------------------------------------------------------------------------------------------------------
# Files that extend others, and a model's own settings


def test_a_model_reads_what_it_shares_below_its_own_file() -> None:
    own, all_ = reading.read_properties("model", "DiffRec.yaml"), shipped_files("DiffRec", recboles=False).read("model")
    assert own["extends"] == "diffusion" and "extends" not in all_
    assert all_["timesteps"] == 5 and all_["eval_seed"] == 2024 and "embedding_size" not in all_
    resolved = registry.get_model("DiffRec")
    with pytest.raises(UserError, match="embedding_size=8: DiffRec does not read it; DreamRec, "):
        Config(resolved.model_class, "made", {"embedding_size": 8}, ours=True)
    with pytest.raises(UserError, match="unknown setting 'extends'"):
        Config(resolved.model_class, "made", {"extends": "embedding"}, ours=True)


def test_a_line_says_nothing_that_the_file_below_says() -> None:
    for file in (PROPERTIES / "model").glob("*.yaml"):
        own = reading.read_properties("model", file.name)
        base = reading.extended({"extends": own["extends"]}, file.name) if "extends" in own else {}
        assert not {key for key, value in own.items() if base.get(key, "none") == value}, file.name


def test_a_file_below_that_is_not_there() -> None:
    with pytest.raises(UserError, match=r"model/Mine.yaml: extends='difusion': there is no .*difusion.yaml"):
        reading.extended({"extends": "difusion"}, "model/Mine.yaml")


def test_a_key_of_a_models_yaml_without_a_role_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ModelFiles, "read", lambda self, kind: {"timesteps": 5, "depth": 3})
    with pytest.raises(UserError, match="depth of DiffRec's YAML has no role"):
        Config(registry.get_model("DiffRec").model_class, "made", {}, ours=True)


def _example() -> type[TypedSettings]:
    """A dataclass of another package, whose settings are in the table while a test runs."""

    @dataclasses.dataclass(frozen=True)
    class Example(TypedSettings):
        depth: int = setting(low=1, high=9, role=Role.RESULT, help="how deep")
        warmth: float | None = setting(above=0, role=Role.GENERATION, help="how warm")
        mood: str = setting(choices=("plain", "fancy"), role=Role.RESULT, part=Part.TRAINING, help="which")
        eta: float = setting(high=0.5)
        epochs: int

    return Example


def test_typed_settings_read_convert_and_refuse() -> None:
    example, right = _example(), {"depth": 3, "warmth": 1, "mood": "plain", "eta": 0.0, "epochs": 5}
    read = example.from_config(right)
    assert dataclasses.astuple(read) == (3, 1.0, "plain", 0.0, 5) and type(dataclasses.astuple(read)[1]) is float
    assert dataclasses.astuple(example.from_config({**right, "warmth": None}))[1] is None
    for wrong, message in (
        ({"depth": 0}, "depth=0: must be a whole number >= 1 and <= 9"),
        ({"depth": None}, "depth=None: must be a whole number"),
        ({"depth": True}, "depth=True: must be a whole number"),
        ({"warmth": 0}, "warmth=0: must be a number > 0 or ~."),
        ({"warmth": float("nan")}, "warmth=nan: must be a number > 0 or ~ and finite"),
        ({"warmth": float("inf")}, "warmth=inf: must be a number > 0 or ~ and finite"),
        ({"mood": "fance"}, "mood='fance': must be one of plain, fancy. Did you mean 'fancy'"),
        ({"eta": 0.7}, "eta=0.7: must be a number >= 0 and <= 0.5"),
    ):
        with pytest.raises(UserError) as raised:
            example.from_config({**right, **wrong})
        assert str(raised.value).startswith(message)
    with pytest.raises(UserError, match="depth: has no default"):
        example.from_config({key: value for key, value in right.items() if key != "depth"})


def test_a_models_own_settings_join_the_table_and_others_keep_their_row() -> None:
    assert "warmth" not in roles.GENERATION
    rows = _example().rows
    assert "warmth" in roles.GENERATION and roles.stamp()["warmth"] == "warmth"
    assert TABLE["depth"] == rows["depth"] == Row("int", "how deep", low=1, high=9)
    assert roles.that_bind({"warmth": 1.0, "depth": 2}) == {"depth": 2}
    assert rows["epochs"] == TABLE["epochs"]
    assert rows["eta"].described() == "a number >= 0 and <= 0.5" and TABLE["eta"].high == 1
    _example()  # again: the same role


def _mistaken(annotation: str, field: Any = None, name: str = "depth") -> None:
    fields = {"__annotations__": {name: annotation}, **({} if field is None else {name: field})}
    type("Mistaken", (TypedSettings,), fields)


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (lambda: _mistaken("int"), "Mistaken.depth: is not in the table of settings. Give it a role"),
        (
            lambda: _mistaken("int", setting(low=1)),
            "is not in the table of settings. Give it a role and a line of help",
        ),
        (lambda: _mistaken("int", setting(role=Role.RESULT)), "depth: a new setting needs a line of help"),
        (lambda: _mistaken("list", setting(role=Role.RESULT, help="x")), "must be of type int, float, bool or str"),
        (lambda: _mistaken("float", name="epochs"), "epochs: is of type float, but of type int in the table"),
        (lambda: _mistaken("int | None", name="epochs"), "epochs: cannot be None in the table"),
        (
            lambda: _mistaken("int", setting(role=Role.SPEED, help="x"), name="epochs"),
            "Mistaken.epochs: has the role SPEED, .*another epochs has RESULT, COURSE",
        ),
        (
            lambda: _mistaken("int", setting(role=Role.RESULT, part=Part.TRAINING, help="x"), name="epochs"),
            "Mistaken.epochs: has the role RESULT, TRAINING, .*another epochs has RESULT, COURSE",
        ),
        (  # ItemKNN's neighbours
            lambda: _mistaken("int", setting(role=Role.SPEED, help="x"), name="k"),
            "Mistaken.k: a model of RecBole has a setting of this name",
        ),
    ],
)
def test_a_developer_is_told_what_a_setting_of_a_model_lacks(mistake: Callable[[], None], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        mistake()
    assert "depth" not in TABLE


def test_what_only_some_models_may_leave_out() -> None:
    assert TABLE["noise_schedule"].optional and not TABLE["noise_schedule"].for_model("DiffRec").optional
    assert "noise_schedule=linear_variance" in help.model_settings("DiffRec")
    assert "linear_variance or ~)" not in _one_line(help.model_settings("DiffRec"))
    with pytest.raises(UserError, match=r"noise_schedule=None: must be one of linear, .*linear_variance\.$"):
        TABLE["noise_schedule"].for_model("DiffRec").read("noise_schedule", None)


def test_variance_is_read_with_ddpm_alone() -> None:
    resolved = registry.get_model("DreamRec")
    with pytest.raises(UserError, match="variance='large': has an effect only with sampler=ddpm, not ddim"):
        Config(resolved.model_class, "made", {"variance": "large"}, ours=True)
    assert Config(resolved.model_class, "made", {"variance": "large", "sampler": "ddpm"}, ours=True)["eta"] == 0
