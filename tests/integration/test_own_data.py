"""From a user's CSV to a trained model: what is converted is what a run reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import recbole_diffusion
from recbole_diffusion import registry
from recbole_diffusion.__main__ import main
from recbole_diffusion.config.settings import UserError
from recbole_diffusion.config.strict import Config
from recbole_diffusion.data.loaders import create_dataset
from recbole_diffusion.evaluation.collector import item_categories
from recbole_diffusion.evaluation.examples import item_titles
from recbole_diffusion.quick_start import run

SMALL = {"use_gpu": False, "epochs": 1, "hidden_size": 8, "n_layers": 1, "MAX_ITEM_LIST_LENGTH": 5}


def config(**settings: Any) -> Config:
    resolved = registry.get_model("WindowSASRec")
    return Config(resolved.model_class, "shop", {"data_path": "data", "use_gpu": False, **settings}, resolved.ours)


@pytest.fixture
def shop() -> list[tuple[str, str, int]]:
    """Writes orders.csv and products.csv; returns the orders. Ids have zeros in front, spaces and other letters."""
    rng = np.random.default_rng(0)
    orders = [
        (f"{user:03d}", f"p {item}é", 1_700_000_000 + 86_400 * int(rng.integers(300)) + place)
        for user in range(30)
        for place, item in enumerate(rng.integers(0, 12, 8))
    ]
    lines = [f'{user},"{item}",{np.datetime64(time, "s")}Z' for user, item, time in orders]
    Path("orders.csv").write_bytes("\n".join(["customer,product,date", *lines]).encode("utf-16"))
    items = [f'"p {item}é","Product, number {item}",{"Sci Fi|" * (item % 2)}Food' for item in range(12)]
    Path("products.csv").write_text("\n".join(["id,name,shelf", *items]), encoding="cp1252")
    return orders


def test_a_run_reads_what_was_converted(shop: list[tuple[str, str, int]], capsys: pytest.CaptureFixture[str]) -> None:
    arguments = "orders.csv --user=customer --item=product --time=date --out=data/shop --items=products.csv"
    assert main(["convert", *arguments.split(), "--item_id=id", "--title=name", "--category=shelf"]) == 0
    command = capsys.readouterr().out.splitlines()[-1].split()[2:]
    assert command == ["run", "--model=DiffDiv", "--dataset=shop", "--data_path=data"]

    dataset = create_dataset(config())
    users, items = (dataset.field2id_token[name] for name in ("user_id", "item_id"))
    read = dataset.inter_feat
    got = sorted(
        (users[user], items[item], time)
        for user, item, time in zip(read["user_id"], read["item_id"], read["timestamp"].tolist(), strict=True)
    )
    assert got == sorted(shop)
    place = list(items).index("p 7é")
    assert item_titles(dataset.config, dataset)[place] == "Product, number 7"
    assert item_categories(dataset.config, list(items))[place].tolist() == [True, True]

    settings = {"data_path": "data", "metrics": ["NDCG", "CategoryCoverage"], "topk": [5, 10], **SMALL}
    result = run("WindowSASRec", "shop", settings=settings, examples=2)
    assert result["test"]["categorycoverage@10"] == 1


def test_the_yaml_file_beside_the_data() -> None:
    Path("data/shop").mkdir(parents=True)
    path = Path("data/shop/shop.yaml")
    Path("data/shop/shop.inter").write_text("who:token\titem_id:token\ttimestamp:float\na\tx\t1\n")
    path.write_text("USER_ID_FIELD: who\ntitle_field: name\n")
    assert config()["USER_ID_FIELD"] == "who"
    assert config(USER_ID_FIELD="someone")["USER_ID_FIELD"] == "someone"
    for text, message in (
        ("epochs: 3", "shop.yaml: epochs=3: only settings that describe data can be here"),
        ("titel_field: name", "Did you mean 'title_field'"),
        ("data_path: elsewhere", "only settings that describe data"),
        ("encoding: 3", "shop.yaml: encoding=3: must be a text"),
        ("- a list", "must have settings as lines"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            config()


def test_no_row_of_many_files_is_lost(tmp_path: Path) -> None:
    sequences = np.random.default_rng(0).integers(1, 8, (20, 6))
    Path("logs").mkdir()
    for user, items in enumerate(sequences):
        rows = "".join(f"{user}\t{item}\t{1_700_000_000_000 + place}\n" for place, item in enumerate(items))
        Path(f"logs/{user:02d}.tsv").write_text(f"u\ti\tms\n{rows}")
    done = recbole_diffusion.convert("logs", tmp_path / "data" / "shop", user="u", item="i", time="ms")
    dataset = create_dataset(config(data_path=str(tmp_path / "data")))
    assert done.rows == len(dataset.inter_feat) == sequences.size
