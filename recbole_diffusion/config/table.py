"""The table of settings: every setting once, with what is allowed, what it changes and a line of help.

Nothing here loads torch, numpy or RecBole. Errors, help, pages, stamps, what binds a checkpoint and what a study or a
comparison must share come from it (:mod:`recbole_diffusion.config.roles`).
"""

from __future__ import annotations

import re
from typing import Any

from recbole_diffusion.config.row import Part, Role, Row, Rows
from recbole_diffusion.config.rows_models import OUR_MODELS_ROWS, RECBOLE_MODELS_ROWS
from recbole_diffusion.config.rows_run import RUN_ROWS

SHIPPED: Rows = {**RUN_ROWS, **OUR_MODELS_ROWS, **RECBOLE_MODELS_ROWS}
# A model of another package adds its own when its settings are declared.
TABLE: Rows = dict(SHIPPED)

# What RecBole's models read, by the name of the setting: the first that fits; else a value keeps its type in RecBole's
# YAML file.
_BY_NAME: tuple[tuple[str, Row], ...] = (
    (
        r"(.*_)?(sizes?|size_list|layers?|heads|factors|dims?|dimension|channels|kernels|strides|hops?)",
        Row("int", low=1),
    ),
    (r"k|kfac|rank|num_\w+|\w+_num|dims_\w+|steps?|m_step|save_step|pretrain_epochs", Row("int", low=1)),
    (r"(.*_)?weights?(_\d)?|.*_reg|reg_loss_ratio|lambda\d|shrink", Row("float", low=0)),
    (r".*_ratio|.*_probs?|(.*_)?dropout(_rate)?|drop_\w+", Row("float", low=0, high=1)),
    (r"(.*_)?(temperature|temp|tau)|layer_norm_eps", Row("float", above=0)),
)
# How pages and help order and head the settings, and what a checkpoint's model is bound to.
SECTIONS: tuple[tuple[Role, Part | None, str, str], ...] = (
    (Role.RESULT, Part.PROTOCOL, "Protocol: which task is solved", "A checkpoint is bound to these."),
    (
        Role.RESULT, Part.EVALUATION, "Evaluation: what is measured, and so which epoch is kept",
        "A trained model may be used with others; to resume its training they must be the same.",
    ),
    (Role.RESULT, Part.NETWORK, "Network: what a trained model computes", "A checkpoint is bound to these."),
    (
        Role.GENERATION, None, "Generation: what a trained model ranks",
        "A trained model may be used with others; to resume its training they must be the same, because validation "
        "generates too.",
    ),
    (
        Role.RESULT, Part.TRAINING, "Training: how a model learns",
        "A trained model may be used with others; to resume its training they must be the same.",
    ),
    (
        Role.RESULT, Part.COURSE, "Course: where training starts and ends",
        "They may differ to use a checkpoint and to resume its training.",
    ),
    (Role.RESULT, Part.DATA, "Data: what is read", "A checkpoint is bound to these."),
    (Role.RESULT, Part.KNOWLEDGE, "Knowledge graphs", "Only RecBole's models of knowledge graphs read these."),
    (Role.SPEED, None, "Speed: no result changes but for rounding", ""),
    (Role.PLACE, None, "Place: where a run is made", "They change no result."),
    (Role.OUTPUT, None, "Output: what a run shows", "They change no result."),
)  # fmt: skip
_KINDS = {bool: "bool", int: "int", float: "float", str: "str"}


def of_section(rows: Rows, role: Role, part: Part | None) -> Rows:
    """Those of ``rows`` with that role, and that part if one is given."""
    return {key: row for key, row in rows.items() if row.role is role and (part is None or row.part is part)}


def add(key: str, row: Row, owner: str) -> None:
    """Add a setting that a model of another package, ``owner``, has of its own.

    Raises:
        TypeError: the table has it already, and it changes something else there.
    """
    there = TABLE.setdefault(key, row)
    if (there.role, there.part) != (row.role, row.part):
        raise TypeError(
            f"{owner}.{key}: its role is {row.role.name}, {row.part.name}; {key} is known with {there.role.name}, "
            f"{there.part.name}."
        )


def recbole_row(key: str, sample: Any) -> Row:
    """A setting that a model of RecBole has of its own, from its name and a value of it."""
    kind = _KINDS.get(type(sample))
    if kind is None:
        return Row("any", says="as RecBole has it")
    if kind in ("int", "float"):
        return next((row for pattern, row in _BY_NAME if re.fullmatch(pattern, key)), Row(kind))
    return Row(kind)
