"""The settings of a model as a frozen dataclass, read once and checked against the table of settings."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterable
from typing import Any, ClassVar, TypeVar

from recbole_diffusion.config import table
from recbole_diffusion.config.row import Part, Role, Row, Rows
from recbole_diffusion.config.settings import UserError

D = TypeVar("D", bound="TypedSettings")
_KINDS = {"int": "int", "float": "float", "bool": "bool", "str": "str", "list": "any"}  # of fields, in the table


def setting(
    low: float | None = None,
    high: float | None = None,
    choices: Iterable[str] | None = None,
    above: float | None = None,
    below: float | None = None,
    role: Role | None = None,
    part: Part = Part.NETWORK,
    help: str = "",
) -> Any:
    """A field of :class:`TypedSettings`: a new setting, or other limits for a setting that the table has.

    Args:
        low, high, choices, above, below: what is allowed, as in :class:`recbole_diffusion.config.row.Row`.
        role, part: what a new setting changes. A new setting needs a role; ``part`` counts only with ``Role.RESULT``.
        help: what it is, in one line. A new setting needs it.
    """
    limits = {"low": low, "high": high, "above": above, "below": below}
    given: dict[str, Any] = {name: value for name, value in limits.items() if value is not None}
    if choices is not None:
        given["choices"] = tuple(choices)
    return dataclasses.field(metadata={"limits": given, "role": role, "part": part, "help": help})


@dataclasses.dataclass(frozen=True)
class TypedSettings:
    """The settings of one model. Subclasses declare ``name: type``; limits and help come from the table.

    ``class ADIGRecConfig(DiffusionConfig, model="ADIGRec")`` uses the choices that the table has for ADIGRec. A model
    of another package declares its own settings by ``name: type = setting(role=..., help=..., low=...)``.
    """

    rows: ClassVar[Rows] = {}

    def __init_subclass__(cls, model: str | None = None, **more: Any) -> None:
        super().__init_subclass__(**more)
        declared = {name: _text(kind) for name, kind in inspect.get_annotations(cls).items()}
        fields = {name: kind for name, kind in declared.items() if "ClassVar" not in kind}
        bases = [vars(base).get("rows", {}) for base in reversed(cls.__mro__[1:])]
        inherited = {key: row.for_model(model) for rows in bases for key, row in rows.items()}
        cls.rows = {**inherited, **{name: _row(cls, name, kind, model) for name, kind in fields.items()}}

    @classmethod
    def from_config(cls: type[D], config: Any) -> D:
        """Read every field from ``config``.

        Raises:
            UserError: a value is missing, has another type or is not allowed. The message names key, value and what is
                allowed.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        for name in names:
            if name not in config and not cls.rows[name].optional:
                raise UserError(f"{name}: has no default. Give it one in the YAML file of the model.")
        return cls(**{name: cls.rows[name].read(name, config[name] if name in config else None) for name in names})


def _text(annotation: Any) -> str:
    """An annotation as text, such as ``int`` or ``int | None``; with or without ``from __future__`` annotations."""
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def _row(cls: type[TypedSettings], name: str, annotation: str, model: str | None) -> Row:
    """The row for the field ``name``: that of the table, with the limits of the field.

    Raises:
        TypeError: a new setting has no role or no help, or the type or role differs from the table.
    """
    kind, optional = annotation.removesuffix(" | None"), annotation.endswith(" | None")
    field = cls.__dict__.get(name)
    own = dict(field.metadata) if isinstance(field, dataclasses.Field) else {}
    limits = own.get("limits", {})
    if kind not in _KINDS:
        raise TypeError(f"{cls.__name__}.{name}: must be of type {', '.join(_KINDS)}, or one of these | None.")
    there = cls.rows.get(name) or table.TABLE.get(name)
    if own.get("role") is None and there is None:
        raise TypeError(
            f"{cls.__name__}.{name}: is not in the table of settings. Give it a role and a line of help: "
            f"{name}: {annotation} = setting(role=Role.RESULT, help=...)."
        )
    if own.get("role") is not None:
        if kind == "list":
            raise TypeError(f"{cls.__name__}.{name}: a new setting must be of type int, float, bool or str.")
        if not own["help"]:
            raise TypeError(f"{cls.__name__}.{name}: a new setting needs a line of help.")
        row = Row(kind, own["help"], own["role"], own["part"], optional=optional, **limits)
        table.add(name, row, cls.__name__)
        return row
    assert there is not None
    if _KINDS[kind] != ("str" if there.kind == "path" else there.kind):
        raise TypeError(f"{cls.__name__}.{name}: is of type {kind}, but of type {there.kind} in the table.")
    if optional and not there.optional:
        raise TypeError(f"{cls.__name__}.{name}: cannot be None in the table.")
    return dataclasses.replace(there.for_model(model), optional=optional, **limits)
