"""Whose a file is, by its header."""

from __future__ import annotations

import re
from pathlib import Path

from agseg.io.dicom.dataset import quiet_pydicom
from agseg.io.dicom.header import check_unpacked_size, raw_values
from agseg.io.opening import open_regular

_IDENTIFYING = {
    "PatientID": 0x00100020, "PatientName": 0x00100010, "AccessionNumber": 0x00080050, "StudyDate": 0x00080020,
    "StudyInstanceUID": 0x0020000D, "SeriesInstanceUID": 0x0020000E, "SeriesNumber": 0x00200011,
    "SeriesDescription": 0x0008103E,
}  # fmt: skip
"""What a hospital finds a study by."""

_LAST = max(_IDENTIFYING.values())
"""Functional groups, which may hold half a million items, come behind it."""

_PLAIN = re.compile(rb"(?:[\w.^,:;/()+*#%&!?-][\w .^,:;/()+*#%&!?-]*)?", re.ASCII)
"""Text that is one value and the same in every character set."""


def read_identifiers(path: Path) -> dict[str, str]:
    """What names the patient and the study in a file's header; empty where it cannot be read, or unpacks to too much.

    Personal data: :mod:`agseg.batch.sources` decides what of it a record may say.
    """
    try:
        check_unpacked_size(path)
        plain = _plain_identifiers(path)
        return _by_pydicom(path) if plain is None else plain
    except Exception:  # a header's value may be anything; the record is worth more than its identifiers
        return {}


def _plain_identifiers(path: Path) -> dict[str, str] | None:
    """Those of a file whose values are plain, as nearly all are: a run would wait 0.15 s for pydicom to be imported."""
    raw = raw_values(path, _IDENTIFYING.values())
    if raw is None:
        return None
    values = {name: raw.get(tag, b"").rstrip(b" \0") for name, tag in _IDENTIFYING.items()}
    if not all(_PLAIN.fullmatch(value) for value in values.values()):
        return None
    if values["SeriesNumber"] and not values["SeriesNumber"].isdigit():
        return None
    return {name: value.decode("ascii") for name, value in values.items()}


def _by_pydicom(path: Path) -> dict[str, str]:
    with open_regular(path) as stream:
        dataset = quiet_pydicom().filereader.read_partial(stream, lambda tag, _vr, _length: tag > _LAST, force=True)
    return {name: str(dataset.get(name) or "") for name in _IDENTIFYING}
