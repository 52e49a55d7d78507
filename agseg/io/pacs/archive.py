"""What an archive (PACS) can do for us, whichever protocol it speaks, and how often we try.

``web`` speaks DICOMweb, ``dimse`` the older DIMSE services; both are an :class:`Archive`, and ``connect`` opens the right one.
UIDs and names of an archive are never put into messages, logs or file names, and every UID is checked before it becomes part
of a request. Whatever a server answers ends as a :class:`agseg.errors.PacsError`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from time import sleep
from typing import Protocol, TypeVar

from agseg.errors import AgsegError, PacsError
from agseg.io.pacs.limits import PacsLimits
from agseg.io.pacs.query import PacsQuery, RemoteSeries, RemoteStudy

MOST_MATCHES = 100_000
"""More matches than this are not an answer to work with."""

LONGEST_PAUSE_S = 30.0
"""Longest wait between two attempts (s)."""

T = TypeVar("T")

Accept = Callable[[bytes], None]
"""Takes one object: the bytes of a DICOM file."""


class Need(StrEnum):
    """What a night asks an archive for."""

    FIND = "find"
    RETRIEVE = "retrieve"
    STORE = "store"


@dataclass(frozen=True)
class ServiceAnswer:
    """What came of asking for one service.

    ``problem`` is None if it is granted; ``hint`` is the likely reason, and what to do. ``is_known`` is False where nothing
    could be asked without changing the archive, or because it is empty.
    """

    need: Need
    service: str
    problem: str | None = None
    hint: str | None = None
    is_known: bool = True


class Archive(Protocol):
    """What both protocols can do. Every method raises PacsError, after the retries where these make sense."""

    @property
    def place(self) -> str:
        """What tells this archive from another, for the record of what it was sent; no secret is in it."""

    def echo(self) -> None:
        """Ask whether the archive is there and lets us in."""

    def check(self, needs: Sequence[Need]) -> list[ServiceAnswer]:
        """Ask for each of these services, in a way that moves and changes nothing."""

    def find_studies(self, query: PacsQuery) -> list[RemoteStudy]:
        """Studies that match, in a stable order, each once."""

    def find_series(self, study: RemoteStudy, query: PacsQuery) -> list[RemoteSeries]:
        """Series of the study that match, in a stable order, each once."""

    def find_patient(self, study_uid: str) -> str | None:
        """The PatientID that the archive has the study under; None if it has no such study, or does not say."""

    def instances(self, study_uid: str, series_uid: str, *, expected: int | None = None) -> frozenset[str]:
        """SOPInstanceUIDs that the archive holds of a series; empty if it knows none. Fewer than ``expected`` are an error."""

    def fetch(self, series: RemoteSeries, instances: frozenset[str], accept: Accept) -> None:
        """Give every instance of the series to ``accept``, some perhaps twice."""

    def fetch_object(self, study_uid: str, series_uid: str, sop_uid: str, accept: Accept) -> None:
        """Give one object to ``accept``."""

    def store(self, paths: Sequence[Path]) -> dict[Path, PacsError | None]:
        """Send the objects of these files; None for each that the archive has said it has taken."""


class TransientPacsError(PacsError):
    """Out of reach, busy or too slow: trying again may help."""


class UnreachablePacsError(PacsError):
    """The archive did not answer, after all attempts: it need not be asked again in this run."""


class NoAnswerError(TransientPacsError):
    """There is no connection to the archive."""


def with_retries(action: Callable[[], T], limits: PacsLimits) -> T:
    """Run the action again, after growing pauses, as long as its failure may pass and attempts are left."""
    for attempt in range(limits.retries + 1):
        try:
            return action()
        except TransientPacsError as error:
            if attempt == limits.retries:
                attempts = f"{limits.retries + 1} attempts" if limits.retries else "one attempt"
                kind = UnreachablePacsError if isinstance(error, NoAnswerError) else PacsError
                raise kind(f"{error.message}, after {attempts}", value=error.value, hint=error.hint) from None
            sleep(min(LONGEST_PAUSE_S, 0.5 * 2**attempt))
    raise AssertionError("unreachable")


@contextmanager
def understood() -> Iterator[None]:
    """Whatever an answer makes a library or us stumble over is the answer's fault, and its text stays unsaid."""
    try:
        yield
    except AgsegError:
        raise
    except Exception as error:
        raise PacsError(f"the archive's answer cannot be understood ({type(error).__name__})") from None


def held_against_count(found: int, expected: int | None, what: str) -> None:
    """Refuse a list that is shorter than the archive itself says it is.

    Raises
    ------
    PacsError
        With both numbers.
    """
    if expected is not None and found < expected:
        raise PacsError(
            f"the archive lists fewer {what} than it counts",
            value=found,
            expected=expected,
            hint="Its limit of matches for one answer is too low, or what it holds is still changing.",
        )
