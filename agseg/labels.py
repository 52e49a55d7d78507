"""What a label means: its index in a mask, its name, its SNOMED CT code and its colour.

Names are TotalSegmentator's, because they are in the fingers of the people who use masks. Codes are SNOMED CT (``SCT``)
as DICOM CID 7140 and its relatives list them; a left or right organ is one concept plus a laterality modifier. They are data
(``data/structures.csv``): a new organ is one line there.
"""

from __future__ import annotations

import csv
import difflib
import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from agseg.errors import UsageError


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
    """An anatomical structure that agseg can name, code and draw.

    Parameters
    ----------
    name, code
        TotalSegmentator's or MOOSE's name; the SNOMED CT concept.
    laterality
        Left or right, where the concept has sides.
    rgb
        Display colour, 0 to 255.
    region
        Where it is, for what is no structure of its own: a cyst, in the kidney. The side is the region's then.
    """

    name: str
    code: Code3
    laterality: Code3 | None
    rgb: tuple[int, int, int]
    region: Code3 | None = None


STRUCTURES_FILE = Path(__file__).resolve().parent / "data" / "structures.csv"
"""One structure a line; its comments say where the codes come from and what was decided where sources differ."""


@functools.cache
def known_structures() -> Mapping[str, Structure]:
    """Every structure with a code, by name; a label that is not among them gets a mask and a volume, but no DICOM object."""
    sides = {"": None, "left": LEFT, "right": RIGHT}
    with STRUCTURES_FILE.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(line for line in file if not line.startswith("#"))
        found = [
            Structure(
                row["name"],
                Code3(row["code"], row["meaning"]),
                sides[row["side"]],
                (int(row["red"]), int(row["green"]), int(row["blue"])),
                Code3(row["region_code"], row["region_meaning"]) if row["region_code"] else None,
            )
            for row in rows
        ]
    return MappingProxyType({structure.name: structure for structure in found})


@functools.cache
def _spare_colours() -> tuple[tuple[int, int, int], ...]:
    """The colours of the table, for labels that are not in it."""
    return tuple(dict.fromkeys(structure.rgb for structure in known_structures().values()))


@dataclass(frozen=True)
class Label:
    """One label of a network: its index in the score map and the mask, and its name."""

    index: int
    name: str

    @property
    def structure(self) -> Structure | None:
        """Code and laterality, or None for a structure agseg cannot code."""
        return known_structures().get(self.name)

    @property
    def rgb(self) -> tuple[int, int, int]:
        """Recommended display colour, 0 to 255; of a label without a code one of the table's, by its index."""
        spare = _spare_colours()
        return self.structure.rgb if self.structure else spare[self.index % len(spare)]

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


def find_organ(text: str, known: Iterable[str]) -> str | None:
    """The known organ that is meant: ``Liver``, ``Left kidney`` and ``kidney-left`` as people write them; None for none.

    A name is itself before it is another one's spelling, and a spelling of several names is none of them.
    """
    names = tuple(known)
    if text in names:
        return text
    wanted = _plain(text)
    meant = [name for name in names if wanted == _plain(name)]
    return meant[0] if len(meant) == 1 else None


def _plain(name: str) -> str:
    """Small letters, words joined by ``_``, the side last."""
    words = re.split(r"[\s_-]+", name.strip().casefold())
    if words[0] in ("left", "right"):
        words = [*words[1:], words[0]]
    return "_".join(words)


MOST_LISTED = 8
"""Organs that an error names; of more it says where to find them."""


def unknown_organ(name: str, known: Iterable[str], *, first: Iterable[str] = (), hint: str = "") -> UsageError:
    """The error for an organ that is none of the known ones: the names most like it, and what there is.

    Parameters
    ----------
    name, known
        What was asked for, and what there is.
    first
        Known names that are listed before others: those that need no further option.
    hint
        Where to read the rest.
    """
    known = tuple(known)
    names = tuple(dict.fromkeys((*(organ for organ in first if organ in known), *known)))
    wanted = _plain(name)
    near = dict.fromkeys((*(organ for organ in names if wanted and wanted in organ), *difflib.get_close_matches(wanted, names)))
    likely = f"Did you mean {' or '.join(list(near)[:3])}? " if near else ""
    rest = f" and {len(names) - MOST_LISTED} others" if len(names) > MOST_LISTED + 1 else ""
    listed = names[:MOST_LISTED] if rest else names
    return UsageError(f"unknown organ {name!r}", expected=f"{', '.join(listed)}{rest}", hint=f"{likely}{hint}".strip() or None)
