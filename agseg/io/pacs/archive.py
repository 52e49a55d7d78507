"""What is needed to talk to an archive (PACS), whichever protocol it speaks: its address, credentials, limits, a question.

``web`` speaks DICOMweb, ``dimse`` the older DIMSE services; both are an :class:`Archive`. Together with
``weights.sources`` these are the only places that use the network. UIDs and names of an archive are never put into messages,
logs or file names, and every UID is checked before it becomes part of a request.
"""

from __future__ import annotations

import ipaddress
import os
import re
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from time import sleep
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

from agseg.errors import Code, PacsError, UsageError

__all__ = [
    "Archive",
    "Credentials",
    "PacsAddress",
    "PacsLimits",
    "PacsQuery",
    "RemoteSeries",
    "TransientPacsError",
    "Transport",
    "checked_uid",
    "open_archive",
    "with_retries",
]

IMAGE_MODALITIES = ("CT", "MR", "US")
"""What may be pulled; SEG, SR and RTSTRUCT are results, ours or another's, and never come in as images."""

MOST_MATCHES = 100_000
"""More matches than this are not an answer to work with."""

LONGEST_PAUSE_S = 30.0
"""Longest wait between two attempts (s)."""

_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_AE_TITLE = re.compile(r"[\x21-\x5b\x5d-\x7e]{1,16}")
_DATES = re.compile(r"\d{8}(-\d{8})?|\d{8}-|-\d{8}")

T = TypeVar("T")


class Transport(StrEnum):
    """How an archive is spoken to."""

    WEB = "dicomweb"
    DIMSE = "dimse"


@dataclass(frozen=True)
class PacsAddress:
    """Where an archive is: ``https://host/dicom-web``, or ``dicom://CALLED_AE@host:port`` (``dicoms://`` with TLS)."""

    transport: Transport
    host: str
    port: int
    tls: bool
    url: str = ""
    called_aet: str = ""

    @classmethod
    def parse(cls, text: str) -> PacsAddress:
        """The address that a person wrote.

        Raises
        ------
        UsageError
            For an unknown scheme, a missing port or AE title, or credentials inside the address.
        """
        try:
            parts = urlsplit(text)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            raise UsageError("the archive's address is no URL", value=_shown(text), expected=_FORMS) from None
        if not host:
            raise UsageError("the archive's address names no host", value=_shown(text), expected=_FORMS)
        if parts.scheme in ("http", "https"):
            if parts.username or parts.password or parts.query or parts.fragment:
                raise UsageError(
                    "the archive's address holds more than host, port and path", hint="See docs/pacs.md for credentials."
                )
            tls = parts.scheme == "https"
            return cls(Transport.WEB, host, port or (443 if tls else 80), tls, url=text.rstrip("/"))
        if parts.scheme in ("dicom", "dicoms"):
            title = parts.username or ""
            if port is None or not _AE_TITLE.fullmatch(title) or parts.password or parts.path.strip("/"):
                raise UsageError("the archive's address needs an AE title and a port", value=_shown(text), expected=_FORMS)
            return cls(Transport.DIMSE, host, port, parts.scheme == "dicoms", called_aet=title)
        raise UsageError("unknown kind of address", value=_shown(text), expected=_FORMS)

    @property
    def place(self) -> str:
        """Host and port, for messages."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether the archive is on this machine."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def _shown(text: str) -> str:
    """The address without what may be a password."""
    return re.sub(r"//[^/]*@", "//...@", text)


_FORMS = "https://host/dicom-web or dicom://AETITLE@host:port (dicoms:// with TLS)"


@dataclass(frozen=True)
class Credentials:
    """User and password, or a bearer token; never shown."""

    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)

    def __bool__(self) -> bool:
        return bool(self.user or self.token)

    @classmethod
    def from_file(cls, path: Path) -> Credentials:
        """From a YAML file with ``user`` and ``password``, or ``token``, that nobody else may read.

        Raises
        ------
        UsageError
            If the file is missing, a link, readable for others, or holds anything else.
        """
        import yaml

        try:
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        except OSError:
            raise UsageError("the credentials file cannot be read, or is a link", path=path) from None
        with os.fdopen(descriptor, encoding="utf-8") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o077:
                raise UsageError(
                    "others may read the credentials file",
                    path=path, value=oct(status.st_mode & 0o777), expected="0o600", hint=f"chmod 600 {path}",
                )  # fmt: skip
            try:
                content = yaml.safe_load(file)
            except (yaml.YAMLError, UnicodeDecodeError):
                content = None
        known = {"user", "password", "token"}
        if not isinstance(content, dict) or not set(content) <= known or not all(isinstance(v, str) for v in content.values()):
            raise UsageError("the credentials file holds no credentials", path=path, expected="user and password, or token")
        return cls(**content)


@dataclass(frozen=True)
class PacsLimits:
    """How long to wait, how often to try, and what to trust.

    Parameters
    ----------
    timeout_s
        For connecting and for every answer.
    retries
        Attempts after the first, with growing pauses, where an archive is out of reach or busy.
    ca_file
        Certificates to trust instead of the system's; verification itself cannot be switched off.
    calling_aet
        Our own AE title (DIMSE).
    move_port
        Port to receive on with C-MOVE; None uses C-GET, which needs none (DIMSE).
    allow_plain_http
        Whether http without TLS may leave this machine; credentials never do.
    """

    timeout_s: float = 30.0
    retries: int = 3
    ca_file: Path | None = None
    calling_aet: str = "AGSEG"
    move_port: int | None = None
    allow_plain_http: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.timeout_s <= 3600 or not 0 <= self.retries <= 20:
            raise UsageError("time-out or number of retries out of range", expected="0 to 3600 s, 0 to 20 retries")
        if not _AE_TITLE.fullmatch(self.calling_aet):
            raise UsageError("an AE title has 1 to 16 printable characters", value=self.calling_aet)
        if self.ca_file is not None and not self.ca_file.is_file():
            raise UsageError("the file of trusted certificates does not exist", path=self.ca_file)


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
            raise UsageError("no day, or range of days", value=self.dates, expected="YYYYMMDD or YYYYMMDD-YYYYMMDD")
        if not any((self.study_uid, self.series_uid, self.accession, self.patient_id, self.dates)):
            raise UsageError("nothing says which studies are wanted", hint="Name a study, an accession number or dates.")
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


@dataclass(frozen=True)
class RemoteSeries:
    """A series in an archive; its UIDs are checked, and not shown."""

    study_uid: str = field(repr=False)
    series_uid: str = field(repr=False)
    modality: str


class Archive(Protocol):
    """What both protocols can do. Every method raises PacsError, after the retries where these make sense."""

    def echo(self) -> None:
        """Ask whether the archive is there and lets us in."""

    def find_series(self, query: PacsQuery) -> list[RemoteSeries]:
        """Series that match, in a stable order, each once."""

    def instances(self, study_uid: str, series_uid: str) -> frozenset[str]:
        """SOPInstanceUIDs that the archive holds of a series; empty if it knows none."""

    def fetch(self, series: RemoteSeries, accept: Callable[[Any], None]) -> None:
        """Give every instance (a pydicom data set) of the series to ``accept``, some perhaps twice."""

    def store(self, paths: Sequence[Path]) -> None:
        """Send the objects of these files; returns when the archive has taken them all."""


class TransientPacsError(PacsError):
    """Out of reach or busy: trying again may help."""


def with_retries(action: Callable[[], T], limits: PacsLimits) -> T:
    """Run the action again, after growing pauses, as long as its failure may pass and attempts are left."""
    for attempt in range(limits.retries + 1):
        try:
            return action()
        except TransientPacsError as error:
            if attempt == limits.retries:
                attempts = f"{limits.retries + 1} attempts" if limits.retries else "one attempt"
                raise PacsError(f"{error.message}, after {attempts}", value=error.value, hint=error.hint) from None
            sleep(min(LONGEST_PAUSE_S, 0.5 * 2**attempt))
    raise AssertionError("unreachable")


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
        raise PacsError("the archive answered with a UID that is none")
    return text


def open_archive(address: PacsAddress, *, credentials: Credentials, limits: PacsLimits) -> Archive:
    """The archive behind an address; nothing is sent yet.

    Raises
    ------
    UsageError
        If plain http would leave this machine, if credentials would leave it without TLS, or if a package is missing.
    """
    if address.transport is Transport.DIMSE:
        from agseg.io.pacs.dimse import DimseArchive

        return DimseArchive(address, limits)
    if not address.tls and not address.is_loopback:
        if not limits.allow_plain_http:
            raise UsageError(
                "plain http would send images unprotected", code=Code.USAGE, hint="Use https, or say --allow-plain-http."
            )
        if credentials:
            raise UsageError("credentials are never sent over plain http", hint="Use https.")
    from agseg.io.pacs.web import WebArchive

    return WebArchive(address, credentials, limits)
