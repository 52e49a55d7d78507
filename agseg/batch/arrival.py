"""Detection of studies that are still being written: file states are compared when found and when read."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from agseg.errors import Code, InputError
from agseg.io.opening import open_regular
from agseg.study import Study, StudyKind

_DICOM_PREAMBLE = 128
_SERIES_UID = 0x0020000E


@dataclass(frozen=True)
class FileState:
    """One input file when it was seen: name below the input root, size and modification time."""

    name: str
    size_bytes: int
    mtime_ns: int


def _relative(path: Path, root: Path) -> str:
    try:
        return path.relative_to(root).as_posix()
    except ValueError:
        return path.name


def states_of(study: Study) -> tuple[FileState, ...]:
    """State of every file of the study, in the study's order.

    Raises
    ------
    InputError
        ``E_CHANGED`` if a file is gone.
    """
    states = []
    for path in study.files:
        try:
            found = path.lstat()
        except OSError as error:
            raise InputError("a file of the study went away after it was found", code=Code.CHANGED) from error
        states.append(FileState(_relative(path, study.root), found.st_size, found.st_mtime_ns))
    return tuple(states)


def newest_mtime_s(states: tuple[FileState, ...]) -> float:
    """When the study was last written to (seconds since the epoch)."""
    return max((state.mtime_ns for state in states), default=0) / 1e9


def check_unchanged(study: Study, states: tuple[FileState, ...], *, listing: frozenset[str] | None = None) -> None:
    """Compare the study's files with what they were.

    Parameters
    ----------
    study, states
        The study and what :func:`states_of` said.
    listing
        Files of the study's folders when the reading began, to notice slices of the same series that came since.

    Raises
    ------
    InputError
        ``E_CHANGED``; the run defers the study instead of rejecting it.
    """
    if states_of(study) != states:
        raise InputError("the study's files change while they are read: it is still arriving", code=Code.CHANGED)
    if listing is not None and study.kind == StudyKind.DICOM:
        arrived = files_beside(study) - listing
        if arrived and any(_joins(study, Path(name)) for name in sorted(arrived)):
            raise InputError("slices of this series arrived while it was read", code=Code.CHANGED)


def files_beside(study: Study) -> frozenset[str]:
    """Regular files in the folders that hold the study's files."""
    beside: set[str] = set()
    for folder in sorted({path.parent for path in study.files}):
        with os.scandir(folder) as entries:
            beside.update(entry.path for entry in entries if entry.is_file(follow_symlinks=False))
    return frozenset(beside)


def _joins(study: Study, path: Path) -> bool:
    """Whether a new file carries the study's series UID; a file that cannot be read yet counts as one."""
    theirs = _series_uid(path)
    return theirs is None or theirs == _series_uid(study.files[0])


def _series_uid(path: Path) -> str | None:
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return ""
        with open_regular(path) as stream:
            header = dcmread(stream, stop_before_pixels=True, specific_tags=[_SERIES_UID])
        return str(header.get("SeriesInstanceUID", ""))
    except InvalidDicomError:
        return "" if path.stat().st_size > _DICOM_PREAMBLE else None
    except Exception:
        return None
