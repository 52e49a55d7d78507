"""Days as people and timers say them (``today``, ``36h``), as the range of dates that an archive is asked for."""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta

from agseg.errors import UsageError

_UNITS_S = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_LENGTH = re.compile(r"(\d{1,6}(?:\.\d+)?)\s*(s|m|min|h|d|w)")
_ISO = re.compile(r"(\d{4})-(\d{2})-(\d{2})")


def seconds_of(text: str | float) -> float:
    """A length of time in seconds: ``90s``, ``5m``, ``36h``, ``2d``, ``1w``; a number alone is seconds.

    Raises
    ------
    UsageError
        For anything else.
    """
    if isinstance(text, int | float) and not isinstance(text, bool):
        return float(text)
    found = _LENGTH.fullmatch(str(text).strip().lower())
    if found is not None:
        return float(found[1]) * _UNITS_S[found[2]]
    try:
        return float(text)
    except ValueError:
        raise UsageError("this is no length of time", value=str(text), expected="90s, 5m, 36h, 2d or 1w") from None


def dates_since(text: str, *, now: datetime) -> str:
    """The days from then on that a length of time before ``now``, or a day, touches: ``20260130-``.

    Studies have dates, and arrive later than they were taken: so whole days, this machine's, without an end. What was
    fetched before is not fetched again.

    Raises
    ------
    UsageError
        If it is neither.
    """
    if (day := _day(text, today=now.date())) is not None:
        return f"{day:%Y%m%d}-"
    try:
        return f"{(now - timedelta(seconds=seconds_of(text))).date():%Y%m%d}-"
    except (UsageError, OverflowError):
        raise UsageError(
            "this says no time to begin with", value=text, expected="36h, 2d, today, yesterday, 2026-01-31 or 20260131"
        ) from None


def dates_of(text: str, *, today: date) -> str:
    """One day, or a range, as DICOM writes it: of ``today``, ``yesterday``, ``2026-01-31``; anything else stays as it is."""
    day = _day(text, today=today)
    return text if day is None else f"{day:%Y%m%d}"


def _day(text: str, *, today: date) -> date | None:
    word = text.strip().lower()
    if word in ("today", "yesterday"):
        return today - timedelta(days=word == "yesterday")
    if (found := _ISO.fullmatch(word)) is not None:
        word = "".join(found.groups())
    if not re.fullmatch(r"\d{8}", word):
        return None
    try:
        return datetime.strptime(word, "%Y%m%d").date()
    except ValueError:
        return None
