"""Uncompressed colour with one pair of chroma values for two pixels: YBR_FULL_422 and the retired YBR_PARTIAL_422.

Source: DICOM PS3.3 C.7.6.3.1.2 (stored as Y1 Y2 CB CR for each pair of pixels of a row).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from agseg.errors import Code, InputError
from agseg.io.dicom.pixels import NATIVE_LITTLE_ENDIAN
from agseg.io.dicom.slice_header import SliceHeader
from agseg.io.opening import open_regular

_SUBSAMPLED = ("YBR_FULL_422", "YBR_PARTIAL_422")


def is_subsampled(header: SliceHeader) -> bool:
    """Whether the stored frames are native, and have two bytes per pixel instead of three.

    Some writers say 422 and store all three: then the length says so, and the frames are read as YBR_FULL.
    """
    span = header.pixels
    native = span is not None and not span.is_encapsulated and header.transfer_syntax in NATIVE_LITTLE_ENDIAN
    return native and header.photometric in _SUBSAMPLED and header.samples == 3 and header.bits_allocated == 8


def check_length(header: SliceHeader) -> None:
    """Hold Rows x Columns x samples x frames against the bytes of native pixels; one byte of padding is allowed.

    Raises
    ------
    InputError
        ``E_TRUNCATED`` or ``E_HEADER_LIES``.
    """
    span = header.pixels
    if span is None or span.is_encapsulated or header.transfer_syntax not in NATIVE_LITTLE_ENDIAN:
        return
    pixels = (header.rows or 0) * (header.columns or 0) * max(header.frames, 1)
    per_pixel = header.samples * ((header.bits_allocated or 8) // 8)
    expected = [pixels * per_pixel, *([pixels * 2] if is_subsampled(header) else [])]
    if span.length > span.present:
        raise InputError("the file ends inside its pixels", code=Code.TRUNCATED, path=header.path)
    if span.length < min(expected):
        raise InputError(
            "the object holds fewer frames than it states", code=Code.TRUNCATED, path=header.path, value=span.length,
            expected=min(expected),
        )  # fmt: skip
    if not any(span.length in (size, size + size % 2) for size in expected):
        raise InputError(
            "Rows x Columns x frames does not fit the pixel bytes", code=Code.HEADER_LIES, path=header.path, value=span.length,
            expected=expected[0],
        )  # fmt: skip


def subsampled_frame(header: SliceHeader, index: int) -> NDArray[np.uint8]:
    """RGB of one frame, uint8 (row, column, 3)."""
    span, rows, columns = header.pixels, header.rows or 0, header.columns or 0
    assert span is not None
    full = span.length >= rows * columns * 3 * max(header.frames, 1)
    if not full and columns % 2:
        raise InputError("an odd number of columns with chroma in pairs", code=Code.HEADER_INVALID, path=header.path)
    count = rows * columns * (3 if full else 2)
    with open_regular(header.path) as stream:
        stream.seek(span.offset + index * count)
        stored = np.fromfile(stream, dtype=np.uint8, count=count)
    if stored.size != count:
        raise InputError("the file ends inside its pixels", code=Code.TRUNCATED, path=header.path)
    if full:
        ybr = stored.reshape(rows, columns, 3)
    else:
        pairs = stored.reshape(rows, columns // 2, 4)
        chroma = np.repeat(pairs[..., 2:], 2, axis=1)
        ybr = np.concatenate([pairs[..., :2].reshape(rows, columns, 1), chroma], axis=2)
    return _to_rgb(ybr, partial=header.photometric == "YBR_PARTIAL_422")


def _to_rgb(ybr: NDArray[np.uint8], *, partial: bool) -> NDArray[np.uint8]:
    """RGB of YBR (row, column, 3); ``partial``: luma from 16 to 235 and chroma from 16 to 240, as in television."""
    y, b, r = (ybr[..., channel].astype(np.float32) for channel in range(3))
    b, r = b - 128, r - 128
    if partial:
        y, b, r = (y - 16) * (255 / 219), b * (255 / 224), r * (255 / 224)
    rgb = np.stack([y + 1.402 * r, y - 0.344136 * b - 0.714136 * r, y + 1.772 * b], axis=-1)
    return np.asarray(np.clip(np.rint(rgb), 0, 255), dtype=np.uint8)
