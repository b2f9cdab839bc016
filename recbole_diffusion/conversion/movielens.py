"""The layouts of MovieLens: 100K (u.data), 1M and 10M (``::``), and the CSV files of all later releases."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import polars as pl

from recbole_diffusion.config.settings import UserError
from recbole_diffusion.conversion.convert import finish
from recbole_diffusion.conversion.interactions import read_interactions, read_table
from recbole_diffusion.conversion.items import Items, make_items
from recbole_diffusion.conversion.request import NO_QUOTES, Converted, Options, Say, counted
from recbole_diffusion.conversion.sources import Source, find_sources, unpack
from recbole_diffusion.conversion.table import Table
from recbole_diffusion.conversion.write import check_out

_GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
_NO_GENRE = ("(no genres listed)", "unknown")
_ROLES = ("user", "item", "rating", "time")


class _Layout(NamedTuple):
    """One release.

    Args:
        ratings, movies: names of its files.
        options, movie_options: how they are read.
        columns: of the ratings, in the order user, item, rating, time.
        movie_columns: item, title, and genres.
    """

    ratings: str
    movies: str
    options: Options
    columns: tuple[str, ...]
    movie_options: Options
    movie_columns: tuple[str, ...]


_CSV = Options()
_LAYOUTS = (
    _Layout(
        "u.data", "u.item", Options(delimiter="\t", quote=NO_QUOTES, header=_ROLES), _ROLES,
        Options(delimiter="|", quote=NO_QUOTES, header=("item", "title", "released", "video", "url", *_GENRES)),
        ("item", "title", *_GENRES),
    ),
    _Layout(
        "ratings.dat", "movies.dat", Options(delimiter="::", quote=NO_QUOTES, header=_ROLES), _ROLES,
        Options(delimiter="::", quote=NO_QUOTES, header=("item", "title", "genres")), ("item", "title", "genres"),
    ),
    _Layout(
        "ratings.csv", "movies.csv", _CSV, ("userId", "movieId", "rating", "timestamp"), _CSV,
        ("movieId", "title", "genres"),
    ),
)  # fmt: skip


def convert_movielens(path: str | Path, out: str | Path, options: Options, say: Say) -> Converted:
    """Convert a release of MovieLens: its folder or its ZIP file.

    Args:
        path: the folder or ZIP file.
        out: the folder of the data set.
        options: which rows are kept. How files are read is known.
        say: shows what was found.

    Raises:
        UserError: no layout of MovieLens is there, or it cannot be read.
    """
    folder = check_out(out, options.overwrite)
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        there = unpack(_existing(path), place, [name for one in _LAYOUTS for name in (one.ratings, one.movies)])
        layout = next((one for one in _LAYOUTS if one.ratings in there), None)
        if layout is None:
            names = ", ".join(one.ratings for one in _LAYOUTS)
            raise UserError(f"{str(path)!r}: there is none of {names}, the ratings of MovieLens.")
        room = place / "read"
        room.mkdir()
        movies = _movies(there[layout.movies], layout, room) if layout.movies in there else None
        if movies is None:
            say("titles", f"none: there is no {layout.movies}")
        chosen = replace(
            layout.options, min_interactions=options.min_interactions, drop_bad_rows=options.drop_bad_rows,
            overwrite=options.overwrite,
        )  # fmt: skip
        columns = dict(zip(_ROLES, layout.columns, strict=True))
        rows = read_interactions([Source(there[layout.ratings])], room, chosen, columns)
    return finish(folder, rows, movies, chosen, [str(path)], say)


def _existing(path: str | Path) -> Path:
    if not Path(path).is_dir():
        find_sources([path])  # refuses a file that is not there
    return Path(path)


def _movies(path: Path, layout: _Layout, scratch: Path) -> Items:
    wanted = {name: name for name in layout.movie_columns}
    table = read_table(Source(path), scratch, layout.movie_options, wanted, dict.fromkeys(wanted, pl.String))
    if table.bad:
        raise UserError(f"{path.name}: {table.bad[0].shown()}.")
    item = layout.movie_columns[0]
    genres: Callable[[Table], pl.Expr] = _of_flags if layout.ratings == "u.data" else _of_text
    frame = table.frame.select(item=pl.col(item), title=pl.col("title"), category=genres(table))
    return make_items(path.name, frame, "|", [("items", f"{path.name}: {counted(len(frame), 'row')}, {table.note}")])


def _of_text(table: Table) -> pl.Expr:
    return pl.when(~pl.col("genres").is_in(_NO_GENRE)).then(pl.col("genres"))


def _of_flags(table: Table) -> pl.Expr:
    """Genres from columns of 0 and 1."""
    names = [name for name in _GENRES if name not in _NO_GENRE]
    return pl.concat_str(
        [pl.when(pl.col(name) == "1").then(pl.lit(name)) for name in names], separator="|", ignore_nulls=True
    )
