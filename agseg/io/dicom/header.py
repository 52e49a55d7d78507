"""One DICOM file's header, as far as grouping, geometry and rescaling need it.

A folder of a hospital holds thousands of slices, and a full parse of each is what makes tools slow to start. So the common
case, little endian with or without compression, is walked here: from element to element by its length, keeping about thirty
tags and stopping at the pixels, without recursion (a sequence nested 3000 deep is skipped like any other). Everything odd
(big endian, deflated, no preamble, enhanced multi-frame) goes through pydicom.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agseg.errors import Code, InputError
from agseg.io.dicom.dataset import open_dataset

__all__ = ["UNDEFINED_LENGTH", "PixelSpan", "SliceHeader", "looks_like_dicom", "read_header"]

UNDEFINED_LENGTH = 0xFFFFFFFF
"""Length of a sequence, item or compressed pixel element that ends with a delimiter."""

FIRST_READ_BYTES = 16 * 1024
"""Enough for the header of nearly every slice."""

LONGEST_HEADER_BYTES = 64 * 1024 * 1024
"""A header that is longer is not read."""

PREAMBLE_BYTES = 132

IMPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
EXPLICIT_BIG_ENDIAN = "1.2.840.10008.1.2.2"

ENHANCED_SOP_CLASSES = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.2.1",  # Enhanced CT
        "1.2.840.10008.5.1.4.1.1.2.2",  # Legacy Converted Enhanced CT
    }
)
CT_SOP_CLASSES = frozenset({"1.2.840.10008.5.1.4.1.1.2", *ENHANCED_SOP_CLASSES})

_LONG_VRS = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
_PIXEL_TAGS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD


@dataclass(frozen=True, slots=True)
class PixelSpan:
    """Where the pixel element lies in the file: first byte of its value, declared length, bytes that are really there."""

    offset: int
    length: int
    present: int

    @property
    def is_encapsulated(self) -> bool:
        """True for compressed pixels."""
        return self.length == UNDEFINED_LENGTH


@dataclass(frozen=True, slots=True)
class SliceHeader:
    """What one file says about itself. Missing numbers are None, missing text is empty; nothing here is validated yet.

    ``position_mm`` and ``orientation`` are in DICOM's LPS; ``pixel_spacing_mm`` is (row distance, column distance).
    ``pixels`` is None where the header was read by pydicom (then ``has_pixels`` is not known before decoding).
    """

    path: Path
    transfer_syntax: str = ""
    sop_class: str = ""
    sop_uid: str = field(default="", repr=False)
    sop_uid_recovered: bool = False
    patient_id: str = field(default="", repr=False)
    study_uid: str = field(default="", repr=False)
    series_uid: str = field(default="", repr=False)
    modality: str = ""
    image_type: tuple[str, ...] = ()
    body_part: str = field(default="", repr=False)
    series_number: int | None = None
    rows: int | None = None
    columns: int | None = None
    frames: int = 1
    samples: int = 1
    bits_allocated: int | None = None
    bits_stored: int | None = None
    signed: bool = False
    padding: int | None = None
    padding_limit: int | None = None
    slope: float | None = None
    intercept: float | None = None
    rescale_type: str = ""
    position_mm: tuple[float, ...] | None = None
    orientation: tuple[float, ...] | None = None
    pixel_spacing_mm: tuple[float, ...] | None = None
    pixels: PixelSpan | None = None
    file_bytes: int = 0

    @property
    def is_enhanced(self) -> bool:
        """True if geometry and rescale stand in functional groups."""
        return self.sop_class in ENHANCED_SOP_CLASSES

    @property
    def is_localizer(self) -> bool:
        """True for a scout: ImageType says LOCALIZER."""
        return "LOCALIZER" in self.image_type


# -- values ---------------------------------------------------------------------------------------------------------------


def _text(raw: bytes, _signed: bool) -> str:
    return raw.decode("latin-1").strip(" \0")


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


def _frames(raw: bytes, _signed: bool) -> int:
    number = _integer(raw, False)
    return 1 if number is None else number


def _short(raw: bytes, _signed: bool) -> int | None:
    return struct.unpack_from("<H", raw)[0] if len(raw) >= 2 else None


def _short_of_either_sign(raw: bytes, signed: bool) -> int | None:
    # US or SS: which of them depends on PixelRepresentation, not on the VR a writer chose.
    return struct.unpack_from("<h" if signed else "<H", raw)[0] if len(raw) >= 2 else None


_Parser = Callable[[bytes, bool], Any]
_WANTED: dict[int, tuple[str, _Parser]] = {
    0x00080008: ("image_type", _words),
    0x00080016: ("sop_class", _text),
    0x00080018: ("sop_uid", _text),
    0x00080060: ("modality", _text),
    0x00100020: ("patient_id", _text),
    0x00180015: ("body_part", _text),
    0x0020000D: ("study_uid", _text),
    0x0020000E: ("series_uid", _text),
    0x00200011: ("series_number", _integer),
    0x00200032: ("position_mm", _numbers),
    0x00200037: ("orientation", _numbers),
    0x00280002: ("samples", _short),
    0x00280008: ("frames", _frames),
    0x00280010: ("rows", _short),
    0x00280011: ("columns", _short),
    0x00280030: ("pixel_spacing_mm", _numbers),
    0x00280100: ("bits_allocated", _short),
    0x00280101: ("bits_stored", _short),
    0x00280103: ("signed", lambda raw, _: _short(raw, False) == 1),
    0x00280120: ("padding", _short_of_either_sign),
    0x00280121: ("padding_limit", _short_of_either_sign),
    0x00281052: ("intercept", _number),
    0x00281053: ("slope", _number),
    0x00281054: ("rescale_type", _text),
}
_META_CLASS, _META_UID, _META_SYNTAX = 0x00020002, 0x00020003, 0x00020010


# -- the walk -------------------------------------------------------------------------------------------------------------


class _OddError(Exception):
    """Not the common case: pydicom shall read it."""


class _NeedMoreError(Exception):
    """The buffer ends before the header does."""


_explicit = struct.Struct("<HH2sH").unpack_from
_implicit = struct.Struct("<HHI").unpack_from
_long = struct.Struct("<I").unpack_from


def _walk(
    data: bytes, start: int, file_bytes: int, *, explicit: bool, meta: bool
) -> tuple[dict[int, bytes], PixelSpan | None, int]:
    """Raw values of the wanted tags, the pixels, and where the walk ended; ``meta`` walks group 0002 only."""
    wanted = (_META_CLASS, _META_UID, _META_SYNTAX) if meta else _WANTED
    values: dict[int, bytes] = {}
    at, end, depth, last = start, len(data), 0, 0
    while True:
        if at + 12 > end:
            if end < file_bytes:
                raise _NeedMoreError
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
            raise _OddError
        if depth == 0:
            if tag <= last:
                raise _OddError
            last = tag
        if tag in _PIXEL_TAGS and depth == 0:
            return values, PixelSpan(at, length, file_bytes - at), at
        if length == UNDEFINED_LENGTH:
            if explicit and vr == b"UN" and group != 0xFFFE:
                raise _OddError
            depth += 1
            continue
        if tag in (_ITEM_END, _SEQUENCE_END):
            depth -= 1
            if depth < 0:
                raise _OddError
            continue
        stop = at + length
        if stop > file_bytes:
            raise InputError("an element is longer than the file", code=Code.TRUNCATED)
        if depth == 0 and tag in wanted:
            if stop > end:
                raise _NeedMoreError
            values[tag] = data[at:stop]
        at = stop
        if at > end:
            raise _NeedMoreError


def _parse(path: Path, data: bytes, file_bytes: int) -> SliceHeader:
    if data[128:132] != b"DICM":
        raise _OddError
    meta, _, start = _walk(data, PREAMBLE_BYTES, file_bytes, explicit=True, meta=True)
    syntax = _text(meta.get(_META_SYNTAX, b""), False)
    if syntax in ("", DEFLATED, EXPLICIT_BIG_ENDIAN):
        raise _OddError
    raw, pixels, _ = _walk(data, start, file_bytes, explicit=syntax != IMPLICIT_LITTLE_ENDIAN, meta=False)
    signed = _short(raw.get(0x00280103, b""), False) == 1
    fields: dict[str, Any] = {name: parse(raw[tag], signed) for tag, (name, parse) in _WANTED.items() if tag in raw}
    if not fields.get("sop_uid"):
        fields["sop_uid"] = _text(meta.get(_META_UID, b""), False)
        fields["sop_uid_recovered"] = True
    if not fields.get("sop_class"):
        fields["sop_class"] = _text(meta.get(_META_CLASS, b""), False)
    fields["samples"] = fields.get("samples") or 1
    return SliceHeader(path=path, transfer_syntax=syntax, pixels=pixels, file_bytes=file_bytes, **fields)


def _via_pydicom(path: Path, file_bytes: int) -> SliceHeader:
    from pydicom.tag import Tag

    dataset = open_dataset(path, with_pixels=False, only=[Tag(tag) for tag in _WANTED])
    meta = dataset.file_meta
    signed = dataset.get(Tag(0x00280103), None) is not None and int(dataset[0x00280103].value or 0) == 1
    fields: dict[str, Any] = {}
    for tag, (name, parse) in _WANTED.items():
        element = dataset.get(Tag(tag))
        value = None if element is None else element.value
        if value is None or value == "":
            continue
        many = not isinstance(value, (str, bytes)) and hasattr(value, "__iter__")
        if isinstance(value, int) and parse in (_short, _short_of_either_sign):
            fields[name] = value - 0x10000 if signed and parse is _short_of_either_sign and value > 0x7FFF else value
        elif name == "signed":
            fields[name] = signed
        else:
            text = "\\".join(str(part) for part in value) if many else str(value)
            fields[name] = parse(text.encode("latin-1", "replace"), signed)
    if not any(fields.get(name) for name in ("modality", "sop_class", "rows")) and not meta:
        raise InputError("no DICOM data set in the file", code=Code.NOT_DICOM)
    if not fields.get("sop_uid"):
        fields["sop_uid"], fields["sop_uid_recovered"] = str(meta.get("MediaStorageSOPInstanceUID", "")), True
    if not fields.get("sop_class"):
        fields["sop_class"] = str(meta.get("MediaStorageSOPClassUID", ""))
    fields["samples"] = fields.get("samples") or 1
    syntax = str(meta.get("TransferSyntaxUID", "")) or IMPLICIT_LITTLE_ENDIAN
    return SliceHeader(path=path, transfer_syntax=syntax, file_bytes=file_bytes, **fields)


def looks_like_dicom(head: bytes) -> bool:
    """Whether the first bytes (at least 132, where the file has them) are a DICOM file's, with or without a preamble."""
    if head[128:132] == b"DICM":
        return True
    if len(head) < 16:
        return False
    group, element, length = _implicit(head, 0)
    if group not in (0x0002, 0x0008) or element > 0x0018:
        return False
    return head[4:6] in (b"UL", b"UI", b"CS", b"OB") or 0 < length <= 128


def read_header(path: Path, *, head: bytes | None = None, file_bytes: int | None = None) -> SliceHeader:
    """The header of one DICOM file; ``head`` are its first bytes where the caller has read them already.

    Raises
    ------
    InputError
        ``E_TRUNCATED`` if the file ends inside its header, ``E_NOT_DICOM`` or ``E_UNREADABLE_FILE`` if there is none,
        ``E_PERMISSION`` if it may not be read.
    """
    try:
        size = path.stat().st_size if file_bytes is None else file_bytes
        data = head if head is not None and len(head) >= min(size, FIRST_READ_BYTES) else _first_bytes(path, FIRST_READ_BYTES)
        while True:
            try:
                return _parse(path, data, size)
            except _NeedMoreError:
                if len(data) >= LONGEST_HEADER_BYTES or len(data) >= size:
                    raise InputError("the header does not end", code=Code.HEADER_INVALID) from None
                data = _first_bytes(path, len(data) * 8)
            except _OddError:
                return _via_pydicom(path, size)
    except InputError as error:
        raise InputError(error.message, code=error.code, path=path) from None
    except PermissionError:
        raise InputError("no permission to read the file", code=Code.PERMISSION, path=path) from None
    except Exception as error:
        # pydicom raises whatever its parsing ran into, RecursionError included; its text may quote header values.
        raise InputError(
            f"the DICOM header cannot be read ({type(error).__name__})", code=Code.UNREADABLE_FILE, path=path
        ) from None


def _first_bytes(path: Path, count: int) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    try:
        return os.read(descriptor, count)
    finally:
        os.close(descriptor)
