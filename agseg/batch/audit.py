"""An audit log: who ran what on which studies with which weights, one JSON object per line, each sealed to the one before.

``previous`` is the SHA-256 of the line before it (64 zeros in the first), so that a line that was changed or taken out shows:
:func:`first_broken_line`. It protects against mistakes and tidying up, not against somebody who writes the whole file anew;
send the lines elsewhere (journald, syslog) for that. Lines name studies by their path and pseudonym, never a patient.
"""

from __future__ import annotations

import fcntl
import getpass
import hashlib
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agseg import __version__
from agseg.batch.job import BatchJob
from agseg.errors import Code, OutputError
from agseg.io.atomic import FILE_MODE, make_folder, output_error
from agseg.report import BatchReport, StudyReport

AUDIT_SCHEMA = "agseg.audit/1"

_FIRST = "0" * 64
_TAIL_BYTES = 1 << 20
"""A line is shorter than this."""


def begun(job: BatchJob, output: Path) -> dict[str, Any]:
    """The line of a run that begins."""
    return {
        "event": "run-begun",
        "inputs": [str(path) for path in job.inputs],
        "output": str(output),
        "weights": [weights.to_dict() for weights in job.weights],
        "parameters": job.parameters,
        "identifiers": job.include_identifiers,
    }


def ended(report: BatchReport) -> list[dict[str, Any]]:
    """The lines of a run that has ended: one per study that it looked at, and one of the run."""
    return [*(_study(study, report) for study in report.studies), _run(report)]


def _study(study: StudyReport, report: BatchReport) -> dict[str, Any]:
    return {
        "event": "study",
        "run": report.run_id,
        "study": study.input,
        "patient": study.source.patient if study.source else "",
        "status": study.status.value,
        "code": None if study.code is None else str(study.code),
        "new": study.new,
        "made_by": study.run,
        "fingerprint": study.extra.get("fingerprint"),
        "review": sum(bool(organ.review) for organ in study.organs),
    }


def _run(report: BatchReport) -> dict[str, Any]:
    return {"event": "run-ended", "run": report.run_id, "exit_code": int(report.exit_code), "counts": report.counts}


def append(path: Path, *lines: Mapping[str, Any]) -> None:
    """Add lines to the log, each with time, user, process and version; the file is made, mode 0600, where there is none.

    Raises
    ------
    OutputError
        If it cannot be written to; a run that cannot be recorded does not begin.
    """
    make_folder(path.parent)
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
        with os.fdopen(handle, "r+b") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            previous = _last_digest(stream, path)
            stream.seek(0, os.SEEK_END)
            for line in lines:
                text = json.dumps({**_head(), **line, "previous": previous}, ensure_ascii=False).encode() + b"\n"
                stream.write(text)
                previous = hashlib.sha256(text).hexdigest()
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise output_error(error, "the audit log cannot be written", path=path) from None


def _head() -> dict[str, Any]:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # no name for the number
        user = ""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return {"schema": AUDIT_SCHEMA, "time": now, "user": user, "uid": os.getuid(), "pid": os.getpid(), "version": __version__}


def _last_digest(stream: Any, path: Path) -> str:
    size = stream.seek(0, os.SEEK_END)
    if size == 0:
        return _FIRST
    stream.seek(max(0, size - _TAIL_BYTES))
    tail = stream.read()
    if not tail.endswith(b"\n"):
        raise OutputError(
            "the audit log ends within a line",
            code=Code.OUTPUT_NOT_WRITABLE,
            path=path,
            hint="Move it aside: the next run begins a new one.",
        )
    return hashlib.sha256(tail[:-1].rpartition(b"\n")[2] + b"\n").hexdigest()


def first_broken_line(path: Path) -> int | None:
    """Number (from 1) of the first line that does not follow from the one before it, None if all do."""
    previous = _FIRST
    with path.open("rb") as stream:
        for number, text in enumerate(stream, 1):
            try:
                sealed = json.loads(text).get("previous")
            except (ValueError, AttributeError):
                return number
            if sealed != previous:
                return number
            previous = hashlib.sha256(text).hexdigest()
    return None
