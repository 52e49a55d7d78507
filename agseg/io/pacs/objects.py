"""The DICOM objects below a folder that may be sent to an archive."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agseg.io.dicom.header import looks_like_dicom
from agseg.io.dicom_out.result import is_own_object
from agseg.report import STUDY_JSON

__all__ = ["LocalObject", "find_objects"]

REPORT_PREFIX = "1.2.840.10008.5.1.4.1.1.88"
OWN_FILES = frozenset({"seg.dcm", "sr.dcm", "rtstruct.dcm"})
"""Names under which agseg publishes its objects."""


@dataclass(frozen=True)
class LocalObject:
    """A file that holds a DICOM object with all its UIDs, which are not shown.

    ``rank`` orders what is sent: images (0), objects that refer to images (1), reports that refer to those (2). A result of
    agseg's is ``current`` if the record beside it says so; images are.
    """

    path: Path
    study_uid: str = field(repr=False)
    series_uid: str = field(repr=False)
    sop_uid: str = field(repr=False)
    rank: int
    current: bool = True


def find_objects(paths: Sequence[Path], *, everything: bool = False) -> Iterator[LocalObject]:
    """Regular, visible files with a DICOM object, in order of their path; links are not followed.

    Parameters
    ----------
    everything
        Also objects that agseg did not make.
    """
    named = {given for given in paths if not given.is_dir()}
    for path in sorted({found for given in paths for found in _files(given)}):
        if not everything and path.name not in OWN_FILES:
            continue
        header = _header(path)
        if header is None or not (everything or is_own_object(header)):
            continue
        uids = [str(header.get(k, "") or "") for k in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")]
        if all(uids):
            current = not is_own_object(header) or _is_current(path, named=path in named)
            yield LocalObject(path, uids[0], uids[1], uids[2], _rank(header), current)


def _is_current(path: Path, *, named: bool) -> bool:
    """Whether the record beside a result says that it is finished; a file that was named itself needs none."""
    try:
        record = json.loads((path.parent / STUDY_JSON).read_bytes())
        return record["status"] == "done" and path.name in record["files"]
    except FileNotFoundError:
        return named
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _rank(header: Any) -> int:
    if str(header.SOPClassUID).startswith(REPORT_PREFIX):
        return 2
    return 1 if is_own_object(header) else 0


def _files(given: Path) -> Iterator[Path]:
    if not given.is_dir():
        yield given
        return
    for folder, subfolders, names in os.walk(given, followlinks=False):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        yield from (Path(folder) / name for name in names if not name.startswith("."))


def _header(path: Path) -> Any:
    """The header without pixels, or None for anything that is no DICOM file; links, pipes and devices are not opened."""
    import pydicom

    if path.is_symlink() or not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            if not looks_like_dicom(file.read(132)):
                return None
        tags = ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Manufacturer"]
        return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags)
    except Exception:
        return None
