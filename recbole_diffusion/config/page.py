"""Writes the tables in docs/settings.md and the comments in our YAML files, from the table of settings.

Run ``python -m recbole_diffusion.config.page`` in a checkout after each change of the table.
"""

from __future__ import annotations

import re
from pathlib import Path

from recbole_diffusion.config.help import explained, model_defaults, run_defaults, shown
from recbole_diffusion.config.row import Row
from recbole_diffusion.config.table import SECTIONS, SHIPPED, of_section
from recbole_diffusion.names import OURS

_ROOT = Path(__file__).resolve().parents[2]
_BEGIN = "<!-- Written by python -m recbole_diffusion.config.page: change the table, not the page. -->\n"
_END = "<!-- The end of what is written. -->\n"
_SETTING = re.compile(r"^(\w+):[ ]*(.*?)[ ]*(#.*)?$")
_COLUMN = 34


def files() -> dict[Path, str]:
    """Each file that is written from the table, with the text that it should have."""
    page = _ROOT / "docs" / "settings.md"
    properties = _ROOT / "properties"
    found = {page: _with_tables(page.read_text(encoding="utf-8"))}
    for name in ("overall", "diffusion", "embedding"):
        found |= _with_comments(properties / f"{name}.yaml", None)
    for model in sorted(OURS):
        found |= _with_comments(properties / "model" / f"{model}.yaml", model)
    return found


def _with_tables(text: str) -> str:
    before, _, rest = text.partition(_BEGIN)
    return before + _BEGIN + tables() + _END + rest.partition(_END)[2]


def tables() -> str:
    """The part of the page that lists the settings. Each section says what its settings mean for a checkpoint."""
    defaults = _Defaults()
    parts = []
    for role, part, title, bound in SECTIONS:
        rows = {key: row for key, row in of_section(SHIPPED, role, part).items() if row.settable}
        lines = [
            f"| `{key}` | {_cell(row.described())} | {_cell(defaults.of(key))} | {_cell(_what(row))} |"
            for key, row in rows.items()
        ]
        parts.append("\n".join([f"### {title}", "", *([bound, ""] if bound else []), *_HEAD, *lines, ""]))
    return "\n" + "\n".join(parts) + "\n"


_HEAD = ("| setting | allowed | default | what it is |", "|---|---|---|---|")


def _what(row: Row) -> str:
    only = [f"{model}: {', '.join(choices)}" for model, choices in row.of.items()]
    readers = [f"only for {' and '.join(row.read_by)}"] if row.read_by else []
    return "; ".join([row.help, *only, *readers])


class _Defaults:
    """The default of each setting, and the models that have another default."""

    def __init__(self) -> None:
        self._run = run_defaults()
        self._models = {model: model_defaults(model) for model in sorted(OURS)}

    def of(self, key: str) -> str:
        """``300; 60 for ADIGRec, DiffDiv``. If only some models have the setting, the defaults of these models."""
        base = f"`{shown(self._run[key])}`" if key in self._run else ""
        by_value: dict[str, list[str]] = {}
        for model, defaults in self._models.items():
            if key in defaults and not (base and defaults[key] == self._run[key]):
                by_value.setdefault(shown(defaults[key]), []).append(model)
        return "; ".join([*([base] if base else []), *(f"`{v}` for {', '.join(m)}" for v, m in by_value.items())])


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


def _with_comments(file: Path, model: str | None) -> dict[Path, str]:
    """A YAML file with a comment after each setting: what is allowed, and what it is."""
    lines = [_commented(line, model) for line in file.read_text(encoding="utf-8").splitlines()]
    return {file: "\n".join(lines) + "\n"}


def _commented(line: str, model: str | None) -> str:
    found = _SETTING.match(line)
    row = SHIPPED.get(found[1]) if found else None
    if found is None or row is None:
        return line
    return f"{found[1]}: {found[2]}".rstrip().ljust(_COLUMN - 1) + f" # {explained(row.for_model(model))}"


def main() -> None:
    for file, text in files().items():
        if file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")
            print(f"written: {file.relative_to(_ROOT)}")


if __name__ == "__main__":
    main()
