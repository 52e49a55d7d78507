"""Mapping of exceptions to a study's status and reason code, as data that crosses a process boundary as JSON."""

from __future__ import annotations

import errno
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from agseg.errors import AgsegError, Code, InferenceError, InputError, OutputError, UsageError, WeightsError
from agseg.extras import MissingPackageError
from agseg.io.atomic import output_error
from agseg.io.names import naming
from agseg.report import StudyReport, StudyStatus
from agseg.study import Study

_PANIC = "PanicException"
"""What codecs in Rust raise in place of ending the process; it is no Exception."""


class Fault(StrEnum):
    """What a failure, or the early end of a run, is to be put down to. It decides the exit code beside 3 and 4."""

    NONE = ""
    """The study."""
    BUG = "bug"
    OUTPUT = "output"
    WEIGHTS = "weights"
    USAGE = "usage"
    DEADLINE = "deadline"
    SIGNAL = "signal"


@dataclass(frozen=True)
class Failure:
    """Why a study has no result.

    Parameters
    ----------
    status, code, message
        As they go into the record.
    blame
        Whose fault it is.
    hint
        What to do next.
    ends_process
        The process that met it is not to be used again.
    """

    status: str
    code: str
    message: str
    blame: Fault = Fault.NONE
    hint: str | None = None
    ends_process: bool = False

    def report(self, study: Study) -> StudyReport:
        """The study's record."""
        return StudyReport(
            input=study.id,
            status=StudyStatus(self.status),
            code=Code(self.code),
            message=self.message,
            warnings=study.warnings,
            modality=study.modality,
        )

    def to_dict(self) -> dict[str, Any]:
        """For the pipe."""
        return asdict(self)

    @classmethod
    def from_dict(cls, told: dict[str, Any]) -> Failure:
        """The failure that came through the pipe."""
        return cls(**{**told, "blame": Fault(told["blame"])})


class ReportedFailure(Exception):  # noqa: N818
    """A study's failure as another process met and told it."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def failure_of(error: BaseException, study: Study | None, *, writing: bool = False) -> Failure:
    """Map an exception to a study's status and reason code.

    Parameters
    ----------
    error
        What was raised.
    study
        The study, to name the offending file by its place below the input.
    writing
        Whether an OSError concerns our output (model process) or the study's files (reader).
    """
    if isinstance(error, ReportedFailure):
        # The process that it ends is the one that met it.
        return replace(error.failure, ends_process=False)
    if isinstance(error, MemoryError):
        message = "the study does not fit into the memory it may use"
        return Failure(StudyStatus.FAILED, Code.OUT_OF_MEMORY, message, ends_process=True)
    if isinstance(error, RecursionError):
        return Failure(StudyStatus.REJECTED, Code.HEADER_INVALID, "the header is nested too deeply")
    if not isinstance(error, Exception) and type(error).__name__ == _PANIC:
        return Failure(StudyStatus.REJECTED, Code.DECODE, "the pixels cannot be decoded: the codec gave up")
    if isinstance(error, OSError) and writing:
        error = output_error(error, "a study's results cannot be written")
    elif isinstance(error, OSError):
        code = Code.PERMISSION if error.errno in (errno.EACCES, errno.EPERM) else Code.UNREADABLE_FILE
        return Failure(StudyStatus.REJECTED, code, "a file of the study cannot be read")
    if isinstance(error, AgsegError):
        return _of_our_own(error, study)
    # Only the kind of the error: its text may quote a header.
    message = f"unexpected {type(error).__name__}; this is a bug, run this study again with --debug"
    return Failure(StudyStatus.FAILED, Code.INTERNAL, message, blame=Fault.BUG)


def _of_our_own(error: AgsegError, study: Study | None) -> Failure:
    message = f"{error.sentence()}: {error.hint}" if isinstance(error, MissingPackageError) else error.sentence()
    if isinstance(error, InputError) and study is not None and error.path is not None and len(study.files) > 1:
        with suppress(ValueError):
            message = naming(message, error.path.relative_to(study.root).as_posix())
    if error.code is Code.CHANGED:
        return Failure(StudyStatus.DEFERRED, Code.CHANGED, message)
    if error.code is Code.OUT_OF_MEMORY:
        return Failure(StudyStatus.FAILED, error.code, message, ends_process=True)
    if isinstance(error, InputError):
        return Failure(StudyStatus.REJECTED, error.code, message)
    blame = Fault.NONE
    if isinstance(error, OutputError):
        blame = Fault.OUTPUT
    elif isinstance(error, WeightsError):
        blame = Fault.WEIGHTS
    elif isinstance(error, UsageError):
        blame = Fault.USAGE
    elif not isinstance(error, InferenceError) or error.code is Code.INTERNAL:
        blame = Fault.BUG
    return Failure(StudyStatus.FAILED, error.code, message, blame=blame, hint=error.hint)
