"""The text of ``run --help``: the main settings, or all settings of one model. It loads neither torch nor RecBole."""

from __future__ import annotations

import dataclasses
import textwrap
from typing import Any

import yaml

from recbole_diffusion.config.model_files import ModelFiles, shipped_files
from recbole_diffusion.config.reading import (
    read_properties,
    recbole_file,
    recbole_properties,
)
from recbole_diffusion.config.row import Part, Row, Rows
from recbole_diffusion.config.rows_models import RECBOLE_MODELS_ROWS
from recbole_diffusion.config.settings import Settings, UserError, did_you_mean
from recbole_diffusion.config.table import SECTIONS, TABLE, of_section, recbole_row
from recbole_diffusion.names import OURS

_COLUMN = 34
_LONGEST_LINE = 110


def main_settings() -> str:
    """The settings that most runs need, one per line, with what is allowed and what it is."""
    lines = [_entry(f"--{key}", row) for key, row in TABLE.items() if row.main]
    head = "main settings (run --help --model=NAME shows all settings of a model, with their defaults):"
    return "\n".join([head, *lines]) + "\n"


def model_settings(model: str, preset: str | None = None, files: ModelFiles | None = None) -> str:
    """All settings of a model, one per line, with its default, what is allowed and what it is.

    Args:
        files: for a model of another package, its YAML files. Its class must be imported before: this adds its own
            settings to the table.

    Raises:
        UserError: there is no such model, or no such preset of it.
    """
    if files is None:
        defaults = model_defaults(model, preset or "default")
        rows = _rows(model, defaults)
    else:
        defaults = run_defaults() | files.settings(model, preset or "default")
        rows = {key: row for key, row in TABLE.items() if key in defaults}
    rows = {key: row for key, row in rows.items() if row.settable and _reads(model, row)}
    text = [f"settings of {model}, and their defaults with preset={preset or 'default'}:"]
    for role, part, title, _ in SECTIONS:
        own = of_section(rows, role, part)
        if own:
            text += ["", f"{title}", *(_entry(f"--{key}={shown(defaults[key])}", row) for key, row in own.items())]
    return "\n".join(text) + "\n"


def run_defaults() -> Settings:
    """The defaults of the settings that every run has."""
    return {
        **recbole_properties("overall.yaml"), **recbole_properties("dataset", "sample.yaml"),
        **read_properties("overall.yaml"),
    }  # fmt: skip


def model_defaults(model: str, preset: str = "default") -> Settings:
    """The defaults of a model's settings, without those that depend on other settings or on the data set.

    Raises:
        UserError: there is no such model, or no such preset of it.
    """
    if model in OURS:
        return run_defaults() | shipped_files(model, recboles=False).settings(model, preset)
    plain = model.removeprefix("recbole.")
    theirs = sorted(file.stem for file in recbole_file("properties", "model").glob("*.yaml"))
    if plain not in theirs:
        raise UserError(
            f"model={model!r}: there is no such model.{did_you_mean(model, [*OURS, *theirs])} "
            "run --help lists the models; names are case-sensitive."
        )
    own = shipped_files(plain, recboles=True).settings(plain, preset)
    return run_defaults() | recbole_properties("model", f"{plain}.yaml") | own


def _rows(model: str, defaults: Settings) -> Rows:
    """The rows of ``defaults`` in the order of the table. The own settings of a RecBole model come last."""
    if model in OURS:
        return {key: row.for_model(model) for key, row in TABLE.items() if key in defaults}
    every = run_defaults()
    known = {key: row for key, row in TABLE.items() if key in every}
    return known | {key: _recbole_row(key, value) for key, value in defaults.items() if key not in known}


def _recbole_row(key: str, default: Any) -> Row:
    """A setting of a RecBole model. Its type comes from the default; its role and help come from the table."""
    there = TABLE.get(key, Row("any"))
    if isinstance(default, list) and default:
        row = Row("any", says=f"a list; each is {recbole_row(key, default[0]).described()}")
    else:
        row = recbole_row(key, default)
    help = there.help if key in RECBOLE_MODELS_ROWS else ""
    return dataclasses.replace(row, role=there.role, part=there.part, help=help)


def _reads(model: str, row: Row) -> bool:
    """Whether the model reads the setting, if only some models do."""
    plain = model.removeprefix("recbole.")
    if row.part is Part.KNOWLEDGE:
        file = recbole_file("model", "knowledge_aware_recommender", f"{plain.lower()}.py")
        return model not in OURS and file.is_file()
    return not row.read_by or plain in row.read_by


def shown(value: Any) -> str:
    """A value as a user writes it: ``~``, ``True``, ``[5, 10]``."""
    if value is None:
        return "~"
    if isinstance(value, bool):
        return str(value)
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("...\n").strip()


def explained(row: Row) -> str:
    """What is allowed, and what it is: ``(a whole number >= 1) T, the steps of noise``."""
    return f"({row.described()}) {row.help}".strip()


def _entry(name: str, row: Row) -> str:
    """``  --name   (what is allowed) what it is``, on as many lines as needed."""
    first = f"  {name}".ljust(_COLUMN - 1) + " "
    if len(first) > _COLUMN:
        first = f"  {name}\n" + " " * _COLUMN
    text = textwrap.fill(explained(row), _LONGEST_LINE, initial_indent=" " * _COLUMN, subsequent_indent=" " * _COLUMN)
    return first + text.lstrip()
