"""File types by their first bytes; suffixes are never trusted."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path

from agseg.io.dicom.header import looks_like_dicom
from agseg.io.nifti_header import GZIP_MAGIC
from agseg.io.readers import Reader, reader_of, recognised
from agseg.study import StudyKind


class Content(StrEnum):
    """Kinds of content that no reader takes."""

    EMPTY = "empty"
    ARCHIVE = "archive"
    """Looked into (:mod:`agseg.io.archives`), never unpacked."""
    OTHER = "other"


_ARCHIVES = (b"PK\x03\x04", b"PK\x05\x06", b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07", b"BZh", b"\xfd7zXZ\0", GZIP_MAGIC)


def sniff(head: bytes) -> Reader | Content:
    """Who reads the content that the first bytes (16 KiB, or all of a shorter file) show."""
    if not head:
        return Content.EMPTY
    reader = recognised(head)
    if reader is not None:
        return reader
    if head.startswith(_ARCHIVES) or head[257:262] == b"ustar":
        return Content.ARCHIVE
    # DICOM without its preamble has no magic; what else could be meant comes first.
    return reader_of(StudyKind.DICOM) if looks_like_dicom(head) else Content.OTHER


def series_suffix(path: Path) -> str:
    """The suffix that the slices of a series share; empty for names like ``IM0001``, ``1.2.840.7`` or ``I.001``."""
    suffix = path.suffix.lower()
    return "" if suffix[1:].isdigit() or len(suffix) > 6 else suffix


def name_pattern(path: Path) -> str:
    """The name with its numbers, long hexadecimal ones included, and its case left out: slices of one series share it."""
    return re.sub(r"[0-9a-f]{8,}|[0-9]+", "0", path.name.lower())
