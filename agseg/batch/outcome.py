"""What an exception means for the study it happened in, as data that crosses a process boundary as JSON."""

from __future__ import annotations

import errno
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from agseg.errors import AgsegError, Code, InferenceError, InputError, OutputError, UsageError, WeightsError
from agseg.io.atomic import output_error
from agseg.report import StudyReport, StudyStatus
from agseg.study import Study

__all__ = ["Blame", "Failure", "failure_of"]

Blame = str
"""Which exit code a failure asks for beside 3: ``"bug"`` (1), ``"output"`` (8), ``"weights"`` (7), ``"usage"`` (2), or none."""


@dataclass(frozen=True)
class Failure:
    """Why a study has no result.

    Parameters
    ----------
    status, code, message
        As they go into the record.
    blame
        See :data:`Blame`.
    hint
        What to do next.
    ends_process
        The process that met it is not to be used again.
    """

    status: str
    code: str
    message: str
    blame: Blame = ""
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


def failure_of(error: BaseException, study: Study | None, *, writing: bool = False) -> Failure:
    """Sort an exception.

    Parameters
    ----------
    error
        What was raised.
    study
        The study, to name the offending file by its place below the input.
    writing
        Whether an OSError concerns our output (model process) or the study's files (reader).
    """
    if isinstance(error, MemoryError):
        message = "the study does not fit into the memory it may use"
        return Failure(StudyStatus.FAILED, Code.OUT_OF_MEMORY, message, ends_process=True)
    if isinstance(error, RecursionError):
        return Failure(StudyStatus.REJECTED, Code.HEADER_INVALID, "the header is nested too deeply")
    if isinstance(error, OSError) and writing:
        error = output_error(error, "a study's results cannot be written")
    elif isinstance(error, OSError):
        code = Code.PERMISSION if error.errno in (errno.EACCES, errno.EPERM) else Code.UNREADABLE_FILE
        return Failure(StudyStatus.REJECTED, code, "a file of the study cannot be read")
    if isinstance(error, AgsegError):
        return _of_our_own(error, study)
    # Only the kind of the error: its text may quote a header.
    message = f"unexpected {type(error).__name__}; this is a bug, run this study again with --debug"
    return Failure(StudyStatus.FAILED, Code.INTERNAL, message, blame="bug")


def _of_our_own(error: AgsegError, study: Study | None) -> Failure:
    message = error.sentence()
    if isinstance(error, InputError) and study is not None and error.path is not None and len(study.files) > 1:
        with suppress(ValueError):
            message += f" (file {error.path.relative_to(study.root).as_posix()})"
    if error.code is Code.CHANGED:
        return Failure(StudyStatus.DEFERRED, Code.CHANGED, message)
    if error.code is Code.OUT_OF_MEMORY:
        return Failure(StudyStatus.FAILED, error.code, message, ends_process=True)
    if isinstance(error, InputError):
        return Failure(StudyStatus.REJECTED, error.code, message)
    blame = ""
    if isinstance(error, OutputError):
        blame = "output"
    elif isinstance(error, WeightsError):
        blame = "weights"
    elif isinstance(error, UsageError):
        blame = "usage"
    elif not isinstance(error, InferenceError) or error.code is Code.INTERNAL:
        blame = "bug"
    return Failure(StudyStatus.FAILED, error.code, message, blame=blame, hint=error.hint)
