"""Comparison of an object in an archive with the one that we have.

An archive may send it in another transfer syntax, and may have put right what belongs to the patient's and the study's
records (a name, an accession number). Everything else must be as it was sent, and the patient the same.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

from agseg.errors import PacsError

COERCED = frozenset(
    {
        "SpecificCharacterSet", "PatientName", "PatientBirthDate", "PatientBirthTime", "PatientSex", "PatientAge",
        "PatientSize", "PatientWeight", "PatientComments", "OtherPatientIDs", "OtherPatientIDsSequence", "OtherPatientNames",
        "IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence", "AccessionNumber", "IssuerOfAccessionNumberSequence",
        "StudyID", "StudyDate", "StudyTime", "StudyDescription", "ReferringPhysicianName", "InstitutionName",
        "TimezoneOffsetFromUTC", "InstanceAvailability", "RetrieveAETitle", "RetrieveURL", "OriginalAttributesSequence",
        "SeriesDescription", "SeriesNumber",
    }
)  # fmt: skip
"""What an archive may change in an object that it takes in (PS3.4, B.4.1.2: coercion)."""


WRITTEN_WHEN = frozenset(
    {
        "ContentDate", "ContentTime", "InstanceCreationDate", "InstanceCreationTime", "SeriesDate", "SeriesTime",
        "StructureSetDate", "StructureSetTime", "ObservationDateTime", "ContributionDateTime",
    }
)  # fmt: skip
"""When an object was written: a result that is made again is the same result."""


def difference(ours: Path, theirs: bytes) -> str | None:
    """In words, what tells the archive's object from ours; None if it is the same.

    Raises
    ------
    PacsError
        If the archive's object cannot be read.
    """
    import pydicom

    mine = pydicom.dcmread(ours)
    try:
        other = pydicom.dcmread(BytesIO(theirs))
        if _text(mine, "PatientID") != _text(other, "PatientID"):
            return "it holds this object under another patient"
        if not _is_held(mine, other, ignored=COERCED | WRITTEN_WHEN):
            return "it holds another object of the same UID"
    except Exception as error:
        raise PacsError(f"the archive sent an object that cannot be read ({type(error).__name__})") from None
    return None


def _text(dataset: Any, keyword: str) -> str:
    return str(dataset.get(keyword, "") or "").strip()


def _is_held(mine: Any, other: Any, *, ignored: frozenset[str]) -> bool:
    """Whether the other data set says all that ours says."""
    for element in mine:
        if element.keyword in ignored or element.tag.element == 0 or element.tag.is_private:
            continue
        if element.tag not in other:
            return False
        theirs = other[element.tag]
        if element.VR == "SQ" and theirs.VR == "SQ":
            pairs = list(zip(element.value, theirs.value, strict=False))
            if len(element.value) != len(theirs.value) or not all(_is_held(a, b, ignored=WRITTEN_WHEN) for a, b in pairs):
                return False
        elif not _equal(element, theirs):
            return False
    return True


def _equal(mine: Any, other: Any) -> bool:
    if isinstance(mine.value, bytes) and isinstance(other.value, bytes):
        return mine.value.rstrip(b"\0") == other.value.rstrip(b"\0")
    return bool(mine.value == other.value) or (not mine.value and not other.value)
