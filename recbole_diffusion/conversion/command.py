"""The verb ``convert``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from recbole_diffusion.config.settings import UserError, did_you_mean
from recbole_diffusion.console.screen import Screen
from recbole_diffusion.conversion.api import convert
from recbole_diffusion.conversion.request import Converted, require_polars

_OPTIONS = (
    "encoding", "delimiter", "quote", "time_format", "decimal", "category_separator", "min_interactions", "overwrite",
)  # fmt: skip
_DELIMITERS = {"\\t": "\t", "tab": "\t"}


def command(known: argparse.Namespace, rest: Sequence[str]) -> int:
    """Run the verb and return the exit status: 0, or 2 if it only proposes a command.

    Args:
        known: the arguments of the verb.
        rest: what the parser does not know.

    Raises:
        UserError: an argument or a file is wrong. Nothing is written then.
    """
    for argument in rest:
        if argument.startswith("-"):
            name = argument.lstrip("-").partition("=")[0]
            hint = did_you_mean(name, [key for key in vars(known) if key not in ("verb", "files", "help")])
            raise UserError(f"convert has no argument {argument!r}.{hint}")
    for name, value in vars(known).items():
        if value == "" and name != "header":
            raise UserError(f"{name}='': has no value.")
    known.files = [*known.files, *rest]  # the parser takes only those before the first option
    screen = Screen()
    done = _convert(known, screen)
    screen.line()
    screen.line(f"next:  {done.command}")
    return 0


def _options(known: argparse.Namespace) -> dict[str, object]:
    return {
        **{name: getattr(known, name) for name in _OPTIONS},
        "delimiter": _DELIMITERS.get(known.delimiter, known.delimiter),
        "header": tuple(name.strip() for name in known.header.split(",")) if known.header else (),
        "drop_bad_rows": known.on_bad_rows == "drop",
    }


def _convert(known: argparse.Namespace, screen: Screen) -> Converted:
    require_polars()
    if known.out is None:
        raise UserError("out is not set: give the folder of the data set, e.g. --out=dataset/shop.")
    return convert(
        known.files, known.out, known.user, known.item, known.time, known.rating, known.items, known.item_id,
        known.title, known.category, screen.fact, **_options(known),
    )  # fmt: skip
