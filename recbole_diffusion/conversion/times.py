"""Reads a column of times: ISO dates, dates of a given format, or epochs in seconds to nanoseconds. All in one unit."""

from __future__ import annotations

from typing import NamedTuple

import polars as pl

from recbole_diffusion.config.settings import UserError

SECONDS = "seconds"  # the column that is made: Unix time, float64
BAD = "bad"  # rows whose time cannot be read
_ISO = r"^\d{4}[-/]\d{2}[-/]\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2}(?:[.,]\d{1,9})?)?"
_ZONE = r" ?(?:[Zz]|UTC|[+-]\d{2}(?::?\d{2})?)"
_NUMBER = r"^[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?$"
MISSING = ("", "na", "n/a", "nan", "nat", "null", "none", "<na>")
# From which absolute number on a time is in this unit. Seconds start in March 1973, milliseconds in March 1973 too, ...
_UNITS = ((1e17, "nanoseconds", 1e9), (1e14, "microseconds", 1e6), (1e11, "milliseconds", 1e3), (1e8, "seconds", 1.0))
_PLAIN = "plain numbers"
_LARGEST = 2.0**63
_DAY, _HOUR = 86_400, 3600


class Times(NamedTuple):
    """Times that were read.

    Args:
        frame: with :data:`SECONDS` (null if missing or unreadable) and :data:`BAD` added.
        note: which unit or format was taken.
    """

    frame: pl.DataFrame
    note: str


def is_missing(text: pl.Expr) -> pl.Expr:
    """Whether a text stands for a missing number or time."""
    return text.is_null() | text.str.strip_chars().str.to_lowercase().is_in(MISSING)


def read_times(frame: pl.DataFrame, column: str, format: str | None, where: pl.Expr) -> Times:
    """Read the column ``time`` of a frame.

    Args:
        frame: with the text column ``time``.
        column: the user's name of it.
        format: as of ``strptime``; None for ISO dates and numbers.
        where: a text for each row that says where it is, for errors.

    Raises:
        UserError: dates and numbers, dates with and without zone, or units are mixed; or ``format`` is wrong.
    """
    if format is not None:
        return _by_format(frame, format)
    if (times := _plain_epochs(frame)) is not None:
        return times
    text = pl.col("time").str.strip_chars()
    zone = text.str.contains(_ISO + _ZONE + ")$")
    kind = (
        pl.when(is_missing(text)).then(None)
        .when(text.str.contains(_NUMBER)).then(pl.lit("numbers"))
        .when(zone).then(pl.lit("dates with a time zone"))
        .when(text.str.contains(_ISO + ")?$")).then(pl.lit("dates without a time zone"))
        .otherwise(pl.lit("no times"))
        .cast(pl.Categorical)
    )  # fmt: skip
    frame = frame.lazy().with_columns(kind=kind).collect(engine="streaming")
    kinds = _first_places(frame, "kind", where)
    kinds.pop("no times", None)
    if len(kinds) > 1:
        raise UserError(f"time={column!r}: the column mixes {_mixed(kinds)}. All must be of one kind.")
    if not kinds:
        return Times(frame.select(pl.exclude("kind"), **_nothing(frame)), "none")
    if "numbers" in kinds:
        return _numbers(frame, column, where)
    return _dates(frame, next(iter(kinds)))


def _plain_epochs(frame: pl.DataFrame) -> Times | None:
    """The usual case, without a look at each text: whole numbers in one unit. None if it is another."""
    whole = frame["time"].cast(pl.Int64, strict=False)
    if whole.null_count() > frame["time"].null_count() or whole.null_count() == len(whole):
        return None
    least, largest = whole.abs().min(), whole.abs().max()
    for low, name, divisor in _UNITS[1:]:
        if low <= least and largest < low * 1000:  # type: ignore[operator]
            seconds = divided(whole, divisor).alias(SECONDS)
            return Times(frame.with_columns(seconds, pl.lit(False).alias(BAD)), f"Unix times in {name}")
    return None


def divided(whole: pl.Series, divisor: float) -> pl.Series:
    """Exactly rounded quotients. polars multiplies by the reciprocal, which gives 1.1230001 where 1.123 is right."""
    return pl.Series(whole.cast(pl.Float64).to_numpy() / divisor, nan_to_null=True)


def _nothing(frame: pl.DataFrame) -> dict[str, pl.Series]:
    seconds = pl.Series([None] * len(frame), dtype=pl.Float64)
    return {SECONDS: seconds, BAD: frame["kind"].is_not_null()}


def _first_places(frame: pl.DataFrame, kind: str, where: pl.Expr) -> dict[str, str]:
    """For each kind, the places of its first rows."""
    kinds = frame[kind].drop_nulls().unique().cast(pl.String).sort().to_list()
    places = {}
    for name in kinds:
        first = frame.lazy().filter(pl.col(kind).cast(pl.String) == name).head(3).select(where=where).collect()["where"]
        places[name] = ", ".join(first)
    return places


def _mixed(places: dict[str, str]) -> str:
    return " and ".join(f"{name} ({lines}, ...)" for name, lines in places.items())


def _dates(frame: pl.DataFrame, kind: str) -> Times:
    """ISO dates. Day and time of day have fixed places; the zone is the end."""
    text = pl.col("time").str.strip_chars()
    day = text.str.slice(0, 10).str.replace_all("/", "-", literal=True).str.to_date("%Y-%m-%d", strict=False)
    hour, minute = (text.str.slice(place, 2).cast(pl.Int64, strict=False) for place in (11, 14))
    second = text.str.slice(16).str.extract(r"^:(\d{2})").cast(pl.Int64)
    fraction = text.str.extract(r":\d{2}[.,](\d{1,9})").str.pad_end(9, "0").str.slice(0, 6).cast(pl.Int64)
    zone = text.str.slice(10).str.extract(r"([+-]\d{2}(?::?\d{2})?)$").str.replace_all(":", "", literal=True)
    minutes = zone.str.slice(3, 2).cast(pl.Int64, strict=False).fill_null(0)
    shift = zone.str.slice(1, 2).cast(pl.Int64) * _HOUR + minutes * 60
    shift = pl.when(zone.str.starts_with("-")).then(-shift).otherwise(shift)
    of_day = hour.fill_null(0) * _HOUR + minute.fill_null(0) * 60 + second.fill_null(0)
    whole = day.cast(pl.Int32).cast(pl.Int64) * _DAY + of_day - shift.fill_null(0)
    # 24 hours and 60 seconds are no times of day here; to_date refuses days such as the 30th of February.
    valid = (hour.fill_null(0) < 24) & (minute.fill_null(0) < 60) & (second.fill_null(0) < 60)
    micro = pl.when(valid & pl.col("kind").cast(pl.String).eq(kind)).then(whole * 1_000_000 + fraction.fill_null(0))
    note = "ISO dates with time zones" if "with a" in kind else "ISO dates without a time zone, taken as UTC"
    return Times(_seconds(frame, micro, 1e6), note)


def _numbers(frame: pl.DataFrame, column: str, where: pl.Expr) -> Times:
    text = pl.col("time").str.strip_chars()
    is_number = pl.col("kind").cast(pl.String) == "numbers"
    compact = frame.lazy().filter(is_number).select(
        day=text.str.contains(r"^(?:19|20)\d{6}$") & text.str.to_date("%Y%m%d", strict=False).is_not_null()
    )  # fmt: skip
    if compact.select(pl.col("day").all()).collect(engine="streaming").item():
        note = "dates written YYYYMMDD, taken as UTC"
        return Times(_seconds(frame, text.str.to_date("%Y%m%d", strict=False).cast(pl.Int64) * _DAY), note)
    whole = text.cast(pl.Int64, strict=False)
    number = pl.when(whole.is_not_null()).then(whole.cast(pl.Float64)).otherwise(text.cast(pl.Float64, strict=False))
    number = pl.when(is_number & (number.abs() < _LARGEST)).then(number)
    size = number.abs()
    unit = pl.when(number.is_null()).then(None)
    for least, name, _ in _UNITS:
        unit = unit.when(size >= least).then(pl.lit(name))  # type: ignore[assignment]
    unit = unit.otherwise(pl.lit(_PLAIN)).cast(pl.Categorical)  # type: ignore[assignment]
    frame = frame.lazy().with_columns(unit=unit).collect(engine="streaming")
    units = _first_places(frame, "unit", where)
    frame = frame.drop("unit")
    if len(units) > 1:
        raise UserError(f"time={column!r}: the column mixes {_mixed(units)}. All must be in one unit.")
    name = next(iter(units), _PLAIN)
    if name == _PLAIN:
        return Times(_seconds(frame, number), "numbers that are no dates (below 100,000,000), kept as they are")
    if name == "nanoseconds":  # whole ones are cut to microseconds first, which a 64-bit float holds exactly
        micro = pl.when(whole.is_not_null()).then(whole // 1000).otherwise((number / 1000).cast(pl.Int64))
        return Times(_seconds(frame, micro, 1e6), "Unix times in nanoseconds, cut to microseconds")
    divisor = next(divisor for _, unit_name, divisor in _UNITS if unit_name == name)
    return Times(_seconds(frame, number, divisor), f"Unix times in {name}")


def _seconds(frame: pl.DataFrame, numbers: pl.Expr, divisor: float = 1.0) -> pl.DataFrame:
    """The frame with seconds, which are ``numbers`` by ``divisor``."""
    found = frame.lazy().select(numbers).collect(engine="streaming").to_series()
    seconds = divided(found, divisor)
    bad = seconds.is_null() & frame["kind"].is_not_null()
    return frame.drop("kind").with_columns(seconds.alias(SECONDS), bad.alias(BAD))


def _by_format(frame: pl.DataFrame, format: str) -> Times:
    text = pl.col("time").str.strip_chars()
    clock = any(sign in format for sign in ("%H", "%I", "%T", "%R", "%s", "%X"))
    parsed = text.str.to_datetime(format, strict=False) if clock else text.str.to_date(format, strict=False)
    try:
        micro = parsed.cast(pl.Datetime("us")).cast(pl.Int64)
        done = _seconds(
            frame.with_columns(kind=pl.when(~is_missing(text)).then(True)), pl.when(~is_missing(text)).then(micro), 1e6
        )
    except pl.exceptions.PolarsError as error:
        raise UserError(f"time_format={format!r}: {' '.join(str(error).split())[:150]}") from error
    zone = "" if "%z" in format or "%Z" in format or "%s" in format else ", taken as UTC"
    return Times(done, f"dates of the format {format}{zone}")
