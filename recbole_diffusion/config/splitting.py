"""The setting ``split``: which interactions are for training, validation and test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recbole_diffusion.config.rows_run import RUN_ROWS
from recbole_diffusion.config.settings import Settings, UserError

GLOBAL_TIME, USER = "global_time", "user"
OF_ONE_SPLIT = {"split_at": GLOBAL_TIME, "split_targets": GLOBAL_TIME, "split_seed": USER}
_ARGS = ("split", "order", "group_by")  # of eval_args


def own_split(settings: Mapping[str, Any]) -> str | None:
    """The split that this package makes; None if it is RecBole's."""
    split = settings["split"]
    return split if split in (GLOBAL_TIME, USER) else None


def choose_split(settings: Settings, given: Mapping[str, Any], sequential: bool) -> None:
    """Let ``split`` and ``eval_args`` say the same. ``split`` becomes None if the user splits by ``eval_args``.

    Args:
        settings: of the run, with complete ``eval_args``; changed in place.
        given: what the user set.
        sequential: whether the model is a sequential one.

    Raises:
        UserError: two settings contradict, one has no effect, or the model cannot be evaluated on this split.
    """
    args = given.get("eval_args")
    asked = {key: args[key] for key in _ARGS if key in args} if isinstance(args, dict) else {}
    split = RUN_ROWS["split"].read("split", settings["split"])
    if asked:
        if given.get("split") is not None:
            raise UserError(f"split={split} with eval_args={args!r}: both say how the data is split. Set one of them.")
        split = settings["split"] = None
    for key, reader in OF_ONE_SPLIT.items():
        if given.get(key) is not None and split != reader:
            raise UserError(f"{key}={given[key]!r}: has an effect only with split={reader}.")
    if own_split(settings) is None:
        return
    if settings.get("benchmark_filename") is not None:
        raise UserError(f"split={split}: benchmark_filename takes the splits of its files as they are.")
    if split == USER and not sequential:
        raise UserError("split=user: the users of the test are not in training, so it needs a sequential model.")
    settings["eval_args"] = {**settings["eval_args"], "split": split, "order": "TO", "group_by": "none"}
