"""Masks and scalar maps as NIfTI-1, plain or gzipped: the same voxels give the same bytes, and are read back before they count.

A volume is written and compared piece by piece, in the file's order: no copy of it is made.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from agseg.errors import Code, OutputError
from agseg.grid import Grid
from agseg.io.atomic import replacing
from agseg.io.nifti import DAMAGE, opened
from agseg.io.nifti_fields import NiftiFields
from agseg.io.nifti_header import SFORM_QFORM_TOLERANCE_MM
from agseg.labels import Label

PIECE_BYTES = 4 * 1024**2
"""Packed at a time. The packed bytes depend on it: another value makes other files of the same masks."""

COMPARED_BYTES = 1024**2

MASK_COMPRESSION = 2
"""isal level 2: masks shrink well at any level, and this one is fast."""

GZIP_WINDOW_BITS = 31
"""zlib's way of asking for a gzip stream."""

_HEADER_BYTES = 352
"""The header and the four bytes that say whether an extension follows."""

_TABLE_CODE = 0
"""Extension code of the label table, as TotalSegmentator has it; Caret's own, 30, is one that nibabel refuses to interpret."""

_PLANES_ACROSS = 4
"""Planes of an array across the file's order that are turned at a time: what is fetched from memory serves all of them."""

Pieces = Callable[[int], Iterator[NDArray[np.uint8]]]
"""The file's voxel bytes in pieces of so many bytes, each valid until the next is asked for."""


def write_mask(
    path: Path, labels: NDArray[np.uint8], grid: Grid, *, value: int | None = None, key: Iterable[Label] = ()
) -> None:
    """Write a mask as uint8 (i, j, k) on ``grid``; ``.nii.gz`` is gzipped. The same mask gives the same bytes.

    Parameters
    ----------
    value
        Write 1 where the labels have this value and 0 elsewhere; without it the labels themselves.
    key
        What the values mean, for readers that look for it in the header (:func:`label_table`).

    Raises
    ------
    OutputError
        If it cannot be written or does not read back as it was.
    """
    if labels.dtype != np.uint8:
        raise OutputError("a mask is written as uint8", code=Code.DTYPE, path=path, value=labels.dtype)

    _write(path, labels, grid, lambda size: _in_file_order(labels, size, value=value), extension=label_table(key))


def write_scalar(path: Path, values: NDArray[np.float32], grid: Grid) -> None:
    """Write a scalar map (a gate's coefficients, a probability) as float32 (i, j, k) on ``grid``; see :func:`write_mask`."""
    whole = values.astype(np.float32, copy=False)
    _write(path, whole, grid, lambda size: (piece.view(np.uint8) for piece in _in_file_order(whole, size // 4)))


def _in_file_order(values: NDArray[Any], size: int, *, value: int | None = None) -> Iterator[NDArray[Any]]:
    """The values flat, i fastest and k slowest, in pieces of ``size``, the last one shorter; each is valid until the next.

    With ``value`` 1 where they are equal to it and 0 elsewhere.
    """
    turned = values.transpose(2, 1, 0)
    if turned.flags.c_contiguous:
        flat = turned.reshape(-1)
        chosen = np.empty(0 if value is None else size, dtype=np.bool_)
        for start in range(0, flat.size, size):
            piece = flat[start : start + size]
            yield piece if value is None else np.equal(piece, value, out=chosen[: piece.size]).view(np.uint8)
        return
    buffer, filled = np.empty(size, dtype=values.dtype), 0
    for start in range(0, len(turned), _PLANES_ACROSS):
        planes = turned[start : start + _PLANES_ACROSS]
        rest = (planes if value is None else planes == value).reshape(-1)
        while rest.size:
            taken = min(rest.size, size - filled)
            buffer[filled : filled + taken] = rest[:taken]
            rest, filled = rest[taken:], filled + taken
            if filled == size:
                yield buffer
                filled = 0
    if filled:
        yield buffer[:filled]


def _write(path: Path, values: NDArray[Any], grid: Grid, pieces: Pieces, *, extension: bytes = b"") -> None:
    if values.shape != grid.shape:
        raise OutputError(
            "voxels and grid differ in shape", code=Code.OUTPUT, path=path, value=values.shape, expected=grid.shape
        )
    head = _header_bytes(values.dtype, grid, extension)
    written = _Sum()

    def check(temporary: Path) -> None:
        if not _reads_back(temporary, written):
            raise OutputError("the file did not read back as it was written", path=path)

    with replacing(path, check=check) as temporary, temporary.open("wb") as raw:
        (_pack if path.name.endswith(".gz") else _lay_out)(raw, written.through(head, pieces))


class _Sum:
    """Length and CRC-32 of what went through."""

    def __init__(self) -> None:
        self.length, self.crc = 0, 0

    def add(self, part: bytes | memoryview) -> None:
        self.length += len(part)
        self.crc = isal_zlib.crc32(part, self.crc)

    def through(self, head: bytes, pieces: Pieces) -> Iterator[bytes | memoryview]:
        self.add(head)
        yield head
        for piece in pieces(PIECE_BYTES):
            self.add(piece.data)
            yield piece.data


def _lay_out(raw: BinaryIO, parts: Iterator[bytes | memoryview]) -> None:
    for part in parts:
        raw.write(part)


def _pack(raw: BinaryIO, parts: Iterator[bytes | memoryview]) -> None:
    # No time and no name in the gzip header: the same mask gives the same bytes.
    packer = isal_zlib.compressobj(MASK_COMPRESSION, isal_zlib.DEFLATED, GZIP_WINDOW_BITS)
    for part in parts:
        raw.write(packer.compress(part))
    raw.write(packer.flush())


def _reads_back(path: Path, written: _Sum) -> bool:
    read = _Sum()
    try:
        with opened(path) as stream:
            while part := stream.read(COMPARED_BYTES):
                read.add(part)
    except DAMAGE:
        return False
    return (read.length, read.crc) == (written.length, written.crc)


def label_table(key: Iterable[Label]) -> bytes:
    """A header extension that names and colours labels, empty without any: Caret's label table.

    TotalSegmentator, and what was made for its label maps, looks for it there. Names stand in CDATA sections, whose end no
    name may hold.
    """
    rows = [
        f'<Label Key="{label.index}" Red="{label.rgb[0] / 255:.6g}" Green="{label.rgb[1] / 255:.6g}" '
        f'Blue="{label.rgb[2] / 255:.6g}" Alpha="1"><![CDATA[{label.name.replace("]]>", "]] >")}]]></Label>\n'
        for label in key
    ]
    if not rows:
        return b""
    content = (
        '<?xml version="1.0" encoding="UTF-8"?>\n<CaretExtension><VolumeInformation Index="0"><LabelTable>\n'
        f"{''.join(rows)}</LabelTable><VolumeType><![CDATA[Label]]></VolumeType></VolumeInformation></CaretExtension>\n"
    ).encode()
    size = 16 * -(-(len(content) + 8) // 16)
    return struct.pack("<2i", size, _TABLE_CODE) + content.ljust(size - 8)


def _header_bytes(dtype: np.dtype[Any], grid: Grid, extension: bytes) -> bytes:
    header = NiftiFields()
    header["sizeof_hdr"], header["magic"], header["vox_offset"] = 348, b"n+1\0", _HEADER_BYTES + len(extension)
    header["dim"][:] = (3, *grid.shape, 1, 1, 1, 1)
    header["pixdim"][:] = 1
    header["scl_slope"], header["scl_inter"] = 1, 0
    header.set_data_dtype(dtype)
    header.set_millimetres()
    header.set_sform(grid.affine)
    with_qform = header.copy()
    with_qform.set_qform(grid.affine)
    # ITK reads no file without a qform whose sform is sheared, however little.
    if Grid(grid.shape, with_qform.get_qform()).matches(grid, SFORM_QFORM_TOLERANCE_MM / 2):
        header = with_qform
    else:
        # A quaternion cannot express shear, and a little of it adds up over many slices: readers must take the sform.
        header["pixdim"][1:4] = grid.spacing_mm
    follows = b"\1" if extension else b"\0"
    return header.to_bytes() + follows.ljust(_HEADER_BYTES - 348, b"\0") + extension
