"""Studies on ml-100k: models and settings over seeds, one run after another.

    python benchmarks/ml100k.py --study=table --out=table.jsonl [--seeds 0 1 2] [--only DreamRec ...] [--part 0 2]

Finished runs are kept in ``--out`` (one JSON object a line) and not run again; a table is printed at the end. Each run
is ``recbole-diffusion run --model=M --dataset=ml-100k --preset=P --seed=S --key=value ...`` with the row's settings.
``--part I N`` runs every N-th of the missing runs from the I-th on, to share the work.

- ``table``: the README's table. The test split is read after training, by the epoch that validated best, and once more
  with ``mask_history`` the other way round.
- ``adigrec_ablation``: ADIGRec without AI2M, without the covariance penalty, without the dynamic interest.
- ``adigrec_search``: the search behind its k, lambda1 and lambda2, which its paper does not give. Validation only.
- ``precision``: matrix products in bfloat16. Validation only.
- ``options``: what the training options do to each embedding model, changed one at a time. Validation only.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from results_file import append_rows, read_rows

from recbole_diffusion import checkpoint, registry
from recbole_diffusion.config.strict import Config
from recbole_diffusion.quick_start import prepare, run

PRETRAINED = "<item table of WindowSASRec>"  # stands for the checkpoint of the study's first row, same seed


class Row(NamedTuple):
    """One line of a study: a model, a preset and what is set differently."""

    model: str
    preset: str = "default"
    settings: dict[str, Any] = {}

    @property
    def name(self) -> str:
        return ", ".join(f"{key}={value}" for key, value in self.settings.items())

    def of(self, result: dict[str, Any]) -> bool:
        return (result["model"], result["preset"], result["change"]) == (self.model, self.preset, self.settings)


class Study(NamedTuple):
    """Rows, whether the test split may be read, and the columns of the table."""

    rows: list[Row]
    reads_test: bool
    columns: tuple[str, ...]


MODELS = ("DiffRec", "DreamRec", "DiffuRec", "DiffDiv", "ADIGRec")
# RecBole's batches of 2,048 over all prefixes cost minutes an epoch: ten random prefixes a user, and as many steps.
_PREFIXES = {"prefixes_per_user": 10, "train_batch_size": 256}
_TESTED = ("valid NDCG@10", "test Hit@10", "test NDCG@10", "masked NDCG@10")
# ADIGRec's search and ablation were made with one step of generation, before its default became three.
_ONE_STEP = {"sampling_steps": 1}
_SEARCH = {"num_interests": 4, "mse_weight": 0.1, "ce_weight": 1.0, "epochs": 30, **_ONE_STEP}
_PRETRAINED = {
    "pretrained_item_table": PRETRAINED,
    "stages": [{"epochs": 10, "freeze": ["item_embedding"]}, {}],
}


def _changes(model: str, *changes: dict[str, Any]) -> list[Row]:
    return [Row(model, settings=change) for change in changes]


STUDIES = {
    "table": Study(
        [
            Row("Pop"),
            Row("BPR"),
            Row("GRU4Rec", settings=_PREFIXES),
            Row("SASRec", settings=_PREFIXES),
            Row("WindowSASRec"),
            *(Row(model, preset) for model in MODELS for preset in ("default", "paper")),
        ],
        reads_test=True,
        columns=(*_TESTED, "epochs", "seconds", "parameters"),
    ),
    "adigrec_ablation": Study(
        _changes(
            "ADIGRec",
            _ONE_STEP,
            {"use_ai2m": False, **_ONE_STEP},
            {"penalty_weight": 0.0, **_ONE_STEP},
            {"use_dynamic_interest": False, **_ONE_STEP},
        ),
        reads_test=True,
        columns=(*_TESTED, "interest_correlation"),
    ),
    "adigrec_search": Study(
        _changes(
            "ADIGRec",
            _SEARCH,
            *(
                {**_SEARCH, **change}
                for change in (
                    {"num_interests": 2},
                    {"num_interests": 8},
                    {"mse_weight": 0.01},
                    {"mse_weight": 1.0},
                    {"ce_weight": 3.0},
                )
            ),
        ),
        reads_test=False,
        columns=("valid NDCG@10", "interest_correlation"),
    ),
    "precision": Study(
        [row for model in MODELS for row in _changes(model, {}, {"precision": "bf16"})],
        reads_test=False,
        columns=("valid NDCG@10", "epochs", "seconds"),
    ),
    "options": Study(
        [
            Row("WindowSASRec"),
            *_changes(
                "DreamRec",
                {},
                {"stop_gradient_target": False},
                {"timestep_sampler": "uniform"},
                {"ce_weight": 0.0},
                _PRETRAINED,
                {"embedding_size": 128},
                {"embedding_size": 256},
                {"bucket_by_length": False},
            ),
            *_changes(
                "DiffuRec",
                {},
                {"timestep_sampler": "high_noise"},
                {"ce_weight": 0.0, "mse_weight": 1.0},
                _PRETRAINED,
                {"embedding_size": 128},
            ),
            *_changes("ADIGRec", {}, {"timestep_sampler": "uniform"}, {"ce_weight": 0.0}, _PRETRAINED),
            *_changes("DiffDiv", {}, {"ce_weight": 0.0}, _PRETRAINED),
        ],
        reads_test=False,
        columns=("valid NDCG@10", "target_rank", "table_norm", "table_cosine", "epochs", "seconds"),
    ),
}


def train(row: Row, seed: int, results: list[dict[str, Any]], reads_test: bool) -> dict[str, Any]:
    """Run one row with one seed; the test split is left alone unless the study reads it."""
    settings = dict(row.settings)
    if settings.get("pretrained_item_table") == PRETRAINED:
        (source,) = (r for r in results if r["model"] == "WindowSASRec" and r["seed"] == seed)
        settings["pretrained_item_table"] = source["checkpoint"]
    leave_alone = None if reads_test else lambda prepared: {}
    user = {**settings, "seed": seed}
    result = run(row.model, "ml-100k", settings=user, preset=row.preset, test_model=leave_alone)
    return {**result, "change": row.settings}


def retest(result: dict[str, Any], **settings: Any) -> dict[str, float]:
    """The test metrics of a trained model under other settings of generation or evaluation."""
    resolved = registry.get_model(result["model"])
    user = {"seed": result["seed"], **result["change"], **settings}
    config = Config(resolved.model_class, "ml-100k", user, resolved.ours, result["preset"])
    _, loaders, _, trainer = prepare(resolved, config)
    trainer.eval_collector.data_collect(loaders.train)
    trainer._restore(checkpoint.load(result["checkpoint"]))  # whether or not it was trained with the history masked
    metrics = trainer.evaluate(loaders.test, load_best_model=False)
    return {name: float(value) for name, value in metrics.items()}


def read_test(result: dict[str, Any]) -> None:
    """Add what the table shows beside the run's own test metrics."""
    masked = result["mask_history"]
    other = retest(result, mask_history=not masked)
    result["masked_test"], result["unmasked_test"] = (result["test"], other) if masked else (other, result["test"])


def _diagnosed(name: str, result: dict[str, Any]) -> float | None:
    return result["history"][-1].get("diagnostics", {}).get(name)


COLUMNS: dict[str, Callable[[dict[str, Any]], float | None]] = {
    "valid NDCG@10": lambda r: r["valid"]["ndcg@10"],
    "test Hit@10": lambda r: r["unmasked_test"]["hit@10"],
    "test NDCG@10": lambda r: r["unmasked_test"]["ndcg@10"],
    "masked NDCG@10": lambda r: r["masked_test"]["ndcg@10"],
    **{
        name: partial(_diagnosed, name)
        for name in ("target_rank", "table_norm", "table_cosine", "interest_correlation")
    },
    "epochs": lambda r: r["epochs"],
    "seconds": lambda r: r["train_seconds"],
    "parameters": lambda r: r["parameters"],
}


def table(study: Study, results: list[dict[str, Any]]) -> str:
    """Markdown: mean and standard deviation over seeds."""
    header = ["model", "preset", "settings", *study.columns]
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for row in study.rows:
        runs = [r for r in results if row.of(r)]
        if runs:
            cells = [_mean_and_spread([COLUMNS[name](r) for r in runs]) for name in study.columns]
            lines.append("| " + " | ".join([row.model, row.preset, row.name, *cells]) + " |")
    return "\n".join(lines)


def _mean_and_spread(values: list[float | None]) -> str:
    numbers = [value for value in values if value is not None]
    if not numbers:
        return "–"
    mean = statistics.mean(numbers)
    if mean >= 1 or not any(numbers):
        return f"{mean:,.0f}"
    return f"{mean:.4f} ± {statistics.stdev(numbers):.4f}" if len(numbers) > 1 else f"{mean:.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", choices=STUDIES, default="table")
    parser.add_argument("--out", type=Path, required=True, help="file of finished runs, one JSON object a line")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", default=None, help="models to run; default: all")
    parser.add_argument("--presets", nargs="+", default=["default", "paper"])
    parser.add_argument("--part", type=int, nargs=2, default=(0, 1), metavar=("I", "N"))
    arguments = parser.parse_args()
    study = STUDIES[arguments.study]

    wanted = [(row, seed) for seed in arguments.seeds for row in study.rows]
    wanted = [(row, seed) for row, seed in wanted if arguments.only is None or row.model in arguments.only]
    wanted = [(row, seed) for row, seed in wanted if row.preset in arguments.presets]
    for row, seed in wanted[arguments.part[0] :: arguments.part[1]]:
        if any(row.of(r) and r["seed"] == seed for r in read_rows(arguments.out)):
            continue
        result = train(row, seed, read_rows(arguments.out), study.reads_test)
        if study.reads_test:
            read_test(result)
        append_rows(arguments.out, result)
    print(table(study, read_rows(arguments.out)))


if __name__ == "__main__":
    main()
