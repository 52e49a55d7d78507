"""What an archive says of an object that it was sent by STOW-RS: the answer must name it, or it has not taken it.

Source: DICOM PS3.18, section 10.5.3 and annex I; PS3.19 for the XML.
"""

from __future__ import annotations

import json
import re
from typing import Any

from agseg.errors import PacsError

DUPLICATE_INSTANCE = 0x0111
"""FailureReason of an instance that the archive says it has already (PS3.7 C.5.5)."""

_REFERENCED, _FAILED, _REASON, _SOP = "00081199", "00081198", "00081197", "00081155"


class AlreadyHeldError(PacsError):
    """The archive refuses an object because it has one of that UID: whether it is the same one is another question."""


def taken(body: bytes, content_type: str, sop_uid: str) -> None:
    """Return if the answer says that the object was stored.

    Raises
    ------
    AlreadyHeldError
        If it says that it has such an object.
    PacsError
        If it says that it refused it, says nothing of it, or says what nobody can read.
    """
    if not body.strip():
        raise PacsError("the archive did not say that it has taken the object")
    answer = _xml(body) if "xml" in content_type.lower() else json.loads(body)
    if isinstance(answer, list):
        answer = answer[0] if answer else {}
    if not isinstance(answer, dict):
        raise PacsError("the archive's answer cannot be understood")
    for item in _items(answer, _FAILED):
        if _first(item, _SOP) in (sop_uid, None):
            reason = int(_first(item, _REASON) or 0)
            if reason == DUPLICATE_INSTANCE:
                raise AlreadyHeldError("the archive says that it has an object of this UID")
            raise PacsError("the archive refused an object", value=f"failure reason {reason:#06x}")
    if not any(_first(item, _SOP) == sop_uid for item in _items(answer, _REFERENCED)):
        raise PacsError("the archive did not say that it has taken the object")


def _items(answer: dict[str, Any], tag: str) -> list[dict[str, Any]]:
    value = answer.get(tag)
    items = value.get("Value") if isinstance(value, dict) else None
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _first(item: dict[str, Any], tag: str) -> Any:
    value = item.get(tag)
    values = value.get("Value") if isinstance(value, dict) else None
    return values[0] if isinstance(values, list) and values else None


def _xml(body: bytes) -> dict[str, Any]:
    """The attributes that count, of the native DICOM model; nothing that XML can do beside elements is allowed."""
    from xml.etree import ElementTree

    if re.search(rb"<!\s*(DOCTYPE|ENTITY)", body, re.IGNORECASE):
        raise PacsError("the archive's answer cannot be understood")
    root = ElementTree.fromstring(body)  # noqa: S314 - no document type, so no entities
    found: dict[str, Any] = {}
    for sequence in _named(root, "DicomAttribute"):
        items = [
            {a.get("tag", ""): {"Value": [v.text for v in _named(a, "Value")]} for a in _named(item, "DicomAttribute")}
            for item in _named(sequence, "Item")
        ]
        found[sequence.get("tag", "")] = {"Value": items}
    return found


def _named(element: Any, name: str) -> list[Any]:
    return [child for child in element if str(child.tag).rpartition("}")[2] == name]
