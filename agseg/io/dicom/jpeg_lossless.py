"""Whether a JPEG Lossless codestream holds all of the picture that was decoded from it.

Decoders fill the rest of a codestream that ends early with grey, and say nothing. But the code is exact: the bits that the
decoded picture needs are those that the stream has. They are counted here, without decoding again.
Source: ISO/IEC 10918-1 (ITU-T T.81), annex H (predictors, categories) and annex B (markers).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agseg.errors import Code, InputError

_SOF3, _DHT, _SOS, _DRI = 0xC3, 0xC4, 0xDA, 0xDD

MOST_CATEGORY = 16
"""Category of a difference of 32768, which has no further bits."""

MOST_SPARE_BITS = 256
"""Beyond the last byte of each interval, which is filled up, an encoder may leave this much unused."""


@dataclass(frozen=True, eq=False)
class _Scan:
    precision: int
    predictor: int
    shift: int
    lengths: NDArray[np.int64]
    """Bits of the code of each category; 0 for a category that has none."""
    restart_rows: int
    """Rows after which prediction begins anew."""
    bits: int
    """Bits of entropy-coded data that are there."""


def check_all_coded(codestream: bytes, decoded: NDArray[Any]) -> None:
    """Refuse a decoded picture (rows, columns; stored patterns) that needs more bits than its codestream has, or far fewer.

    Codestreams that are not one lossless scan of one component are passed over.

    Raises
    ------
    InputError
        ``E_TRUNCATED`` or ``E_DECODE``.
    """
    try:
        scan = _scan(codestream, decoded.shape[1])
    except (struct.error, IndexError):
        raise InputError("the compressed frame ends inside its header", code=Code.TRUNCATED) from None
    if scan is None:
        return
    categories = _categories(_differences(decoded, scan))
    counts = np.bincount(categories.ravel(), minlength=MOST_CATEGORY + 1)
    codes = np.zeros(MOST_CATEGORY + 1, dtype=np.int64)
    codes[: len(scan.lengths)] = scan.lengths
    further = np.where(np.arange(MOST_CATEGORY + 1) < MOST_CATEGORY, np.arange(MOST_CATEGORY + 1), 0)
    needed = int((counts * (codes + further)).sum())
    if needed > scan.bits or (counts[codes == 0] > 0).any():
        raise InputError(
            "the compressed frame ends before its picture does",
            code=Code.TRUNCATED,
            value=f"{scan.bits} bits",
            expected=f"{needed}",
        )
    intervals = -(-decoded.shape[0] // scan.restart_rows) if scan.restart_rows else 1
    if scan.bits - needed >= 8 * intervals + MOST_SPARE_BITS:
        raise InputError(
            "the compressed frame is damaged: its picture is not all that it holds",
            code=Code.DECODE,
            value=f"{scan.bits} bits",
            expected=f"{needed}",
        )


def _scan(data: bytes, columns: int) -> _Scan | None:
    """What the markers before the entropy-coded data say, and how much of that there is."""
    at, precision, restart = 2, 0, 0
    tables: dict[int, NDArray[np.int64]] = {}
    while data[at] == 0xFF:
        marker, length = data[at + 1], struct.unpack_from(">H", data, at + 2)[0]
        body = data[at + 4 : at + 2 + length]
        if marker == _SOF3:
            precision = body[0]
            if body[5] != 1:
                return None
        elif 0xC0 <= marker <= 0xCF and marker not in (_DHT, 0xC8, 0xCC):
            return None
        elif marker == _DHT:
            tables.update(_tables(body))
        elif marker == _DRI:
            restart = struct.unpack_from(">H", body)[0]
        elif marker == _SOS:
            table = tables.get(body[2] >> 4)
            if body[0] != 1 or table is None or not precision or restart % columns:
                return None
            bits = _coded_bits(np.frombuffer(data, dtype=np.uint8, offset=at + 2 + length))
            return _Scan(precision, body[3], body[5] & 15, table, restart // columns, bits)
        at += 2 + length
    return None


def _tables(body: bytes) -> dict[int, NDArray[np.int64]]:
    """Code length of each category, by the number of the table."""
    found, at = {}, 0
    while at + 17 <= len(body):
        number, counts = body[at] & 15, body[at + 1 : at + 17]
        symbols = body[at + 17 : at + 17 + sum(counts)]
        lengths = np.zeros(256, dtype=np.int64)
        lengths[list(symbols)] = np.repeat(np.arange(1, 17), list(counts))[: len(symbols)]
        found[number] = lengths[: MOST_CATEGORY + 1]
        at += 17 + sum(counts)
    return found


def _coded_bits(data: NDArray[np.uint8]) -> int:
    """Bits of entropy-coded data: without stuffed zeros and restart markers, up to the first other marker."""
    marks = np.flatnonzero(data[:-1] == 0xFF)
    behind = data[marks + 1]
    is_restart = (behind >= 0xD0) & (behind <= 0xD7)
    ends = marks[(behind != 0) & ~is_restart]
    end = int(ends[0]) if ends.size else data.size
    inside = marks < end
    return 8 * (end - int((inside & (behind == 0)).sum()) - 2 * int((inside & is_restart).sum()))


def _differences(decoded: NDArray[Any], scan: _Scan) -> NDArray[np.int32]:
    """What was coded of each sample: its difference from what its neighbours predict, from -32767 to 32768."""
    value = (decoded.astype(np.int32) & ((1 << scan.precision) - 1)) >> scan.shift
    left, above, corner = np.zeros_like(value), np.zeros_like(value), np.zeros_like(value)
    left[:, 1:], above[1:], corner[1:, 1:] = value[:, :-1], value[:-1], value[:-1, :-1]
    if scan.predictor == 1:
        predicted = left
    elif scan.predictor == 2:
        predicted = above.copy()
    elif scan.predictor == 3:
        predicted = corner
    elif scan.predictor == 4:
        predicted = left + above - corner
    elif scan.predictor == 5:
        predicted = left + ((above - corner) >> 1)
    elif scan.predictor == 6:
        predicted = above + ((left - corner) >> 1)
    else:
        predicted = (left + above) >> 1
    predicted[:, 0] = above[:, 0]
    first = slice(None, None, scan.restart_rows) if scan.restart_rows else slice(0, 1)
    predicted[first, 1:] = value[first, :-1]
    predicted[first, 0] = 1 << (scan.precision - scan.shift - 1)
    difference = (value - predicted) & 0xFFFF
    return np.where(difference > 0x8000, difference - 0x10000, difference).astype(np.int32)


def _categories(difference: NDArray[np.int32]) -> NDArray[np.int64]:
    """Number of bits of the size of each difference."""
    return np.frexp(np.abs(difference).astype(np.float32))[1].astype(np.int64)
