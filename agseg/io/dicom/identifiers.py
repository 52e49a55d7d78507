"""Whose a file is, by its header."""

from __future__ import annotations

from pathlib import Path

from agseg.io.dicom.dataset import quiet_pydicom
from agseg.io.dicom.header import check_unpacked_size
from agseg.io.opening import open_regular

_IDENTIFYING = (
    "PatientID", "PatientName", "AccessionNumber", "StudyDate", "StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber",
    "SeriesDescription",
)  # fmt: skip
"""What a hospital finds a study by."""

_SERIES_NUMBER = 0x00200011
"""The last of their tags; functional groups, which may hold half a million items, come behind it."""


def read_identifiers(path: Path) -> dict[str, str]:
    """What names the patient and the study in a file's header; empty where it cannot be read, or unpacks to too much.

    Personal data: :mod:`agseg.batch.sources` decides what of it a record may say.
    """
    try:
        check_unpacked_size(path)
        with open_regular(path) as stream:
            dataset = quiet_pydicom().filereader.read_partial(
                stream, lambda tag, _vr, _length: tag > _SERIES_NUMBER, force=True
            )
        return {name: str(dataset.get(name) or "") for name in _IDENTIFYING}
    except Exception:  # a header's value may be anything; the record is worth more than its identifiers
        return {}
