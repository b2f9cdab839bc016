"""Checks the settings of data and evaluation, before any data is read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from recbole.evaluator.register import metric_types
from recbole.utils import EvaluatorType

from recbole_diffusion.config.rows_run import RUN_ROWS
from recbole_diffusion.config.settings import UserError, check_name
from recbole_diffusion.config.splitting import own_split

_SPLITTING = ("split", "order", "group_by")
_FILTERS = (
    "rm_dup_inter", "val_interval", "user_inter_num_interval", "item_inter_num_interval",
    "filter_inter_by_user_or_item",
)  # fmt: skip
_PHASES = ("valid", "test")
_COLUMNS = ("USER_ID_FIELD", "ITEM_ID_FIELD", "TIME_FIELD")
_COLUMNS_OF_HISTORIES = ("ITEM_LIST_LENGTH_FIELD", "TARGET_LIST_FIELD")
_MODE = re.compile(r"full|labeled|(uni|pop)0*[1-9]\d{0,5}")


def check_protocol(settings: Mapping[str, Any], sequential: bool) -> None:
    """Refuse settings that RecBole would fail on later, or misunderstand.

    Args:
        settings: of the run, with complete ``eval_args``.
        sequential: whether the model is a sequential one.

    Raises:
        UserError: ``eval_args``, ``benchmark_filename`` or the name of a column is wrong.
    """
    args = settings["eval_args"]
    _check_modes(args.get("mode", "full"), settings["metrics"])
    if settings.get("benchmark_filename") is None:
        if own_split(settings) is None:
            _check_split(args, sequential)
        split = args.get("split") or {}
        if "TS" in split and settings["TIME_FIELD"] in (settings.get("numerical_features") or []):
            raise UserError(f"eval_args split={split}: with TS, numerical_features cannot contain TIME_FIELD.")
    _check_names_of_columns(settings, sequential)
    if settings.get("benchmark_filename") is not None:
        _check_files(settings["benchmark_filename"])


def check_pre_split(user: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Refuse settings that RecBole ignores with ``benchmark_filename``: rows and splits are those of the files.

    Args:
        user: what the user set.
        defaults: the defaults of all settings.

    Raises:
        UserError: the user set something that filters or splits rows.
    """
    args = user.get("eval_args")
    asked = {f"eval_args {key}": args[key] for key in _SPLITTING if key in args} if isinstance(args, dict) else {}
    asked |= {key: user[key] for key in _FILTERS if key in user and user[key] != defaults.get(key)}
    for what, value in asked.items():
        raise UserError(f"{what}={value!r}: benchmark_filename takes the rows and splits of its files as they are.")


def phase_modes(settings: Mapping[str, Any]) -> tuple[str, str]:
    """The modes of validation and test: ``full``, ``labeled``, ``uniN`` or ``popN``."""
    modes = settings["eval_args"]["mode"]
    return modes["valid"], modes["test"]


def is_sampled(mode: str) -> bool:
    """Whether a held-out item is ranked among sampled candidates."""
    return mode not in ("full", "labeled")


def _check_modes(modes: Any, metrics: Any) -> None:
    if isinstance(modes, dict):
        unknown = [phase for phase in modes if phase not in _PHASES]
        if unknown or not modes:
            raise UserError(f"eval_args mode={modes!r}: must have the keys {' and '.join(_PHASES)}.")
    kinds = {metric_types.get(str(name).lower()) for name in (metrics if isinstance(metrics, list) else [metrics])}
    for mode in modes.values() if isinstance(modes, dict) else [modes]:
        if not isinstance(mode, str) or not _MODE.fullmatch(mode):
            raise UserError(
                f"eval_args mode={mode!r}: must be full, labeled, or uniN or popN with N sampled items, e.g. uni100, "
                "and N below 1000000."
            )
        if mode == "labeled" and EvaluatorType.RANKING in kinds:
            raise UserError(
                f"eval_args mode='labeled': compares each row with its label, but metrics={metrics} need ranked lists. "
                "Set mode to full, uniN or popN, or metrics of labels, e.g. [AUC, LogLoss]."
            )
        if mode == "full" and EvaluatorType.VALUE in kinds:
            raise UserError(
                f"eval_args mode='full': ranks the whole catalogue, but metrics={metrics} need labels. Set mode to "
                "labeled, uniN or popN, or metrics of ranked lists, e.g. [Hit, NDCG]."
            )
    if isinstance(modes, dict) and "labeled" in modes.values() and set(modes.values()) != {"labeled"}:
        raise UserError(f"eval_args mode={modes!r}: labeled must be the mode of both validation and test.")


def _check_split(args: Mapping[str, Any], sequential: bool) -> None:
    split, order = args.get("split"), args.get("order", "RO")
    if not isinstance(split, dict) or len(split) != 1 or next(iter(split)) not in ("LS", "RS", "TS"):
        raise UserError(f"eval_args split={split!r}: must be {{LS: valid_and_test}}, {{RS: [...]}} or {{TS: [...]}}.")
    ((kind, value),) = split.items()
    if kind == "LS":
        if value != "valid_and_test":
            raise UserError(
                f"eval_args split={split!r}: must be {{LS: valid_and_test}}, because a run needs validation to choose "
                "the epoch, and then a test."
            )
    elif (
        not isinstance(value, list)
        or len(value) != 3
        or any(isinstance(part, bool) or not isinstance(part, int | float) or not 0 < part < 1e9 for part in value)
    ):
        raise UserError(f"eval_args split={split!r}: must be three numbers above 0: training, validation, test.")
    if order not in ("TO", "RO"):
        raise UserError(f"eval_args order={order!r}: must be TO (order of time) or RO (random order).")
    if order == "RO" and (sequential or kind == "TS"):
        what = "a sequential model" if sequential else "a split by time"
        raise UserError(f"eval_args order='RO': {what} needs TO, the order of time.")
    group_by = args.get("group_by", "user")
    if group_by not in (("user",) if kind == "LS" else ("user", "none", None)):
        allowed = "user, because LS splits the rows of each user" if kind == "LS" else "user or none"
        raise UserError(f"eval_args group_by={group_by!r}: must be {allowed}.")


def _check_names_of_columns(settings: Mapping[str, Any], sequential: bool) -> None:
    """Refuse two columns of the same name: one would overwrite the other."""
    keys = [*_COLUMNS, *(_COLUMNS_OF_HISTORIES if sequential else ())]
    owners: dict[str, str] = {}
    named = [(key, settings[key]) for key in keys if key in settings]
    if sequential:
        named.append(("ITEM_ID_FIELD with LIST_SUFFIX", f"{settings['ITEM_ID_FIELD']}{settings['LIST_SUFFIX']}"))
    for key, name in named:
        if owners.setdefault(name, key) != key:
            raise UserError(f"{key}={name!r}: is the column of {owners[name]} too; each needs its own.")


def _check_files(names: Any) -> None:
    if not isinstance(names, list) or len(names) != 3 or len(set(map(str, names))) < 3:
        raise RUN_ROWS["benchmark_filename"].error("benchmark_filename", names)
    for name in names:
        check_name("benchmark_filename", name)
