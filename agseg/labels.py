"""What a label means: its index in a mask, its name, its SNOMED CT code and its colour.

Names are TotalSegmentator's, because they are in the fingers of the people who use masks. Codes are SNOMED CT (``SCT``)
as DICOM CID 7140 and its relatives list them; a left or right organ is one concept plus a laterality modifier.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from agseg.errors import UsageError

__all__ = ["BACKGROUND", "KNOWN_STRUCTURES", "Code3", "Label", "LabelSet", "Structure", "unknown_organ"]


@dataclass(frozen=True)
class Code3:
    """A coded concept: value, scheme and meaning (DICOM PS3.3, section 8)."""

    value: str
    meaning: str
    scheme: str = "SCT"


LEFT = Code3("7771000", "Left")
RIGHT = Code3("24028007", "Right")


@dataclass(frozen=True)
class Structure:
    """An anatomical structure that agseg can name, code and draw."""

    name: str
    code: Code3
    laterality: Code3 | None
    rgb: tuple[int, int, int]


def _structures(*rows: tuple[str, str, str, Code3 | None, tuple[int, int, int]]) -> dict[str, Structure]:
    return {name: Structure(name, Code3(value, meaning), side, rgb) for name, value, meaning, side, rgb in rows}


KNOWN_STRUCTURES = _structures(
    ("spleen", "78961009", "Spleen", None, (157, 108, 162)),
    ("kidney_right", "64033007", "Kidney", RIGHT, (185, 102, 83)),
    ("kidney_left", "64033007", "Kidney", LEFT, (212, 145, 98)),
    ("gallbladder", "28231008", "Gallbladder", None, (139, 150, 98)),
    ("esophagus", "32849002", "Esophagus", None, (211, 171, 143)),
    ("liver", "10200004", "Liver", None, (221, 130, 101)),
    ("stomach", "69695003", "Stomach", None, (216, 132, 105)),
    ("pancreas", "15776009", "Pancreas", None, (249, 180, 111)),
    ("adrenal_gland_right", "23451007", "Adrenal gland", RIGHT, (244, 186, 150)),
    ("adrenal_gland_left", "23451007", "Adrenal gland", LEFT, (240, 180, 140)),
    ("duodenum", "38848004", "Duodenum", None, (255, 253, 229)),
    ("small_bowel", "30315005", "Small intestine", None, (205, 167, 142)),
    ("colon", "71854001", "Colon", None, (204, 168, 143)),
    ("urinary_bladder", "89837001", "Urinary bladder", None, (222, 154, 132)),
    ("prostate", "41216001", "Prostate", None, (230, 158, 140)),
    ("aorta", "15825003", "Aorta", None, (224, 97, 76)),
    ("inferior_vena_cava", "64131007", "Inferior vena cava", None, (0, 151, 206)),
    ("portal_vein_and_splenic_vein", "32764006", "Portal vein", None, (0, 161, 196)),
)
"""Structures with a code. A label that is not here still gets a mask and a volume, but no DICOM object."""

_UNKNOWN_RGB = (128, 174, 128)


@dataclass(frozen=True)
class Label:
    """One label of a network: its index in the score map and the mask, and its name."""

    index: int
    name: str

    @property
    def structure(self) -> Structure | None:
        """Code and laterality, or None for a structure agseg cannot code."""
        return KNOWN_STRUCTURES.get(self.name)

    @property
    def rgb(self) -> tuple[int, int, int]:
        """Recommended display colour, 0 to 255."""
        return self.structure.rgb if self.structure else _UNKNOWN_RGB

    @property
    def title(self) -> str:
        """The name as people write it: ``kidney_left`` -> ``left kidney``."""
        words = self.name.split("_")
        if words[-1] in ("left", "right"):
            words = [words[-1], *words[:-1]]
        return " ".join(words)


BACKGROUND = Label(0, "background")


@dataclass(frozen=True)
class LabelSet:
    """The labels a network knows, background (index 0) not included; indices and names are unique.

    Iterating gives the labels in order of their index.
    """

    labels: tuple[Label, ...]

    def __post_init__(self) -> None:
        ordered = tuple(sorted(self.labels, key=lambda label: label.index))
        indices = [label.index for label in ordered]
        names = [label.name for label in ordered]
        if len(set(indices)) != len(indices) or len(set(names)) != len(names):
            raise ValueError(f"label indices and names must be unique: {list(zip(indices, names, strict=True))}")
        if indices and (indices[0] < 1 or indices[-1] > 255):
            raise ValueError(f"label indices must lie in 1 to 255 (0 is background), not {indices}")
        object.__setattr__(self, "labels", ordered)

    @classmethod
    def from_mapping(cls, names: dict[int, str]) -> LabelSet:
        """From ``{index: name}``; an entry for 0 is background and left out."""
        return cls(tuple(Label(int(index), name) for index, name in names.items() if int(index) != 0))

    def __iter__(self) -> Iterator[Label]:
        return iter(self.labels)

    def __len__(self) -> int:
        return len(self.labels)

    def __contains__(self, name: object) -> bool:
        return any(label.name == name for label in self.labels)

    @property
    def names(self) -> tuple[str, ...]:
        """Names in order of the index."""
        return tuple(label.name for label in self.labels)

    @property
    def class_count(self) -> int:
        """Number of score channels a network with these labels has: highest index + 1."""
        return max((label.index for label in self.labels), default=0) + 1

    def __getitem__(self, name: str) -> Label:
        for label in self.labels:
            if label.name == name:
                return label
        raise unknown_organ(name, self.names)

    def only(self, names: Iterable[str]) -> LabelSet:
        """The labels with these names, with their indices kept.

        Raises
        ------
        UsageError
            If a name is not known; the message lists the known ones.
        """
        return LabelSet(tuple(self[name] for name in dict.fromkeys(names)))


def unknown_organ(name: str, known: Iterable[str], *, first: Iterable[str] = (), hint: str = "") -> UsageError:
    """The error for an organ that is none of the known ones: with all of them, and the names most like it.

    Parameters
    ----------
    name, known
        What was asked for, and what there is.
    first
        Known names that stand first in the list: those that need no further option.
    hint
        Where to read more about them.
    """
    known = tuple(known)
    names = tuple(dict.fromkeys((*(organ for organ in first if organ in known), *known)))
    near = difflib.get_close_matches(name.casefold().replace(" ", "_"), names)
    likely = f"Did you mean {' or '.join(near)}? " if near else ""
    return UsageError(
        f"unknown organ {name!r}", expected=f"one of {len(names)}: {', '.join(names)}", hint=f"{likely}{hint}".strip() or None
    )
