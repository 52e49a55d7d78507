"""What a file is, by its first bytes. The suffix only says what its owner believed."""

from __future__ import annotations

import re
import zlib
from enum import StrEnum
from pathlib import Path

from agseg.io.dicom.header import looks_like_dicom
from agseg.io.itk import sniff_itk
from agseg.io.nifti import GZIP_MAGIC
from agseg.io.nifti_header import sniff_nifti
from agseg.study import StudyKind

__all__ = ["Content", "claimed_by_suffix", "name_pattern", "series_suffix", "sniff"]

ANALYZE_HEADER_BYTES = 348


class Content(StrEnum):
    """Kinds of content that discovery tells apart."""

    EMPTY = "empty"
    DICOM = "dicom"
    NIFTI = "nifti"
    NIFTI_PAIR = "nifti_pair"
    ANALYZE = "analyze"
    NRRD = "nrrd"
    METAIMAGE = "mha"
    ARCHIVE = "archive"
    OTHER = "other"


_ARCHIVES = (b"PK\x03\x04", b"PK\x05\x06", b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07", b"BZh", b"\xfd7zXZ\0")
_CLAIMS = {
    ".nii": StudyKind.NIFTI,
    ".nii.gz": StudyKind.NIFTI,
    ".dcm": StudyKind.DICOM,
    ".dicom": StudyKind.DICOM,
    ".ima": StudyKind.DICOM,
    ".nrrd": StudyKind.NRRD,
    ".nhdr": StudyKind.NRRD,
    ".mha": StudyKind.METAIMAGE,
    ".mhd": StudyKind.METAIMAGE,
}


def sniff(head: bytes) -> Content:
    """The content that the first bytes (16 KiB, or all of a shorter file) show."""
    if not head:
        return Content.EMPTY
    if head[128:132] == b"DICM":
        return Content.DICOM
    if head.startswith(GZIP_MAGIC):
        return _sniff_gzip(head)
    nifti = sniff_nifti(head)
    if nifti is not None:
        return Content.NIFTI_PAIR if nifti[1] else Content.NIFTI
    if len(head) == ANALYZE_HEADER_BYTES and ANALYZE_HEADER_BYTES in _both_orders(head):
        return Content.ANALYZE
    itk = sniff_itk(head)
    if itk is not None:
        return Content.NRRD if itk is StudyKind.NRRD else Content.METAIMAGE
    if head.startswith(_ARCHIVES) or head[257:262] == b"ustar":
        return Content.ARCHIVE
    return Content.DICOM if looks_like_dicom(head) else Content.OTHER


def _both_orders(head: bytes) -> tuple[int, int]:
    return int.from_bytes(head[:4], "little"), int.from_bytes(head[:4], "big")


def _sniff_gzip(head: bytes) -> Content:
    try:
        unpacked = zlib.decompressobj(wbits=31).decompress(head, 1024)
    except zlib.error:
        return Content.ARCHIVE
    nifti = sniff_nifti(unpacked)
    if nifti is None:
        return Content.ARCHIVE
    return Content.NIFTI_PAIR if nifti[1] else Content.NIFTI


def claimed_by_suffix(name: str) -> StudyKind | None:
    """The format that the name promises, or None."""
    lower = name.lower()
    return next((kind for suffix, kind in _CLAIMS.items() if lower.endswith(suffix)), None)


def series_suffix(path: Path) -> str:
    """The suffix that the slices of a series share; empty for names like ``IM0001``, ``1.2.840.7`` or ``I.001``."""
    suffix = path.suffix.lower()
    return "" if suffix[1:].isdigit() or len(suffix) > 6 else suffix


def name_pattern(path: Path) -> str:
    """The name with its numbers, long hexadecimal ones included, and its case left out: slices of one series share it."""
    return re.sub(r"[0-9a-f]{8,}|[0-9]+", "0", path.name.lower())
