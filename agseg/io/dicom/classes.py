"""What the class and the modality of a DICOM file say of it: whether it can be a slice of a scan."""

from __future__ import annotations

from collections.abc import Sequence

from agseg.io.dicom.slice_header import SliceHeader
from agseg.study import Reason

DICOMDIR_CLASS = "1.2.840.10008.1.3.10"

SECONDARY_CAPTURE_PREFIX = "1.2.840.10008.5.1.4.1.1.7"

NON_IMAGE_PREFIXES = (
    "1.2.840.10008.5.1.4.1.1.66",  # registration, segmentation, surface, label map
    "1.2.840.10008.5.1.4.1.1.88",  # structured reports, key objects
    "1.2.840.10008.5.1.4.1.1.11",  # presentation states
    "1.2.840.10008.5.1.4.1.1.9",  # waveforms
    "1.2.840.10008.5.1.4.1.1.104",  # encapsulated documents
    "1.2.840.10008.5.1.4.1.1.30",  # parametric maps
    "1.2.840.10008.5.1.4.1.1.481",  # radiotherapy objects
    "1.2.840.10008.5.1.4.34",
)
"""SOP classes that are no image series even where they hold pixels."""

KNOWN_MODALITIES = frozenset(
    {"CT", "MR", "PT", "NM", "US", "IVUS", "CR", "DX", "MG", "XA", "RF", "OT", "SC", "ES", "XC", "GM", "SM", "OP", "OPT"}
)
"""Modalities that may be named in a message; anything else could be text that somebody typed."""


def left_out(header: SliceHeader, modalities: Sequence[str]) -> str | None:
    """The reason why a file takes part in no series, or None."""
    if header.sop_class == DICOMDIR_CLASS:
        return Reason.DICOMDIR
    if header.sop_class.startswith(NON_IMAGE_PREFIXES):
        return Reason.DICOM_OBJECT
    if header.sop_class.startswith(SECONDARY_CAPTURE_PREFIX) and not header.sop_class.startswith(
        SECONDARY_CAPTURE_PREFIX + "7"
    ):
        return Reason.SECONDARY_CAPTURE
    if header.scan in modalities:
        return Reason.LOCALIZER if header.is_localizer else None
    return None if header.rows and header.columns else Reason.DICOM_OBJECT


def named_modality(modality: str) -> str:
    """The modality as it may be named in a message; empty for a word that is none."""
    return modality.upper() if modality.upper() in KNOWN_MODALITIES else ""
