"""Queries to an archive, and the studies and series in its answers."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from agseg.errors import PacsError, UsageError

IMAGE_MODALITIES = ("CT", "MR", "US")
"""What may be pulled; SEG, SR and RTSTRUCT are results, ours or another's, and never come in as images."""

_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_DATES = re.compile(r"\d{8}(-\d{8})?|\d{8}-|-\d{8}")


@dataclass(frozen=True)
class PacsQuery:
    """Which series are wanted; what is left empty does not matter.

    ``dates`` is a day (``20260131``) or a range (``20260101-20260131``, open on either side).
    """

    study_uid: str = field(default="", repr=False)
    series_uid: str = field(default="", repr=False)
    accession: str = field(default="", repr=False)
    patient_id: str = field(default="", repr=False)
    dates: str = field(default="", repr=False)
    modalities: tuple[str, ...] = ("CT",)

    def __post_init__(self) -> None:
        for uid in (self.study_uid, self.series_uid):
            if uid and not _is_uid(uid):
                raise UsageError("a UID is digits and dots, at most 64 of them")
        if self.dates and not _are_dates(self.dates):
            raise UsageError("invalid date or date range", value=self.dates, expected="YYYYMMDD or YYYYMMDD-YYYYMMDD")
        if not any((self.study_uid, self.series_uid, self.accession, self.patient_id, self.dates)):
            raise UsageError("no search criteria given", hint="Name a study, an accession number or dates.")
        if not self.modalities or not set(self.modalities) <= set(IMAGE_MODALITIES):
            raise UsageError("only images are pulled", value=", ".join(self.modalities), expected=", ".join(IMAGE_MODALITIES))

    @property
    def study_keys(self) -> dict[str, str]:
        """Keyword -> value for a search on study level."""
        keys = {
            "StudyInstanceUID": self.study_uid,
            "AccessionNumber": self.accession,
            "PatientID": self.patient_id,
            "StudyDate": self.dates,
        }
        return {keyword: value for keyword, value in keys.items() if value}

    def wants(self, series: RemoteSeries) -> bool:
        """Whether a series of a study that matches is one of those wanted."""
        return series.modality in self.modalities and self.series_uid in ("", series.series_uid)


@dataclass(frozen=True)
class RemoteStudy:
    """A study in an archive; its UID is checked, and not shown.

    ``patient_id`` is None where the archive did not say it. ``n_series`` is the archive's own count, None without one.
    """

    study_uid: str = field(repr=False)
    patient_id: str | None = field(default=None, repr=False)
    n_series: int | None = None


@dataclass(frozen=True)
class RemoteSeries:
    """A series in an archive; its UIDs are checked, and not shown. Only both together name it.

    ``n_instances`` is the archive's own count, None without one.
    """

    study_uid: str = field(repr=False)
    series_uid: str = field(repr=False)
    modality: str
    patient_id: str | None = field(default=None, repr=False)
    n_instances: int | None = None


def _are_dates(text: str) -> bool:
    """Whether it is a day of the calendar, or two in order; a range may be open on one side."""
    if not _DATES.fullmatch(text):
        return False
    try:
        days = [datetime.strptime(day, "%Y%m%d") for day in text.split("-") if day]
    except ValueError:
        return False
    return days == sorted(days)


def _is_uid(text: str) -> bool:
    return len(text) <= 64 and _UID.fullmatch(text) is not None


def checked_uid(value: Any) -> str:
    """The UID that an archive answered with, or PacsError if it is none: it goes into paths of requests."""
    text = str(value or "").strip(" \0")
    if not _is_uid(text):
        raise PacsError("the archive returned an invalid UID")
    return text
