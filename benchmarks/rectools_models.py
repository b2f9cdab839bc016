"""SASRec, eSASRec's network and HSTU of RecTools beside ours: same split, sizes, optimiser and loss, whole catalogue.

    python -m venv RT && RT/bin/pip install torch==2.13.0 'rectools[torch]==0.19.0'
    python benchmarks/rectools_models.py --python=RT/bin/python --out=rectools.jsonl [--data_path=D --dataset=NAME]

RecTools needs older versions of numpy and pandas, so its models run in their own environment, by this file. RecTools
trains on the last L + 1 items of each user; so do we, with windows of L = 200 without overlap, if no history is longer.
Each line of the output is one training: valid NDCG@10 every ``--every`` epochs, seconds, parameters. The test split is
not read. A model that is in the output already is not trained again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

SIZES = {"dim": 64, "blocks": 2, "heads": 2, "dropout": 0.2, "length": 200, "batch": 16, "lr": 0.001}
MODELS = ("SASRec", "eSASRec", "HSTU")


def ndcg(places: np.ndarray) -> float:
    """NDCG@10 from the place of each user's target in the list, from 0; 10 and more: not in it."""
    return float(np.where(places < 10, 1 / np.log2(places + 2), 0).mean())


def theirs(request: dict[str, Any]) -> None:
    """Train one of RecTools' models. This runs in its environment."""
    import pandas as pd
    from pytorch_lightning import Trainer, seed_everything
    from rectools import Columns
    from rectools.dataset import Dataset
    from rectools.models import HSTUModel, SASRecModel
    from rectools.models.nn.transformers.ligr import LiGRLayers

    stored = np.load(request["sequences"])
    users, items, targets = stored["users"], stored["items"], stored["targets"]
    times = pd.Timestamp(0) + pd.to_timedelta(stored["times"], unit="s")
    columns = {Columns.User: users, Columns.Item: items, Columns.Weight: 1, Columns.Datetime: times}
    dataset = Dataset.construct(pd.DataFrame(columns))
    seed_everything(request["seed"])
    s = request["sizes"]
    more: dict[str, Any] = {"transformer_layers_type": LiGRLayers} if request["model"] == "eSASRec" else {}
    if request["model"] == "HSTU":
        more = {"relative_time_attention": False}  # theirs needs the time of the target
    model = (HSTUModel if request["model"] == "HSTU" else SASRecModel)(
        n_factors=s["dim"], n_blocks=s["blocks"], n_heads=s["heads"], dropout_rate=s["dropout"],
        session_max_len=s["length"], batch_size=s["batch"], lr=s["lr"], loss="softmax", epochs=request["every"],
        get_trainer_func=lambda: Trainer(
            max_epochs=request["every"], logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, accelerator="cpu",
        ),
        **more,
    )  # fmt: skip
    curve, seconds = [], 0.0
    for _ in range(request["epochs"] // request["every"]):
        start = time.perf_counter()
        model.fit_partial(dataset, request["every"], request["every"])
        seconds += time.perf_counter() - start
        lists = model.recommend(users=np.unique(users), dataset=dataset, k=10, filter_viewed=False)
        right = lists[lists[Columns.Item] == lists[Columns.User].map(dict(zip(np.unique(users), targets, strict=True)))]
        places = np.full(len(targets), 10)
        places[np.searchsorted(np.unique(users), right[Columns.User])] = right[Columns.Rank] - 1
        curve.append(ndcg(places))
    parameters = sum(parameter.numel() for parameter in model.torch_model.parameters())
    print(json.dumps({"valid": curve, "seconds": seconds, "parameters": parameters}))


def ours(model: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train our model of the same sizes."""
    from recbole_diffusion.quick_start import train

    prepared = _prepare(model, arguments)
    start = time.perf_counter()
    result = train(prepared)
    curve = [entry["valid"]["ndcg@10"] for entry in result["history"]]
    seconds = sum(entry["train_seconds"] for entry in result["history"])
    assert seconds < time.perf_counter() - start
    return {"valid": curve, "seconds": seconds, "parameters": result["parameters"]}


def _prepare(model: str, arguments: argparse.Namespace) -> Any:
    from recbole_diffusion.quick_start import prepare, request

    s = SIZES
    settings: dict[str, Any] = {
        "MAX_ITEM_LIST_LENGTH": s["length"], "window_overlap": 0.0, "train_batch_size": s["batch"],
        "learning_rate": s["lr"], "epochs": arguments.epochs, "eval_step": arguments.every,
        "stopping_step": arguments.epochs, "seed": arguments.seed, "num_negatives": None, "negative_sampler": None,
        "mask_history": False,
    }  # fmt: skip
    if arguments.data_path is not None:
        settings["data_path"] = arguments.data_path
    if model == "SASRec":
        settings |= {
            "hidden_size": s["dim"],
            "inner_size": 4 * s["dim"],
            "n_layers": s["blocks"],
            "n_heads": s["heads"],
        }
        settings |= {"hidden_dropout_prob": s["dropout"], "attn_dropout_prob": s["dropout"]}
    else:
        settings |= {"embedding_size": s["dim"], "num_layers": s["blocks"], "num_heads": s["heads"]}
        settings |= {"dropout": s["dropout"]} | ({"time_bias": False} if model == "HSTU" else {})
    name = "WindowSASRec" if model == "SASRec" else model
    wanted = request(name, arguments.dataset, settings, preset=None)
    return prepare(wanted.resolved, wanted.config())


def write_sequences(arguments: argparse.Namespace, path: Path) -> None:
    """The training events (users, items, order) and each user's validation target, for RecTools."""
    prepared = _prepare("SASRec", arguments)
    valid = prepared.loaders.valid.dataset
    events, rows = valid.events, valid.target_rows.numpy()
    users, items = events[valid.uid_field].numpy(), events[valid.iid_field].numpy()
    kept = np.zeros(len(users), dtype=bool)
    targets = dict(zip(users[rows], items[rows], strict=True))
    first = np.searchsorted(users, users[rows])
    for start, end in zip(first, rows, strict=True):
        kept[start:end] = True
    places = np.arange(len(users))  # the order of the events as their time, in seconds
    wanted = np.array([targets[user] for user in np.unique(users[kept])])
    np.savez(path, users=users[kept], items=items[kept], times=places[kept], targets=wanted)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", required=True, help="interpreter of the environment with RecTools")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data_path", default=None)
    parser.add_argument("--dataset", default="ml-100k")
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--every", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    lines = arguments.out.read_text(encoding="utf-8").splitlines() if arguments.out.exists() else []
    done = {tuple(json.loads(line)[key] for key in ("side", "model", "dataset", "seed")) for line in lines}
    with tempfile.TemporaryDirectory() as folder:
        sequences = Path(folder) / "sequences.npz"
        write_sequences(arguments, sequences)
        for model in arguments.models:
            for side in ("ours", "RecTools"):
                key = {"side": side, "model": model, "dataset": arguments.dataset, "seed": arguments.seed}
                if tuple(key.values()) in done:
                    continue
                if side == "ours":
                    found = ours(model, arguments)
                else:
                    run = vars(arguments) | {"model": model, "sizes": SIZES, "sequences": str(sequences), "out": None}
                    command = [arguments.python, __file__, "--theirs", json.dumps(run)]
                    text = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
                    found = json.loads(text.splitlines()[-1])
                with arguments.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(key | {"epochs": arguments.epochs, "every": arguments.every} | found) + "\n")
                print(key, f"best {max(found['valid']):.4f}, {found['seconds']:.0f} s")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--theirs"]:
        theirs(json.loads(sys.argv[2]))
    else:
        main()
