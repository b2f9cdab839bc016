"""The README's table: models and presets on ml-100k over seeds, one run after another.

    python benchmarks/ml100k.py --out=results.jsonl [--seeds 0 1 2] [--only DreamRec ...]

Finished runs are kept in ``--out`` (one JSON object a line) and not run again; the table is printed at the end. Each
run is ``recbole-diffusion run --model=M --dataset=ml-100k --preset=P --seed=S``. The test split is read after training,
by the epoch that validated best; a second reading with ``mask_history=True`` ranks without the items already seen.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from recbole_diffusion import registry
from recbole_diffusion.config import Config
from recbole_diffusion.data.loaders import create_dataset, prepare_loaders
from recbole_diffusion.quick_start import run

ROWS = [
    ("Pop", "default"),
    ("BPR", "default"),
    ("WindowSASRec", "default"),
    ("DreamRec", "default"),
    ("DreamRec", "paper"),
    ("DiffDiv", "default"),
    ("DiffDiv", "paper"),
]
METRICS = ("hit@10", "ndcg@10")


def masked_test(model: str, preset: str, seed: int, checkpoint: str) -> dict[str, float]:
    """The test metrics of a trained model when the user's history is left out of the ranking."""
    resolved = registry.get_model(model)
    config = Config(resolved.model_class, "ml-100k", {"seed": seed, "mask_history": True}, resolved.ours, preset)
    loaders = prepare_loaders(config, create_dataset(config), registry.trains_on_windows(resolved, config))
    recommender = resolved.model_class(config, loaders.train.dataset).to(config["device"])
    trainer = registry.get_trainer(resolved)(config, recommender)
    trainer.eval_collector.data_collect(loaders.train)
    return {name: float(value) for name, value in trainer.evaluate(loaders.test, model_file=checkpoint).items()}


def table(results: list[dict[str, Any]]) -> str:
    """Markdown: mean and standard deviation over seeds."""
    lines = [
        "| model | preset | valid NDCG@10 | test NDCG@10 | test Hit@10 | test NDCG@10, masked | epochs | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for model, preset in ROWS:
        runs = [r for r in results if (r["model"], r["preset"]) == (model, preset)]
        if not runs:
            continue
        columns = [
            [r["valid"]["ndcg@10"] for r in runs],
            [r["test"]["ndcg@10"] for r in runs],
            [r["test"]["hit@10"] for r in runs],
            [r["masked_test"]["ndcg@10"] for r in runs],
        ]
        cells = [f"{statistics.mean(c):.4f} ± {statistics.stdev(c) if len(c) > 1 else 0:.4f}" for c in columns]
        cells += [f"{statistics.mean(r[key] for r in runs):.0f}" for key in ("epochs", "train_seconds")]
        lines.append(f"| {model} | {preset} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="file of finished runs, one JSON object a line")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", default=None, help="models to run; default: all")
    arguments = parser.parse_args()
    results = [json.loads(line) for line in arguments.out.read_text().splitlines()] if arguments.out.exists() else []
    done = {(r["model"], r["preset"], r["seed"]) for r in results}
    for seed in arguments.seeds:
        for model, preset in ROWS:
            if (model, preset, seed) in done or (arguments.only and model not in arguments.only):
                continue
            result = run(model, "ml-100k", settings={"seed": seed}, preset=preset)
            result["masked_test"] = masked_test(model, preset, seed, result["checkpoint"])
            with arguments.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(result) + "\n")
            results.append(result)
    print(table(results))


if __name__ == "__main__":
    main()
