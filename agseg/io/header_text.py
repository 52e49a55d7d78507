"""What the text headers of MetaImage and NRRD have in common: lines, numbers, and the checks of a volume's sizes.

Both parsers take only what their format's text allows. A line ends with LF or CR LF; any other control character is refused,
because another program might take it for the end of a line and read another header than this one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from agseg.errors import Code, InputError
from agseg.io.nifti_header import LARGEST_VOLUME_VOXELS, MINIMAL_SLICES

LONGEST_HEADER_BYTES = 1 << 20
"""A header must end within this; segmentations with a hundred named segments take a tenth of it."""

_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)")
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_HARMLESS = re.compile(r"[0-9eE.,+ ()naif-]{0,80}", re.IGNORECASE)
"""What a message may repeat of a header: numbers and what is written in their place. Words may name a person."""

MILLIMETRES = frozenset({"mm", "millimeter", "millimeters", "millimetre", "millimetres", "", "?", "???"})
"""Units of length that are read: millimetres, and unknown, as in NIfTI."""

_OTHER_UNITS = frozenset({"m", "cm", "um", "nm", "in", "meter", "metre", "centimeter", "micrometer", "micron", "inch"})


class HeaderText:
    """The text of a header, whose parts are asked for by type; every refusal names the file, the key and the value."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fields: dict[str, str] = {}

    def lines(self, text: bytes) -> list[str]:
        """The lines without their ends; latin-1, so that a byte is a character."""
        found = _CONTROL.search(text)
        if found:
            self.refuse("a control character in the header", value=f"byte 0x{text[found.start()]:02x} at {found.start()}")
        return text.replace(b"\r\n", b"\n").decode("latin-1").split("\n")

    def add(self, key: str, value: str) -> None:
        """Take a field; a second one of that key is refused."""
        if key in self.fields:
            self.refuse(f"{key} is in the header twice")
        self.fields[key] = value

    def integer(self, key: str, default: int | None = None) -> int:
        """A whole number."""
        numbers = self.integers(key) if key in self.fields else [default]
        if len(numbers) != 1 or numbers[0] is None:
            self.refuse(f"{key} is not a whole number", value=self.shown(key))
        return numbers[0]

    def integers(self, key: str) -> list[int]:
        """Whole numbers, separated by blanks."""
        words = self.fields.get(key, "").split()
        if not words or not all(_INTEGER.fullmatch(word) for word in words):
            self.refuse(f"{key} does not hold whole numbers", value=self.shown(key))
        return [int(word) for word in words]

    def numbers(self, key: str, count: int, text: str | None = None) -> list[float]:
        """So many finite numbers, separated by blanks."""
        words = (self.fields.get(key, "") if text is None else text).split()
        if len(words) != count or not all(_NUMBER.fullmatch(word) for word in words):
            self.refuse(f"{key} does not hold {count} finite numbers", value=self.shown(key))
        numbers = [float(word) for word in words]
        if not all(math.isfinite(number) for number in numbers):
            self.refuse(f"{key} does not hold {count} finite numbers", value=self.shown(key))
        return numbers

    def shown(self, key: str) -> str:
        """A value as a message may repeat it."""
        value = self.fields.get(key)
        if value is None:
            return "nothing"
        return (value or "nothing") if _HARMLESS.fullmatch(value) else "another word"

    def sizes(self, sizes: Sequence[int]) -> tuple[int, int, int]:
        """Three sizes of a volume that can be read; a fourth of 1 is left out.

        Raises
        ------
        InputError
            ``E_4D``, ``E_TOO_FEW_SLICES``, ``E_DIMENSIONS``, ``E_TOO_LARGE``.
        """
        told = list(sizes)
        if min(told, default=0) < 1:
            self.refuse("a dimension is not positive", code=Code.DIMENSIONS, value=told)
        if len(told) > 3 and max(told[3:]) > 1:
            self.refuse("more than one volume", code=Code.FOUR_D, value=told)
        if len(told) < 3 or min(told[:3]) < MINIMAL_SLICES:
            self.refuse("too few slices for a volume", code=Code.TOO_FEW_SLICES, value=told)
        if told[0] * told[1] * told[2] > LARGEST_VOLUME_VOXELS:
            self.refuse("the volume is too large", code=Code.TOO_LARGE, value=told, expected=f"{LARGEST_VOLUME_VOXELS} voxels")
        return told[0], told[1], told[2]

    def check_units(self, units: Sequence[str]) -> None:
        """Refuse another unit of length than mm (``E_IMPLAUSIBLE_SPACING``)."""
        wrong = [unit for unit in units if unit.strip().lower() not in MILLIMETRES]
        if wrong:
            self.refuse(
                "the header's unit of length is not mm",
                code=Code.IMPLAUSIBLE_SPACING,
                value=wrong[0] if wrong[0].lower() in _OTHER_UNITS else "another word",
                expected="mm",
            )

    def refuse(
        self, message: str, *, code: Code = Code.HEADER_INVALID, value: object = None, expected: object = None
    ) -> NoReturn:
        """Raise what is wrong with this header."""
        raise InputError(message, code=code, path=self.path, value=value, expected=expected)
