"""The table of settings: each setting once, with what is allowed, what it changes and a line of help.

Errors, help and docs come from the table. So does which settings a checkpoint, a study or a comparison depends on
(:mod:`recbole_diffusion.config.roles`). Nothing here loads torch, numpy or RecBole.
"""

from __future__ import annotations

import functools
import re
from typing import Any

from recbole_diffusion.config.reading import load_settings, recbole_file
from recbole_diffusion.config.row import Part, Role, Row, Rows
from recbole_diffusion.config.rows_models import OUR_MODELS_ROWS, RECBOLE_MODELS_ROWS
from recbole_diffusion.config.rows_run import RUN_ROWS

SHIPPED: Rows = {**RUN_ROWS, **OUR_MODELS_ROWS, **RECBOLE_MODELS_ROWS}
# A model of another package adds its own settings here, when its module is imported.
TABLE: Rows = dict(SHIPPED)

# Limits for numbers that RecBole's models read, by patterns of names; the first that matches counts. Without a match,
# only the type in RecBole's YAML file is checked.
_BY_NAME: tuple[tuple[str, Row], ...] = (
    (r"n_layers|num_layers|\w+_layer_num", Row("int", low=1, high=1000)),
    (
        r"(.*_)?(sizes?|size_list|layers?|heads|factors|dims?|dimension|channels|kernels|strides|hops?)",
        Row("int", low=1, high=1_000_000),
    ),
    (r"k|kfac|rank|num_\w+|\w+_num|dims_\w+|steps?|m_step|save_step|pretrain_epochs", Row("int", low=1)),
    (r"(.*_)?weights?(_\d)?|.*_reg|reg_loss_ratio|lambda\d|shrink", Row("float", low=0)),
    (r".*_ratio|.*_probs?|(.*_)?dropout(_rate)?|drop_\w+", Row("float", low=0, high=1)),
    (r"(.*_)?(temperature|temp|tau)|layer_norm_eps", Row("float", above=0)),
)
_LOSSES = ("BPR", "CE")  # of RecBole's sequential models
# The sections of docs and help, in order: role, part, title, and what a checkpoint allows.
SECTIONS: tuple[tuple[Role, Part | None, str, str], ...] = (
    (Role.RESULT, Part.PROTOCOL, "Protocol: which task is solved", "A checkpoint is bound to these."),
    (
        Role.RESULT, Part.EVALUATION, "Evaluation: what is measured, and so which epoch is kept",
        "A trained model can be used with other values of these. To resume its training, they must be the same.",
    ),
    (Role.RESULT, Part.NETWORK, "Network: what a trained model computes", "A checkpoint is bound to these."),
    (
        Role.GENERATION, None, "Generation: what a trained model ranks",
        "A trained model can be used with other values of these. To resume its training, they must be the same, "
        "because validation generates too.",
    ),
    (
        Role.RESULT, Part.TRAINING, "Training: how a model learns",
        "A trained model can be used with other values of these. To resume its training, they must be the same.",
    ),
    (
        Role.RESULT, Part.COURSE, "Course: where training starts and ends",
        "A checkpoint can be used, and its training resumed, with other values of these.",
    ),
    (Role.RESULT, Part.DATA, "Data: what is read", "A checkpoint is bound to these."),
    (Role.RESULT, Part.KNOWLEDGE, "Knowledge graphs", "Only RecBole's models of knowledge graphs read these."),
    (Role.SPEED, None, "Speed: results change at most by rounding", ""),
    (Role.PLACE, None, "Place: where a run is made", "They change no result."),
    (Role.OUTPUT, None, "Output: what a run shows", "They change no result."),
)  # fmt: skip
_KINDS = {bool: "bool", int: "int", float: "float", str: "str"}


def of_section(rows: Rows, role: Role, part: Part | None) -> Rows:
    """The ``rows`` with this role and, if ``part`` is not None, this part."""
    return {key: row for key, row in rows.items() if row.role is role and (part is None or row.part is part)}


def add(key: str, row: Row, owner: str) -> None:
    """Add a setting of a model of another package. ``owner`` is the name of its settings class.

    Raises:
        TypeError: the table, or a model of RecBole, already has a setting with this name that changes something else.
    """
    if key not in TABLE and (row.role, row.part) != (Role.RESULT, Part.NETWORK) and key in recbole_keys():
        raise TypeError(
            f"{owner}.{key}: a model of RecBole has a setting of this name, which changes a result. Take another name, "
            "or role=Role.RESULT."
        )
    there = TABLE.setdefault(key, row)
    if (there.role, there.part) != (row.role, row.part):
        raise TypeError(
            f"{owner}.{key}: has the role {row.role.name}, {row.part.name}, but another {key} has {there.role.name}, "
            f"{there.part.name}."
        )


@functools.cache
def recbole_keys() -> frozenset[str]:
    """The settings in the YAML files of RecBole's models."""
    files = recbole_file("properties", "model").glob("*.yaml")
    return frozenset(key for file in files for key in load_settings([file]))


def recbole_row(key: str, sample: Any) -> Row:
    """The row of a setting of a RecBole model, from its name and from ``sample``, one of its values."""
    kind = _KINDS.get(type(sample))
    if kind is None:
        return Row("any", says="as RecBole has it")
    if kind in ("int", "float"):
        return next((row for pattern, row in _BY_NAME if re.fullmatch(pattern, key)), Row(kind))
    if key == "loss_type" and sample in _LOSSES:
        return Row("str", choices=_LOSSES)
    return OUR_MODELS_ROWS[key] if key == "hidden_act" else Row(kind)
