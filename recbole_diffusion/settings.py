"""Settings as YAML in, and as typed and checked dataclasses out."""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import yaml

Settings = dict[str, Any]
D = TypeVar("D", bound="TypedSettings")


class UserError(ValueError):
    """A mistake in what the user asked for: one message, no traceback, exit status 2."""


def did_you_mean(value: str, allowed: Iterable[str], count: int = 3) -> str:
    """`` Did you mean 'a' or 'b'?`` for the names nearest to ``value``, or an empty string."""
    by_lower = {name.lower(): name for name in allowed}
    near = difflib.get_close_matches(value.lower(), by_lower, n=count, cutoff=0.6)
    return f" Did you mean {' or '.join(repr(by_lower[name]) for name in near)}?" if near else ""


# What a path or a pattern of file names gives a meaning to, on one system or another, and what cannot be seen.
_NO_NAME = re.compile(r"[/\\:*?\[\]<>|\"\x00-\x1f\x7f]")
_LONGEST_NAME = 100  # bytes; names of files and folders are made of it


def check_name(key: str, name: Any) -> None:
    """Refuse what would not be one part of a path: names of data sets become those of files and folders.

    Raises:
        UserError: ``name``, the value of ``key``, is no such name.
    """
    size = len(name.encode(errors="replace")) if isinstance(name, str) else 0
    if not 0 < size <= _LONGEST_NAME or not name.strip(". ") or _NO_NAME.search(name):
        shown = repr(name) if size <= _LONGEST_NAME else f"{name[:40]!r}..."
        raise UserError(
            f"{key}={shown}: must be a name of at most {_LONGEST_NAME} bytes, without any of "
            '/ \\ : * ? [ ] < > | " and not only dots.'
        )


def rows_at_once(max_cells: int, columns: int) -> int:
    """How many rows of ``columns`` numbers a matrix of at most ``max_cells`` numbers has; one at least."""
    return max(1, max_cells // columns)


def make_folder(key: str, path: str | Path) -> Path:
    """The folder ``path``, made where there is none.

    Raises:
        UserError: it cannot be made; ``key`` is what names it.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{key}={str(path)!r}: this folder cannot be made ({error.strerror}).") from error
    return Path(path)


# --------------------------------------------------------------------------------------------------------------
# Reading YAML


# libyaml's, where PyYAML has it, is some ten times faster: a Config reads seven files.
_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class YamlLoader(_SafeLoader):
    """Safe YAML that also reads ``1e-4`` as a number (YAML 1.1 wants ``1.0e-4``), and no key twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and keys.count(key.value) > 1:
                raise yaml.YAMLError(f"key {key.value!r} is given twice")
        return super().construct_mapping(node, deep=deep)


YamlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d[\d_]*)(\.[\d_]*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def parse_value(text: str, key: str = "") -> Any:
    """One command-line value as YAML: ``0.1``, ``true``, ``[5, 10]``, ``{LS: valid_and_test}``, ``~`` or ``None``.

    RecBole's intervals (keys that end in ``_interval``), such as ``[4,inf)``, are text although they look like lists,
    and so is a separator that is not in quotation marks, such as ``,``.
    """
    if key.endswith("_interval") and text.startswith(("[", "(")):
        return text
    if key.endswith("_separator") and not text.startswith(("'", '"')):
        return text
    value = yaml.load(text, Loader=YamlLoader)
    return None if value == "None" else value


def _read_mapping(text: str, where: str) -> Settings:
    try:
        values = yaml.load(text, Loader=YamlLoader)
    except yaml.YAMLError as error:
        raise UserError(f"{where} is not valid YAML: {' '.join(str(error).split())}") from error
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise UserError(f"{where} must hold settings as 'key: value' lines.")
    return values


def load_settings(config_files: Sequence[str | Path] = (), overrides: Mapping[str, Any] | None = None) -> Settings:
    """What the user set: the files in their order, then ``overrides`` (the command line) over them."""
    settings: Settings = {}
    for name in config_files:
        path = Path(name)
        if not path.is_file():
            raise UserError(f"config_files: there is no file {str(path)!r}.")
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"config_files: {str(path)!r} cannot be read as UTF-8 text ({error}).") from error
        settings.update(_read_mapping(text, str(path)))
    settings.update(overrides or {})
    return settings


def properties_file(*parts: str) -> Path | None:
    """Our YAML ``properties/<parts>``, in the installed package or beside it in a checkout; None if there is none."""
    here = Path(__file__).resolve().parent
    for root in (here / "properties", here.parent / "properties"):
        file = root.joinpath(*parts)
        if file.is_file():
            return file
    return None


def read_properties(*parts: str) -> Settings:
    """Our YAML file ``properties/<parts>`` as a dictionary; empty where there is none."""
    file = properties_file(*parts)
    return _read_mapping(file.read_text(encoding="utf-8"), "/".join(("properties", *parts))) if file else {}


def check_finite(settings: Mapping[str, Any]) -> None:
    """Refuse numbers that are not finite, in lists and dictionaries too: no setting means anything with them.

    Raises:
        UserError: with the setting that has one.
    """
    for key, value in settings.items():
        if not _all_finite(value):
            raise UserError(f"{key}={value!r}: must be finite, neither inf nor nan.")


def _all_finite(value: Any) -> bool:
    if isinstance(value, dict):
        # The infinity norm is a norm: clip_grad_norm={max_norm: 5, norm_type: .inf}.
        return all(_all_finite(item) for key, item in value.items() if key != "norm_type")
    if isinstance(value, list | tuple):
        return all(_all_finite(item) for item in value)
    return not isinstance(value, float) or math.isfinite(value)


# --------------------------------------------------------------------------------------------------------------
# Typed settings


def setting(
    low: float | None = None,
    high: float | None = None,
    choices: Iterable[str] | None = None,
    above: float | None = None,
    below: float | None = None,
    optional: bool = False,
) -> Any:
    """A field of :class:`TypedSettings`: bounds (``low``, ``high`` included, ``above``, ``below`` not) or choices."""
    allowed = tuple(choices) if choices is not None else None
    bounds = {"low": low, "high": high, "choices": allowed, "above": above, "below": below, "optional": optional}
    return dataclasses.field(metadata=bounds)


@dataclasses.dataclass(frozen=True)
class TypedSettings:
    """Settings of one model, read once and checked: subclasses declare ``name: type = setting(...)``."""

    _kinds: ClassVar[dict[str, tuple[type, ...]]] = {
        "int": (int,), "float": (float, int), "bool": (bool,), "str": (str,),
    }  # fmt: skip

    @classmethod
    def from_config(cls: type[D], config: Any) -> D:
        """Read every field from ``config``.

        Raises:
            UserError: a value is missing, of another type or out of range; the message names key, value and range.
        """
        return cls(**{field.name: cls._read(field, config) for field in dataclasses.fields(cls)})

    @classmethod
    def _read(cls, field: dataclasses.Field, config: Any) -> Any:
        value: Any = config[field.name] if field.name in config else None
        kind = str(field.type).removesuffix(" | None")
        rule = field.metadata
        if value is None and rule["optional"]:
            return None
        types = cls._kinds[kind]
        right_type = isinstance(value, types) and (bool in types or not isinstance(value, bool)) and _all_finite(value)
        in_range = right_type and (
            (rule["choices"] is None or value in rule["choices"])
            and (rule["low"] is None or value >= rule["low"])
            and (rule["high"] is None or value <= rule["high"])
            and (rule["above"] is None or value > rule["above"])
            and (rule["below"] is None or value < rule["below"])
        )
        if in_range:
            return float(value) if kind == "float" else value
        hint = did_you_mean(str(value), rule["choices"]) if rule["choices"] else ""
        finite = "" if _all_finite(value) else " and finite"
        raise UserError(f"{field.name}={value!r}: must be {_describe(kind, rule)}{finite}.{hint}")


def _describe(kind: str, rule: Mapping[str, Any]) -> str:
    words = {"int": "a whole number", "float": "a number", "bool": "True or False", "str": "a text"}[kind]
    if rule["choices"] is not None:
        words = "one of " + ", ".join(rule["choices"])
    limits = [
        f"{sign} {rule[name]:g}"
        for name, sign in (("low", ">="), ("above", ">"), ("high", "<="), ("below", "<"))
        if rule[name] is not None
    ]
    return " ".join([words, *([" and ".join(limits)] if limits else []), *(["or ~"] if rule["optional"] else [])])
