"""A video inside a DICOM object: its stream as a file, and which container it is in.

MPEG-2, H.264 and HEVC are stored as they are, in one fragment or cut into several (PS3.5 8.2.5 to 8.2.8, A.4). The stream is
an mp4, an MPEG transport or programme stream, or bare; its first bytes say which.
"""

from __future__ import annotations

import io
import os
from bisect import bisect_right
from pathlib import Path

from agseg.errors import Code, InputError
from agseg.io.opening import open_regular

_MPEG2, _H264, _HEVC = "mpegvideo", "h264", "hevc"
_BARE = {"100": _MPEG2, "101": _MPEG2, **dict.fromkeys(("102", "103", "104", "105", "106"), _H264), "107": _HEVC, "108": _HEVC}
"""Last number of the transfer syntax (``.1`` behind it: fragments may be cut anywhere): FFmpeg's name of the bare stream."""

_PREFIX = "1.2.840.10008.1.2.4."

_ITEM, _SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"

_TRANSPORT_PACKET = 188

MOST_FRAGMENTS = 1_000_000
"""More fragments than this are a file that lies."""


def _number(syntax: str) -> str:
    return syntax.removeprefix(_PREFIX).removesuffix(".1") if syntax.startswith(_PREFIX) else ""


def is_video_syntax(syntax: str) -> bool:
    """Whether a transfer syntax is one of MPEG-2, H.264 and HEVC."""
    return _number(syntax) in _BARE


def container_of(head: bytes, syntax: str) -> str:
    """FFmpeg's name of the container that a stream of this transfer syntax begins as."""
    if head[4:8] == b"ftyp":
        return "mp4"
    if head[:1] == b"\x47" and head[_TRANSPORT_PACKET : _TRANSPORT_PACKET + 1] == b"\x47":
        return "mpegts"
    if head[:4] == b"\0\0\x01\xba":
        return "mpeg"
    return _BARE[_number(syntax)]


class FragmentStream(io.RawIOBase):
    """The fragments of encapsulated pixels, one behind the other, as one seekable file that is read and never held.

    Parameters
    ----------
    path
        The DICOM file.
    offset
        Where the pixel element's value begins: at the item of its offset table.

    Raises
    ------
    InputError
        ``E_TRUNCATED`` or ``E_DECODE`` if the fragments do not end within the file.
    """

    def __init__(self, path: Path, offset: int) -> None:
        self._file = open_regular(path)
        try:
            self._spans = self._find(path, offset)
        except BaseException:
            self._file.close()
            raise
        self._starts = [0]
        for _, length in self._spans:
            self._starts.append(self._starts[-1] + length)
        self._at = 0

    def _find(self, path: Path, offset: int) -> list[tuple[int, int]]:
        size, at = os.fstat(self._file.fileno()).st_size, offset
        spans: list[tuple[int, int]] = []
        while len(spans) <= MOST_FRAGMENTS:
            self._file.seek(at)
            start = self._file.read(8)
            tag, length = start[:4], int.from_bytes(start[4:], "little")
            if tag == _SEQUENCE_END:
                return spans[1:]
            if len(start) < 8 or (tag == _ITEM and at + 8 + length > size):
                raise InputError("the file ends inside its compressed pixels", code=Code.TRUNCATED, path=path)
            if tag != _ITEM:
                break
            spans.append((at + 8, length))
            at += 8 + length
        raise InputError("the compressed pixels are damaged", code=Code.DECODE, path=path)

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """Position in the stream (bytes)."""
        return self._at

    @property
    def length(self) -> int:
        """Bytes of the whole stream."""
        return self._starts[-1]

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move; may lie behind the end, where nothing is read."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.length}[whence]
        self._at = max(0, base + offset)
        return self._at

    def read(self, size: int = -1) -> bytes:
        """Up to ``size`` bytes, over the borders of fragments; fewer only at the end."""
        left = self.length - self._at if size is None or size < 0 else size
        parts = []
        while left > 0 and self._at < self.length:
            number = bisect_right(self._starts, self._at) - 1
            start, length = self._spans[number]
            inside = self._at - self._starts[number]
            self._file.seek(start + inside)
            part = self._file.read(min(left, length - inside))
            if not part:
                break
            parts.append(part)
            self._at += len(part)
            left -= len(part)
        return b"".join(parts)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()
