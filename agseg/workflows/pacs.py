"""What became of series and objects that were to travel between an archive and this machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from agseg.errors import AgsegError, Code, ExitCode
from agseg.io.pacs.archive import UnreachablePacsError

PACS_SCHEMA = "agseg.pacs/1"

Progress = Callable[..., None]

MOST_FAILURES_IN_A_ROW = 5
"""An archive that fails so often one after the other is not asked any more in this run."""


class PacsStatus(StrEnum):
    """What became of a series or an object."""

    PULLED = "pulled"
    PUSHED = "pushed"
    PRESENT = "present"
    WOULD = "would"
    OUTDATED = "outdated"
    FAILED = "failed"


@dataclass(frozen=True)
class PacsRecord:
    """One series (pull) or one file (push); ``path`` is below the output, or as it was given.

    ``hint`` says what to do about a failure; it is for people, and in no record.
    """

    path: str
    status: PacsStatus
    instances: int
    code: Code | None = None
    message: str | None = None
    hint: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As ``--json`` prints it."""
        return {
            "path": self.path,
            "status": self.status.value,
            "instances": self.instances,
            "code": None if self.code is None else str(self.code),
            "message": self.message,
        }


@dataclass(frozen=True)
class PacsReport:
    """What one pull or push did."""

    action: str
    records: tuple[PacsRecord, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Number of records per status."""
        return {status.value: sum(record.status is status for record in self.records) for status in PacsStatus}

    @property
    def exit_code(self) -> ExitCode:
        """5 if nothing matched, 4 if all failed, 3 if some did."""
        failed = self.counts[PacsStatus.FAILED]
        matched = len(self.records) - self.counts[PacsStatus.OUTDATED]
        if not matched:
            return ExitCode.NO_STUDY
        if failed:
            return ExitCode.NONE_DONE if failed == matched else ExitCode.SOME_NOT_DONE
        return ExitCode.OK

    @property
    def problems(self) -> dict[str, tuple[PacsRecord, ...]]:
        """Failures by what is said of them: an archive that is down is one line, not one per object."""
        said: dict[str, list[PacsRecord]] = {}
        for record in self.records:
            if record.status is PacsStatus.FAILED:
                said.setdefault(f"{record.code}: {record.message}", []).append(record)
        return {text: tuple(records) for text, records in said.items()}

    def to_dict(self) -> dict[str, Any]:
        """As ``--json`` prints it."""
        return {
            "schema": PACS_SCHEMA,
            "action": self.action,
            "exit_code": int(self.exit_code),
            "counts": self.counts,
            "records": [record.to_dict() for record in self.records],
        }


class GiveUp:
    """Whether an archive is still worth asking: not after it could not be reached, nor after failing several times running."""

    def __init__(self) -> None:
        self._in_a_row = 0
        self.reason: AgsegError | None = None

    def succeeded(self) -> None:
        """Something worked."""
        self._in_a_row = 0

    def failed(self, error: AgsegError) -> None:
        """Something did not."""
        self._in_a_row += 1
        if isinstance(error, UnreachablePacsError) or self._in_a_row >= MOST_FAILURES_IN_A_ROW:
            self.reason = error
