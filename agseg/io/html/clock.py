"""Times for people: the clock of the machine that wrote the page, with its time zone. Records keep UTC."""

from __future__ import annotations

from datetime import datetime


def _local(iso: str) -> datetime | None:
    try:
        return datetime.fromisoformat(iso).astimezone()
    except ValueError:
        return None


def local_time(iso: str) -> str:
    """``2026-11-29 08:49:16 CET`` from a record's time; the text itself if it is no time."""
    found = _local(iso)
    return iso if found is None else found.strftime("%Y-%m-%d %H:%M:%S %Z").strip()


def local_minute(iso: str) -> str:
    """``2026-11-29 08:49``, for tables."""
    found = _local(iso)
    return iso[:16] if found is None else found.strftime("%Y-%m-%d %H:%M")
