"""The DICOM series that a result is derived from: its headers, made fit to be referred to, and its frames.

Patient, study and frame of reference are carried into every result. Values that no DICOM object may hold (a sex that is
none of M, F, O; a date that is none) are left empty instead of being invented.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from agseg.errors import Code, InputError
from agseg.io.dicom.slice_header import SCAN_CLASSES
from agseg.io.dicom.stack import Plane
from agseg.io.dicom_out.characters import settle_characters
from agseg.io.dicom_out.frames import planes_of
from agseg.io.dicom_out.identity import derived_uid
from agseg.volume import Warned

CARRIED = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate", "StudyTime", "StudyID",
    "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip
"""Attributes of patient and study that every result takes over; DICOM wants them present, if only empty."""

OPTIONAL = (
    "SpecificCharacterSet", "IssuerOfPatientID", "OtherPatientIDs", "PatientAge", "PatientSize", "PatientWeight",
    "StudyDescription", "PatientIdentityRemoved", "DeidentificationMethod",
)  # fmt: skip
"""Attributes of patient and study that a result takes over where the source has them."""

_LEGAL = {
    "PatientSex": re.compile(r"[MFO]?"),
    "PatientBirthDate": re.compile(r"(\d{8})?"),
    "StudyDate": re.compile(r"(\d{8})?"),
    "StudyTime": re.compile(r"(\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?)?"),
    "AccessionNumber": re.compile(r".*"),
    "StudyID": re.compile(r".*"),
    "PatientID": re.compile(r".*"),
    "PatientAge": re.compile(r"\d{3}[DWMY]"),
}
"""What an attribute may hold; anything else is carried as empty, or left out where it is optional."""

_LONGEST = {"AccessionNumber": 16, "StudyID": 16, "PatientID": 64}
"""Characters that an identifier may have (PS3.5 6.2, SH and LO). An emptied one would file the result under nobody."""

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"


@dataclass(frozen=True, eq=False)
class SourceFrame:
    """One image plane of the source: its SOP class and instance, its frame number in a multi-frame file, its plane."""

    sop_class_uid: str
    sop_instance_uid: str
    number: int | None
    plane: Plane


@dataclass(frozen=True, eq=False)
class DicomSource:
    """A series whose UIDs are complete.

    Parameters
    ----------
    headers
        pydicom data sets, without pixels, in order of position; or one multi-frame header.
    warnings
        What results do not carry as it is.
    """

    headers: tuple[Any, ...]
    warnings: tuple[Warned, ...] = ()

    @classmethod
    def of(cls, headers: Sequence[Any]) -> DicomSource:
        """The source that these headers describe; they are copied, not changed.

        Raises
        ------
        InputError
            ``W_MISSING_UIDS`` or ``W_DUPLICATE_UID`` if study, series or instance cannot be referred to: no DICOM output then.
            ``E_DIMENSIONS`` if the series is spread over several multi-frame files.
        """
        if not headers:
            raise InputError("no DICOM headers: the source is not a DICOM series", code=Code.MISSING_UIDS)
        if len(headers) > 1 and any("PerFrameFunctionalGroupsSequence" in header for header in headers):
            raise InputError("a series in several multi-frame files has no DICOM output", code=Code.DIMENSIONS)
        completed = [_completed(header) for header in headers]
        complete = tuple(header for header, _ in completed)
        said = tuple(dict.fromkeys(warned for _, noted in completed for warned in noted))
        for header in complete[1:]:
            # Some anonymisers give every slice a frame of reference of its own. The slices make one stack, so they share one.
            header.FrameOfReferenceUID = complete[0].FrameOfReferenceUID
        if len({str(header.SOPInstanceUID) for header in complete}) < len(complete):
            raise InputError(
                "slices share a SOPInstanceUID, so nothing can refer to one of them",
                code=Code.DUPLICATE_UID,
            )
        return cls(complete, said)

    @property
    def first(self) -> Any:
        """The header that stands for the series."""
        return self.headers[0]

    @property
    def series_uid(self) -> str:
        """SeriesInstanceUID of the source."""
        return str(self.first.SeriesInstanceUID)

    @property
    def modality(self) -> str:
        """DICOM modality of the source."""
        return str(self.first.Modality)

    @property
    def frame_of_reference_uid(self) -> str:
        """FrameOfReferenceUID of the source's first slice, or one derived from the series where it has none."""
        return str(self.first.FrameOfReferenceUID)

    @cached_property
    def frames(self) -> tuple[SourceFrame, ...]:
        """All planes, in the order of the headers and, in a multi-frame file, of its frames."""
        found = []
        for header in self.headers:
            planes = planes_of(header)
            many = "PerFrameFunctionalGroupsSequence" in header
            for number, plane in enumerate(planes, start=1):
                found.append(SourceFrame(str(header.SOPClassUID), str(header.SOPInstanceUID), number if many else None, plane))
        return tuple(found)

    @property
    def planes(self) -> list[Plane]:
        """Where the frames lie."""
        return [frame.plane for frame in self.frames]


def _completed(header: Any) -> tuple[Any, list[Warned]]:
    """A copy with every attribute that results refer to: recovered, left empty or derived, never invented."""
    from pydicom import Dataset

    complete = Dataset()
    # Private groups and group lengths are of no use to a result. Elements are copied: setting a value changes the element.
    complete.update({tag: copy(element) for tag, element in header.items() if tag.group % 2 == 0 and tag.element != 0})
    said = [settle_characters(header, complete, (*CARRIED, *OPTIONAL)), _long_value(complete)]
    meta = getattr(header, "file_meta", None) or Dataset()
    _recover(complete, "SOPInstanceUID", meta.get("MediaStorageSOPInstanceUID"))
    _recover(complete, "SOPClassUID", meta.get("MediaStorageSOPClassUID") or CT_IMAGE_STORAGE)
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        if not complete.get(keyword):
            raise InputError(f"the source has no {keyword}", code=Code.MISSING_UIDS)
    if not complete.get("FrameOfReferenceUID"):
        complete.FrameOfReferenceUID = derived_uid("frame of reference", str(complete.SeriesInstanceUID))
    for keyword in CARRIED:
        if not _is_legal(keyword, complete.get(keyword)):
            setattr(complete, keyword, "")
    for keyword in OPTIONAL:
        if keyword in complete and not _is_legal(keyword, complete.get(keyword)):
            delattr(complete, keyword)
    if not complete.get("Modality"):
        complete.Modality = SCAN_CLASSES.get(str(complete.SOPClassUID), "CT")
    return complete, [warned for warned in said if warned is not None]


def _long_value(dataset: Any) -> Warned | None:
    """What must be said of identifiers that are longer than DICOM allows: they are carried as they are."""
    long = [keyword for keyword, most in _LONGEST.items() if len(str(dataset.get(keyword) or "")) > most]
    if not long:
        return None
    return Warned(
        Code.LONG_VALUE, f"longer than DICOM allows, and carried as it is: {', '.join(long)}; an archive may cut or refuse it"
    )


def _recover(dataset: Any, keyword: str, value: Any) -> None:
    if not dataset.get(keyword) and value:
        setattr(dataset, keyword, str(value))


def _is_legal(keyword: str, value: Any) -> bool:
    if value is None:
        return False
    pattern = _LEGAL.get(keyword)
    return pattern is None or pattern.fullmatch(str(value)) is not None
