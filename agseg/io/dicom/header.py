"""One DICOM file's header, as far as grouping, geometry and rescaling need it.

A folder of a hospital holds thousands of slices, and a full parse of each is what makes tools slow to start. So the common
case, little endian with or without compression, is walked (``elements``). Everything odd (big endian, deflated, no preamble)
goes through pydicom.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

from agseg.errors import Code, InputError
from agseg.io.dicom.dataset import open_dataset
from agseg.io.dicom.elements import (
    META,
    META_CLASS,
    META_SYNTAX,
    META_UID,
    MOST_ITEMS,
    WANTED,
    NeedMoreError,
    OddError,
    as_short,
    as_short_of_either_sign,
    as_single,
    as_text,
    walk,
)
from agseg.io.dicom.slice_header import SliceHeader
from agseg.io.opening import open_regular

DICOM_MAGIC = b"DICM"

FIRST_READ_BYTES = 16 * 1024
"""Enough for the header of nearly every slice."""

LONGEST_HEADER_BYTES = 64 * 1024 * 1024
"""A header that is longer is not read."""

LARGEST_DEFLATED_BYTES = 256 * 1024 * 1024
DEFLATED_CHUNK_BYTES = 1024 * 1024
"""How much a deflated data set, pixels included, may unpack to, and how much of it is unpacked at a time."""

ITEM_START = b"\xfe\xff\x00\xe0"
ITEMS_PER_FRAME, ITEMS_BESIDE_FRAMES = 100, 2000
"""Functional groups of known scanners take up to thirty items a frame."""

PREAMBLE_BYTES = 132

IMPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
EXPLICIT_BIG_ENDIAN = "1.2.840.10008.1.2.2"


def _meta(path: Path, data: bytes, file_bytes: int) -> tuple[dict[int, bytes], str, int]:
    """The file's meta information, its transfer syntax, and where its data set begins, if that can be walked."""
    if data[128:132] != DICOM_MAGIC:
        raise OddError
    meta, _, start = walk(data, PREAMBLE_BYTES, file_bytes, explicit=True, meta=True, wanted=META)
    syntax = as_text(meta.get(META_SYNTAX, b""), False)
    if syntax == DEFLATED:
        _check_deflated(path, start)
    if syntax in ("", DEFLATED, EXPLICIT_BIG_ENDIAN):
        raise OddError
    return meta, syntax, start


def _parse(path: Path, data: bytes, file_bytes: int) -> SliceHeader:
    meta, syntax, start = _meta(path, data, file_bytes)
    raw, pixels, end = walk(data, start, file_bytes, explicit=syntax != IMPLICIT_LITTLE_ENDIAN)
    signed = as_short(raw.get(0x00280103, b""), False) == 1
    fields: dict[str, Any] = {name: parse(raw[tag], signed) for tag, (name, parse) in WANTED.items() if tag in raw}
    if not fields.get("sop_uid"):
        fields["sop_uid"] = as_text(meta.get(META_UID, b""), False)
        fields["sop_uid_recovered"] = True
    if not fields.get("sop_class"):
        fields["sop_class"] = as_text(meta.get(META_CLASS, b""), False)
    fields["samples"] = fields.get("samples") or 1
    header = SliceHeader(path=path, transfer_syntax=syntax, pixels=pixels, file_bytes=file_bytes, **fields)
    if header.is_enhanced:
        _check_items(data[:end].count(ITEM_START), header.frames)
    return header


def _check_items(items: int, frames: int) -> None:
    """Refuse functional groups with far more items than frames need: pydicom makes an object of each."""
    most = min(MOST_ITEMS, ITEMS_BESIDE_FRAMES + ITEMS_PER_FRAME * max(frames, 1))
    if items > most:
        raise InputError(
            "the header holds more items than its frames need",
            code=Code.HEADER_INVALID,
            value=items,
            expected=f"at most {most}",
        )


def _check_deflated(path: Path, start: int) -> None:
    """Refuse a deflated data set that unpacks to more than any slice holds: pydicom unpacks it whole."""
    stream, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
    with open_regular(path) as raw:
        raw.seek(start)
        packed = b""
        while not stream.eof and (packed := packed or raw.read(DEFLATED_CHUNK_BYTES)):
            size += len(stream.decompress(packed, DEFLATED_CHUNK_BYTES))
            packed = stream.unconsumed_tail
            if size > LARGEST_DEFLATED_BYTES:
                raise InputError(
                    "the deflated data set unpacks to far more than a slice",
                    code=Code.TOO_LARGE,
                    expected=LARGEST_DEFLATED_BYTES,
                )


def _via_pydicom(path: Path, file_bytes: int) -> SliceHeader:
    from pydicom.tag import Tag

    dataset = open_dataset(path, with_pixels=False, only=[Tag(tag) for tag in WANTED])
    meta = dataset.file_meta
    signed = dataset.get(Tag(0x00280103), None) is not None and int(dataset[0x00280103].value or 0) == 1
    fields: dict[str, Any] = {}
    for tag, (name, parse) in WANTED.items():
        element = dataset.get(Tag(tag))
        value = None if element is None else element.value
        if value is None or value == "":
            continue
        # A name's bytes as they lie in the file: which characters they are is nobody's business here.
        value = getattr(value, "original_string", value)
        value = value.decode("latin-1") if isinstance(value, bytes) else value
        many = not isinstance(value, str) and hasattr(value, "__iter__")
        if isinstance(value, int) and parse in (as_short, as_short_of_either_sign):
            fields[name] = value - 0x10000 if signed and parse is as_short_of_either_sign and value > 0x7FFF else value
        elif isinstance(value, float) and parse is as_single:
            fields[name] = float(value)
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
    if head[128:132] == DICOM_MAGIC:
        return True
    if len(head) < 16:
        return False
    group, element, length = struct.unpack_from("<HHI", head)
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
            except NeedMoreError:
                if len(data) >= LONGEST_HEADER_BYTES or len(data) >= size:
                    raise InputError("the header does not end", code=Code.HEADER_INVALID) from None
                data = _first_bytes(path, len(data) * 8)
            except OddError:
                return _via_pydicom(path, size)
    except InputError as error:
        raise InputError(error.message, code=error.code, path=path, value=error.value, expected=error.expected) from None
    except PermissionError:
        raise InputError("no permission to read the file", code=Code.PERMISSION, path=path) from None
    except Exception as error:
        # pydicom raises whatever its parsing ran into, RecursionError included; its text may quote header values.
        raise InputError(
            f"the DICOM header cannot be read ({type(error).__name__})", code=Code.UNREADABLE_FILE, path=path
        ) from None


def raw_values(path: Path, tags: Collection[int]) -> dict[int, bytes] | None:
    """The bytes of a file's top-level elements of these tags, those that are there; None where pydicom has to read it."""
    size, count = path.stat().st_size, FIRST_READ_BYTES
    while True:
        data = _first_bytes(path, count)
        try:
            _, syntax, start = _meta(path, data, size)
            return walk(data, start, size, explicit=syntax != IMPLICIT_LITTLE_ENDIAN, wanted=tags)[0]
        except NeedMoreError:
            if count >= LONGEST_HEADER_BYTES or count >= size:
                return None
            count *= 8
        except (OddError, InputError):
            return None


def check_unpacked_size(path: Path) -> None:
    """Refuse a file that pydicom would make far more of than it weighs; whatever else is wrong with it is not said here.

    Raises
    ------
    InputError
        ``E_TOO_LARGE`` for a deflated data set, ``E_HEADER_INVALID`` for too many items.
    """
    try:
        read_header(path)
    except InputError as error:
        if error.code in (Code.TOO_LARGE, Code.HEADER_INVALID):
            raise


def _first_bytes(path: Path, count: int) -> bytes:
    with open_regular(path) as stream:
        return stream.read(count)
