"""The DICOM objects below a folder that may be sent to an archive, and which of them are current results."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agseg.errors import PacsError
from agseg.io.dicom.header import looks_like_dicom
from agseg.io.dicom_out.result import is_own_object
from agseg.io.finished import is_intact, load_record, named_files
from agseg.io.walk import FoundFile, walk
from agseg.report import STUDY_JSON, StudyStatus

REPORT_PREFIX = "1.2.840.10008.5.1.4.1.1.88"
OWN_SUFFIX = ".dcm"
RUN_JSON = "run.json"


@dataclass(frozen=True)
class ObjectUids:
    """What tells an object from every other, and what it is; not shown."""

    study: str = field(repr=False)
    series: str = field(repr=False)
    sop: str = field(repr=False)
    patient_id: str = field(repr=False)
    sop_class: str
    transfer_syntax: str


@dataclass(frozen=True)
class LocalObject:
    """A file that holds a DICOM object with all its UIDs.

    ``rank`` orders what is sent: images (0), objects that refer to images (1), reports that refer to those (2). ``is_own`` is
    True for what agseg made; of that, ``stale`` says why the record beside it does not call it a current result, None if it
    does.
    """

    path: Path
    uids: ObjectUids
    rank: int
    is_own: bool
    stale: str | None = None


def find_objects(paths: Sequence[Path], *, everything: bool = False) -> Iterator[LocalObject]:
    """Regular, visible files with a DICOM object, in order of their path; links are not followed.

    Parameters
    ----------
    everything
        Also objects that agseg did not make.
    """
    named = {given for given in paths if not given.is_dir()}
    records = _Records()
    for path in sorted({found for given in paths for found in _files(given)}):
        if not everything and path.suffix != OWN_SUFFIX:
            continue
        header = _header(path)
        if header is None:
            continue
        is_own = is_own_object(header)
        uids = _uids(header)
        if not (everything or is_own) or not all((uids.study, uids.series, uids.sop)):
            continue
        if not everything and path not in named and not records.knows(path):
            continue
        stale = records.why_stale(path, is_named=path in named) if is_own else None
        yield LocalObject(path, uids, _rank(uids, is_own), is_own, stale)


def uids_of(path: Path) -> ObjectUids:
    """What an object is.

    Raises
    ------
    PacsError
        If the file is none, or has no UIDs.
    """
    header = _header(path)
    if header is None or not (uids := _uids(header)).sop or not uids.study:
        raise PacsError("this is not a DICOM object that can be sent", path=path)
    return uids


def sha256_of(path: Path) -> str:
    """The file's SHA-256, in hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Records:
    """The records beside and above results, each read once."""

    def __init__(self) -> None:
        self._studies: dict[Path, dict[str, Any] | None] = {}
        self._runs: dict[Path, dict[str, str]] = {}

    def knows(self, path: Path) -> bool:
        """Whether a file has the name of a result: agseg's usual ones, or one that the record beside it lists."""
        return path.name in ("seg.dcm", "sr.dcm", "rtstruct.dcm", "sc.dcm", "report.dcm") or path.name in named_files(
            self._study(path.parent)
        )

    def why_stale(self, path: Path, *, is_named: bool) -> str | None:
        """Why a file of agseg's is no current result; a file that was named itself needs no record."""
        record = self._study(path.parent)
        if record is None:
            return None if is_named and not (path.parent / STUDY_JSON).exists() else "no finished record names it"
        if record.get("status") != StudyStatus.DONE or path.name not in named_files(record):
            return "no finished record names it"
        if not is_intact(path.parent, record, path.name):
            return "it is not what agseg wrote"
        if self._run_status(path.parent, str(record.get("input"))) == StudyStatus.DEFERRED:
            return "its study is waiting to be done again"
        return None

    def _study(self, folder: Path) -> dict[str, Any] | None:
        if folder not in self._studies:
            self._studies[folder] = load_record(folder)
        return self._studies[folder]

    def _run_status(self, folder: Path, study: str) -> str | None:
        """What the newest run above says of a study, by its name below the input."""
        for above in folder.parents:
            if above not in self._runs:
                run = _json(above / RUN_JSON)
                studies = run.get("studies") if run is not None else None
                found = studies if isinstance(studies, list) else []
                self._runs[above] = {str(s.get("input")): str(s.get("status")) for s in found if isinstance(s, dict)}
            if self._runs[above]:
                return self._runs[above].get(study)
        return None


def _json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _uids(header: Any) -> ObjectUids:
    def text(keyword: str) -> str:
        return str(header.get(keyword, "") or "").strip()

    return ObjectUids(
        text("StudyInstanceUID"), text("SeriesInstanceUID"), text("SOPInstanceUID"), text("PatientID"), text("SOPClassUID"),
        str(header.file_meta.get("TransferSyntaxUID", "")),
    )  # fmt: skip


def _rank(uids: ObjectUids, is_own: bool) -> int:
    if uids.sop_class.startswith(REPORT_PREFIX):
        return 2
    return 1 if is_own else 0


def _files(given: Path) -> Iterator[Path]:
    if not given.is_dir():
        yield given
        return
    # Results lie as deep as their studies do, and Python's own walk gives up on a thousand folders in each other.
    yield from (item.path for item in walk([given]) if isinstance(item, FoundFile))


def _header(path: Path) -> Any:
    """The header without pixels, or None for anything that is no DICOM file; links, pipes and devices are not opened."""
    import pydicom

    if path.is_symlink() or not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            if not looks_like_dicom(file.read(132)):
                return None
        tags = ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientID", "Manufacturer"]
        return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags)
    except Exception:
        return None
