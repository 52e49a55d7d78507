"""The elements of a DICOM file, from one to the next by their length, and the values of those that agseg keeps.

The walk stops at the pixels, and a sequence is skipped without recursion, one nested 3000 deep like any other. Parsers of
values take the raw bytes and whether the file's pixels are signed. Source: DICOM PS3.5, section 7.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection
from typing import Any

from agseg.errors import Code, InputError
from agseg.io.dicom.slice_header import UNDEFINED_LENGTH, PixelSpan

_LONG_VRS = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
_PIXEL_TAGS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
MOST_ITEMS = 500_000
"""A header with more items in its sequences is refused: enhanced CT of 16,000 frames has a third of them."""

_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD


def as_text(raw: bytes, _signed: bool) -> str:
    """Text as it stands, without its padding."""
    return raw.decode("latin-1").strip(" \0")


def _word(raw: bytes, _signed: bool) -> str:
    return raw.decode("latin-1").strip(" \0").upper()


def _words(raw: bytes, _signed: bool) -> tuple[str, ...]:
    return tuple(word.strip(" \0").upper() for word in raw.decode("latin-1").split("\\"))


def _numbers(raw: bytes, _signed: bool) -> tuple[float, ...] | None:
    text = raw.strip(b" \0")
    if not text:
        return None
    try:
        return tuple(float(part) for part in text.split(b"\\"))
    except ValueError:
        return (float("nan"),)


def _number(raw: bytes, _signed: bool) -> float | None:
    numbers = _numbers(raw, False)
    return numbers[0] if numbers else None


def _integer(raw: bytes, _signed: bool) -> int | None:
    number = _number(raw, False)
    return int(number) if number is not None and number == number and abs(number) < 2**31 else None


def _moment(raw: bytes, _signed: bool) -> str:
    """Digits of a date, a time or both, without the separators that old writers put in."""
    return "".join(c for c in raw.decode("latin-1") if c.isdigit() or c == ".")


def _frames(raw: bytes, _signed: bool) -> int:
    number = _integer(raw, False)
    return 1 if number is None else number


def as_short(raw: bytes, _signed: bool) -> int | None:
    """An unsigned number of 16 bits; None where it is too short."""
    return struct.unpack_from("<H", raw)[0] if len(raw) >= 2 else None


def as_short_of_either_sign(raw: bytes, signed: bool) -> int | None:
    """US or SS: which of them depends on PixelRepresentation, not on the VR a writer chose."""
    return struct.unpack_from("<h" if signed else "<H", raw)[0] if len(raw) >= 2 else None


def as_single(raw: bytes, _signed: bool) -> float | None:
    """A binary number of 32 bits; None where it is too short or none."""
    value = struct.unpack_from("<f", raw)[0] if len(raw) >= 4 else float("nan")
    return value if value == value else None


_Parser = Callable[[bytes, bool], Any]
WANTED: dict[int, tuple[str, _Parser]] = {
    0x00080008: ("image_type", _words),
    0x00080016: ("sop_class", as_text),
    0x00080018: ("sop_uid", as_text),
    0x00080021: ("series_date", _moment),
    0x00080022: ("acquisition_date", _moment),
    0x0008002A: ("acquisition_datetime", _moment),
    0x00080031: ("series_time", _moment),
    0x00080032: ("acquisition_time", _moment),
    0x00080060: ("modality", as_text),
    0x0008103E: ("series_description", as_text),
    0x00082111: ("derivation", as_text),
    0x00089207: ("technique", as_text),
    0x00100010: ("patient_name", as_text),
    0x00100020: ("patient_id", as_text),
    0x00100030: ("birth_date", as_text),
    0x00180015: ("body_part", as_text),
    0x00180060: ("kvp", _number),
    0x00180081: ("echo_time_ms", _number),
    0x00181060: ("trigger_time_ms", _number),
    0x00181210: ("kernel", as_text),
    0x0020000D: ("study_uid", as_text),
    0x0020000E: ("series_uid", as_text),
    0x00200011: ("series_number", _integer),
    0x00200012: ("acquisition_number", _integer),
    0x00200013: ("instance_number", _integer),
    0x00200032: ("position_mm", _numbers),
    0x00200037: ("orientation", _numbers),
    0x00200052: ("frame_of_reference", as_text),
    0x00200100: ("temporal_position", _integer),
    0x00201002: ("images_in_acquisition", _integer),
    0x00209161: ("concatenation", as_text),
    0x00209163: ("concatenation_parts", as_short),
    0x00209241: ("cardiac_phase", as_single),
    0x00280002: ("samples", as_short),
    0x00280004: ("photometric", _word),
    0x00280008: ("frames", _frames),
    0x00280010: ("rows", as_short),
    0x00280011: ("columns", as_short),
    0x00280030: ("pixel_spacing_mm", _numbers),
    0x00280100: ("bits_allocated", as_short),
    0x00280101: ("bits_stored", as_short),
    0x00280102: ("high_bit", as_short),
    0x00280103: ("signed", lambda raw, _: as_short(raw, False) == 1),
    0x00280120: ("padding", as_short_of_either_sign),
    0x00280121: ("padding_limit", as_short_of_either_sign),
    0x00281052: ("intercept", _number),
    0x00281053: ("slope", _number),
    0x00281054: ("rescale_type", as_text),
}
"""The tags that are kept: field of :class:`~agseg.io.dicom.slice_header.SliceHeader`, parser."""

META_CLASS, META_UID, META_SYNTAX = 0x00020002, 0x00020003, 0x00020010
META = (META_CLASS, META_UID, META_SYNTAX)


class OddError(Exception):
    """Not the common case: pydicom shall read it."""


class NeedMoreError(Exception):
    """The buffer ends before the header does."""


_explicit = struct.Struct("<HH2sH").unpack_from
_implicit = struct.Struct("<HHI").unpack_from
_long = struct.Struct("<I").unpack_from


def walk(
    data: bytes, start: int, file_bytes: int, *, explicit: bool, meta: bool = False, wanted: Collection[int] = WANTED
) -> tuple[dict[int, bytes], PixelSpan | None, int]:
    """Raw values of the wanted tags, the pixels, and where the walk ended; ``meta`` walks group 0002 only."""
    values: dict[int, bytes] = {}
    at, end, depth, last, items = start, len(data), 0, 0, 0
    # Inside a value of unknown representation everything is implicit (PS3.5, 6.2.2): from which depth on.
    unknown: int | None = None
    stated = explicit
    while True:
        if at + 12 > end:
            if end < file_bytes:
                raise NeedMoreError
            if at + 8 > end:
                if at == end and depth == 0:
                    return values, None, at
                raise InputError("the file ends inside its header", code=Code.TRUNCATED)
        group, element, vr, length = _explicit(data, at)
        tag = group << 16 | element
        if meta and group != 2:
            return values, None, at
        if group == 0xFFFE or not explicit:
            length = _implicit(data, at)[2]
            at += 8
        elif vr in _LONG_VRS:
            if at + 12 > end:
                raise InputError("the file ends inside its header", code=Code.TRUNCATED)
            length = _long(data, at + 8)[0]
            at += 12
        elif vr.isalpha() and vr.isupper():
            at += 8
        else:
            raise OddError
        if depth == 0:
            if tag <= last:
                raise OddError
            last = tag
        if tag in _PIXEL_TAGS and depth == 0:
            return values, PixelSpan(at, length, file_bytes - at), at
        if length == UNDEFINED_LENGTH:
            if explicit and vr == b"UN" and group != 0xFFFE:
                unknown, explicit = depth, False
            depth += 1
        if tag == _ITEM:
            items += 1
            if items > MOST_ITEMS:
                raise InputError("the header holds too many items", code=Code.HEADER_INVALID, expected=f"at most {MOST_ITEMS}")
        if length == UNDEFINED_LENGTH:
            continue
        if tag in (_ITEM_END, _SEQUENCE_END):
            depth -= 1
            if depth < 0:
                raise OddError
            if depth == unknown:
                unknown, explicit = None, stated
            continue
        stop = at + length
        if stop > file_bytes:
            raise InputError("an element is longer than the file", code=Code.TRUNCATED)
        if depth == 0 and tag in wanted:
            if stop > end:
                raise NeedMoreError
            values[tag] = data[at:stop]
        at = stop
        if at > end:
            raise NeedMoreError
