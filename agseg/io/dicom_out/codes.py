"""Coded concepts of ``agseg.labels`` as DICOM code items (PS3.3, section 8)."""

from __future__ import annotations

from typing import Any

from agseg.labels import Code3, Structure

ANATOMICAL_STRUCTURE = Code3("91723000", "Anatomical Structure")
"""Category of every segment (CID 7150); 123037004 is Body Structure, which is not in that group."""


def coded(code: Code3) -> Any:
    """As pydicom's Code, which highdicom takes."""
    from pydicom.sr.coding import Code

    return Code(code.value, code.scheme, code.meaning)


def code_item(code: Code3) -> Any:
    """As a sequence item."""
    from pydicom import Dataset

    item = Dataset()
    item.CodeValue = code.value
    item.CodingSchemeDesignator = code.scheme
    item.CodeMeaning = code.meaning
    return item


def structure_items(structure: Structure) -> list[Any]:
    """The code sequence of a structure; left and right stand as its modifier."""
    item = code_item(structure.code)
    if structure.laterality is not None:
        item.SegmentedPropertyTypeModifierCodeSequence = [code_item(structure.laterality)]
    return [item]
