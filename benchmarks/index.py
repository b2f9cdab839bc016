"""Lists from an index compared with exact lists: recall@10, and milliseconds to rank 1,000 users.

    python benchmarks/index.py --out=index.jsonl [--items 10000 100000 1000000] [--threads 1] [--repeats 3]

Vectors are made: items around 1,000 centres, users near a centre, d = 64. ``exact`` is what ``recommend`` does: the
scores of all items in parts of at most ``max_cells`` numbers, and the best of each row. The kinds take turns; the time
is the median. Four queries a user are DiffDiv's four channels. Rows that ``--out`` has are not measured again.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from results_file import append_rows, read_rows
from torch import Tensor

from recbole_diffusion.config.settings import rows_at_once
from recbole_diffusion.recommend.index import Index

DIM, CENTRES, USERS, K = 64, 1000, 1000, 10
MAX_CELLS = 100_000_000


def vectors(items: int, channels: int) -> tuple[Tensor, Tensor]:
    """Item vectors [items, dim] and queries [users, channels, dim]."""
    draws = torch.Generator().manual_seed(0)
    centres = torch.randn(CENTRES, DIM, generator=draws)
    of_item = torch.randint(CENTRES, (items,), generator=draws)
    table = centres[of_item] + 0.7 * torch.randn(items, DIM, generator=draws)
    of_user = torch.randint(CENTRES, (USERS, 1), generator=draws).expand(-1, channels)
    return table, centres[of_user] + 0.7 * torch.randn(USERS, channels, DIM, generator=draws)


def exact(table: Tensor, queries: Tensor) -> Tensor:
    """The K best items of each user, [users, K], by all products."""
    found = []
    for part in queries.split(rows_at_once(MAX_CELLS, len(table))):
        scores = part[:, 0] @ table.T
        for channel in range(1, part.shape[1]):
            scores = torch.maximum(scores, part[:, channel] @ table.T)
        found.append(scores.topk(K, dim=1).indices + 1)
    return torch.cat(found)


def searched(index: Index, queries: Tensor) -> Tensor:
    """The same by an index."""
    return index.search(queries, K)[1]


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    done = {(row["items"], row["threads"]) for row in read_rows(arguments.out)}
    for items in arguments.items:
        if (items, arguments.threads) in done:
            continue
        table, _ = vectors(items, 1)
        built = {kind: timed(partial(Index, table, kind)) for kind in ("hnsw", "ivf")}
        row = {
            "items": items,
            "threads": arguments.threads,
            "build_s": {kind: round(seconds, 1) for kind, (seconds, _) in built.items()},
        }
        for channels in (1, 4):
            queries = vectors(items, channels)[1]
            ways: dict[str, Callable[[], Tensor]] = {"exact": partial(exact, table, queries)}
            ways |= {kind: partial(searched, index, queries) for kind, (_, index) in built.items()}
            seconds: dict[str, list[float]] = {kind: [] for kind in ways}
            lists: dict[str, Tensor] = {}
            for _ in range(arguments.repeats):
                for kind, way in ways.items():
                    taken, lists[kind] = timed(way)
                    seconds[kind].append(taken)
            for kind, of_kind in seconds.items():
                ms = 1000 * statistics.median(of_kind) * 1000 / USERS
                hit = (lists[kind].unsqueeze(2) == lists["exact"].unsqueeze(1)).any(dim=2).float().mean()
                row[f"{kind}, {channels}"] = {"ms": round(ms, 1), "recall": round(float(hit), 4)}
        print(row, flush=True)
        append_rows(arguments.out, row)


if __name__ == "__main__":
    main()
