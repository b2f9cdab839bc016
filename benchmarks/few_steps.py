"""How few steps of generation are enough: NDCG@10 and seconds by sampler and number of steps.

    python benchmarks/few_steps.py --dataset=ml-100k --out=steps.jsonl [--data_path=DIR] [--models DreamRec ...]
        [--runs runs.jsonl] [--epochs N] [--preset P] [--users N] [--picture steps.png]

Trains each model once (seed 0, ``--epochs`` at most), or takes the runs that ``--runs`` has from an earlier call,
and then generates with DDPM in all T steps and with DDIM in T, T/2, T/4, ... 1.
``seconds`` are those to rank the test split, or ``--users`` random users of it, which are then those of the validation
too. Rows that ``--out`` has are not measured again. The steps are to be chosen by the validation column. The picture
needs matplotlib.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from results_file import append_rows, read_rows

from recbole_diffusion import registry
from recbole_diffusion.config.strict import Config
from recbole_diffusion.data.batches import BatchSampler
from recbole_diffusion.diffusion.samplers import make_step
from recbole_diffusion.quick_start import prepare, run

MODELS = ("DreamRec", "DiffDiv", "ADIGRec", "DiffuRec")
LABELS = (("valid", "validation NDCG@10"), ("seconds", "seconds to rank the test users"))
COLOURS = {"DreamRec": "#0072B2", "DiffDiv": "#D55E00", "ADIGRec": "#009E73", "DiffuRec": "#CC79A7"}


USERS_A_BATCH = 256  # few: else all of --users make one batch, as long as the longest history


def choices(timesteps: int) -> list[tuple[str, int]]:
    """(sampler, steps): DDPM in all steps, DDIM in ever half as many."""
    halved = [timesteps >> power for power in range(timesteps.bit_length())]
    return [("ddpm", timesteps), *(("ddim", steps) for steps in halved)]


def keep_users(loader: Any, count: int) -> None:
    """Let an evaluation loader give ``count`` random users only, the same for every loader of a data set."""
    dataset = loader.dataset
    users, lengths = (dataset.inter_feat[name] for name in (dataset.uid_field, dataset.item_list_length_field))
    chosen = 1 + torch.randperm(dataset.user_num - 1, generator=torch.Generator().manual_seed(0))[:count]
    rows = torch.isin(users, chosen).nonzero().flatten()
    BatchSampler(lambda: rows, lengths, None, USERS_A_BATCH, bucket=True).attach(loader)


KEY = ("model", "preset", "dataset", "epochs", "users", "sampler", "steps")


def study(result: dict[str, Any], user: dict[str, Any], users: int | None, done: set, out: Path) -> None:
    """Append a row for each sampler and number of steps of a trained model that is not in ``done``."""
    model, dataset, checkpoint = result["model"], result["dataset"], result["checkpoint"]
    facts = {name: result.get(name) for name in KEY[:3]} | {"epochs": result["change"].get("epochs"), "users": users}
    resolved = registry.get_model(model)
    config = Config(resolved.model_class, dataset, user, resolved.ours, result["preset"])
    _, loaders, recommender, trainer = prepare(resolved, config)
    if users is not None:
        keep_users(loaders.valid, users)
        keep_users(loaders.test, users)
    trainer.eval_collector.data_collect(loaders.train)
    trainer.evaluate(loaders.valid, model_file=checkpoint)  # loads the weights, warms up
    settings = recommender.settings
    for sampler, steps in choices(settings.timesteps):
        row = {**facts, "sampler": sampler, "steps": steps}
        if tuple(row.values()) in done:
            continue
        recommender.reverse_step = make_step(sampler, 0.0, settings.variance)
        with recommender.generating_in(steps):
            valid = trainer.evaluate(loaders.valid, load_best_model=False)
            test = trainer.evaluate(loaders.test, load_best_model=False)
        row |= {"seconds": trainer.evaluate_seconds, "valid": valid["ndcg@10"], "test": test["ndcg@10"]}
        append_rows(out, row)


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown, one line per row."""
    lines = [
        "| data | model | sampler | steps | valid NDCG@10 | test NDCG@10 | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        cells = (r["dataset"], r["model"], r["sampler"], str(r["steps"]))
        lines.append("| " + " | ".join([*cells, f"{r['valid']:.4f}", f"{r['test']:.4f}", f"{r['seconds']:.1f}"]) + " |")
    return "\n".join(lines)


def draw(rows: list[dict[str, Any]], picture: Path) -> None:
    """Validation NDCG@10 and seconds by the number of DDIM steps, a row of panels for each data set."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    datasets = list(dict.fromkeys(r["dataset"] for r in rows))
    figure, axes = plt.subplots(
        len(datasets), 2, figsize=(10, 3.6 * len(datasets)), squeeze=False, layout="constrained"
    )
    for panels, dataset in zip(axes, datasets, strict=True):
        for axis, (key, label) in zip(panels, LABELS, strict=True):
            for model, colour in COLOURS.items():
                of = [r for r in rows if (r["model"], r["dataset"]) == (model, dataset)]
                ddim = sorted((r["steps"], r[key]) for r in of if r["sampler"] == "ddim")
                ddpm = [(r["steps"], r[key]) for r in of if r["sampler"] == "ddpm"]
                if ddim:
                    axis.plot(*zip(*ddim, strict=True), color=colour, marker="o", ms=3, lw=1.5, label=model)
                    axis.plot(*zip(*ddpm, strict=True), color=colour, marker="x", ms=7, ls="none")
            axis.set_xscale("log")
            axis.xaxis.set_major_formatter("{x:g}")
            axis.set_xlabel("steps of generation (o DDIM, x DDPM)")
            axis.set_ylabel(label)
            axis.set_title(dataset, fontsize=10)
            axis.spines[["top", "right"]].set_visible(False)
        panels[0].set_ylim(bottom=0)
        panels[1].set_yscale("log")
    axes[0][0].legend(frameon=False, fontsize=8)
    figure.savefig(picture, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--data_path", default=None)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--runs", type=Path, default=None, help="finished runs with checkpoints to take")
    parser.add_argument("--epochs", type=int, default=None, help="of training, at most; default: the model's")
    parser.add_argument("--preset", default="default")
    parser.add_argument("--users", type=int, default=None, help="random users to rank; default: all")
    parser.add_argument("--picture", type=Path, default=None)
    arguments = parser.parse_args()

    done = {tuple(r[name] for name in KEY) for r in read_rows(arguments.out)}
    user = {"seed": 0, **({"data_path": arguments.data_path} if arguments.data_path else {})}
    for model in arguments.models:
        asked = (model, arguments.preset, arguments.dataset, arguments.epochs, arguments.users)
        if (*asked, "ddim", 1) in done:  # the last that is measured
            continue
        change = {} if arguments.epochs is None else {"epochs": arguments.epochs}
        wanted = {"model": model, "dataset": arguments.dataset, "preset": arguments.preset, "seed": 0, "change": change}
        runs = [r for r in read_rows(arguments.runs) if all(r[key] == value for key, value in wanted.items())]
        if not runs:
            result = run(model, arguments.dataset, settings={**user, **change}, preset=arguments.preset)
            runs = [{**result, "change": change}]
            if arguments.runs:
                append_rows(arguments.runs, runs[0])
        study(runs[0], user, arguments.users, done, arguments.out)
    rows = read_rows(arguments.out)
    print(table(rows))
    if arguments.picture:
        draw(rows, arguments.picture)


if __name__ == "__main__":
    main()
