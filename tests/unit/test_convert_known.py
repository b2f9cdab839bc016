"""The layouts of MovieLens and Amazon, from small files of the same shape."""

from __future__ import annotations

import gzip
import json
import zipfile
from pathlib import Path

import pytest

from recbole_diffusion.__main__ import main

RATED = [("1", "10", "5", 978300760), ("1", "20", "3.5", 978302109), ("2", "10", "4", 978301968)]


def written(name: str) -> list[list[str]]:
    return [line.split("\t") for line in Path(f"ds/{name}").read_text(encoding="utf-8").splitlines()]


def check(name: str) -> None:
    rows = [[user, item, str(time), f"{float(rating)}"] for user, item, rating, time in RATED]
    assert written(f"{name}/{name}.inter")[1:] == rows


def test_movielens_100k() -> None:
    folder = Path("ml-100k")
    folder.mkdir()
    lines = ["\t".join(map(str, row)) for row in RATED]
    (folder / "u.data").write_text("\n".join(lines) + "\n")
    flags = {"10": (3, 4), "20": (0,)}
    movies = [
        f"{item}|{title}|01-Jan-1995||http://x|" + "|".join("1" if place in flags[item] else "0" for place in range(19))
        for item, title in (("10", "Città, La (1998)"), ("20", 'The "Best" of (1995)'))
    ]
    (folder / "u.item").write_bytes(("\n".join(movies) + "\n").encode("latin-1"))
    (folder / "u1.base").write_text("not read")
    assert main(["convert", "movielens", "ml-100k", "--out=ds/hundred"]) == 0
    check("hundred")
    assert written("hundred/hundred.item")[1:] == [
        ["10", "Città, La (1998)", "Animation Children's"],
        ["20", 'The "Best" of (1995)', ""],
    ]


def test_movielens_1m_in_a_zip_file() -> None:
    with zipfile.ZipFile("ml-1m.zip", "w") as archive:
        archive.writestr("ml-1m/ratings.dat", "".join("::".join(map(str, row)) + "\n" for row in RATED))
        movies = "10::Misérables, Les: 1 (1995)::Drama|Musical\n20::B (1)::Sci-Fi\n"
        archive.writestr("ml-1m/movies.dat", movies.encode("latin-1"))
        archive.writestr("ml-1m/users.dat", "1::F::1::10::48067\n")
    assert main(["convert", "movielens", "ml-1m.zip", "--out=ds/million"]) == 0
    check("million")
    assert written("million/million.item")[1] == ["10", "Misérables, Les: 1 (1995)", "Drama Musical"]


def test_movielens_csv_without_movies(capsys: pytest.CaptureFixture[str]) -> None:
    Path("latest").mkdir()
    rows = "".join(f"{','.join(map(str, row))}\r\n" for row in RATED)
    Path("latest/ratings.csv").write_text(f"userId,movieId,rating,timestamp\r\n{rows}")
    assert main(["convert", "movielens", "latest", "--out=ds/latest"]) == 0
    check("latest")
    assert "there is no movies.csv" in capsys.readouterr().out
    Path("latest/movies.csv").write_text('movieId,title,genres\n10,"A, B (1)",(no genres listed)\n20,C,War|Drama\n')
    assert main(["convert", "movielens", "latest", "--out=ds/latest", "--overwrite"]) == 0
    assert written("latest/latest.item")[1:] == [["10", "A, B (1)", ""], ["20", "C", "War Drama"]]


USERS, ITEMS = ("A2SUAM1J3GNN3B", "A14VAT5EAX3D9S"), ("0000013714", "B00002243X")
REVIEWS = [(USERS[0], ITEMS[0], 5.0, 1386028800), (USERS[1], ITEMS[1], 3.0, 1386028801)]
EXPECTED = [[user, item, str(time), str(rating)] for user, item, rating, time in REVIEWS]


def test_amazon_ratings_of_2014_and_2018() -> None:
    Path("ratings_Beauty.csv").write_text("".join(f"{u},{i},{r},{t}\n" for u, i, r, t in REVIEWS))
    Path("All_Beauty.csv").write_text("".join(f"{i},{u},{r},{t}\n" for u, i, r, t in REVIEWS))
    for number, name in enumerate(("ratings_Beauty.csv", "All_Beauty.csv")):
        assert main(["convert", "amazon", name, f"--out=ds/a{number}"]) == 0
        assert written(f"a{number}/a{number}.inter")[1:] == EXPECTED


def test_amazon_reviews_before_2023() -> None:
    reviews = [
        {"reviewerID": user, "asin": item, "overall": rating, "unixReviewTime": time, "reviewText": 'Fine, "really"\n'}
        for user, item, rating, time in REVIEWS
    ]
    Path("reviews.json.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, reviews)).encode()))
    # The items of 2014 are written as Python does.
    loose = {"asin": ITEMS[0], "title": 'Kids\' "Book"', "categories": [["Books", "New Age"]]}
    Path("meta.json.gz").write_bytes(gzip.compress(f"{loose}\n{{'asin': '{ITEMS[1]}'}}\n".encode()))
    assert main(["convert", "amazon", "reviews.json.gz", "--items=meta.json.gz", "--out=ds/b"]) == 0
    assert written("b/b.inter")[1:] == EXPECTED
    assert written("b/b.item")[1:] == [[ITEMS[0], 'Kids\' "Book"', "Books New_Age"], [ITEMS[1], "", ""]]
    Path("meta.json").write_text(json.dumps({"asin": ITEMS[0], "title": "T", "category": ["Books", "Art"]}) + "\n")
    assert main(["convert", "amazon", "reviews.json.gz", "--items=meta.json", "--out=ds/c"]) == 0
    assert written("c/c.item")[1:] == [[ITEMS[0], "T", "Books Art"]]


def test_amazon_of_2023() -> None:
    lines = [
        json.dumps({"rating": r, "title": "x", "asin": "other", "parent_asin": i, "user_id": u, "timestamp": t * 1000})
        for u, i, r, t in REVIEWS
    ]
    Path("All_Beauty.jsonl").write_text("\n".join(lines))
    Path("meta.jsonl").write_text(
        json.dumps({"main_category": "M", "title": "T", "categories": ["A b", "C"], "parent_asin": ITEMS[1]})
    )
    assert main(["convert", "amazon", "All_Beauty.jsonl", "--items=meta.jsonl", "--out=ds/d"]) == 0
    assert written("d/d.inter")[1:] == EXPECTED
    assert written("d/d.item")[1:] == [[ITEMS[1], "T", "A_b C"]]
    rows = "".join(f"{u},{i},{r},{t}000\n" for u, i, r, t in REVIEWS)
    Path("All_Beauty.csv").write_text(f"user_id,parent_asin,rating,timestamp\n{rows}")
    assert main(["convert", "amazon", "All_Beauty.csv", "--out=ds/e", "--min_interactions=1"]) == 0
    assert written("e/e.inter")[1:] == EXPECTED


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["movielens", "empty"], "'empty': there is none of u.data, ratings.dat, ratings.csv"),
        (["movielens", "other.csv"], "'other.csv': must be a folder or a ZIP file"),
        (["movielens", "nowhere"], "there is no file 'nowhere'"),
        (["movielens"], "convert movielens: give the file or folder"),
        (["movielens", "empty", "--user=u"], "user: cannot be given; the layout of movielens is known"),
        (["amazon", "other.csv"], "other.csv has none of the layouts of Amazon reviews"),
        (["amazon", "alike.csv"], "alike.csv: items and users look alike"),
        (["amazon", "other.jsonl"], "other.jsonl has none of the layouts of Amazon reviews; its keys are ['a']"),
        (["recbole", "ml-1m"], "these data sets need no conversion"),
        (["--list"], "Give one of movielens, amazon, recbole"),
    ],
)
def test_bad_input(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty").mkdir()
    Path("other.csv").write_text("a,b\n1,2\n")
    Path("alike.csv").write_text("B000000001,B000000002,5,1386028800\n")
    Path("other.jsonl").write_text('{"a": 1}\n')
    assert main(["convert", *arguments, "--out=ds/x"]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not Path("ds").exists()


def test_lists(capsys: pytest.CaptureFixture[str]) -> None:
    for family, expected in (("movielens", "ml-32m"), ("amazon", "2018"), ("recbole", "amazon-books")):
        assert main(["convert", family, "--list"]) == 0
        assert expected in capsys.readouterr().out
