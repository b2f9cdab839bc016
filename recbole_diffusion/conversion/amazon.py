"""The layouts of the Amazon reviews of 2014, 2018 and 2023: ratings as CSV, reviews and items as JSON Lines."""

from __future__ import annotations

import ast
import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from recbole_diffusion.config.settings import UserError
from recbole_diffusion.conversion.convert import convert_files
from recbole_diffusion.conversion.delimited import find_layout
from recbole_diffusion.conversion.records import json_names
from recbole_diffusion.conversion.request import Converted, Options, Say
from recbole_diffusion.conversion.sources import Source, find_sources, free_path, kind_of
from recbole_diffusion.conversion.text import as_text

_OF_2023 = {"user": "user_id", "item": "parent_asin", "rating": "rating", "time": "timestamp"}
_BEFORE = {"user": "reviewerID", "item": "asin", "rating": "overall", "time": "unixReviewTime"}
# The ratings of 2014 and 2018 have no header; users and items have changed places between them.
_HEADERS = {"2014": ("user", "item", "rating", "time"), "2018": ("item", "user", "rating", "time")}
_ITEM = re.compile(r"[0-9A-Z]{10}")
_CATEGORIES = ("categories", "category")  # of 2014 and 2023, and of 2018


def convert_amazon(
    paths: Sequence[str | Path], out: str | Path, items: Sequence[str | Path], options: Options, say: Say
) -> Converted:
    """Convert files of Amazon reviews.

    Args:
        paths: ratings or reviews.
        out: the folder of the data set.
        items: files of items ("meta"), for titles and categories.
        options: which rows are kept. How files are read is known.
        say: shows what was found.

    Raises:
        UserError: a file has none of the layouts, or cannot be read.
    """
    sources = find_sources(paths)
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        found = [_columns(source, place) for source in sources]
        if any(one != found[0] for one in found):
            raise UserError(f"{sources[0].shown} and {sources[-1].shown} have different layouts: convert one of them.")
        columns, header, year = found[0]
        say("layout", f"Amazon reviews {year}")
        of_items = _item_columns(find_sources(items)[0], place) if items else {}
        meta = [_strict_json(source, place) for source in find_sources(items)] if items else []
        return convert_files(paths, out, columns, meta, of_items, replace(options, header=header), say)


def _columns(source: Source, scratch: Path) -> tuple[dict[str, str], tuple[str, ...], str]:
    """Role to column, the header that the file lacks, and the year of the layout."""
    if kind_of(source) == "json":
        names = json_names(as_text(source, scratch, None).first)
        for columns, year in ((_OF_2023, "2023"), (_BEFORE, "2014 or 2018")):
            if set(columns.values()) <= set(names):
                return columns, (), year
        raise UserError(f"{source.shown} has none of the layouts of Amazon reviews; its keys are {names[:20]}.")
    layout = find_layout(source, scratch, Options(delimiter=","))
    if set(_OF_2023.values()) <= set(layout.names):
        return _OF_2023, (), "2023"
    rows = [row for row in layout.split(layout.text.first) if len(row) == 4]
    if rows and len(rows) == len(layout.text.first):
        is_item = [all(_ITEM.fullmatch(row[place]) for row in rows) for place in (0, 1)]
        if is_item[0] != is_item[1]:
            year = "2018" if is_item[0] else "2014"
            header = _HEADERS[year]
            return {role: role for role in header}, header, year
        if all(is_item):
            raise UserError(
                f"{source.shown}: items and users look alike in its first lines. Name the columns: convert FILE "
                "--header=user,item,rating,time --user=user --item=item --time=time, or item,user,..."
            )
    raise UserError(
        f"{source.shown} has none of the layouts of Amazon reviews (convert amazon --list); its first line is "
        f"{layout.text.first[0][:60]!r}."
    )


def _item_columns(source: Source, scratch: Path) -> dict[str, str]:
    text = as_text(source, scratch, None)
    names = json_names(text.first) or json_names([json.dumps(_literal(text.first[0]))])
    item = "parent_asin" if "parent_asin" in names else "asin"
    if item in names and "title" in names:
        category = next((name for name in _CATEGORIES if name in names), None)
        return {"item_id": item, "title": "title", **({"category": category} if category else {})}
    raise UserError(f"{source.shown} has no asin and title, as the items of Amazon have; its keys are {names[:20]}.")


def _literal(line: str) -> dict[str, object]:
    """The items of 2014 are written as Python does, with single quotes."""
    try:
        value = ast.literal_eval(line)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _strict_json(source: Source, scratch: Path) -> Path:
    """A file in which each line is JSON. Lines that Python can read and JSON cannot are written again."""
    text = as_text(source, scratch, None)
    if json_names(text.first[:1]):
        return source.path
    path = free_path(scratch).with_name(source.path.name + ".jsonl")
    with text.path.open(encoding="utf-8", newline="\n") as lines, path.open("w", encoding="utf-8") as copy:
        for number, line in enumerate(lines, start=1):
            value = _literal(line.strip())
            if line.strip() and not value:
                raise UserError(f"{source.shown}: line {number} is neither a JSON object nor one that Python wrote.")
            copy.write(json.dumps(value) + "\n" if value else "\n")
    return path
