"""DiffDiv's default on a synthetic shop: as accurate as WindowSASRec, and its lists cover the catalogue."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Built
from shop import shop_sequences

from recbole_diffusion.testing.markov import write_atomic


@pytest.mark.slow
def test_diffdiv_on_a_shop(build: Callable[..., Built], tmp_path: Path) -> None:
    write_atomic(tmp_path, "shop", shop_sequences())
    best = {}
    for model, settings in (("WindowSASRec", {}), ("DiffDiv", {})):
        built = build(model, dataset="shop", data_path=str(tmp_path), metrics=["NDCG", "ItemCoverage"], **settings)
        built.trainer.fit(built.loaders.train, built.loaders.valid)
        best[model] = max((entry["valid"] for entry in built.trainer.history), key=lambda valid: valid["ndcg@10"])
    assert best["DiffDiv"]["ndcg@10"] >= 0.9 * best["WindowSASRec"]["ndcg@10"]
    assert best["DiffDiv"]["itemcoverage@10"] > 0.5
