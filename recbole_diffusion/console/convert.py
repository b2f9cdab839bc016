"""The arguments of the verb ``convert``."""

from __future__ import annotations

import argparse
from typing import Any

_USAGE = """\
recbole-diffusion convert FILE... --user=COL --item=COL --time=COL --out=dataset/NAME [--rating=COL]
                         [--items=FILE --item_id=COL --title=COL --category=COL] [options]
       recbole-diffusion convert FILE...                          show the columns, and propose a command
       recbole-diffusion convert movielens DIR|ZIP --out=dataset/NAME
       recbole-diffusion convert amazon FILE... [--items=FILE] --out=dataset/NAME
       recbole-diffusion convert movielens|amazon|recbole --list"""

_EPILOG = """\
  FILE is CSV, TSV or other delimited text, JSON Lines or Parquet, also in gzip or ZIP, or a folder of such files.
  Ids are texts: 007 stays 007. Times are ISO dates, or Unix times in s, ms, µs or ns.
  NAME.inter, NAME.item and NAME.yaml are written into the folder of --out, all or none. docs/your-own-data.md
"""


def add_convert(verbs: Any) -> None:
    """Add the verb."""
    convert = verbs.add_parser(
        "convert",
        help="make a data set of your own files, or of a well-known download",
        usage=_USAGE,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    convert.add_argument("files", nargs="*", metavar="FILE", help="files or folders; or movielens, amazon, recbole")
    for name, text in (
        ("user", "column of users"),
        ("item", "column of items"),
        ("time", "column of times; row: the rows are in the order of time already"),
        ("rating", "column of ratings"),
        ("item_id", "column of items in the file of --items; default: that of --item"),
        ("title", "column of titles there"),
        ("category", "column of categories there"),
    ):
        convert.add_argument(f"--{name}", f"--{name.replace('_', '-')}", dest=name, metavar="COL", help=text)
    convert.add_argument("--items", action="append", default=[], metavar="FILE", help="file with titles and categories")
    convert.add_argument("--out", metavar="DIR", help="folder of the data set; its name is that of the data set")
    convert.add_argument(
        "--min_interactions", type=int, default=1, metavar="K", help="drop users and items with fewer rows, repeatedly"
    )
    convert.add_argument(
        "--on_bad_rows", choices=("stop", "drop"), default="stop", help="rows that cannot be read; default: stop"
    )
    convert.add_argument("--encoding", metavar="E", help="of the text; default: it is found")
    convert.add_argument("--delimiter", metavar="D", help="between two fields of FILE; default: it is found")
    convert.add_argument("--quote", default='"', metavar="Q", help="quotation mark; none: there are none")
    convert.add_argument("--header", default="", metavar="A,B", help="names of the columns, if FILE has none")
    convert.add_argument("--time_format", metavar="F", help="of dates that are not ISO, e.g. %%d.%%m.%%Y")
    convert.add_argument("--decimal", default=".", metavar="C", help="decimal sign of ratings, '.' or ','")
    convert.add_argument("--category_separator", metavar="S", help="between two categories; default: | if there is any")
    convert.add_argument("--overwrite", action="store_true", help="write over the files of a data set")
    convert.add_argument("--list", action="store_true", help="list the known data sets, and where to get them")
