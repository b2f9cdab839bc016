"""Peak memory and start-up time by the number of interactions: our lazy histories against RecBole's table of prefixes.

    python benchmarks/memory.py --out=memory.jsonl [--millions 1 3 10] [--recbole_millions 1 3]

Each measurement has its own process and synthetic data (200 interactions per user, 100,000 items, L = 50). It imports
what it needs, notes its memory, then loads the atomic file, splits it, builds the three loaders and draws batches.
``peak`` is the highest resident memory above that of the imports. Only what ``--out`` does not have yet is measured.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from results_file import append_rows, read_rows

PER_USER, ITEMS, LENGTH, BATCHES = 200, 100_000, 50, 50
KINDS = ("ours", "recbole")


def write_data(folder: Path, interactions: int) -> None:
    """``folder/synthetic/synthetic.inter`` with that many interactions."""
    rng = np.random.default_rng(0)
    target = folder / "synthetic"
    target.mkdir()
    with (target / "synthetic.inter").open("w", encoding="utf-8") as file:
        file.write("user_id:token\titem_id:token\ttimestamp:float\n")
        for start in range(0, interactions // PER_USER, 1000):
            users = range(start, min(start + 1000, interactions // PER_USER))
            items = (ITEMS * rng.random((len(users), PER_USER)) ** 2).astype(int)
            file.writelines(f"{u}\t{i}\t{t}\n" for u, row in zip(users, items, strict=True) for t, i in enumerate(row))


def measure(kind: str, folder: Path) -> dict[str, float]:
    """Load, split and draw batches in this process."""
    from recbole.data.dataset import SequentialDataset

    from recbole_diffusion import registry
    from recbole_diffusion.config.strict import Config
    from recbole_diffusion.data import loaders
    from recbole_diffusion.data.dataset import with_atomic_files

    imported = _peak()
    resolved = registry.get_model("SASRec")
    user = {"data_path": str(folder), "MAX_ITEM_LIST_LENGTH": LENGTH, "train_batch_size": 2048}
    config = Config(resolved.model_class, "synthetic", user, resolved.ours)
    start = time.perf_counter()
    dataset = loaders.create_dataset(config) if kind == "ours" else with_atomic_files(SequentialDataset)(config)
    made = loaders.prepare_loaders(config, dataset, "prefixes", trim=True)
    batches = iter(made.train)
    next(batches)
    ready = time.perf_counter()
    for _ in range(BATCHES):
        next(batches)
    drawn = time.perf_counter()
    return {
        "startup_seconds": ready - start,
        "batch_milliseconds": (drawn - ready) / BATCHES * 1e3,
        "batches": len(made.train),
        "peak_gb": (_peak() - imported) / 1e9,
    }


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="file of finished measurements, one JSON object per line")
    parser.add_argument("--millions", type=float, nargs="+", default=[1, 3, 10])
    parser.add_argument("--recbole_millions", type=float, nargs="*", default=[1, 3], help="10 need more than 24 GB")
    parser.add_argument("--measure", nargs=2, metavar=("KIND", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        kind, folder = arguments.measure
        print(json.dumps(measure(kind, Path(folder))))
        return
    if arguments.out is None:
        parser.error("--out is needed")
    results = read_rows(arguments.out)
    sizes = {"ours": arguments.millions, "recbole": arguments.recbole_millions}
    for millions in sorted({*arguments.millions, *arguments.recbole_millions}):
        with tempfile.TemporaryDirectory() as name:
            write_data(Path(name), int(millions * 1e6))
            for kind in KINDS:
                if millions not in sizes[kind] or any((r["kind"], r["millions"]) == (kind, millions) for r in results):
                    continue
                command = [sys.executable, __file__, "--measure", kind, name]
                done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=name)
                result = {"kind": kind, "millions": millions, **json.loads(done.stdout.splitlines()[-1])}
                results.append(result)
                append_rows(arguments.out, result)
    print("| histories | million interactions | peak GB | start-up s | ms per batch | batches per epoch |")
    print("|---|---|---|---|---|---|")
    for r in sorted(results, key=lambda r: (r["kind"], r["millions"])):
        cells = (r["kind"], f"{r['millions']:g}", f"{r['peak_gb']:.2f}", f"{r['startup_seconds']:.1f}")
        print("| " + " | ".join([*cells, f"{r['batch_milliseconds']:.1f}", str(r["batches"])]) + " |")


if __name__ == "__main__":
    main()
