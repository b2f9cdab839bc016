"""Reads settings from YAML: files of the user and of this package, and single values of the command line."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from recbole_diffusion.config.settings import Settings, UserError
from recbole_diffusion.names import recbole_folder

# PyYAML's loader with libyaml, if available, is about ten times faster; a Config reads seven files.
_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


_MOST_PARTS, _DEEPEST = 100_000, 50  # of a value
EXTENDS = "extends"  # key in the YAML file of a model: names a shared file, over which this file wins


class YamlLoader(_SafeLoader):
    """Safe YAML. It also reads ``1e-4`` as a number (YAML 1.1 needs ``1.0e-4``), and refuses a key given twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and keys.count(key.value) > 1:
                raise yaml.YAMLError(f"key {key.value!r} is given twice")
        return super().construct_mapping(node, deep=deep)


YamlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d[\d_]*)(\.[\d_]*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def load_yaml(text: str) -> Any:
    """The value of a text.

    Raises:
        yaml.YAMLError: it is no YAML, or a value that no setting has: nested too deep, too large, or inside itself.
    """
    try:
        value = yaml.load(text, Loader=YamlLoader)
    except (RecursionError, ValueError) as error:  # of letters that are none, and of dates
        raise yaml.YAMLError(str(error)) from error
    left = [(value, 0)]
    for _ in range(_MOST_PARTS):
        if not left:
            return value
        part, depth = left.pop()
        if depth > _DEEPEST:
            break
        inner = part.values() if isinstance(part, dict) else part if isinstance(part, list | tuple | set) else ()
        left += [(item, depth + 1) for item in inner]
    raise yaml.YAMLError(f"it has more than {_MOST_PARTS} values, or more than {_DEEPEST} lists inside one another")


def parse_value(text: str, key: str = "") -> Any:
    """One command-line value as YAML: ``0.1``, ``true``, ``[5, 10]``, ``{LS: valid_and_test}``, ``~`` or ``None``.

    Two kinds of values stay text: RecBole's intervals such as ``[4,inf)`` (keys that end in ``_interval``), and a
    separator without quotation marks, such as ``,`` (keys that end in ``_separator``).
    """
    if key.endswith("_interval") and text.startswith(("[", "(")):
        return text
    if key.endswith("_separator") and not text.startswith(("'", '"')):
        return text
    value = load_yaml(text)
    return None if value == "None" else value


def _read_mapping(text: str, where: str) -> Settings:
    try:
        values = load_yaml(text)
    except yaml.YAMLError as error:
        raise UserError(f"{where} is not valid YAML: {' '.join(str(error).split())}") from error
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise UserError(f"{where} must have settings as lines of 'key: value'.")
    return values


def load_settings(config_files: Sequence[str | Path] = (), overrides: Mapping[str, Any] | None = None) -> Settings:
    """What the user set. Later files win over earlier ones, and ``overrides`` (the command line) over all files.

    Raises:
        UserError: a file does not exist, cannot be read, or is not a YAML mapping.
    """
    settings: Settings = {}
    for name in config_files:
        path = Path(name)
        if not os.path.isfile(path):
            raise UserError(f"config_files: there is no file {str(path)!r}.")
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else error.reason
            raise UserError(f"config_files: {str(path)!r} cannot be read as UTF-8 text ({reason}).") from error
        settings.update(_read_mapping(text, str(path)))
    settings.update(overrides or {})
    return settings


def properties_file(*parts: str) -> Path | None:
    """Our YAML file ``properties/<parts>``, in the installed package or next to it in a checkout; None if missing."""
    here = Path(__file__).resolve().parents[1]
    for root in (here / "properties", here.parent / "properties"):
        file = root.joinpath(*parts)
        if file.is_file():
            return file
    return None


def read_properties(*parts: str) -> Settings:
    """Our YAML file ``properties/<parts>`` as a dictionary; empty if there is no such file."""
    file = properties_file(*parts)
    return _read_mapping(file.read_text(encoding="utf-8"), "/".join(("properties", *parts))) if file else {}


def extended(own: Settings, where: str) -> Settings:
    """The settings of a model's file, over those of our file that its line ``extends`` names, such as ``diffusion``.

    Args:
        own: the settings in the model's file.
        where: the model's file, for the error message.

    Raises:
        UserError: there is no such file.
    """
    below = dict(own)
    base = below.pop(EXTENDS, None)
    if base is None:
        return below
    if properties_file(f"{base}.yaml") is None:
        raise UserError(f"{where}: {EXTENDS}={base!r}: there is no properties/{base}.yaml.")
    return {**extended(read_properties(f"{base}.yaml"), f"properties/{base}.yaml"), **below}


def recbole_file(*parts: str) -> Path:
    """Path of a file or folder in RecBole's package, which is not imported. The path need not exist.

    Raises:
        RecBoleMissing: RecBole is not installed.
    """
    return recbole_folder().joinpath(*parts)


def recbole_properties(*parts: str) -> Settings:
    """RecBole's YAML file ``properties/<parts>`` as a dictionary."""
    return load_settings([recbole_file("properties", *parts)])
