"""Hashes of the data and of its split. They are the same for all models and machines."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from recbole.data.dataset import Dataset

from recbole_diffusion import processes
from recbole_diffusion.config.settings import UserError
from recbole_diffusion.data.loaders import Loaders

_SUFFIXES = (".inter", ".user", ".item", ".kg", ".link")


def dataset_hash(config: Any) -> str:
    """SHA-256 of the names and contents of the data set's atomic files.

    Raises:
        UserError: several processes train together, and they have other files.
    """
    folder, name = Path(config["data_path"]), config["dataset"]
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.name.startswith(f"{name}.") and file.suffix in _SUFFIXES:
            digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
            with file.open("rb") as content:
                while block := content.read(1 << 20):
                    digest.update(block)
    found = digest.hexdigest()
    if len(set(processes.gathered(found))) > 1:
        raise UserError(f"dataset={name!r}: the processes of this training have different files in {folder}.")
    return found


def describe_split(dataset: Dataset, loaders: Loaders) -> dict[str, Any]:
    """``split_sha256``, ``users``, ``items`` and ``interactions`` of the splits of a model.

    The hash is of the (user, item) pairs of training, validation and test, by token, in sorted order. So it is the same
    for sequential and general models with the same split.
    """
    users, items = (dataset.field2id_token[field].astype(str) for field in (dataset.uid_field, dataset.iid_field))
    user_place, item_place = np.argsort(np.argsort(users)), np.argsort(np.argsort(items))
    digest = hashlib.sha256()
    for tokens in (users, items):
        digest.update("\n".join(sorted(tokens)).encode() + b"\0")
    interactions = 0
    # A sequential model never predicts a user's first interaction, but it is training data. The matrix has it.
    matrix = loaders.train._dataset.inter_matrix()
    pairs = [(matrix.row, matrix.col)]
    for loader in loaders[1:]:
        feat = loader.dataset.inter_feat
        pairs.append((feat[dataset.uid_field].numpy(), feat[dataset.iid_field].numpy()))
    for user, item in pairs:
        keys = np.sort(user_place[user].astype(np.int64) * len(items) + item_place[item])
        digest.update(keys.astype("<i8").tobytes() + b"\0")
        interactions += len(keys)
    return {
        "split_sha256": digest.hexdigest(),
        "users": dataset.user_num - 1,
        "items": dataset.item_num - 1,
        "interactions": interactions,
    }
