"""Times of users' files: which unit or format is taken, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_diffusion.config.settings import UserError
from recbole_diffusion.conversion.times import BAD, SECONDS, read_times

NOON = 1704628800  # 2024-01-07 12:00 UTC


def read(*texts: str | None, format: str | None = None) -> tuple[list[float | None], str]:
    frame = pl.DataFrame({"time": pl.Series(texts, dtype=pl.String), "line": range(2, len(texts) + 2)})
    times = read_times(frame, "when", format, pl.format("line {}", "line"))
    bad = times.frame[BAD].to_list()
    assert times.frame[SECONDS].null_count() >= sum(bad)
    return ["bad" if wrong else time for wrong, time in zip(bad, times.frame[SECONDS], strict=True)], times.note


@pytest.mark.parametrize(
    ("texts", "seconds", "note"),
    [
        ([f"{NOON}", f"{NOON + 1}"], [NOON, NOON + 1], "Unix times in seconds"),
        ([f"{NOON}.25", f"{NOON}.0"], [NOON + 0.25, NOON], "Unix times in seconds"),
        (["1.7046288e9"], [NOON], "Unix times in seconds"),
        ([f"{NOON}123"], [NOON + 0.123], "Unix times in milliseconds"),
        ([f"{NOON}123456", None], [NOON + 0.123456, None], "Unix times in microseconds"),
        ([f"{NOON}123456789"], [NOON + 0.123456], "Unix times in nanoseconds, cut to microseconds"),
        (["1", "2", "300"], [1, 2, 300], "numbers that are no dates (below 100,000,000), kept as they are"),
        (["20240107", "20231231"], [NOON - 43200, 1703980800], "dates written YYYYMMDD, taken as UTC"),
        (["2024-01-07T12:00:00Z", "2024-01-07 13:00+01:00"], [NOON, NOON], "ISO dates with time zones"),
        (["2024-01-07T06:30:00.5-0530", "2024-01-07T12:00:00 UTC"], [NOON + 0.5, NOON], "ISO dates with time zones"),
        (["2024-01-07T14:00:00+02"], [NOON], "ISO dates with time zones"),
        (
            ["2024-01-07 12:00:00", "2024-01-07", "2024/01/07 12:00", "2024-01-07T12:00:00,123456789", ""],
            [NOON, NOON - 43200, NOON, NOON + 0.123456, None],
            "ISO dates without a time zone, taken as UTC",
        ),
        (["1969-12-31T23:59:59Z"], [-1], "ISO dates with time zones"),
        (["", None, "NaN", "null"], [None] * 4, "none"),
    ],
)
def test_units_and_formats(texts: list[str | None], seconds: list[float | None], note: str) -> None:
    assert read(*texts) == (seconds, note)


def test_what_is_no_time_is_bad() -> None:
    texts = ["2024-01-07", "2024-02-30", "2024-01-07 24:00", "2024-01-07 12:60", "yesterday", "7.1.2024", "n/a"]
    assert read(*texts)[0] == [NOON - 43200, *["bad"] * 5, None]
    assert read(str(NOON), "x", "")[0] == [NOON, "bad", None]
    assert read("x", "y")[0] == ["bad", "bad"]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([f"{NOON}", f"{NOON}000"], "milliseconds (line 3, ...) and seconds (line 2, ...). All must be in one unit"),
        ([f"{NOON}"] * 9 + ["0"], "plain numbers (line 11, ...) and seconds (line 2, line 3, line 4, ...)"),
        (["2024-01-07", f"{NOON}"], "dates without a time zone (line 2, ...) and numbers (line 3, ...)"),
        (
            ["2024-01-07 12:00", "2024-01-07 12:00Z"],
            "dates with a time zone (line 3, ...) and dates without a time zone",
        ),
    ],
)
def test_mixed_columns_are_refused(texts: list[str], message: str) -> None:
    with pytest.raises(UserError) as error:
        read(*texts)
    assert message in str(error.value)
    assert str(error.value).startswith("time='when': the column mixes ")


def test_a_format_of_the_user() -> None:
    assert read("07.01.2024 12:00", "?", "", format="%d.%m.%Y %H:%M") == (
        [NOON, "bad", None],
        "dates of the format %d.%m.%Y %H:%M, taken as UTC",
    )
    assert read("01/07/2024", format="%m/%d/%Y")[0] == [NOON - 43200]
    assert read("07 Jan 2024 14:00 +0200", format="%d %b %Y %H:%M %z")[0] == [NOON]


MOMENTS = st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1))
ZONES = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.builds(lambda moment, zone: moment.replace(tzinfo=zone), MOMENTS, ZONES), min_size=1, max_size=20))
def test_every_date_that_python_writes_is_read(moments: list[datetime]) -> None:
    seconds, _ = read(*(moment.isoformat() for moment in moments))
    assert seconds == [moment.timestamp() for moment in moments]
    plain = [moment.astimezone(UTC).replace(tzinfo=None) for moment in moments]
    assert read(*(moment.isoformat(" ") for moment in plain))[0] == seconds
