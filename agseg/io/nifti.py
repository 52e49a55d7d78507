"""NIfTI-1 and NIfTI-2, plain, gzipped or as a ``.hdr``/``.img`` pair: read strictly."""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from isal import igzip
from isal.igzip_lib import IsalError
from numpy.typing import NDArray

from agseg.errors import Code, InputError
from agseg.grid import Grid
from agseg.io.nifti_header import GZIP_MAGIC, NiftiHeader, parse_header
from agseg.io.opening import open_regular
from agseg.io.plain_volume import as_volume
from agseg.io.voxels import as_labels, check_not_hollow
from agseg.study import Study
from agseg.volume import Volume

MOST_HEADER_BYTES = 540

LARGEST_DEFLATE_RATIO = 1100
"""Deflate cannot pack better than 1032 to 1: a header that promises more bytes than that lies."""

LONGEST_TRAILER_BYTES = 64 * 1024**2
"""How many zeros behind the voxels are taken for padding."""

CHUNK_BYTES = 4 * 1024**2

DAMAGE: Any = (OSError, EOFError, zlib.error, IsalError, ValueError)
"""What reading a damaged gzip stream raises: the checksum as OSError, the stream as isal's own error."""


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The unpacked content; gzip is known by its first bytes, not by the suffix."""
    unpacker: Any = igzip.GzipFile
    with open_regular(path) as raw:
        packed = raw.read(2) == GZIP_MAGIC
        raw.seek(0)
        if packed:
            with unpacker(fileobj=raw, mode="rb") as stream:
                yield stream
        else:
            yield raw


def read_nifti(study: Study) -> Volume:
    """Read a NIfTI study.

    Returns
    -------
    Volume
        Voxels (i, j, k) as stored, see :func:`~agseg.io.plain_volume.as_volume`.

    Raises
    ------
    InputError
        With the reason code of the rule that is broken.
    """
    header, stored = _read_array(study.files[0], is_scan=True, image=study.files[1] if len(study.files) > 1 else None)
    return as_volume(stored, header.scale, header.grid, study)


def read_nifti_array(path: Path, *, image: Path | None = None, sheared: bool = False) -> tuple[NiftiHeader, NDArray[Any]]:
    """Header and stored voxels (i, j, k), Fortran-ordered, in the file's own dtype and without scaling.

    Parameters
    ----------
    image
        The ``.img`` file of a pair; looked for beside the header if not given.
    sheared
        Accept voxel axes that are not perpendicular.

    Notes
    -----
    The path is one that the user chose, a data set's or a mask's, and may be a link; links among studies are never followed.
    """
    return _read_array(path.resolve(), image=image, sheared=sheared)


def _read_array(
    path: Path, *, image: Path | None = None, sheared: bool = False, is_scan: bool = False
) -> tuple[NiftiHeader, NDArray[Any]]:
    header = read_nifti_header(path, sheared=sheared)
    if header.is_pair:
        image = image or pair_image(path)
        if image is None:
            raise InputError("a header without its .img file", code=Code.NO_PIXELS, path=path)
    source = image if header.is_pair and image is not None else path
    _check_room(source, header)
    if is_scan:
        check_not_hollow(source.stat().st_size, header.voxel_bytes)
    memory = np.empty(header.voxel_bytes, dtype=np.uint8)
    with _damage_as_input_error(source), opened(source) as stream:
        _skip(stream, header.offset)
        _read_exactly(stream, memory.data)
        read_to_end(stream)
    stored = memory.view(header.dtype).reshape(header.grid.shape, order="F")
    return header, stored


@dataclass(frozen=True, eq=False)
class NiftiFile:
    """A NIfTI file whose header is valid: what discovery asks of it."""

    header: NiftiHeader
    files: tuple[Path, ...]
    """The file, or header and image of a pair."""

    @property
    def grid(self) -> Grid:
        """Where the voxels are."""
        return self.header.grid

    def values(self) -> Iterator[NDArray[Any]]:
        """The voxels' values in their order, flat and in pieces.

        Raises
        ------
        InputError
            If the file ends early or is damaged.
        """
        source, header = self.files[-1], self.header
        left, size = header.voxel_bytes, CHUNK_BYTES - CHUNK_BYTES % header.dtype.itemsize
        with _damage_as_input_error(source), opened(source) as stream:
            _skip(stream, header.offset)
            while left:
                piece = bytearray(min(size, left))
                _read_exactly(stream, memoryview(piece))
                left -= len(piece)
                stored = np.frombuffer(piece, dtype=header.dtype)
                yield stored if header.scale is None else stored * np.float64(header.scale[0]) + np.float64(header.scale[1])


def find_nifti(path: Path) -> NiftiFile:
    """The checked header of a file, or of a pair with its image; voxel axes may be sheared, as those of a mask may be.

    Raises
    ------
    InputError
        As :func:`read_nifti_header`; ``E_NO_PIXELS`` for a header without its image.
    """
    header = read_nifti_header(path, sheared=True)
    if not header.is_pair:
        return NiftiFile(header, (path,))
    image = pair_image(path)
    if image is None:
        raise InputError("a header without its .img file", code=Code.NO_PIXELS, path=path)
    return NiftiFile(header, (path, image))


def files_of_nifti(path: Path) -> tuple[Path, ...]:
    """The files of the study that a NIfTI or Analyze file begins, before its header is read: a ``.hdr`` with its image."""
    image = pair_image(path) if path.name.lower().removesuffix(".gz").endswith(".hdr") else None
    return (path,) if image is None else (path, image)


def read_labels(path: Path) -> tuple[NiftiHeader, NDArray[np.uint8]]:
    """Header and label values of a mask or label map: uint8 (i, j, k), Fortran-ordered, the header's scale applied.

    Its grid may be sheared, as that of a scan with a tilted gantry is.

    Raises
    ------
    InputError
        As :func:`read_nifti_array`; ``E_DTYPE`` if a value is no whole number from 0 to 255.
    """
    header, stored = read_nifti_array(path, sheared=True)
    try:
        return header, as_labels(stored, header.scale)
    except InputError as error:
        raise InputError(error.message, code=error.code, path=path, value=error.value, expected=error.expected) from None


def read_nifti_header(path: Path, *, sheared: bool = False) -> NiftiHeader:
    """The checked header of a file, plain or gzipped; ``sheared`` as in :func:`parse_header`."""
    with _damage_as_input_error(path), opened(path) as stream:
        head = stream.read(MOST_HEADER_BYTES)
    if not head:
        raise InputError("the file is empty", code=Code.TRUNCATED, path=path)
    return parse_header(head, sheared=sheared)


def pair_image(header: Path) -> Path | None:
    """The ``.img`` file that belongs to a ``.hdr`` file, if it is there and is a regular file."""
    for suffix in (".img", ".img.gz", ".IMG"):
        image = header.with_name(_stem(header) + suffix)
        try:
            if stat.S_ISREG(image.lstat().st_mode):
                return image
        except OSError:  # it is not there, or the header's own name leaves no room for this one
            continue
    return None


def _stem(path: Path) -> str:
    name = path.name.removesuffix(".gz")
    return name.rsplit(".", 1)[0]


def _check_room(source: Path, header: NiftiHeader) -> None:
    """Hold the file's size against the header."""
    with _damage_as_input_error(source), open_regular(source) as raw:
        packed = raw.read(2) == GZIP_MAGIC
        size = os.fstat(raw.fileno()).st_size
    needed = header.offset + header.voxel_bytes
    if packed and needed > size * LARGEST_DEFLATE_RATIO:
        raise InputError("the header promises more voxels than the file can hold", code=Code.HEADER_LIES, path=source)
    if not packed and needed > size:
        raise InputError("the file is shorter than its voxels", code=Code.TRUNCATED, path=source, value=size, expected=needed)


@contextmanager
def _damage_as_input_error(path: Path) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise InputError(error.message, code=error.code, path=path, value=error.value, expected=error.expected) from None
    except EOFError:
        raise InputError("the file ends before its voxels do", code=Code.TRUNCATED, path=path) from None
    except PermissionError:
        raise InputError("no permission to read the file", code=Code.PERMISSION, path=path) from None
    except DAMAGE as error:
        raise InputError(f"the gzip stream is damaged ({type(error).__name__})", code=Code.DECODE, path=path) from None


def _skip(stream: BinaryIO, count: int) -> None:
    while count:
        got = len(stream.read(min(count, CHUNK_BYTES)))
        if not got:
            raise EOFError
        count -= got


def _read_exactly(stream: BinaryIO, target: memoryview) -> None:
    at = 0
    while at < len(target):
        got = stream.readinto(target[at : at + CHUNK_BYTES])  # type: ignore[attr-defined]
        if not got:
            raise EOFError
        at += got


def read_to_end(stream: BinaryIO) -> None:
    """Nothing but padding may lie behind the voxels: where there is more, the header's sizes are not those of the image.

    At the end of a gzip stream stands its checksum, which is verified by getting there.

    Raises
    ------
    InputError
        ``E_HEADER_LIES``.
    """
    dropped = 0
    while piece := stream.read(CHUNK_BYTES):
        dropped += len(piece)
        if dropped > LONGEST_TRAILER_BYTES or piece.strip(b"\0"):
            raise InputError("the file holds more than the voxels of its header", code=Code.HEADER_LIES)
