"""What kind of file this is, from its first bytes, and whether a video's outer boxes are all there.

The suffix is never trusted, and the format found here is the only one the video library is allowed to use: play lists and
other formats that name further files or addresses are not opened at all.
"""

from __future__ import annotations

import os
import stat
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

from agseg.errors import Code, InputError
from agseg.io.opening import open_regular

_HEAD_BYTES = 132
_MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot")
_EBML = b"\x1a\x45\xdf\xa3"
_MKV_SEGMENT = b"\x18\x53\x80\x67"
_IMAGE_MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\x00", b"MM\x00*", b"BM")


class FileKind(StrEnum):
    """What the first bytes say. The values of the videos are FFmpeg's names of their formats."""

    MP4 = "mp4"
    AVI = "avi"
    MATROSKA = "matroska"
    DICOM = "dicom"
    IMAGE = "image"
    EMPTY = "empty"
    OTHER = "other"

    @property
    def is_video(self) -> bool:
        """Whether it is a video container."""
        return self in (FileKind.MP4, FileKind.AVI, FileKind.MATROSKA)


def check_regular(path: Path) -> None:
    """Refuse links, pipes, sockets and devices before anything is opened.

    Raises
    ------
    InputError
        ``E_SYMLINK``, ``E_PERMISSION`` or ``E_UNREADABLE_FILE``.
    """
    try:
        mode = path.lstat().st_mode
    except PermissionError:
        raise InputError("the file may not be read", code=Code.PERMISSION, path=path) from None
    except OSError:
        raise InputError("the file cannot be found", code=Code.UNREADABLE_FILE, path=path) from None
    if stat.S_ISLNK(mode):
        raise InputError("links are not followed", code=Code.SYMLINK, path=path, hint="Give the file itself.")
    if not stat.S_ISREG(mode):
        raise InputError("not a regular file", code=Code.UNREADABLE_FILE, path=path)


def sniff(path: Path) -> FileKind:
    """What the first bytes of a regular file say.

    Raises
    ------
    InputError
        If the file cannot be read.
    """
    try:
        with open_regular(path) as file:
            head = file.read(_HEAD_BYTES)
    except PermissionError:
        raise InputError("the file may not be read", code=Code.PERMISSION, path=path) from None
    except OSError:
        raise InputError("the file cannot be read", code=Code.UNREADABLE_FILE, path=path) from None
    return kind_of(head)


def kind_of(head: bytes) -> FileKind:
    """What the first bytes (132, or all of a shorter file) say."""
    if not head:
        return FileKind.EMPTY
    if head[128:132] == b"DICM":
        return FileKind.DICOM
    if head[4:8] in _MP4_BOXES:
        return FileKind.MP4
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return FileKind.AVI
    if head[:4] == _EBML:
        return FileKind.MATROSKA
    # TIFF may hold DICOM's private uses in its first 128 bytes; DICM was asked for first on purpose.
    return FileKind.IMAGE if head.startswith(_IMAGE_MAGIC) else FileKind.OTHER


def check_complete(path: Path, kind: FileKind) -> None:
    """Compare the sizes that the outer boxes of a video claim with the bytes that are there.

    Raises
    ------
    InputError
        ``E_VIDEO`` if the file ends before the boxes do, or if the index of an mp4 or mov is missing.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if kind is FileKind.MP4:
            ended, indexed = _walk_mp4(file, size)
        elif kind is FileKind.AVI:
            file.seek(4)
            ended, indexed = 8 + int.from_bytes(file.read(4), "little") <= size, True
        else:
            ended, indexed = _matroska_ends(file, size), True
    if not ended:
        raise InputError(
            "the video is cut off: it ends before the length it states",
            code=Code.VIDEO,
            path=path,
            value=f"{size} bytes",
            hint="Copy it again from the scanner or archive.",
        )
    if not indexed:
        raise InputError(
            "the video has no index (moov box): the recording was not finished",
            code=Code.VIDEO,
            path=path,
            hint="Export it again from the scanner or archive.",
        )


def _walk_mp4(file: BinaryIO, size: int) -> tuple[bool, bool]:
    """Whether the top-level boxes (ISO/IEC 14496-12, section 4.2) end within the file, and whether one is ``moov``."""
    position, indexed = 0, False
    while position + 8 <= size:
        file.seek(position)
        header = file.read(16)
        length, name = int.from_bytes(header[:4], "big"), header[4:8]
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        elif length == 0:
            length = size - position
        if length < 8:
            break
        indexed = indexed or name == b"moov"
        position += length
    return position <= size, indexed


def _matroska_ends(file: BinaryIO, size: int) -> bool:
    """Whether the segment (RFC 9559, section 5.1) ends within the file; true where its length is not stated."""
    file.seek(4)
    header, used = _ebml_length(file)
    position = 4 + used + (header or 0)
    file.seek(position)
    if file.read(4) != _MKV_SEGMENT:
        return position < size
    segment, used = _ebml_length(file)
    return segment is None or position + 4 + used + segment <= size


def _ebml_length(file: BinaryIO) -> tuple[int | None, int]:
    """A variable-length integer (RFC 8794, section 4) and the bytes it takes; None where all its bits are set (unknown)."""
    first = file.read(1)
    if not first or first[0] == 0:
        return 0, 1
    width = 9 - first[0].bit_length()
    value = int.from_bytes(first + file.read(width - 1), "big") & ((1 << 7 * width) - 1)
    return (None if value == (1 << 7 * width) - 1 else value), width
