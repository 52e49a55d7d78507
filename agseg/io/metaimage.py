"""MetaImage (``.mha``, ``.mhd``): one strict parser that decides and reads.

A header is lines of ``Key = value`` that end with ``ElementDataFile``. Keys count in their own case; a known key in another
case, or a second time, is refused, because programs differ in which of the two they believe. What says where the voxels are
in the patient must be there: nothing is assumed in its place.
Source: https://docs.itk.org/en/latest/learn/metaio.html, section "Reference: Tags of MetaImage".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agseg.errors import Code, InputError
from agseg.grid import LPS_TO_RAS, Grid
from agseg.io.header_text import LONGEST_HEADER_BYTES, HeaderText
from agseg.io.nifti_header import check_spacing
from agseg.io.opening import open_regular
from agseg.io.voxel_file import AtEnd, Packing, VoxelFile, beside

UNIT_LENGTH_TOLERANCE = 1e-3
"""How far from 1 the length of an axis' direction may be: writers round, and the distance is in ElementSpacing."""

_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
    "MET_FLOAT": "f4", "MET_DOUBLE": "f8",
}  # fmt: skip
_ORIGIN, _DIRECTION, _SPACING = (
    ("Offset", "Position", "Origin"),
    ("TransformMatrix", "Rotation", "Orientation"),
    "ElementSpacing",
)
_BYTE_ORDER = ("BinaryDataByteOrderMSB", "ElementByteOrderMSB")
_KNOWN = (
    *_ORIGIN, *_DIRECTION, *_BYTE_ORDER, _SPACING,
    "AcquisitionDate", "AnatomicalOrientation", "BinaryData", "CenterOfRotation", "Color", "Comment", "CompressedData",
    "CompressedDataSize", "CompressionLevel", "DimSize", "DistanceUnits", "ElementDataFile", "ElementMax", "ElementMin",
    "ElementNBits", "ElementNumberOfChannels", "ElementOrigin", "ElementSize", "ElementToIntensityFunctionOffset",
    "ElementToIntensityFunctionSlope", "ElementType", "HeaderSize", "ID", "Modality", "NDims", "Name", "ObjectSubType",
    "ObjectType", "ParentID", "SequenceID", "TransformType",
)  # fmt: skip
_IN_THEIR_CASE = {key.lower(): key for key in _KNOWN}
_MODALITIES = frozenset({"", "MET_MOD_CT", "MET_MOD_OTHER", "MET_MOD_UNKNOWN"})
_OTHER_MODALITIES = frozenset({"MET_MOD_MR", "MET_MOD_NM", "MET_MOD_US", "MET_MOD_PET", "MET_MOD_SPECT", "MET_MOD_XR"})
_BOOLEANS = {"true": True, "false": False, "1": True, "0": False}


def is_metaimage(head: bytes) -> bool:
    """Whether the first line is one of a MetaImage header, its key in whatever case, and NDims follows."""
    first = re.match(rb"\s*([A-Za-z]+)[ \t]*=", head)
    return first is not None and first[1].decode().lower() in _IN_THEIR_CASE and b"ndims" in head.lower()


def read_metaimage_header(path: Path) -> VoxelFile:
    """The checked header of a file, and the voxels it speaks of.

    Raises
    ------
    InputError
        ``E_HEADER_INVALID``, ``E_NO_GEOMETRY``, ``E_DTYPE``, ``E_DIMENSIONS``, ``E_4D``, ``E_TOO_FEW_SLICES``, ``E_TOO_LARGE``,
        ``E_NO_RESCALE``, ``E_IMPLAUSIBLE_SPACING``, ``E_PATH_ESCAPE``, ``E_UNSUPPORTED_INPUT``, ``E_NO_PIXELS``,
        ``E_TRUNCATED``, ``E_HEADER_LIES``.
    """
    with open_regular(path) as raw:
        head = raw.read(LONGEST_HEADER_BYTES)
    text = HeaderText(path)
    end = _take_fields(text, head)
    dimensions = text.integer("NDims")
    if dimensions not in (3, 4):
        code = Code.TOO_FEW_SLICES if dimensions in (1, 2) else Code.DIMENSIONS
        text.refuse("NDims is not that of a volume", code=code, value=dimensions, expected="3, or 4 with one volume")
    sizes = text.integers("DimSize")
    if len(sizes) != dimensions:
        code = Code.TOO_FEW_SLICES if len(sizes) < 3 else Code.HEADER_INVALID
        text.refuse("DimSize has another count than NDims", code=code, value=sizes, expected=f"{dimensions} numbers")
    shape = text.sizes(sizes)
    _check_meaning(text)
    affine = _affine(text, dimensions)
    try:
        grid = check_spacing(Grid(shape, LPS_TO_RAS @ affine))
    except InputError as error:
        raise InputError(error.message, code=error.code, path=path, value=error.value, expected=error.expected) from None
    found = _voxels(text, grid, head, end)
    found.check_length()
    return found


def _take_fields(text: HeaderText, head: bytes) -> int:
    """Fill the fields; returns the offset behind the line of ElementDataFile."""
    line_end = re.search(rb"(?:^|\n)[ \t]*ElementDataFile[ \t]*=[^\n]*(\n|\Z)", head)
    if line_end is None:
        where = f"within {LONGEST_HEADER_BYTES} bytes" if len(head) == LONGEST_HEADER_BYTES else "to the end of the file"
        # Keys in another case are named first: they are the likelier reason.
        if len(head) < LONGEST_HEADER_BYTES and re.search(rb"(?i)(?:^|\n)[ \t]*ElementDataFile[ \t]*=", head):
            text.refuse("ElementDataFile is written in another case", expected="ElementDataFile")
        text.refuse(f"no ElementDataFile {where}: the header does not end")
    for line in text.lines(head[: line_end.end()].rstrip(b"\r\n")):
        key, equals, value = (part.strip(" \t") for part in line.partition("="))
        if not equals or not key or not key.isascii():
            text.refuse("a line of the header is not Key = value")
        known = _IN_THEIR_CASE.get(key.lower())
        if known is not None and known != key:
            text.refuse(f"{known} is written in another case", value=key, expected=known)
        if key == "Comment" and key in text.fields:
            continue
        if key in text.fields and known is None:
            text.refuse("a key of the header is there twice")
        text.add(key, value)
    return line_end.end()


def _check_meaning(text: HeaderText) -> None:
    """Refuse what is not an image of single numbers in mm that are its values."""
    fields = text.fields
    if fields.get("ObjectType", "Image") != "Image":
        text.refuse("ObjectType is not Image", code=Code.UNSUPPORTED_INPUT, value="another word", expected="Image")
    text.check_units([fields.get("DistanceUnits", "")])
    # Most readers leave the function out; which of the two numbers a writer meant is not known.
    for name, neutral in (("Slope", 1.0), ("Offset", 0.0)):
        key = f"ElementToIntensityFunction{name}"
        if fields.get(key, "").lower() in ("nan", "inf", "-inf") or (key in fields and text.numbers(key, 1) != [neutral]):
            text.refuse(f"{key} is not supported", code=Code.NO_RESCALE, value=text.shown(key), expected=f"{neutral:g}")
    if fields.get("ElementType", "") not in _TYPES or text.integer("ElementNumberOfChannels", 1) != 1:
        text.refuse("voxels are not real numbers", code=Code.DTYPE, expected=f"one channel of {', '.join(_TYPES)}")
    if fields.get("Modality", "") not in _MODALITIES:
        text.refuse("Modality is not that of a CT", code=Code.MODALITY, value=_other_modality(fields), expected="MET_MOD_CT")
    if not _boolean(text, "BinaryData", default=True):
        text.refuse("voxels written as text are not read", code=Code.UNSUPPORTED_INPUT, value="BinaryData = False")


def _other_modality(fields: Mapping[str, str]) -> str:
    return fields["Modality"] if fields["Modality"] in _OTHER_MODALITIES else "another word"


def _boolean(text: HeaderText, key: str, *, default: bool) -> bool:
    value = text.fields.get(key)
    if value is None:
        return default
    if value.lower() not in _BOOLEANS:
        text.refuse(f"{key} is neither True nor False", value=text.shown(key))
    return _BOOLEANS[value.lower()]


def _affine(text: HeaderText, dimensions: int) -> NDArray[np.float64]:
    """Index to LPS mm (4, 4). A fourth axis must be independent of the patient's three."""
    origin_key, direction_key = _one_of(text, _ORIGIN), _one_of(text, _DIRECTION)
    spacing_key = _SPACING if _SPACING in text.fields else _one_of(text, ("ElementSize",), of=f"{_SPACING} or ElementSize")
    spacing = text.numbers(spacing_key, dimensions)
    if min(spacing) <= 0:
        text.refuse(f"{spacing_key} is not positive", value=text.shown(spacing_key))
    origin = text.numbers(origin_key, dimensions)
    # A row of the matrix is the direction of an axis of the image.
    rows = np.array(text.numbers(direction_key, dimensions**2)).reshape(dimensions, dimensions)
    if dimensions == 4 and (rows[3, :3].any() or rows[:3, 3].any()):
        text.refuse(f"{direction_key} mixes the fourth axis with the patient's", value=text.shown(direction_key))
    directions = rows[:3, :3].T
    lengths = np.linalg.norm(directions, axis=0)
    if (np.abs(lengths - 1) > UNIT_LENGTH_TOLERANCE).any():
        text.refuse(
            f"{direction_key} does not hold directions of length 1",
            value=" ".join(f"{length:.4g}" for length in lengths),
            expected=f"the distance between voxels in {spacing_key} alone",
        )
    affine = np.eye(4)
    affine[:3, :3] = directions * np.array(spacing[:3])
    affine[:3, 3] = origin[:3]
    return affine


def _one_of(text: HeaderText, keys: tuple[str, ...], *, of: str = "") -> str:
    """The one key of several with the same meaning."""
    there = [key for key in keys if key in text.fields]
    if not there:
        text.refuse(f"no {of or keys[0]}: where the voxels are is not known", code=Code.NO_GEOMETRY)
    if len(there) > 1:
        text.refuse(f"{' and '.join(there)} mean the same, and both are there")
    return there[0]


def _voxels(text: HeaderText, grid: Grid, head: bytes, end: int) -> VoxelFile:
    named = text.fields["ElementDataFile"]
    orders = {_boolean(text, key, default=False) for key in _BYTE_ORDER if key in text.fields}
    if len(orders) > 1:
        text.refuse(f"{' and '.join(_BYTE_ORDER)} contradict each other")
    dtype = np.dtype((">" if True in orders else "<") + _TYPES[text.fields["ElementType"]])
    packing = Packing.ZLIB if _boolean(text, "CompressedData", default=False) else Packing.NONE
    packed_bytes = text.integer("CompressedDataSize") if packing and "CompressedDataSize" in text.fields else None
    skip = text.integer("HeaderSize", 0)
    if skip < -1 or (skip and packing):
        text.refuse("HeaderSize is not supported", code=Code.UNSUPPORTED_INPUT, value=skip, expected="0")
    if named in ("LOCAL", "Local", "local"):
        if skip > 0:
            text.refuse("HeaderSize is not supported for voxels behind their header", code=Code.UNSUPPORTED_INPUT, value=skip)
        return VoxelFile(grid, dtype, text.path, text.path, end, packing, packed_bytes=packed_bytes)
    if not named or named.upper().startswith("LIST") or "%" in named:
        text.refuse("voxels spread over several files", code=Code.UNSUPPORTED_INPUT)
    if head[end:].strip():
        text.refuse("text behind ElementDataFile")
    offset: int | type[AtEnd] = AtEnd if skip == -1 else skip
    path = beside(text.path, named.encode("latin-1").decode("utf-8", "surrogateescape"))
    return VoxelFile(grid, dtype, text.path, path, offset, packing, packed_bytes=packed_bytes)
