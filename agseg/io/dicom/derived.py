"""What a volume was calculated to show, where that is not the scan itself: projections, subtractions, energies, materials.

Words of ImageType beyond its first two values, of the technique of an enhanced image, and, where the image says that it is
derived, of its descriptions. Only names from this list leave the module.
Source: DICOM PS3.3 C.7.6.1.1.2 (Image Type), C.8.16.4.
"""

from __future__ import annotations

import re
from enum import Enum

from agseg.io.dicom.slice_header import SliceHeader


class Derived(Enum):
    """What the values are, and whether they still are those of tissue."""

    MAXIMUM = ("a maximum intensity projection", True)
    MINIMUM = ("a minimum intensity projection", True)
    SUBTRACTION = ("a subtraction of two scans", False)
    MONOENERGETIC = ("a virtual monoenergetic image", True)
    UNENHANCED = ("a virtual unenhanced image", True)
    MATERIAL = ("a map of a material (iodine, water, calcium)", False)
    PERFUSION = ("a map of perfusion", False)
    RENDERING = ("a rendering", False)

    @property
    def text(self) -> str:
        """What it is, in words."""
        return self.value[0]

    @property
    def has_tissue_values(self) -> bool:
        """Whether air, fat and tissue have their HU, so that values can be held against them."""
        return self.value[1]


_WORDS: dict[str, Derived] = {
    **dict.fromkeys(("MIP", "MAXIP", "MAXIMUM", "PROJECTION"), Derived.MAXIMUM),
    **dict.fromkeys(("MINIP", "MNIP", "MINIMUM"), Derived.MINIMUM),
    **dict.fromkeys(("SUBTRACTION", "SUBTRACTED", "SUBTRACT", "SUB", "DSA"), Derived.SUBTRACTION),
    **dict.fromkeys(("MONOENERGETIC", "MONO", "MONOE", "VMI", "VMC", "MONOPLUS", "KEV"), Derived.MONOENERGETIC),
    **dict.fromkeys(("VNC", "VUE", "TNC", "VIRTUALNONCONTRAST", "VIRTUALUNENHANCED"), Derived.UNENHANCED),
    **dict.fromkeys(
        ("IODINE", "IOD", "WATER", "CALCIUM", "MATERIAL", "MD", "ZEFF", "EFFZ", "RHO", "QUANTITY", "URIC"), Derived.MATERIAL
    ),
    **dict.fromkeys(("PERFUSION", "CBF", "CBV", "MTT", "TTP", "TMAX", "RCBF", "RCBV"), Derived.PERFUSION),
    **dict.fromkeys(("VRT", "RENDERED", "SSD", "VOLREN"), Derived.RENDERING),
}
_PHRASES: dict[str, Derived] = {
    "MAX_IP": Derived.MAXIMUM,
    "MIN_IP": Derived.MINIMUM,
    "VIRTUAL NON": Derived.UNENHANCED,
    "VIRTUAL UNENHANCED": Derived.UNENHANCED,
    "EFF Z": Derived.MATERIAL,
}
_OF_A_SIGNAL = frozenset({Derived.MAXIMUM, Derived.MINIMUM, Derived.SUBTRACTION, Derived.PERFUSION, Derived.RENDERING})
"""What the words mean for MR, whose water and fat images are scans."""
_ENERGY = re.compile(r"\d+KEV")
_ADDED_ON_DERIVATION = frozenset(
    {"SUB", "WATER", "MD", "MONO", "MAXIMUM", "MINIMUM", "RHO", "PROJECTION", "MATERIAL", "QUANTITY"}
)
"""Words that mean too much in free text."""


def derived_from(header: SliceHeader) -> tuple[Derived, ...]:
    """What the image is calculated as; empty for a scan, a reformat or a resampled scan."""
    found = {}
    for value in (*header.image_type[2:], header.technique):
        found.update(dict.fromkeys(_meant(value, frozenset())))
    if header.image_type[:1] == ("DERIVED",):
        for text in (header.derivation, header.series_description):
            found.update(dict.fromkeys(_meant(text, _ADDED_ON_DERIVATION)))
    return tuple(kind for kind in found if header.scan != "MR" or kind in _OF_A_SIGNAL)


def _meant(text: str, ambiguous: frozenset[str]) -> list[Derived]:
    text = text.upper()
    words = re.split(r"[^A-Z0-9]+", text)
    found = [_WORDS[word] for word in words if word in _WORDS and word not in ambiguous]
    found += [meaning for phrase, meaning in _PHRASES.items() if phrase in text]
    if any(_ENERGY.fullmatch(word) for word in words):
        found.append(Derived.MONOENERGETIC)
    return found
