"""The README's table: models and presets on ml-100k over seeds, one run after another.

    python benchmarks/ml100k.py --out=results.jsonl [--seeds 0 1 2] [--only DreamRec ...]

Finished runs are kept in ``--out`` (one JSON object a line) and not run again; the table is printed at the end. Each
run is ``recbole-diffusion run --model=M --dataset=ml-100k --preset=P --seed=S``. The test split is read after training,
by the epoch that validated best; a second reading with ``mask_history=True`` ranks without the items already seen,
and a third, for the default diffusion models, generates with 20 steps.
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
    ("ADIGRec", "default"),
]
DIFFUSION = ("DreamRec", "DiffDiv", "ADIGRec")
MANY_STEPS = 20


def retest(result: dict[str, Any], **settings: Any) -> dict[str, float]:
    """The test metrics of a trained model under other settings of generation or evaluation."""
    resolved = registry.get_model(result["model"])
    user = {"seed": result["seed"], **settings}
    config = Config(resolved.model_class, "ml-100k", user, resolved.ours, result["preset"])
    loaders = prepare_loaders(config, create_dataset(config), registry.trains_on_windows(resolved, config))
    recommender = resolved.model_class(config, loaders.train.dataset).to(config["device"])
    trainer = registry.get_trainer(resolved)(config, recommender)
    trainer.eval_collector.data_collect(loaders.train)
    metrics = trainer.evaluate(loaders.test, model_file=result["checkpoint"])
    return {name: float(value) for name, value in metrics.items()}


def table(results: list[dict[str, Any]]) -> str:
    """Markdown: mean and standard deviation over seeds."""
    lines = [
        "| model | preset | valid NDCG@10 | test NDCG@10 | test Hit@10 | masked | 20 steps | epochs | seconds |",
        "|---|---|---|---|---|---|---|---|---|",
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
            [r["many_steps_test"]["ndcg@10"] for r in runs if "many_steps_test" in r],
        ]
        cells = [_mean_and_spread(column) for column in columns]
        cells += [f"{statistics.mean(r[key] for r in runs):.0f}" for key in ("epochs", "train_seconds")]
        lines.append(f"| {model} | {preset} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _mean_and_spread(values: list[float]) -> str:
    if not values:
        return "–"
    return f"{statistics.mean(values):.4f} ± {statistics.stdev(values) if len(values) > 1 else 0:.4f}"


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
            result["masked_test"] = retest(result, mask_history=True)
            if model in DIFFUSION and preset == "default":
                result["many_steps_test"] = retest(result, sampling_steps=MANY_STEPS)
            with arguments.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(result) + "\n")
            results.append(result)
    print(table(results))


if __name__ == "__main__":
    main()
