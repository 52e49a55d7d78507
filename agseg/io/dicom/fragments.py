"""Compressed pixels before a codec sees them: fragments that end within the file, one whole codestream for each frame.

Source: DICOM PS3.5 A.4 (items of the encapsulated pixel data, closed by a sequence delimiter).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

from agseg.errors import Code, InputError
from agseg.io.dicom.slice_header import SliceHeader
from agseg.io.opening import open_regular

_ITEM, _SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"

_FRAME_MARKERS = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}
_LOSSY = frozenset({0xC0, 0xC1})
_PROGRESSIVE = 0xC2

_STARTS = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51")
_END = b"\xff\xd9"

LONGEST_CODESTREAM_HEADER = 4096
"""How much of each fragment is searched for the size of the frame (bytes)."""

LONGEST_PADDING = 16
"""Zeros that may stand behind the end of a codestream (bytes); the standard has at most one."""


def check_fragments(header: SliceHeader) -> None:
    """Refuse compressed pixels that do not hold a whole codestream for each frame: codecs fill the rest and say nothing.

    Raises
    ------
    InputError
        ``E_TRUNCATED``, ``E_DECODE``, ``E_HEADER_LIES``, or ``E_TRANSFER_SYNTAX`` for what no codec here decodes.
    """
    span = header.pixels
    if span is None or not span.is_encapsulated:
        return
    streams, ended = 0, True
    with open_regular(header.path) as stream:
        for length in _items(stream, header, span.offset):
            at = stream.tell()
            start = stream.read(min(length, LONGEST_CODESTREAM_HEADER))
            if start.startswith(_STARTS):
                streams += 1
                _check_end(header, ended=ended)
                _check_start(header, start)
            if streams:
                stream.seek(at + max(0, length - LONGEST_PADDING - len(_END)))
                tail = stream.read(min(length, LONGEST_PADDING + len(_END)))
                ended = tail.rstrip(b"\0").endswith(_END)
    _check_end(header, ended=ended)
    if streams > max(header.frames, 1):
        raise InputError(
            "more compressed frames than the header says", code=Code.HEADER_LIES, value=streams, expected=header.frames
        )


def _items(stream: BinaryIO, header: SliceHeader, offset: int) -> Iterator[int]:
    """Length of each fragment, with the stream at its first byte; the first one is the offset table."""
    at = offset
    while True:
        stream.seek(at)
        start = stream.read(8)
        if len(start) < 8:
            raise InputError("the file ends inside its compressed pixels", code=Code.TRUNCATED, path=header.path)
        tag, length = start[:4], int.from_bytes(start[4:], "little")
        if tag == _SEQUENCE_END:
            return
        if tag != _ITEM:
            raise InputError("the compressed pixels are damaged", code=Code.DECODE, path=header.path)
        if at + 8 + length > header.file_bytes:
            raise InputError("the file ends inside its compressed pixels", code=Code.TRUNCATED, path=header.path)
        yield length
        at += 8 + length


def _check_end(header: SliceHeader, *, ended: bool) -> None:
    if not ended:
        raise InputError("a compressed frame has no end marker: it is cut off", code=Code.TRUNCATED, path=header.path)


def _check_start(header: SliceHeader, data: bytes) -> None:
    found = _frame_header(data)
    if found is None:
        return
    rows, columns, bits, marker = found
    if rows and (rows, columns) != (header.rows, header.columns):
        # Checked before the codec sees it, because codecs take memory for what the codestream promises.
        raise InputError("the compressed frame is not of the header's size", code=Code.HEADER_LIES, path=header.path)
    if header.bits_allocated and bits > header.bits_allocated:
        raise InputError(
            "the compressed pixels have more bits than BitsAllocated",
            code=Code.HEADER_LIES,
            path=header.path,
            value=bits,
            expected=f"at most {header.bits_allocated}",
        )
    if marker == _PROGRESSIVE:
        # Without its later scans such a picture is whole, and blurred: no decoder can tell. The standard has retired it.
        raise InputError(
            "progressive JPEG is not decoded here: convert it to JPEG Lossless or to an uncompressed transfer syntax",
            code=Code.TRANSFER_SYNTAX,
            path=header.path,
        )
    if marker in _LOSSY and bits > 8:
        raise InputError(
            f"JPEG Extended with {bits} bits is not decoded here: convert it to JPEG Lossless or to an uncompressed "
            "transfer syntax",
            code=Code.TRANSFER_SYNTAX,
            path=header.path,
        )


def _frame_header(data: bytes) -> tuple[int, int, int, int] | None:
    """Rows, columns, bits per sample and marker with which a JPEG, JPEG-LS or JPEG 2000 codestream begins; None for others.

    Rows are 0 where their number follows the data (a DNL marker).
    Source: ISO/IEC 15444-1 A.5.1 (SIZ), ISO/IEC 10918-1 B.2.2 and 14495-1 C.2.2 (frame header).
    """
    if data.startswith(b"\xff\x4f\xff\x51") and len(data) >= 43:
        right, bottom, left, top = struct.unpack_from(">4I", data, 8)
        return bottom - top, right - left, (data[42] & 0x7F) + 1, 0x51
    if not data.startswith(b"\xff\xd8"):
        return None
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _FRAME_MARKERS:
            bits, rows, columns = struct.unpack_from(">B2H", data, at + 4)
            return rows, columns, bits, marker
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None
