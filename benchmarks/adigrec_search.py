"""The search behind ADIGRec's k, lambda1 and lambda2, which its paper does not give: one at a time, on validation only.

    python benchmarks/adigrec_search.py --out=search.jsonl [--part 0 2]

Runs every setting of ``GRID`` on ml-100k (seed 0, at most 30 epochs) and prints the best validation NDCG@10 of each.
Finished runs are kept in ``--out``. ``--part I N`` runs every N-th setting from the I-th on, to share the work.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from recbole_diffusion.quick_start import run

BASE = {"num_interests": 4, "mse_weight": 0.1, "ce_weight": 1.0}
GRID = [
    {},
    {"num_interests": 2},
    {"num_interests": 8},
    {"mse_weight": 0.01},
    {"mse_weight": 1.0},
    {"ce_weight": 3.0},
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--part", type=int, nargs=2, default=(0, 1), metavar=("I", "N"))
    arguments = parser.parse_args()
    done = [json.loads(line) for line in arguments.out.read_text().splitlines()] if arguments.out.exists() else []
    for change in GRID[arguments.part[0] :: arguments.part[1]]:
        if any(entry["change"] == change for entry in done):
            continue
        result = run("ADIGRec", "ml-100k", settings={**BASE, **change, "seed": 0, "epochs": 30})
        entry = {"change": change, "valid": result["valid"]["ndcg@10"], "best_epoch": result["best_epoch"]}
        done.append({**entry, "diagnostics": result["history"][-1]["diagnostics"]})
        with arguments.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(done[-1]) + "\n")
    for entry in sorted(done, key=lambda e: -e["valid"]):
        print(f"{entry['valid']:.4f}  {entry['change'] or BASE}")


if __name__ == "__main__":
    main()
