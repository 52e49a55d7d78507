"""Names in the characters that they were written in, whatever the source calls its character set.

Devices misspell it (``ISO IR 192``, ``ISO-IR 100``, ``utf-8``). Then the text is read as what was meant, and results are in
UTF-8 (``ISO_IR 192``). What cannot be known becomes question marks, never other letters, and a warning says so.
Source: DICOM PS3.3 C.12.1.1.2 (Specific Character Set), PS3.5 6.1.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Sequence
from typing import Any

from agseg.errors import Code
from agseg.volume import Warned

UTF_8 = "ISO_IR 192"

_TEXT_VRS = frozenset({"PN", "LO", "SH", "LT", "ST", "UT", "UC"})
_SINGLE, _EXTENSION = re.compile(r"ISOIR0*(\d+)"), re.compile(r"ISO2022IR0*(\d+)")
_BY_ANOTHER_NAME = {"UTF8": UTF_8, "UNICODE": UTF_8, "GB18030": "GB18030", "GBK": "GBK"}

_UNKNOWN = Warned(
    Code.CHARACTER_SET, "the source's character set is not known: letters beyond ASCII in its names became question marks"
)
_MISSPELT = Warned(Code.CHARACTER_SET, "the source misspells its character set; its text was read as what was meant")
_UNNAMED = Warned(
    Code.CHARACTER_SET, "the source names no character set for letters beyond ASCII: its bytes were carried as they are"
)


def settle_characters(header: Any, dataset: Any, keywords: Iterable[str]) -> Warned | None:
    """Make ``dataset``, a copy of ``header`` without its pixels, hold these attributes in a character set that exists.

    A sound source stays as it is, byte for byte. Returns what must be said.
    """
    from pydicom.charset import python_encoding

    names = _names(header)
    raw = {keyword: value for keyword in keywords if (value := _bytes(header, keyword)) is not None}
    if not any(names):
        if "SpecificCharacterSet" in dataset:
            del dataset.SpecificCharacterSet
        if all(value.isascii() for value in raw.values()):
            return None
        return _written(dataset, raw, ["utf-8"], _MISSPELT) or _UNNAMED
    if all(name in python_encoding for name in names) and _decode_all(raw, [python_encoding[name] for name in names]):
        return None
    meant = [_meant(name) for name in names]
    encodings = [encoding for encoding in meant if encoding is not None]
    warned = _written(dataset, raw, encodings, _MISSPELT) if len(encodings) == len(names) else None
    if warned is None:
        warned = _written(dataset, raw, ["utf-8"], _MISSPELT)
    if warned is None:
        _put(dataset, {keyword: value.decode("ascii", "replace").replace("\ufffd", "?") for keyword, value in raw.items()})
        warned = _UNKNOWN
    return None if all(value.isascii() and b"\x1b" not in value for value in raw.values()) else warned


def _names(header: Any) -> list[str]:
    names = header.get("SpecificCharacterSet") or ""
    return [str(name).strip() for name in ([names] if isinstance(names, str) else names)]


def _bytes(header: Any, keyword: str) -> bytes | None:
    """The value of a text attribute as it lies in the file; None where there is none."""
    from pydicom.datadict import dictionary_VR, tag_for_keyword

    tag = tag_for_keyword(keyword)
    if tag is None or dictionary_VR(tag) not in _TEXT_VRS or tag not in header:
        return None
    value = header.get_item(tag).value
    value = getattr(value, "original_string", value)
    if isinstance(value, str):
        # Somebody has looked at it already, and it was read as the header's character set says.
        return value.encode("utf-8") if value.isascii() else None
    return value.rstrip(b" \0") if isinstance(value, bytes) else None


def _meant(name: str) -> str | None:
    """Python's codec for a name of a character set, however it is spelt; None where it cannot be told."""
    from pydicom.charset import python_encoding

    letters = re.sub(r"[^A-Z0-9]", "", name.upper())
    term = _BY_ANOTHER_NAME.get(letters, name)
    for pattern, spelt in ((_SINGLE, "ISO_IR {}"), (_EXTENSION, "ISO 2022 IR {}")):
        if match := pattern.fullmatch(letters):
            term = spelt.format(match[1])
    if term in python_encoding:
        return python_encoding[term]
    try:
        return codecs.lookup(name).name
    except (LookupError, ValueError):
        return None


def _decode_all(raw: dict[str, bytes], encodings: Sequence[str]) -> dict[str, str] | None:
    """The texts; None if one of them is none in these encodings."""
    texts = {}
    for keyword, value in raw.items():
        text = _decode(value, encodings)
        if text is None:
            return None
        texts[keyword] = text
    return {**texts, "": ""}


def _decode(value: bytes, encodings: Sequence[str]) -> str | None:
    from pydicom.charset import decode_bytes

    try:
        if b"\x1b" not in value:
            return value.decode(encodings[0])
        text = decode_bytes(value, list(encodings), {0x5C, 0x5E, 0x3D})
    except (UnicodeError, LookupError):
        return None
    return None if "\ufffd" in text or "\x1b" in text else text


def _written(dataset: Any, raw: dict[str, bytes], encodings: Sequence[str], said: Warned) -> Warned | None:
    texts = _decode_all(raw, encodings)
    if texts is None:
        return None
    _put(dataset, texts)
    return said


def _put(dataset: Any, texts: dict[str, str]) -> None:
    from pydicom.valuerep import PersonName

    dataset.SpecificCharacterSet = UTF_8
    for keyword, text in texts.items():
        if keyword:
            setattr(dataset, keyword, PersonName(text) if keyword.endswith("Name") else text)
