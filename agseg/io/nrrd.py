"""NRRD (``.nrrd``, ``.nhdr``): one strict parser that decides and reads.

A header is the magic, lines of ``field: value``, ``key:=value`` and ``# comment``, and a blank line. Field names count in any
case, as the format has it, and once each in all their spellings; a field that the format does not know is refused. What says
where the voxels are in the patient must be there: no space, origin or direction is assumed.
Source: https://teem.sourceforge.net/nrrd/format.html.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agseg.errors import Code, InputError
from agseg.grid import LPS_TO_RAS, Grid
from agseg.io.header_text import LONGEST_HEADER_BYTES, HeaderText
from agseg.io.nifti_header import check_spacing
from agseg.io.opening import open_regular
from agseg.io.voxel_file import AtEnd, Packing, VoxelFile, beside

_MAGIC = re.compile(rb"NRRD000[1-5]\r?\n")
_TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "f4": ("float",),
    "f8": ("double",),
}
_TYPE_CODES = {word: code for code, words in _TYPES.items() for word in words}
_SPACES = {
    "left-posterior-superior": (1, 1), "lps": (1, 1), "right-anterior-superior": (-1, -1), "ras": (-1, -1),
    "left-anterior-superior": (1, -1), "las": (1, -1),
}  # fmt: skip
"""Spaces that say where left and right are, and the signs that turn their first two coordinates into LPS."""

_OTHER_SPACES = frozenset({
    "scanner-xyz", "3d-right-handed", "3d-left-handed", "scanner-xyz-time", "3d-right-handed-time", "3d-left-handed-time",
    "left-posterior-superior-time", "lpst", "right-anterior-superior-time", "rast", "left-anterior-superior-time", "last",
})  # fmt: skip
"""The format's other spaces: known words, which a message may repeat."""

_FIELDS = (
    "axis maxs", "axis mins", "block size", "byte skip", "centers", "content", "data file", "dimension", "encoding", "endian",
    "kinds", "labels", "line skip", "max", "measurement frame", "min", "number", "old max", "old min", "sample units", "sizes",
    "space", "space dimension", "space directions", "space origin", "space units", "spacings", "thicknesses", "type", "units",
)  # fmt: skip
_SPELLINGS = {
    **{name: name for name in _FIELDS},
    "axismaxs": "axis maxs", "axismins": "axis mins", "blocksize": "block size", "byteskip": "byte skip",
    "centerings": "centers", "datafile": "data file", "lineskip": "line skip", "oldmax": "old max", "oldmin": "old min",
    "sampleunits": "sample units",
}  # fmt: skip
_KINDS_OF_SPACE = frozenset({"domain", "space", "???", "none"})
_OTHER_KINDS = frozenset({
    "time", "list", "point", "vector", "covariant-vector", "normal", "stub", "scalar", "complex", "2-vector", "3-color",
    "rgb-color", "hsv-color", "xyz-color", "4-color", "rgba-color", "3-vector", "3-gradient", "3-normal", "4-vector",
    "quaternion",
})  # fmt: skip
"""The format's other kinds of axes: known words, which a message may repeat."""
_ENCODINGS = {"raw": Packing.NONE, "gz": Packing.GZIP, "gzip": Packing.GZIP}
_OTHER_ENCODINGS = frozenset({"text", "txt", "ascii", "hex", "bz2", "bzip2", "zrl"})
_VECTOR = re.compile(r"\s*(?:\(([^()]*)\)|(none))\s*", re.IGNORECASE)


def is_nrrd(head: bytes) -> bool:
    """Whether the first bytes are NRRD's magic."""
    return re.match(rb"NRRD000\d\s", head) is not None


def read_nrrd_header(path: Path) -> VoxelFile:
    """The checked header of a file, and the voxels it speaks of.

    Raises
    ------
    InputError
        ``E_HEADER_INVALID``, ``E_NO_GEOMETRY``, ``E_DTYPE``, ``E_DIMENSIONS``, ``E_4D``, ``E_TOO_FEW_SLICES``, ``E_TOO_LARGE``,
        ``E_IMPLAUSIBLE_SPACING``, ``E_PATH_ESCAPE``, ``E_UNSUPPORTED_INPUT``, ``E_NO_PIXELS``, ``E_TRUNCATED``,
        ``E_HEADER_LIES``.
    """
    with open_regular(path) as raw:
        head = raw.read(LONGEST_HEADER_BYTES)
    text = HeaderText(path)
    end = _take_fields(text, head)
    encoding = text.fields.get("encoding", "").lower()
    if encoding not in _ENCODINGS:
        told = encoding if encoding in _OTHER_ENCODINGS else text.shown("encoding")
        text.refuse("this encoding is not read", code=Code.UNSUPPORTED_INPUT, value=told, expected="raw or gzip")
    shape, axes = _axes(text)
    affine = _affine(text, axes)
    try:
        grid = check_spacing(Grid(shape, LPS_TO_RAS @ affine))
    except InputError as error:
        raise InputError(error.message, code=error.code, path=path, value=error.value, expected=error.expected) from None
    dtype, packing = _dtype(text), _ENCODINGS[encoding]
    lines, skip = text.integer("line skip", 0), text.integer("byte skip", 0)
    if lines < 0 or skip < -1 or (skip == -1 and (packing or lines)):
        text.refuse("line skip or byte skip is not that of the format", value=f"{lines} and {skip}")
    offset, data = _place(text, head, end)
    # -1 is the format's way of saying that the voxels are the last bytes.
    where: int | type[AtEnd] = AtEnd if skip == -1 else offset
    found = VoxelFile(grid, dtype, path, data, where, packing, skip_lines=lines, skip_bytes=max(skip, 0))
    found.check_length()
    return found


def _take_fields(text: HeaderText, head: bytes) -> int:
    """Fill the fields; returns the offset behind the blank line, or the end of a header without voxels."""
    magic = _MAGIC.match(head)
    if magic is None:
        text.refuse("the first line is not NRRD0001 to NRRD0005")
    blank = re.search(rb"\n\r?\n", head)
    if blank is None and len(head) == LONGEST_HEADER_BYTES:
        text.refuse(f"no blank line within {LONGEST_HEADER_BYTES} bytes: the header does not end")
    stop, end = (len(head), len(head)) if blank is None else (blank.start(), blank.end())
    for line in text.lines(head[magic.end() : max(stop, magic.end())].removesuffix(b"\n").removesuffix(b"\r")):
        if line.startswith("#") or (not line and blank is None):
            continue
        name, colon, value = line.partition(":")
        field = _SPELLINGS.get(name.lower())
        if field is None and ":=" in line:
            continue
        if not colon or field is None or value.startswith("="):
            text.refuse("a line of the header is not a field of the format")
        text.add(field, value.strip(" \t"))
    if blank is None and "data file" not in text.fields:
        text.refuse("no blank line ends the header")
    return end


def _axes(text: HeaderText) -> tuple[tuple[int, int, int], list[int]]:
    """Sizes of the volume, and which of the file's axes are the patient's."""
    dimension, sizes = text.integer("dimension"), text.integers("sizes")
    if dimension not in (3, 4):
        code = Code.TOO_FEW_SLICES if dimension in (1, 2) else Code.DIMENSIONS
        text.refuse("dimension is not that of a volume", code=code, value=dimension, expected="3, or 4 with one volume")
    if len(sizes) != dimension:
        code = Code.TOO_FEW_SLICES if len(sizes) < 3 else Code.HEADER_INVALID
        text.refuse("sizes has another count than dimension", code=code, value=sizes, expected=f"{dimension} numbers")
    axes = list(range(dimension))
    if dimension == 4:
        others = [axis for axis, vector in enumerate(_vectors(text)) if vector is None]
        if len(others) != 1 or sizes[others[0]] != 1:
            text.refuse("more than one volume", code=Code.FOUR_D, value=sizes)
        axes.remove(others[0])
    return text.sizes([sizes[axis] for axis in axes]), axes


def _vectors(text: HeaderText) -> list[list[float] | None]:
    """The space directions; None for an axis that has none."""
    key = "space directions"
    if key not in text.fields:
        text.refuse("no space directions: left and right are not known", code=Code.NO_GEOMETRY)
    value, at, vectors = text.fields[key], 0, []
    while at < len(value):
        found = _VECTOR.match(value, at)
        if found is None:
            text.refuse(f"{key} does not hold vectors", value=text.shown(key))
        vectors.append(None if found[2] else text.numbers(key, 3, found[1].replace(",", " ")))
        at = found.end()
    dimension = text.integer("dimension")
    if len(vectors) != dimension:
        text.refuse(f"{key} has another count than dimension", value=text.shown(key), expected=f"{dimension} vectors")
    return vectors


def _affine(text: HeaderText, axes: list[int]) -> NDArray[np.float64]:
    """Index to LPS mm (4, 4)."""
    signs = [*_signs(text), 1]
    units = text.fields.get("space units")
    if units is not None:
        named = re.findall(r'"([^"]*)"', units)
        if len(named) != 3 or re.sub(r'"[^"]*"', "", units).strip():
            text.refuse("space units does not hold three units in quotes", value=f"{len(named)} units")
        text.check_units(named)
    _check_no_second_geometry(text)
    if "space origin" not in text.fields:
        text.refuse("no space origin: where the voxels are is not known", code=Code.NO_GEOMETRY)
    origins = _VECTOR.fullmatch(text.fields["space origin"])
    if origins is None or origins[1] is None:
        text.refuse("space origin is not a vector", value=text.shown("space origin"))
    origin = text.numbers("space origin", 3, origins[1].replace(",", " "))
    vectors = _vectors(text)
    _check_kinds(text, axes)
    affine = np.eye(4)
    for column, axis in enumerate(axes):
        vector = vectors[axis]
        if vector is None:
            text.refuse("space directions lacks the direction of an axis", code=Code.NO_GEOMETRY, value="none")
        # Length and direction apart, as teem and ITK have them: the same volume has the same numbers to the last bit.
        length = math.sqrt(vector[0] * vector[0] + vector[1] * vector[1] + vector[2] * vector[2])
        if not math.isfinite(length) or length == 0:
            text.refuse("space directions holds a direction without a length", code=Code.SINGULAR_AFFINE)
        affine[:3, column] = [sign * (part * (1.0 / length)) * length for sign, part in zip(signs, vector, strict=True)]
    affine[:3, 3] = [sign * part for sign, part in zip(signs, origin, strict=True)]
    return affine


def _check_kinds(text: HeaderText, axes: list[int]) -> None:
    """Refuse axes of the patient that are said to be something else: a list, colours, points in time."""
    kinds = text.fields.get("kinds")
    if kinds is None:
        return
    words = kinds.split()
    if len(words) != text.integer("dimension"):
        text.refuse("kinds has another count than dimension", value=f"{len(words)} kinds")
    other = [words[axis].lower() for axis in axes if words[axis].lower() not in _KINDS_OF_SPACE]
    if other:
        text.refuse(
            "an axis with a direction in space is said to be another kind of axis",
            value=other[0] if other[0] in _OTHER_KINDS else "another word",
            expected="domain or space",
        )


def _signs(text: HeaderText) -> tuple[int, int]:
    space = text.fields.get("space")
    if space is None:
        text.refuse("no space: left and right are not known", code=Code.NO_GEOMETRY)
    if "space dimension" in text.fields:
        text.refuse("space and space dimension are both there, and the format allows one of them")
    if space.lower() not in _SPACES:
        text.refuse(
            "the space does not say where left and right are",
            code=Code.NO_GEOMETRY,
            value=space if space.lower() in _OTHER_SPACES else "another word",
            expected="left-posterior-superior, right-anterior-superior or left-anterior-superior",
        )
    return _SPACES[space.lower()]


def _check_no_second_geometry(text: HeaderText) -> None:
    """Where a space is given, spacings, mins and maxs of axes have no place beside it: two geometries may differ."""
    for key in ("spacings", "axis mins", "axis maxs"):
        if any(word.lower() != "nan" for word in text.fields.get(key, "").split()):
            text.refuse(f"{key} beside space directions: two geometries", value=text.shown(key))


def _dtype(text: HeaderText) -> np.dtype[np.generic]:
    code = _TYPE_CODES.get(text.fields.get("type", "").lower())
    if code is None:
        text.refuse("voxels are not real numbers", code=Code.DTYPE, expected=", ".join(words[0] for words in _TYPES.values()))
    endian = text.fields.get("endian", "").lower()
    if code[1] == "1":
        return np.dtype(code)
    if endian not in ("little", "big"):
        text.refuse("endian is neither little nor big", value=text.shown("endian"))
    return np.dtype(("<" if endian == "little" else ">") + code)


def _place(text: HeaderText, head: bytes, end: int) -> tuple[int, Path]:
    """First byte of the voxels, and their file."""
    named = text.fields.get("data file")
    if named is None:
        return end, text.path
    if not named or named.upper().startswith("LIST") or "%" in named:
        text.refuse("voxels spread over several files", code=Code.UNSUPPORTED_INPUT)
    if head[end:].strip():
        text.refuse("the header names a data file, and bytes are behind the header")
    return 0, beside(text.path, named.encode("latin-1").decode("utf-8", "surrogateescape"))
