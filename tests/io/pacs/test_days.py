from __future__ import annotations

from datetime import date, datetime

import pytest

from agseg.errors import UsageError
from agseg.io.pacs.days import dates_of, dates_since, seconds_of
from agseg.io.pacs.query import PacsQuery

NOW = datetime(2026, 3, 1, 0, 30)


@pytest.mark.parametrize(
    ("text", "dates"),
    [("36h", "20260227-"), ("1h", "20260228-"), ("20m", "20260301-"), ("2d", "20260227-"), ("today", "20260301-"),
     ("yesterday", "20260228-"), ("2026-01-31", "20260131-"), ("20260131", "20260131-"), ("1w", "20260222-"),
     ("3600", "20260228-")],
)  # fmt: skip
def test_since_is_whole_days_without_an_end(text: str, dates: str) -> None:
    assert dates_since(text, now=NOW) == dates
    PacsQuery(dates=dates)


@pytest.mark.parametrize("text", ["", "soon", "-2d", "2 fortnights", "2026-02-30", "9999999d", "1e999"])
def test_a_time_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        dates_since(text, now=NOW)


def test_days_are_said_as_people_say_them() -> None:
    today = date(2026, 3, 1)
    said = ("today", "yesterday", "2026-01-31", "20260131", "20260101-20260131", "")
    assert [dates_of(text, today=today) for text in said] == ["20260301", "20260228", "20260131", *said[3:]]


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("5m", 300), ("1.5h", 5400), ("2d", 172_800), (60, 60), ("60", 60)])
def test_lengths_of_time(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds
