"""DICOM objects in the bodies of HTTP: ``multipart/related``, one object at a time.

Source: DICOM PS3.18, section 8.6.1.2; RFC 2046, section 5.1.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from pathlib import Path

from agseg.errors import PacsError

PIECE_BYTES = 64 * 1024


@dataclass(frozen=True)
class Upload:
    """A file as the one part of a request's body; ``Upload(None)`` is a body with no part."""

    path: Path | None

    def __post_init__(self) -> None:
        object.__setattr__(self, "_boundary", secrets.token_hex(16))

    @property
    def headers(self) -> dict[str, str]:
        """Content-Type and Content-Length."""
        size = 0 if self.path is None else self.path.stat().st_size
        kind = f'multipart/related; type="application/dicom"; boundary={self._boundary}'  # type: ignore[attr-defined]
        return {"Content-Type": kind, "Content-Length": str(size + sum(map(len, self._frame())))}

    def pieces(self) -> Iterator[bytes]:
        """The body."""
        head, tail = self._frame()
        yield head
        if self.path is not None:
            with self.path.open("rb") as file:
                while piece := file.read(PIECE_BYTES):
                    yield piece
        yield tail

    def _frame(self) -> tuple[bytes, bytes]:
        boundary = self._boundary  # type: ignore[attr-defined]
        if self.path is None:
            return b"", f"--{boundary}--\r\n".encode()
        return f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode(), f"\r\n--{boundary}--\r\n".encode()


def only_part(content_type: str, body: bytearray) -> bytes:
    """The one object in an answer, byte for byte as the server sent it.

    Raises
    ------
    PacsError
        If the answer is none of DICOM objects, was cut, or holds several.
    """
    header = Message()
    header["Content-Type"] = content_type
    if header.get_content_type() == "application/dicom":
        return bytes(body)
    boundary = header.get_param("boundary")
    if header.get_content_maintype() != "multipart" or not isinstance(boundary, str) or not boundary:
        raise PacsError("the archive answered with something else than a DICOM object")
    mark = b"--" + boundary.encode("latin-1", "replace")
    start = body.find(mark)
    begin = body.find(b"\r\n\r\n", start)
    end = body.find(b"\r\n" + mark, begin)
    if start < 0 or begin < 0 or end < 0:
        raise PacsError("the archive's answer was cut short")
    if body[end + 2 + len(mark) :][:2] != b"--":
        raise PacsError("the archive answered with several objects, and was asked for one")
    return bytes(memoryview(body)[begin + 4 : end])
