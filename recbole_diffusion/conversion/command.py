"""The verb ``convert``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from recbole_diffusion.config.settings import UserError, did_you_mean
from recbole_diffusion.console.arguments import make_parser
from recbole_diffusion.console.screen import Screen
from recbole_diffusion.conversion.api import convert
from recbole_diffusion.conversion.known import listing
from recbole_diffusion.conversion.request import Converted, Options, require_polars

FAMILIES = ("movielens", "amazon", "recbole")
_OPTIONS = (
    "encoding", "quote", "time_format", "decimal", "category_separator", "min_interactions", "overwrite",
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
    family = known.files[0] if known.files and known.files[0] in FAMILIES else None
    if known.list:
        return _list(family, screen)
    options = _options(known)
    require_polars()
    if family:
        done = _known(family, known, options, screen)
    elif known.user is None or known.item is None:
        return _propose(known, options, screen)
    else:
        done = convert(
            known.files, _out(known), known.user, known.item, known.time, known.rating, known.items, known.item_id,
            known.title, known.category, screen.fact, **vars(options),
        )  # fmt: skip
    screen.line()
    screen.line(f"next:  {done.command}")
    return 0


def _list(family: str | None, screen: Screen) -> int:
    if family is None:
        raise UserError(f"convert --list: list what? Give one of {', '.join(FAMILIES)} before it.")
    for line in listing(family):
        screen.line(line)
    return 0


def _propose(known: argparse.Namespace, options: Options, screen: Screen) -> int:
    from recbole_diffusion.conversion.propose import propose

    given = {role: getattr(known, role) for role in ("user", "item", "time", "rating")}
    named = {role: name for role, name in given.items() if name}
    guessed = propose(known.files, options, named, known.out, _others(known))
    for line in guessed.lines:
        screen.line(line)
    screen.line()
    what = "a guess, check it" if guessed.complete else "put the names of columns for COL"
    screen.line(f"Nothing was written. Next ({what}):\n  {guessed.command}")
    return 2


def _others(known: argparse.Namespace) -> list[str]:
    """The other arguments that the user gave, for the command that is proposed."""
    own = ("verb", "files", "user", "item", "time", "rating", "out", "list")
    usual = vars(make_parser().parse_args(["convert"]))
    given = []
    for name, value in vars(known).items():
        if name not in own and value != usual[name]:
            values = value if isinstance(value, list) else [value]
            given += [f"--{name}" if one is True else f"--{name}={one}" for one in values]
    return given


def _known(family: str, known: argparse.Namespace, options: Options, screen: Screen) -> Converted:
    if family == "recbole":
        raise UserError("convert recbole: these data sets need no conversion. --list shows them; run --dataset=NAME.")
    for name in ("user", "item", "time", "rating", "item_id", "title", "category", "header", "delimiter", "encoding"):
        if getattr(known, name):
            raise UserError(f"{name}: cannot be given; the layout of {family} is known.")
    paths = known.files[1:]
    if not paths:
        raise UserError(f"convert {family}: give the file or folder. 'convert {family} --list' says where to get it.")
    if family == "amazon":
        from recbole_diffusion.conversion.amazon import convert_amazon

        return convert_amazon(paths, _out(known), known.items, options, screen.fact)
    if len(paths) > 1 or known.items:
        raise UserError("convert movielens: give one folder or ZIP file, and no --items.")
    from recbole_diffusion.conversion.movielens import convert_movielens

    return convert_movielens(paths[0], _out(known), options, screen.fact)


def _out(known: argparse.Namespace) -> str:
    if known.out is None:
        raise UserError("out is not set: give the folder of the data set, e.g. --out=dataset/shop.")
    return str(known.out)


def _options(known: argparse.Namespace) -> Options:
    return Options(
        delimiter=_DELIMITERS.get(known.delimiter, known.delimiter),
        header=tuple(name.strip() for name in known.header.split(",")) if known.header else (),
        drop_bad_rows=known.on_bad_rows == "drop",
        **{name: getattr(known, name) for name in _OPTIONS},
    )
