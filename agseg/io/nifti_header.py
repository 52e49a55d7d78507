"""A NIfTI header, held against the rules before any voxel is read.

Whether the fields make sense is decided here, because a header that lies must cost neither memory nor a wrong left and right.
Source: NIfTI-1 and NIfTI-2 header definitions (nifti1.h, nifti2.h).
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agseg.errors import Code, InputError
from agseg.grid import Grid
from agseg.io.nifti_fields import HEADER_BYTES, NiftiFields

LARGEST_VOLUME_VOXELS = 1_500_000_000
"""A study with more voxels is refused before memory is taken."""

SMALLEST_SPACING_MM = 0.05
LARGEST_SPACING_MM = 20.0
"""Voxel distances (mm) outside these are not a CT of a person."""

SFORM_QFORM_TOLERANCE_MM = 0.1
"""sform and qform must put the corner voxels within this distance (mm) of each other, where a file has both."""

MINIMAL_SLICES = 3

GZIP_MAGIC = b"\x1f\x8b"

ANALYZE_HEADER_BYTES = 348

_MAGIC = {b"n+1\0": (1, False), b"ni1\0": (1, True), b"n+2\0": (2, False), b"ni2\0": (2, True)}
_READABLE_TYPES = frozenset({2, 4, 8, 16, 64, 256, 512, 768, 1024, 1280})
LARGEST_OFFSET_BYTES = 64 * 1024**2
"""The voxels begin within this: header extensions take some kilobytes, and of a gzip stream all before them is unpacked."""

_UNITS_OK = frozenset({0, 2})
"""Space units: unknown, and millimetres."""


@dataclass(frozen=True, eq=False)
class NiftiHeader:
    """What a valid header says: grid, stored dtype, where the voxels begin, scaling (None: none) and whether in a pair."""

    grid: Grid
    dtype: np.dtype[Any]
    offset: int
    scale: tuple[float, float] | None
    is_pair: bool

    @property
    def voxel_bytes(self) -> int:
        """Size of the voxels in the (unpacked) file."""
        return int(np.prod(self.grid.shape, dtype=np.int64)) * self.dtype.itemsize


def sniff_nifti(head: bytes) -> tuple[int, bool] | None:
    """(version, is a pair's header) if the unpacked bytes begin like NIfTI or Analyze, else None."""
    if len(head) >= 12 and head[4:8] in _MAGIC:
        return _MAGIC[head[4:8]]
    if len(head) >= 348 and head[344:348] in _MAGIC:
        return _MAGIC[head[344:348]]
    return None


def is_nifti(head: bytes) -> bool:
    """Whether the first bytes, plain or gzipped, begin like NIfTI or are an Analyze 7.5 header."""
    if head.startswith(GZIP_MAGIC):
        try:
            return sniff_nifti(zlib.decompressobj(wbits=31).decompress(head, 1024)) is not None
        except zlib.error:
            return False
    return sniff_nifti(head) is not None or is_analyze(head)


def is_analyze(head: bytes) -> bool:
    """Whether these are an Analyze 7.5 header and nothing else."""
    sizes = int.from_bytes(head[:4], "little"), int.from_bytes(head[:4], "big")
    return len(head) == ANALYZE_HEADER_BYTES and ANALYZE_HEADER_BYTES in sizes and sniff_nifti(head) is None


def parse_header(head: bytes, *, sheared: bool = False) -> NiftiHeader:
    """The header in the first bytes of the unpacked file.

    Parameters
    ----------
    sheared
        Accept voxel axes that are not perpendicular: a mask of a scan with a tilted gantry lies on such a grid. Of an image
        it would more often be a mistake.

    Raises
    ------
    InputError
        ``E_NOT_NIFTI``, ``E_TRUNCATED``, ``E_HEADER_INVALID``, ``E_DTYPE``, ``E_4D``, ``E_TOO_FEW_SLICES``, ``E_TOO_LARGE``,
        ``E_NO_GEOMETRY``, ``E_SFORM_QFORM_CONFLICT``, ``E_SHEARED``, ``E_SINGULAR_AFFINE``, ``E_IMPLAUSIBLE_SPACING``.
    """
    known = sniff_nifti(head)
    if known is None and is_analyze(head):
        raise InputError("Analyze 7.5 does not say where left and right are", code=Code.NO_GEOMETRY)
    if known is None:
        raise InputError("not a NIfTI file", code=Code.NOT_NIFTI)
    version, is_pair = known
    size = HEADER_BYTES[version]
    if len(head) < size:
        raise InputError("the file ends inside its header", code=Code.TRUNCATED)
    try:
        header = NiftiFields(version, head)
    except Exception as error:
        raise InputError(f"the NIfTI header is damaged ({type(error).__name__})", code=Code.HEADER_INVALID) from None
    if int(header["sizeof_hdr"]) != size:
        raise InputError("sizeof_hdr does not fit the version", code=Code.HEADER_INVALID, expected=size)
    dtype = _voxel_type(header)
    shape = _shape(header)
    grid = _grid(header, shape, sheared=sheared)
    offset = float(header["vox_offset"])
    lowest = 0 if is_pair else size
    if not np.isfinite(offset) or offset != int(offset) or not (offset == 0 or lowest <= offset <= LARGEST_OFFSET_BYTES):
        expected = f"{lowest} to {LARGEST_OFFSET_BYTES}"
        raise InputError("vox_offset does not fit the header", code=Code.HEADER_INVALID, value=offset, expected=expected)
    # 0 in a single file means "right behind the header and its four extension bytes".
    start = int(offset) if offset or is_pair else size + 4
    return NiftiHeader(grid, dtype, start, _scale(header), is_pair)


def _voxel_type(header: Any) -> np.dtype[Any]:
    code = int(header["datatype"])
    if code not in _READABLE_TYPES:
        raise InputError("voxels are not real numbers", code=Code.DTYPE, value=f"NIfTI datatype {code}")
    dtype: np.dtype[Any] = header.get_data_dtype()
    if int(header["bitpix"]) not in (0, dtype.itemsize * 8):
        raise InputError("bitpix does not fit the datatype", code=Code.HEADER_INVALID, value=int(header["bitpix"]))
    return dtype


def _shape(header: Any) -> tuple[int, int, int]:
    dims = [int(n) for n in header["dim"]]
    if not 1 <= dims[0] <= 7:
        raise InputError("dim[0] is not a number of dimensions", code=Code.HEADER_INVALID, value=dims[0], expected="1 to 7")
    sizes = dims[1 : dims[0] + 1]
    if min(sizes) < 1:
        raise InputError("a dimension is not positive", code=Code.DIMENSIONS, value=sizes)
    if any(n > 1 for n in sizes[3:]):
        raise InputError("more than one volume", code=Code.FOUR_D, value=sizes, expected="3 dimensions")
    if len(sizes) < 3 or min(sizes[:3]) < MINIMAL_SLICES:
        raise InputError(
            "too few slices for a volume", code=Code.TOO_FEW_SLICES, value=sizes, expected=f"at least {MINIMAL_SLICES}"
        )
    if sizes[0] * sizes[1] * sizes[2] > LARGEST_VOLUME_VOXELS:
        raise InputError(
            "the volume is too large", code=Code.TOO_LARGE, value=sizes, expected=f"{LARGEST_VOLUME_VOXELS} voxels"
        )
    return sizes[0], sizes[1], sizes[2]


def _grid(header: Any, shape: tuple[int, int, int], *, sheared: bool) -> Grid:
    """The sform, else the qform; both only if they agree."""
    sform_code, qform_code = int(header["sform_code"]), int(header["qform_code"])
    if sform_code <= 0 and qform_code <= 0:
        raise InputError("sform_code and qform_code are 0: left and right are not known", code=Code.NO_GEOMETRY)
    units = int(header["xyzt_units"]) & 7
    if units not in _UNITS_OK:
        raise InputError(
            "the header's unit of length is not mm",
            code=Code.IMPLAUSIBLE_SPACING,
            value=f"unit code {units}",
            expected="2 (mm)",
        )
    affines = []
    try:
        if sform_code > 0:
            affines.append(np.asarray(header.get_sform(), dtype=np.float64))
        if qform_code > 0:
            if float(header["pixdim"][0]) == 0:
                # nifti1.h: "if qfac is 0, which should not occur, we take qfac=1"; old ITK wrote it.
                header["pixdim"][0] = 1
            affines.append(np.asarray(header.get_qform(), dtype=np.float64))
    except Exception as error:
        raise InputError(f"the orientation cannot be read ({type(error).__name__})", code=Code.HEADER_INVALID) from None
    affines = [np.vstack([affine[:3], (0, 0, 0, 1)]) for affine in affines]
    grid = check_spacing(Grid(shape, affines[0])) if sheared else check_grid(shape, affines[0])
    if len(affines) == 2:
        other = Grid(shape, affines[1])
        away = float(np.linalg.norm(grid.corners_mm() - other.corners_mm(), axis=1).max())
        if away > SFORM_QFORM_TOLERANCE_MM:
            raise InputError(
                "sform and qform disagree about where the voxels are",
                code=Code.SFORM_QFORM_CONFLICT,
                value=f"{away:.2f} mm",
                expected=f"at most {SFORM_QFORM_TOLERANCE_MM} mm",
            )
    return grid


def check_grid(shape: tuple[int, int, int], affine: NDArray[np.float64]) -> Grid:
    """The grid, if it is rectangular and of a plausible spacing."""
    grid = check_spacing(Grid(shape, affine))
    check_rectangular(grid)
    return grid


def check_spacing(grid: Grid) -> Grid:
    """The grid, if its voxels are as far apart as those of a person's CT (``E_IMPLAUSIBLE_SPACING``)."""
    spacing = [round(s, 6) for s in grid.spacing_mm]
    if min(spacing) < SMALLEST_SPACING_MM or max(spacing) > LARGEST_SPACING_MM:
        raise InputError(
            "implausible voxel spacing",
            code=Code.IMPLAUSIBLE_SPACING,
            value=spacing,
            expected=f"{SMALLEST_SPACING_MM} to {LARGEST_SPACING_MM} mm",
        )
    return grid


def check_rectangular(grid: Grid) -> None:
    """Refuse voxel axes that are not perpendicular (``E_SHEARED``)."""
    if not grid.is_rectangular:
        raise InputError("the voxel axes are not perpendicular", code=Code.SHEARED, value=f"cosine {grid.shear:.4f}")


def _scale(header: Any) -> tuple[float, float] | None:
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    # Slope 0 or NaN means: the values are as stored.
    if not np.isfinite(slope) or slope == 0:
        return None
    if not np.isfinite(inter):
        raise InputError("scl_inter is not a number", code=Code.HEADER_INVALID)
    return None if (slope, inter) == (1.0, 0.0) else (slope, inter)
