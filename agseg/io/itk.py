"""MetaImage (``.mha``, ``.mhd``) and NRRD (``.nrrd``, ``.nhdr``): header checked here, voxels read by SimpleITK.

Both formats may name another file that holds the voxels. One that lies outside the study's folder is refused, because such a
header could make any file of the machine appear in a result.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from isal import igzip

from agseg.errors import Code, InputError
from agseg.io.dicom.read import LPS_TO_RAS
from agseg.io.nifti import DAMAGE, GZIP_MAGIC, MODALITY_NOTE, read_to_checksum
from agseg.io.nifti_header import LARGEST_VOLUME_VOXELS, MINIMAL_SLICES, check_grid
from agseg.io.voxels import as_hounsfield, check_looks_like_hu
from agseg.study import Study, StudyKind
from agseg.volume import Quantity, Volume, Warned

__all__ = ["ItkHeader", "read_itk", "read_itk_array", "read_itk_header", "sniff_itk"]

LONGEST_HEADER_BYTES = 64 * 1024

LARGEST_DEFLATE_RATIO = 1100

_NRRD_TYPES = {
    "int8": 1, "signed char": 1, "int8_t": 1, "uchar": 1, "unsigned char": 1, "uint8": 1, "uint8_t": 1,
    "short": 2, "short int": 2, "signed short": 2, "signed short int": 2, "int16": 2, "int16_t": 2,
    "ushort": 2, "unsigned short": 2, "unsigned short int": 2, "uint16": 2, "uint16_t": 2,
    "int": 4, "signed int": 4, "int32": 4, "int32_t": 4, "uint": 4, "unsigned int": 4, "uint32": 4, "uint32_t": 4,
    "float": 4, "double": 8,
}  # fmt: skip
NRRD_SPACES = frozenset({
    "left-posterior-superior", "lps", "right-anterior-superior", "ras", "left-anterior-superior", "las",
})  # fmt: skip
"""Spaces that say where left and right are; SimpleITK turns each of them into LPS."""

_OTHER_NRRD_SPACES = frozenset({
    "scanner-xyz", "3d-right-handed", "3d-left-handed", "scanner-xyz-time", "3d-right-handed-time", "3d-left-handed-time",
    "left-posterior-superior-time", "lpst", "right-anterior-superior-time", "rast", "left-anterior-superior-time", "last",
})  # fmt: skip
"""The format's other spaces: known words, which a message may repeat."""

MILLIMETRES = frozenset({"mm", "millimeter", "millimeters", "millimetre", "millimetres", "", "?", "???"})
"""Units of length that are read: millimetres, and unknown, as in NIfTI."""

_OTHER_UNITS = frozenset({"m", "cm", "um", "nm", "in", "meter", "metre", "centimeter", "micrometer", "micron", "inch"})

_META_TYPES = {
    "MET_CHAR": 1, "MET_UCHAR": 1, "MET_SHORT": 2, "MET_USHORT": 2, "MET_INT": 4, "MET_UINT": 4, "MET_FLOAT": 4,
    "MET_DOUBLE": 8,
}  # fmt: skip


@dataclass(frozen=True)
class ItkHeader:
    """What a header says: sizes (i, j, k), bytes per voxel, whether packed, and the file of the voxels."""

    kind: StudyKind
    shape: tuple[int, int, int]
    voxel_bytes: int
    packed: bool
    data_file: Path
    gzip_offset: int | None = None
    """Where a gzip stream begins whose checksum SimpleITK does not look at."""


def sniff_itk(head: bytes) -> StudyKind | None:
    """NRRD by its magic, MetaImage by its first key; None for anything else."""
    if re.match(rb"NRRD000\d\s", head):
        return StudyKind.NRRD
    if re.match(rb"\s*(ObjectType|NDims|Comment)\s*=", head) and b"NDims" in head:
        return StudyKind.METAIMAGE
    return None


def read_itk(study: Study) -> Volume:
    """Read a MetaImage or NRRD study as CT.

    Returns
    -------
    Volume
        Voxels (i, j, k), Fortran-ordered, HU; int16 if all values are whole, else float32.

    Raises
    ------
    InputError
        With the reason code of the rule that is broken.
    """
    image, stored = read_itk_array(study.files[0])
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    grid = check_grid(stored.shape, LPS_TO_RAS @ affine)
    voxels, warnings = as_hounsfield(stored, None)
    check_looks_like_hu(voxels)
    assumed = Warned(Code.MODALITY_ASSUMED, MODALITY_NOTE)
    return Volume(voxels, grid, Quantity.HU, "CT", (*study.warnings, assumed, *warnings))


def read_itk_array(path: Path) -> tuple[Any, Any]:
    """SimpleITK's image (for its geometry, in LPS) and the stored voxels (i, j, k), Fortran-ordered."""
    header = read_itk_header(path)
    needed = int(np.prod(header.shape, dtype=np.int64)) * header.voxel_bytes
    size = header.data_file.stat().st_size
    if needed > size * (LARGEST_DEFLATE_RATIO if header.packed else 1):
        code = Code.HEADER_LIES if header.packed else Code.TRUNCATED
        raise InputError("the file is shorter than its voxels", code=code, path=path, value=size, expected=needed)
    if header.gzip_offset is not None:
        _check_gzip(header.data_file, header.gzip_offset)
    import SimpleITK

    make: Any = SimpleITK.ImageFileReader
    reader = make()
    reader.SetImageIO("NrrdImageIO" if header.kind is StudyKind.NRRD else "MetaImageIO")
    reader.SetFileName(str(path))
    try:
        image = reader.Execute()
        array = SimpleITK.GetArrayFromImage(image)
    except RuntimeError:
        raise InputError("the voxels cannot be read", code=Code.DECODE, path=path) from None
    stored = array.transpose(tuple(reversed(range(array.ndim))))
    if stored.shape != header.shape:
        raise InputError("the voxels do not fit the header", code=Code.HEADER_LIES, path=path)
    return image, stored


def _check_gzip(path: Path, offset: int) -> None:
    with path.open("rb") as raw:
        raw.seek(offset)
        if raw.read(2) != GZIP_MAGIC:
            return
        raw.seek(offset)
        unpacker: Any = igzip.GzipFile
        try:
            with unpacker(fileobj=raw, mode="rb") as stream:
                read_to_checksum(stream)
        except EOFError:
            raise InputError("the file ends before its voxels do", code=Code.TRUNCATED, path=path) from None
        except DAMAGE:
            raise InputError("the gzip stream is damaged", code=Code.DECODE, path=path) from None


def read_itk_header(path: Path) -> ItkHeader:
    """The checked header of a file.

    Raises
    ------
    InputError
        ``E_PATH_ESCAPE`` for voxels outside the study's folder, ``E_NO_GEOMETRY`` without an orientation in the patient,
        ``E_IMPLAUSIBLE_SPACING`` for another unit than mm, ``E_NO_RESCALE`` for an intensity function, ``E_DTYPE``,
        ``E_DIMENSIONS``, ``E_4D``, ``E_TOO_FEW_SLICES``, ``E_TOO_LARGE``, ``E_HEADER_INVALID``.
    """
    with path.open("rb") as raw:
        head = raw.read(LONGEST_HEADER_BYTES)
    kind = sniff_itk(head)
    if kind is None:
        raise InputError("neither MetaImage nor NRRD", code=Code.UNSUPPORTED_INPUT, path=path)
    try:
        return _nrrd_header(path, head) if kind is StudyKind.NRRD else _meta_header(path, head)
    except ValueError:
        raise InputError("the header cannot be read", code=Code.HEADER_INVALID, path=path) from None


def _nrrd_header(path: Path, head: bytes) -> ItkHeader:
    blank_line = re.search(rb"\r?\n\r?\n", head)
    gap = b"" if blank_line is None else blank_line.group()
    text = (head if blank_line is None else head[: blank_line.start()]).decode("latin-1")
    fields: dict[str, str] = {}
    for line in text.splitlines()[1:]:
        key, colon, value = line.partition(":")
        if colon and not line.startswith("#") and not value.startswith("="):
            fields[key.strip().lower()] = value.strip()
    if "space directions" not in fields or not ({"space", "space dimension"} & fields.keys()):
        raise InputError("no space and space directions: left and right are not known", code=Code.NO_GEOMETRY, path=path)
    _check_space(path, fields.get("space"))
    _check_units(path, re.findall(r'"([^"]*)"', fields.get("space units", "")))
    voxel_bytes = _NRRD_TYPES.get(fields.get("type", "").lower())
    if voxel_bytes is None:
        raise InputError("voxels are not real numbers", code=Code.DTYPE, path=path)
    named = fields.get("data file", fields.get("datafile"))
    encoding = fields.get("encoding", "raw").lower()
    gzip_offset = None
    if encoding in ("gz", "gzip"):
        gzip_offset = 0 if named is not None else len(text.encode("latin-1")) + len(gap)
    shape = _checked_shape(path, [int(n) for n in fields.get("sizes", "").split()])
    return ItkHeader(StudyKind.NRRD, shape, voxel_bytes, encoding != "raw", _data_file(path, named), gzip_offset)


def _check_space(path: Path, space: str | None) -> None:
    if space is None:
        raise InputError("no space: left and right are not known", code=Code.NO_GEOMETRY, path=path)
    if space.lower() not in NRRD_SPACES:
        raise InputError(
            "the space does not say where left and right are",
            code=Code.NO_GEOMETRY,
            path=path,
            value=space if space.lower() in _OTHER_NRRD_SPACES else "another word",
            expected="left-posterior-superior, right-anterior-superior or left-anterior-superior",
        )


def _check_units(path: Path, units: list[str]) -> None:
    wrong = [unit for unit in units if unit.strip().lower() not in MILLIMETRES]
    if wrong:
        raise InputError(
            "the header's unit of length is not mm",
            code=Code.IMPLAUSIBLE_SPACING,
            path=path,
            value=wrong[0] if wrong[0].lower() in _OTHER_UNITS else "another word",
            expected="mm",
        )


def _check_intensity(path: Path, fields: dict[str, str]) -> None:
    """Refuse a MetaImage whose stored numbers are not its values.

    Most readers, SimpleITK among them, leave the function out; which of the two numbers a writer meant is not known.
    """
    slope = float(fields.get("elementtointensityfunctionslope", "1"))
    offset = float(fields.get("elementtointensityfunctionoffset", "0"))
    if (slope, offset) != (1.0, 0.0):
        raise InputError(
            "ElementToIntensityFunctionSlope and -Offset are not supported",
            code=Code.NO_RESCALE,
            path=path,
            value=f"slope {slope:g}, offset {offset:g}",
            expected="slope 1, offset 0",
        )


def _meta_header(path: Path, head: bytes) -> ItkHeader:
    fields: dict[str, str] = {}
    for line in head.split(b"\n"):
        key, equals, value = line.decode("latin-1").partition("=")
        if not equals:
            break
        fields[key.strip().lower()] = value.strip()
        if key.strip().lower() == "elementdatafile":
            break
    if not ({"transformmatrix", "orientation", "rotation"} & fields.keys()) or not (
        {"elementspacing", "elementsize"} & fields.keys()
    ):
        raise InputError("no TransformMatrix or ElementSpacing: orientation is not known", code=Code.NO_GEOMETRY, path=path)
    _check_units(path, [fields.get("distanceunits", "")])
    _check_intensity(path, fields)
    voxel_bytes = _META_TYPES.get(fields.get("elementtype", "").upper())
    if voxel_bytes is None or int(fields.get("elementnumberofchannels", "1")) != 1:
        raise InputError("voxels are not real numbers", code=Code.DTYPE, path=path)
    shape = _checked_shape(path, [int(n) for n in fields.get("dimsize", "").split()])
    named = fields.get("elementdatafile", "")
    packed = fields.get("compresseddata", "false").lower() == "true"
    return ItkHeader(
        StudyKind.METAIMAGE, shape, voxel_bytes, packed, _data_file(path, None if named.upper() == "LOCAL" else named)
    )


def _checked_shape(path: Path, sizes: list[int]) -> tuple[int, int, int]:
    if len(sizes) > 3:
        raise InputError("more than one volume", code=Code.FOUR_D, path=path, value=sizes)
    if len(sizes) < 3 or 0 < min(sizes) < MINIMAL_SLICES:
        raise InputError("too few slices for a volume", code=Code.TOO_FEW_SLICES, path=path, value=sizes)
    if min(sizes) < 1:
        raise InputError("a dimension is not positive", code=Code.DIMENSIONS, path=path, value=sizes)
    if sizes[0] * sizes[1] * sizes[2] > LARGEST_VOLUME_VOXELS:
        raise InputError("the volume is too large", code=Code.TOO_LARGE, path=path, value=sizes)
    return sizes[0], sizes[1], sizes[2]


def _data_file(path: Path, named: str | None) -> Path:
    """The file with the voxels: the header's own, or a regular file in the same folder."""
    if named is None:
        return path
    if not named or named.upper().startswith("LIST") or "%" in named:
        raise InputError("voxels spread over several files", code=Code.UNSUPPORTED_INPUT, path=path)
    if Path(named).name != named or "\\" in named:
        raise InputError("the voxels' file lies outside the study", code=Code.PATH_ESCAPE, path=path)
    other = path.with_name(named)
    if other.is_symlink():
        raise InputError("the voxels' file is a link", code=Code.PATH_ESCAPE, path=path)
    if not other.is_file():
        raise InputError("the voxels' file is not there", code=Code.NO_PIXELS, path=path)
    return other
