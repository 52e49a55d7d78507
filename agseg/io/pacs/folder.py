"""The folder that pulled series arrive in: ``<folder>/<hash>/<hash>/<hash>.dcm``.

No name comes from a header: each is a hash of a UID, so nothing that an archive says can become a path, and nothing tells
who a folder belongs to. A series has its name only when it is complete; until then it is a hidden folder, which discovery
does not look into.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from agseg.errors import PacsError
from agseg.io.atomic import FILE_MODE, TEMPORARY_SUFFIX, make_folder, output_error
from agseg.io.dicom_out.result import is_own_object
from agseg.io.pacs.query import RemoteSeries

NAME_DIGITS = 24
"""Hex digits of a name."""


def hashed_name(uid: str) -> str:
    """A name that depends on nothing but the UID and does not show it."""
    return hashlib.sha256(f"agseg pacs {uid}".encode()).hexdigest()[:NAME_DIGITS]


def series_folder(root: Path, series: RemoteSeries) -> Path:
    """Where a series lies once it is complete."""
    return root / hashed_name(series.study_uid) / hashed_name(series.series_uid)


def has_arrived(
    root: Path, series: RemoteSeries, instances: frozenset[str], *, patient_of: Callable[[Path], str | None]
) -> bool:
    """Whether exactly these images lie in the series' folder, of the patient that the archive has them under now.

    A replaced image changes no count, and a study that was filed under the right patient afterwards changes no UID.

    Parameters
    ----------
    patient_of
        The PatientID in a file's header, None where it cannot be read.
    """
    folder = series_folder(root, series)
    names = {path.stem for path in folder.glob("*.dcm")} if folder.is_dir() else set()
    if names != {hashed_name(uid) for uid in instances} or not names:
        return False
    if series.patient_id is None:
        return True
    patient = patient_of(folder / f"{min(names)}.dcm")
    return patient is not None and patient.strip() == series.patient_id.strip()


def header_of(content: bytes, *keywords: str) -> Any:
    """These elements of a DICOM file, or None if it is none."""
    import pydicom

    try:
        return pydicom.dcmread(BytesIO(content), stop_before_pixels=True, specific_tags=list(keywords))
    except Exception:
        return None


class Arrival:
    """A series on its way in; ``instances`` are the SOPInstanceUIDs that the archive listed."""

    def __init__(self, folder: Path, series: RemoteSeries, instances: frozenset[str]) -> None:
        self._folder, self._series, self._listed = folder, series, instances
        self._digests: dict[str, bytes] = {}
        self._own: set[str] = set()

    @property
    def count(self) -> int:
        """Images that have come."""
        return len(self._digests)

    def accept(self, content: bytes) -> None:
        """Write one instance, byte for byte as it came (a DICOM file).

        Raises
        ------
        PacsError
            If it is none, is not of the series that was asked for, was not listed, or differs from one of the same UID that
            has come before.
        """
        header = header_of(content, "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "Manufacturer")
        if header is None:
            raise PacsError("the archive sent something that is no DICOM object")
        uids = [str(header.get(k, "") or "") for k in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")]
        if uids[:2] != [self._series.study_uid, self._series.series_uid]:
            raise PacsError("the archive sent an image of another series")
        if uids[2] not in self._listed:
            raise PacsError("an image came that the archive had not listed")
        if is_own_object(header):
            self._own.add(uids[2])
            return
        digest = hashlib.sha256(content).digest()
        if (known := self._digests.get(uids[2])) is not None:
            if known != digest:
                raise PacsError("two different images came under one UID")
            return
        path = self._folder / f"{hashed_name(uids[2])}.dcm"
        try:
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0)
            with os.fdopen(os.open(path, flags, FILE_MODE), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise output_error(error, "an image could not be written", path=path.parent.parent) from None
        self._digests[uids[2]] = digest

    @property
    def missing(self) -> int:
        """How many of the listed images have not come."""
        return len(self._listed - self._digests.keys() - self._own)


@contextmanager
def arriving(root: Path, series: RemoteSeries, instances: frozenset[str]) -> Iterator[Arrival]:
    """Receive a series into a hidden folder; at the end it gets its name and replaces an older state, or nothing changes."""
    final = series_folder(root, series)
    make_folder(final.parent)
    # Directly below the root, where the next run on this folder sweeps away what a killed one left.
    hidden = root / f".{secrets.token_hex(4)}{TEMPORARY_SUFFIX}-{final.name}"
    make_folder(hidden)
    old = hidden.with_name(hidden.name + "-old")
    try:
        arrival = Arrival(hidden, series, instances)
        yield arrival
        if not arrival.count:
            return
        if final.is_dir():
            final.rename(old)
        hidden.rename(final)
    except OSError as error:
        raise output_error(error, "the series could not be put in its place", path=root) from None
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
