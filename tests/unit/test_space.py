"""Search spaces: reading, errors, and the files that ship."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from recbole_diffusion.config.settings import UserError
from recbole_diffusion.quick_start import request
from recbole_diffusion.tune.space import Choice, Range, check_space, read_space, space_file

SHIPPED = sorted((Path(__file__).resolve().parents[2] / "properties" / "space").glob("*.yaml"))


def read(tmp_path: Path, text: str) -> dict[str, Choice | Range]:
    file = tmp_path / "space.yaml"
    file.write_text(text, encoding="utf-8")
    return read_space(file)


def test_ranges_and_choices_are_typed(tmp_path: Path) -> None:
    space = read(
        tmp_path,
        "learning_rate: {low: 1e-4, high: 1e-2, log: true}\nnum_layers: {low: 1, high: 3}\n"
        "dropout: {low: 0, high: 0.6, step: 0.2}\nsize: {low: 16, high: 64, step: 16}\nschedule: [linear, ~, 3]\n",
    )
    assert space == {
        "learning_rate": Range(1e-4, 1e-2, log=True, step=None),
        "num_layers": Range(1, 3, log=False, step=1),
        "dropout": Range(0.0, 0.6, log=False, step=0.2),
        "size": Range(16, 64, log=False, step=16),
        "schedule": Choice(("linear", None, 3)),
    }
    assert [entry.size() for entry in space.values()] == [None, 3, 4, 4, 3]
    rate, layers, dropout, size, schedule = space.values()
    assert rate.contains(0.01) and not rate.contains(0.011) and not rate.contains(None)
    assert layers.contains(3) and not layers.contains(2.0) and not layers.contains(True)
    assert dropout.contains(0.4) and dropout.contains(0) and not dropout.contains(0.5)
    assert size.contains(48) and not size.contains(40)
    assert schedule.contains(None) and not schedule.contains(3.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no setting to search"),
        ("dropout: 0.3", "dropout=0.3: must be a list of two or more values, or a range"),
        ("dropout: [0.3]", r"dropout=\[0.3\]: must be a list of two or more different values"),
        ("dropout: [1, 1.0]", "two or more different values"),
        ("dropout: [[1], [2]]", "the values of a choice must be numbers"),
        ("dropout: {low: 0.1}", "low and high must be numbers, with low below high"),
        ("dropout: {low: 0.3, high: 0.1}", "low and high must be numbers, with low below high"),
        ("dropout: {low: 0.1, high: x}", "low and high must be numbers"),
        ("dropout: {low: false, high: 1}", "low and high must be numbers"),
        ("dropout: {low: 0.1, hihg: 0.3}", "unknown key 'hihg' of a range. .*Did you mean 'high'"),
        ("dropout: {low: 0.0, high: 0.3, log: true}", "with log: true, low must be above 0"),
        ("dropout: {low: 0.1, high: 0.3, log: yes please}", "log must be True or False"),
        ("dropout: {low: 0.1, high: 0.3, log: true, step: 0.1}", "can have log or step, not both"),
        ("dropout: {low: 0.1, high: 0.4, step: 0.2}", "step must be a number above 0 that divides high - low"),
        ("layers: {low: 1, high: 3, step: 0.5}", "step must be a whole number above 0"),
        ("dropout: {low: 0.1, high: 0.4, step: 0}", "step must be a number above 0"),
    ],
)
def test_mistakes_name_file_key_and_what_is_allowed(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=rf"space\.yaml: .*{message}") as error:
        read(tmp_path, text)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(UserError, match=r"space: there is no file 'none\.yaml'"):
        read_space("none.yaml")


@pytest.mark.parametrize(
    ("text", "user", "message"),
    [
        ("dropuot: [0.1, 0.3]", {}, "s.yaml: unknown setting 'dropuot'. Did you mean 'dropout'"),
        ("dropout: [0.3, 1.0]", {}, "s.yaml: dropout=1.0: must be a number >= 0 and < 1"),
        ("dropout: [0.1, 0.2]", {}, "dropout does not contain its default, 0.3"),
        ("num_layers: {low: 1, high: 9, step: 4}", {}, "num_layers does not contain its default, 2"),
        ("dropout: [0.1, 0.3]", {"dropout": 0.1}, "dropout=0.1 is set, but s.yaml searches it. Do not"),
        ("seed: [1, 2020]", {}, "seed cannot be searched, because all trials"),
        ("candidate_seed: [1, 2020]", {}, "candidate_seed cannot be searched, because all trials"),
        ("mask_history: [True, False]", {}, "mask_history cannot be searched, because all trials"),
        ("valid_metric: [NDCG@10, Hit@10]", {}, "valid_metric cannot be searched, because all trials"),
        ("learning_rate: {low: -1.0, high: 1.0}", {}, "s.yaml: learning_rate=-1.0: must be a number > 0"),
    ],
)
def test_a_space_must_fit_its_model(tmp_path: Path, text: str, user: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_space(read(tmp_path, text), "s.yaml", request("DreamRec", "ml-100k", user, None))


def test_the_default_follows_what_the_user_set_and_the_preset(tmp_path: Path) -> None:
    space = read(tmp_path, "dropout: [0.1, 0.3]\nMAX_ITEM_LIST_LENGTH: [20, 50]")
    for preset, dropout in (("default", 0.3), ("paper", 0.1)):
        found = check_space(space, "s.yaml", request("DreamRec", "ml-100k", {"num_layers": 1}, preset))
        assert found == {"dropout": dropout, "MAX_ITEM_LIST_LENGTH": 50}


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_every_shipped_space_fits_its_model_and_holds_its_default(file: Path) -> None:
    wanted = request(file.stem, "ml-100k", {}, None)
    assert space_file(wanted) == file
    presets = ["default"]
    if (file.parents[1] / "paper" / file.name).is_file():
        presets.append("paper")
    for preset in presets:
        wanted = request(file.stem, "ml-100k", {}, preset)
        default = check_space(read_space(file), file, wanted)
        assert default == {key: wanted.config()[key] for key in read_space(file)}


def test_which_models_ship_a_space() -> None:
    ours = {"ADIGRec", "BSARec", "DiffDiv", "DiffRec", "DiffuRec", "DreamRec", "HSTU", "WindowSASRec", "eSASRec"}
    theirs = {"BERT4Rec", "BPR", "EASE", "GRU4Rec", "ItemKNN", "SASRec"}
    assert {file.stem for file in SHIPPED} == ours | {f"recbole.{name}" for name in theirs}
    assert space_file(request("SASRec", "ml-100k", {}, None)).name == "recbole.SASRec.yaml"
    with pytest.raises(UserError, match=r"model=Caser: has no shipped search space\. Give one with --space=FILE"):
        space_file(request("Caser", "ml-100k", {}, None))
