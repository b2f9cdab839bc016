"""Well-known data sets: what they are called, how their files look, and where to get them. Nothing is downloaded."""

from __future__ import annotations

from recbole_diffusion.config.reading import recbole_properties

_MOVIELENS_PAGE = "https://grouplens.org/datasets/movielens/"
_AMAZON_PAGES = {
    "2014": "https://jmcauley.ucsd.edu/data/amazon/index_2014.html",
    "2018": "https://nijianmo.github.io/amazon/",
    "2023": "https://amazon-reviews-2023.github.io/",
}
_RECBOLE_PAGE = "https://recbole.io/dataset_list.html"
MOVIELENS = (
    ("ml-100k", "u.data, u.item"),
    ("ml-1m", "ratings.dat, movies.dat"),
    ("ml-10m", "ratings.dat, movies.dat"),
    ("ml-20m", "ratings.csv, movies.csv"),
    ("ml-25m", "ratings.csv, movies.csv"),
    ("ml-32m", "ratings.csv, movies.csv"),
    ("ml-latest-small", "ratings.csv, movies.csv"),
    ("ml-latest", "ratings.csv, movies.csv"),
)
_AMAZON = (
    ("2014", "ratings only: CSV without a header (user, item, rating, time); reviews and meta: JSON Lines"),
    ("2018", "ratings only: CSV without a header (item, user, rating, time); reviews and meta: JSON Lines"),
    ("2023", "ratings only: CSV with a header; reviews and meta: JSON Lines, times in milliseconds"),
)


def listing(family: str) -> list[str]:
    """The lines of ``convert FAMILY --list``.

    Raises:
        RecBoleMissing: ``recbole``, and RecBole is not installed.
    """
    if family == "movielens":
        return [*(f"{name:<16} {files}" for name, files in MOVIELENS), f"download: {_MOVIELENS_PAGE}"]
    if family == "amazon":
        return [f"Amazon reviews {year}: {layout}\n  download: {_AMAZON_PAGES[year]}" for year, layout in _AMAZON]
    names = ["ml-100k", *recbole_properties("dataset", "url.yaml")]
    return [
        *names,
        f"{len(names)} data sets, described on {_RECBOLE_PAGE}",
        "They need no conversion: run --dataset=NAME downloads one. ml-100k is installed with RecBole.",
    ]
