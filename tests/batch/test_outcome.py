from __future__ import annotations

import errno
import json
import mmap
import os
from pathlib import Path

import pytest

from agseg.batch.memory import machine_memory_bytes, resident_bytes
from agseg.batch.outcome import Failure, failure_of
from agseg.errors import AgsegError, Code, InferenceError, InputError, OutputError, UsageError, WeightsError
from agseg.report import StudyStatus
from agseg.study import Study, StudyKind

STUDY = Study("x", Path("/in"), (Path("/in/x/1.dcm"), Path("/in/x/2.dcm")), StudyKind.DICOM)
R, F, W = StudyStatus.REJECTED, StudyStatus.FAILED, StudyStatus.DEFERRED


@pytest.mark.parametrize(
    ("error", "writing", "status", "code", "blame"),
    [
        (InputError("m", code=Code.FOUR_D), False, R, Code.FOUR_D, ""),
        (InputError("m", code=Code.CHANGED), False, W, Code.CHANGED, ""),
        (InferenceError("m"), True, F, Code.INFERENCE, ""),
        (OutputError("m", code=Code.DISK_FULL), True, F, Code.DISK_FULL, "output"),
        (WeightsError("m"), True, F, Code.WEIGHTS, "weights"),
        (UsageError("m"), True, F, Code.USAGE, "usage"),
        (AgsegError("m"), True, F, Code.INTERNAL, "bug"),
        (MemoryError(), False, F, Code.OUT_OF_MEMORY, ""),
        (RecursionError(), False, R, Code.HEADER_INVALID, ""),
        (PermissionError(errno.EACCES, "m"), False, R, Code.PERMISSION, ""),
        (OSError(errno.EIO, "m"), False, R, Code.UNREADABLE_FILE, ""),
        (OSError(errno.ENOSPC, "m"), True, F, Code.DISK_FULL, "output"),
        (OSError(errno.EROFS, "m"), True, F, Code.OUTPUT_NOT_WRITABLE, "output"),
        (KeyError("DOE^JANE"), True, F, Code.INTERNAL, "bug"),
    ],
)
def test_every_error_has_its_outcome(error: Exception, writing: bool, status: StudyStatus, code: Code, blame: str) -> None:
    found = failure_of(error, STUDY, writing=writing)
    assert (found.status, found.code, found.blame) == (status, code, blame)
    assert "DOE" not in found.message
    # It crosses a pipe as JSON and becomes a record.
    assert Failure.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_the_offending_file_is_named_by_its_place_below_the_input() -> None:
    found = failure_of(InputError("the file ends too early", code=Code.TRUNCATED, path=Path("/in/x/2.dcm")), STUDY)
    assert found.message == "the file ends too early (file x/2.dcm)"
    elsewhere = failure_of(InputError("m", path=Path("/etc/passwd")), STUDY)
    assert elsewhere.message == "m"


def test_memory_can_be_told() -> None:
    assert machine_memory_bytes() > 1 << 28
    before = resident_bytes(os.getpid())
    assert before is not None
    # Fresh pages of their own: memory that the allocator had kept would be counted already.
    with mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as hoard:
        hoard.write(bytes(64 << 20))
        assert (resident_bytes(os.getpid()) or 0) - before > 32 << 20
    assert resident_bytes(2**22 + 1) is None
