"""Seconds and peak memory of converting a large CSV file.

python benchmarks/convert.py --rows=10000000     writes a seeded CSV into a temporary folder and converts it
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

_PART = 1_000_000  # rows that are made at once


def write_csv(path: Path, rows: int, iso: bool) -> None:
    """Write interactions of rows / 50 users with rows / 100 items; a few items are popular. Times are of one year."""
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        for start in range(0, rows, _PART):
            count = min(_PART, rows - start)
            frame = pl.DataFrame(
                {
                    "user": rng.integers(0, max(rows // 50, 1), count),
                    "item": (max(rows // 100, 1) * rng.random(count) ** 3).astype(np.int64),
                    "time": 1_700_000_000 + rng.integers(0, 31_536_000, count),
                    "rating": rng.integers(1, 6, count),
                }
            )
            item = pl.format("B{}", pl.col("item").cast(pl.String).str.zfill(8)).alias("item")
            frame = frame.with_columns(item, user=pl.format("U{}", "user"))
            if iso:
                moment = pl.from_epoch("time").dt.strftime("%Y-%m-%dT%H:%M:%SZ")
                frame = frame.with_columns(time=moment)
            frame.write_csv(file, include_header=start == 0)


def peak() -> float:
    """Peak resident memory of this process, in GB."""
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024 / 1e9


def convert(path: Path) -> None:
    """Convert in this process, and print the figures as JSON."""
    import recbole_diffusion

    start = time.perf_counter()
    done = recbole_diffusion.convert(
        path, path.parent / "data" / path.stem, "user", "item", "time", "rating", min_interactions=5
    )
    figures = {"rows": done.rows_read, "kept": done.rows, "seconds": round(time.perf_counter() - start, 1)}
    figures["CPU seconds"] = round(time.process_time(), 1)  # of all threads, with the imports
    print(json.dumps(figures | {"peak GB": round(peak(), 2), "threads": pl.thread_pool_size()}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)  # of the process that is measured
    chosen = parser.parse_args()
    if chosen.file:
        convert(chosen.file)
        return
    with tempfile.TemporaryDirectory() as folder:
        for name, iso in (("epochs", False), ("dates", True)):
            path = Path(folder, f"{name}.csv")
            write_csv(path, chosen.rows, iso)
            print(f"{name}: {path.stat().st_size / 1e9:.2f} GB, ", end="", flush=True)
            subprocess.run([sys.executable, __file__, f"--file={path}"], check=True, env=dict(os.environ))
            path.unlink()


if __name__ == "__main__":
    main()
