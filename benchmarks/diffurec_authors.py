"""DiffuRec compared with its authors' code: seconds per training epoch, seconds to rank the test set, use of the CPU.

    git clone https://github.com/WHUIR/DiffuRec AUTHORS
    python benchmarks/diffurec_authors.py --data_path=DIR --dataset=NAME --authors=AUTHORS --threads=2 \\
        [--checkpoint=FILE] [--out=FILE]

Both sides are built in one process from the same sequences and take turns, so that a change of the machine's speed
meets both. Sizes are the authors': ours is ``--preset=paper``, theirs the defaults of their ``main.py``. Their models,
loaders, optimiser and test function are called where they lie; without ``--authors`` only ours is measured. Every
figure is the median of ``--repeats`` with the smallest and the largest.

- Training: ``--batches`` batches a repeat, extrapolated to an epoch (mean times batches). Ours differ in length: they
  are drawn over the whole epoch, one from each of as many groups of similar length, the same for both precisions.
- Ranking: ours ranks the whole test set, metrics included, in each number of ``--steps``. Theirs ranks one batch of 512
  users a repeat, metrics included, extrapolated to all users; it takes 32 steps and pads all histories to 50.
- ``--checkpoint``: our trained DiffuRec, ranked instead of an untrained one; prints its test NDCG@10 too.
- Utilisation: FLOPs of the matrix products of our float32 steps, forward and backward, over (seconds times the speed of
  a large float32 matrix product, the fastest of one beside each step), and where the time of those steps goes.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib
import io
import itertools
import json
import platform
import random
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from recbole_diffusion import registry
from recbole_diffusion.config.strict import Config
from recbole_diffusion.quick_start import prepare
from recbole_diffusion.storage import checkpoint
from recbole_diffusion.versions import versions

PRECISIONS = ("fp32", "bf16")
PEAK_SIZE = 2048
PROFILED_OPERATORS = 10
# The defaults of the authors' main.py that their classes read.
AUTHORS_SETTINGS = {
    "max_len": 50,
    "batch_size": 512,
    "hidden_size": 128,
    "num_blocks": 4,
    "dropout": 0.1,
    "emb_dropout": 0.3,
    "optimizer": "Adam",
    "lr": 0.001,
    "weight_decay": 0,
    "schedule_sampler_name": "lossaware",
    "diffusion_steps": 32,
    "lambda_uncertainty": 0.001,
    "noise_schedule": "trunc_lin",
    "rescale_timesteps": True,
    "device": "cpu",
}


class Ours:
    """Our DiffuRec with its own loaders and trainer."""

    def __init__(self, data_path: str, dataset: str, **settings: Any) -> None:
        resolved = registry.get_model("DiffuRec")
        user = {"data_path": data_path, "use_gpu": False, **settings}
        config = Config(resolved.model_class, dataset, user, resolved.ours, "paper")
        self.dataset, self.loaders, self.model, self.trainer = prepare(resolved, config)
        self.trainer.eval_collector.data_collect(self.loaders.train)

    def sequences(self) -> dict[int, list[int]]:
        """The items of each user in order of time, with those held out."""
        events, found = self.loaders.train.dataset.events, {}
        for user, item in zip(*(events[field].tolist() for field in self._fields), strict=True):
            found.setdefault(user, []).append(item)
        return found

    def targets(self) -> list[tuple[int, int]]:
        """(user, item) of every training row, sorted."""
        rows = self.loaders.train.dataset.inter_feat
        return sorted(zip(*(rows[field].tolist() for field in self._fields), strict=True))

    @property
    def _fields(self) -> tuple[str, str]:
        return self.dataset.uid_field, self.dataset.iid_field

    def draw_batches(self, count: int) -> list[list[int]]:
        """Rows of ``count`` batches of an epoch, one from each of as many groups of similar length, in random order."""
        sampler = self.loaders.train.batch_sampler
        epoch = sorted(sampler, key=lambda rows: int(sampler.lengths[rows].max()))
        # Groups need not be whole numbers of batches: so each batch is as likely as any other.
        drawn = [epoch[int((group + random.random()) * len(epoch) / count)] for group in range(count)]
        random.shuffle(drawn)
        return drawn

    def train(self, rows: list[int]) -> float:
        """Seconds to gather a batch of these rows and learn from it, by the trainer's own loop."""
        start = time.perf_counter()
        self.trainer._train_epoch([self.loaders.train.collate_fn(rows)], 0)
        return time.perf_counter() - start

    def flops(self, rows: list[int]) -> int:
        """FLOPs of the matrix products of a batch of these rows, forward and backward."""
        batch = self.loaders.train.collate_fn(rows)
        with FlopCounterMode(display=False) as counter:
            sum(self.model.calculate_loss(batch)).backward()
        return counter.get_total_flops()

    def rank(self) -> tuple[float, float]:
        """Seconds to rank the test set, and its NDCG@10."""
        start = time.perf_counter()
        metrics = self.trainer.evaluate(self.loaders.test, load_best_model=False)
        return time.perf_counter() - start, float(metrics["ndcg@10"])


class Theirs:
    """The authors' model, loaders, optimiser and test function, on our sequences."""

    def __init__(self, path: Path, sequences: dict[int, list[int]], items: int) -> None:
        sys.path.insert(0, str(path / "src"))
        # They read np.int, which numpy has dropped; the Config of our side has put it back.
        model, self.trainer, utils = (importlib.import_module(name) for name in ("model", "trainer", "utils"))
        self.settings = SimpleNamespace(**AUTHORS_SETTINGS, item_num=items)
        train = {user: items[:-2] for user, items in sequences.items()}
        valid = {user: items[-2:-1] for user, items in sequences.items()}
        test = {user: items[-1:] for user, items in sequences.items()}
        self.users = len(test)
        self.train_data = utils.Data_Train(train, self.settings)
        self.train_loader = self.train_data.get_pytorch_dataloaders()
        test_loader = utils.Data_Test(train, valid, test, self.settings).get_pytorch_dataloaders()
        self.train_batches, self.test_batches = _endless(self.train_loader), _endless(test_loader)
        self.model = model.Att_Diffuse_model(model.create_model_diffu(self.settings), self.settings)
        self.optimizer = self.trainer.optimizers(self.model, self.settings)

    def targets(self) -> list[tuple[int, int]]:
        """(user, item) of every training row, sorted."""
        rows, users = self.train_data.id_seq, self.train_data.id_seq_user
        return sorted((users[row], items[-1]) for row, items in rows.items())

    def train(self) -> float:
        """Seconds to fetch the next batch and learn from it."""
        self.model.train()
        start = time.perf_counter()
        history, target = next(self.train_batches)
        self.optimizer.zero_grad()
        _, predicted, *_ = self.model(history, target, train_flag=True)
        self.model.loss_diffu_ce(predicted, target).backward()
        self.optimizer.step()
        return time.perf_counter() - start

    def rank(self) -> float:
        """Seconds to rank all test users: those of the next batch, extrapolated."""
        self.model.eval()
        start = time.perf_counter()
        batch = next(self.test_batches)
        with contextlib.redirect_stdout(io.StringIO()):
            self.trainer.LSHT_inference(self.model, self.settings, [batch])
        return (time.perf_counter() - start) * self.users / len(batch[0])


def _endless(loader: Any) -> Iterator[Any]:
    return itertools.chain.from_iterable(itertools.repeat(loader))


def product_speed() -> float:
    """FLOPs a second of one large float32 matrix product."""
    a, b = torch.randn(PEAK_SIZE, PEAK_SIZE), torch.randn(PEAK_SIZE, PEAK_SIZE)
    start = time.perf_counter()
    torch.mm(a, b)
    return 2 * PEAK_SIZE**3 / (time.perf_counter() - start)


def compare_training(arguments: argparse.Namespace, ours: dict[str, Ours], theirs: Theirs | None) -> dict[str, Any]:
    """Seconds an epoch of each side, the use our float32 steps make of the CPU, and where their time goes."""
    fp32 = ours["fp32"]
    targets, batches = fp32.targets(), {f"ours {name}": len(side.loaders.train) for name, side in ours.items()}
    print(f"targets an epoch, ours: {len(targets)} in {len(fp32.loaders.train)} batches")
    if theirs is not None:
        batches["theirs"] = len(theirs.train_loader)
        print(f"targets an epoch, theirs: {len(theirs.targets())} in {len(theirs.train_loader)} batches")
        if theirs.targets() != targets:
            raise SystemExit("The two sides do not train on the same targets.")

    def take_turns(count: int) -> tuple[list[list[int]], dict[str, list[float]], list[float]]:
        drawn = fp32.draw_batches(min(count, len(fp32.loaders.train)))
        seconds: dict[str, list[float]] = {name: [] for name in batches}
        speeds = []
        for rows in drawn:
            speeds.append(product_speed())
            if theirs is not None:
                seconds["theirs"].append(theirs.train())
            for name, side in ours.items():
                seconds[f"ours {name}"].append(side.train(rows))
        return drawn, seconds, speeds

    take_turns(arguments.warmup)
    batch_seconds: dict[str, list[float]] = {name: [] for name in batches}
    flops, peaks, shares = [], [], []
    for _ in range(arguments.repeats):
        drawn, seconds, speeds = take_turns(arguments.batches)
        for name, values in seconds.items():
            batch_seconds[name].append(statistics.mean(values))
        peaks.append(max(speeds))
        flops.append(statistics.mean(fp32.flops(rows) for rows in drawn))
        shares.append(flops[-1] / (batch_seconds["ours fp32"][-1] * peaks[-1]))

    epoch_seconds = {name: [value * batches[name] for value in values] for name, values in batch_seconds.items()}
    for name, values in epoch_seconds.items():
        print(f"training, {name}: {_spread(batch_seconds[name], '.3f')} s per batch")
        print(f"training, {name}: {_spread(values, '.1f')} s an epoch, extrapolated to {batches[name]} batches")
    print_ratios("training", epoch_seconds)
    print(f"a step of ours in fp32: {_spread(flops, '.3g')} FLOPs")
    print(f"peak, {PEAK_SIZE} x {PEAK_SIZE} float32 matrix product: {_spread(peaks, '.3g')} FLOPs a second")
    print(f"utilisation, ours fp32: {_spread([100 * share for share in shares], '.1f')} % of the peak")
    operators = profile_steps(fp32, drawn)
    for name, share in operators.items():
        print(f"share of the time of a step, {name}: {100 * share:.1f} %")
    return {
        "targets": len(targets),
        "batches": batches,
        "batch_seconds": batch_seconds,
        "epoch_seconds": epoch_seconds,
        "step_flops": flops,
        "peak_flops": peaks,
        "utilisation": shares,
        "operators": operators,
    }


def profile_steps(ours: Ours, drawn: list[list[int]]) -> dict[str, float]:
    """The operators that take most of the time of these steps, with their shares."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for rows in drawn:
            ours.train(rows)
    times = {event.key: event.self_cpu_time_total for event in profiler.key_averages()}
    total = sum(times.values())
    return {key: times[key] / total for key in sorted(times, key=times.__getitem__, reverse=True)[:PROFILED_OPERATORS]}


def compare_ranking(arguments: argparse.Namespace, theirs: Theirs | None) -> dict[str, Any]:
    """Seconds to rank the test set of each side, and NDCG@10 of a trained model of ours."""
    settings = {}
    if arguments.checkpoint is not None:
        saved = checkpoint.load(arguments.checkpoint)["config"]
        fields = dataclasses.fields(registry.get_model("DiffuRec").model_class.config_class)
        settings = {field.name: saved[field.name] for field in fields}
    ours = {}
    for precision, steps in itertools.product(PRECISIONS, sorted(arguments.steps, reverse=True)):
        changed = {**settings, "precision": precision, "sampling_steps": steps}
        side = Ours(arguments.data_path, arguments.dataset, **changed)
        ours[f"ours {precision}, sampling_steps={steps}"] = side
        if arguments.checkpoint is not None:
            weights = checkpoint.load(arguments.checkpoint)["state_dict"]
            side.model.load_state_dict(weights)  # whatever precision and steps it was trained with
    seconds: dict[str, list[float]] = {name: [] for name in ours}
    if theirs is not None:
        seconds["theirs"] = []
        theirs.rank()
    for precision in PRECISIONS:  # the fewest steps warm up the others too: their shapes are the same
        ours[f"ours {precision}, sampling_steps={min(arguments.steps)}"].rank()
    ndcg = {}
    for _ in range(arguments.repeats):
        if theirs is not None:
            seconds["theirs"].append(theirs.rank())
        for name, side in ours.items():
            elapsed, ndcg[name] = side.rank()
            seconds[name].append(elapsed)

    print(f"users of the test set: {len(side.loaders.test.dataset)}")
    for name, values in seconds.items():
        print(f"ranking, {name}: {_spread(values, '.2f')} s{', extrapolated' if name == 'theirs' else ''}")
    print_ratios("ranking", seconds)
    if arguments.checkpoint is None:
        return {"seconds": seconds}
    reference, at_most_steps = next(iter(ndcg.items()))
    for name, value in ndcg.items():
        change = (value - at_most_steps) / (at_most_steps or 1)  # a model of one epoch may hit nothing
        print(f"test NDCG@10, {name}: {value:.4f}, {100 * change:+.2f} % against {reference}")
    return {"seconds": seconds, "ndcg@10": ndcg}


def print_ratios(what: str, seconds: dict[str, list[float]]) -> None:
    """How many times faster ours is than theirs, and bf16 than fp32, within each repeat."""
    for name, values in seconds.items():
        if name != "theirs" and "theirs" in seconds:
            print(f"{what}, {name}: {_ratio(seconds['theirs'], values)} times faster than theirs")
        if "bf16" in name:
            full = name.replace("bf16", "fp32")
            print(f"{what}, {name}: {_ratio(seconds[full], values)} times faster than {full}")


def _ratio(slow: list[float], fast: list[float]) -> str:
    return _spread([a / b for a, b in zip(slow, fast, strict=True)], ".2f")


def _spread(values: list[float], form: str) -> str:
    return f"{statistics.median(values):{form}} ({min(values):{form}}–{max(values):{form}})"


def cpu_name() -> str:
    """The processor's name where Linux tells it, else its architecture."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text(encoding="utf-8").splitlines() if information.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_path", required=True, help="folder of the data set's folder")
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--authors", type=Path, default=None, help="clone of the authors' repository")
    parser.add_argument("--checkpoint", default=None, help="trained DiffuRec of ours, for the ranking")
    parser.add_argument("--steps", type=int, nargs="+", default=[32, 4, 2, 1], help="steps of generation, ours")
    parser.add_argument("--batches", type=int, default=20, help="timed batches of each side a repeat")
    parser.add_argument("--warmup", type=int, default=3, help="batches of each side before them")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=None, help="threads of torch; default: its own choice")
    parser.add_argument("--out", type=Path, default=None, help="file of all figures, as JSON")
    arguments = parser.parse_args()
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    machine = {"cpu": cpu_name(), "threads": torch.get_num_threads(), "versions": versions()}
    print(f"{machine['cpu']}, {machine['threads']} threads, torch {torch.__version__}")
    ours = {name: Ours(arguments.data_path, arguments.dataset, precision=name) for name in PRECISIONS}
    theirs = None
    if arguments.authors is not None:
        theirs = Theirs(arguments.authors, ours["fp32"].sequences(), ours["fp32"].dataset.item_num - 1)
    training = compare_training(arguments, ours, theirs)
    results = {**machine, "training": training, "ranking": compare_ranking(arguments, theirs)}
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
