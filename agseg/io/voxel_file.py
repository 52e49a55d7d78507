"""The voxels that a MetaImage or NRRD header speaks of: where they are in which file, read by exact length.

A header promises a number of bytes. A file that holds fewer is cut off, one that holds more contradicts its header, and a
compressed stream is unpacked into exactly the promised memory and held against its own checksum. Nothing is filled up.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np
from isal import isal_zlib
from isal.igzip_lib import IsalError
from numpy.typing import NDArray

from agseg.errors import Code, InputError
from agseg.grid import Grid
from agseg.io.opening import open_regular

LARGEST_DEFLATE_RATIO = 1100
"""Deflate cannot pack better than 1032 to 1: a header that promises more bytes than that lies."""

CHUNK_BYTES = 1 << 20

DAMAGED: Any = IsalError
"""What a damaged stream raises, a wrong checksum included."""


class Packing(IntEnum):
    """How the voxels are compressed; the value is zlib's ``wbits``."""

    NONE = 0
    ZLIB = 15
    GZIP = 31


class AtEnd:
    """Stands for an offset: the voxels are the last bytes of the file."""


@dataclass(frozen=True, eq=False)
class VoxelFile:
    """What a valid header says: the grid (RAS+ mm), the stored type, and which bytes of which file are the voxels.

    Parameters
    ----------
    grid
        Shape (i, j, k) and affine.
    dtype
        Stored type with its byte order.
    header, path
        The header's file, and the file of the voxels; one and the same, or side by side.
    offset
        First byte of the voxels, or of their compressed stream.
    packing
        How they are compressed.
    skip_lines, skip_bytes
        Lines behind ``offset`` (of the packed file) and bytes (of the unpacked voxels) that are passed over first.
    packed_bytes
        Length of the compressed stream, where the header states it.
    """

    grid: Grid
    dtype: np.dtype[Any]
    header: Path
    path: Path
    offset: int | type[AtEnd] = 0
    packing: Packing = Packing.NONE
    skip_lines: int = 0
    skip_bytes: int = 0
    packed_bytes: int | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """The header's file first."""
        return (self.header,) if self.path == self.header else (self.header, self.path)

    @property
    def voxel_bytes(self) -> int:
        """Size of the unpacked voxels."""
        return int(np.prod(self.grid.shape, dtype=np.int64)) * self.dtype.itemsize

    def check_length(self) -> None:
        """Compare the file's size with what the header promises.

        Raises
        ------
        InputError
            ``E_TRUNCATED`` or ``E_HEADER_LIES``; ``E_NO_PIXELS`` if there is no such file.
        """
        with self._opened():
            pass

    def read(self) -> NDArray[Any]:
        """The stored voxels (i, j, k), Fortran-ordered.

        Raises
        ------
        InputError
            As :meth:`check_length`; ``E_DECODE`` if the stream is damaged.
        """
        memory = np.empty(self.voxel_bytes, dtype=np.uint8)
        at = 0
        for chunk in self.chunks():
            memory[at : at + len(chunk)] = np.frombuffer(chunk, dtype=np.uint8)
            at += len(chunk)
        return memory.view(self.dtype).reshape(self.grid.shape, order="F")

    def values(self) -> Iterator[NDArray[Any]]:
        """The voxels' values in their order, flat and in pieces of whole voxels.

        Raises
        ------
        InputError
            As :meth:`read`.
        """
        rest = b""
        for chunk in self.chunks():
            whole = rest + chunk
            cut = len(whole) - len(whole) % self.dtype.itemsize
            rest = whole[cut:]
            if cut:
                yield np.frombuffer(whole[:cut], dtype=self.dtype)

    def chunks(self) -> Iterator[bytes]:
        """The bytes of the voxels, in pieces; the last one is given only once length and checksum are known to be right.

        Raises
        ------
        InputError
            As :meth:`read`.
        """
        with self._opened() as raw:
            pieces = self._plain(raw) if self.packing is Packing.NONE else self._unpacked(raw)
            yield from self._exactly(pieces)

    def _exactly(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """Drop ``skip_bytes``, give the voxels, and demand that nothing is behind them."""
        skip, left, held = self.skip_bytes, self.voxel_bytes, b""
        for piece in pieces:
            rest = piece[skip:] if skip else piece
            skip -= min(skip, len(piece))
            if len(rest) > left:
                raise self._error("the file holds more voxels than its header says", Code.HEADER_LIES)
            left -= len(rest)
            if held:
                yield held
            held = rest
        if left:
            raise self._error("the file ends before its voxels do", Code.TRUNCATED)
        yield held

    def _plain(self, raw: BinaryIO) -> Iterator[bytes]:
        while piece := raw.read(CHUNK_BYTES):
            yield piece

    def _unpacked(self, raw: BinaryIO) -> Iterator[bytes]:
        make: Any = isal_zlib.decompressobj
        stream = make(wbits=int(self.packing))
        packed, members = b"", 0
        try:
            while packed := packed or raw.read(CHUNK_BYTES):
                if stream.eof:
                    # gzip joins streams one behind the other; zlib does not.
                    if self.packing is not Packing.GZIP:
                        raise self._error("bytes behind the compressed voxels", Code.HEADER_LIES)
                    stream, members = make(wbits=int(self.packing)), members + 1
                piece = stream.decompress(packed, CHUNK_BYTES)
                packed = stream.unused_data if stream.eof else stream.unconsumed_tail
                if piece:
                    yield piece
        except DAMAGED:
            raise self._error("the compressed voxels are damaged", Code.DECODE) from None
        if not stream.eof:
            raise self._error("the file ends before its voxels do", Code.TRUNCATED)

    @contextmanager
    def _opened(self) -> Iterator[BinaryIO]:
        """The file at the first byte of the voxels, its length checked."""
        try:
            raw = open_regular(self.path)
        except InputError as error:
            if error.code is Code.SYMLINK and self.path != self.header:
                raise self._error("the voxels' file is a link", Code.PATH_ESCAPE) from None
            raise
        except FileNotFoundError:
            if self.path == self.header:
                raise
            raise self._error("the voxels' file is not there", Code.NO_PIXELS) from None
        with raw:
            size = os.fstat(raw.fileno()).st_size
            start = self._start(raw, size)
            self._check_room(size - start)
            raw.seek(start)
            yield raw

    def _start(self, raw: BinaryIO, size: int) -> int:
        if not isinstance(self.offset, int):
            return max(0, size - self.voxel_bytes)
        raw.seek(self.offset)
        for _ in range(self.skip_lines):
            if not raw.readline(CHUNK_BYTES).endswith(b"\n"):
                raise self._error("the file has fewer lines than its header passes over", Code.HEADER_LIES)
        return raw.tell()

    def _check_room(self, there: int) -> None:
        needed = self.voxel_bytes + self.skip_bytes
        if self.packing is Packing.NONE:
            if there < needed:
                raise self._error("the file is shorter than its voxels", Code.TRUNCATED, there, needed)
            if there > needed:
                raise self._error("the file is longer than its voxels", Code.HEADER_LIES, there, needed)
            return
        if self.packed_bytes is not None and there != self.packed_bytes:
            code = Code.TRUNCATED if there < self.packed_bytes else Code.HEADER_LIES
            raise self._error("the compressed voxels have another length than the header says", code, there, self.packed_bytes)
        if needed > max(there, 0) * LARGEST_DEFLATE_RATIO:
            raise self._error("the header promises more voxels than the file can hold", Code.HEADER_LIES, there, needed)

    def _error(self, message: str, code: Code, value: object = None, expected: object = None) -> InputError:
        return InputError(message, code=code, path=self.path, value=value, expected=expected)


def beside(header: Path, named: str) -> Path:
    """The file that a header names for its voxels: a name in the header's own folder, ``./`` allowed.

    Raises
    ------
    InputError
        ``E_PATH_ESCAPE`` for any other place, ``E_NO_PIXELS`` for a name that no file can have.
    """
    parts = PurePosixPath(named).parts
    if len(parts) != 1 or parts[0] in ("..", "/") or "\\" in named or "\0" in named:
        raise InputError("the voxels' file is outside the study", code=Code.PATH_ESCAPE, path=header)
    other = header.with_name(parts[0])
    if other == header:
        raise InputError("the header names itself as the file of its voxels", code=Code.HEADER_INVALID, path=header)
    if len(os.fsencode(parts[0])) > os.pathconf(header.parent, "PC_NAME_MAX"):
        raise InputError("the name of the voxels' file is too long for a file", code=Code.NO_PIXELS, path=header)
    return other
