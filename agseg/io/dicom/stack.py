"""From image planes to one stack: which slice lies where, and whether they fill space without gaps.

Everything here is in DICOM's LPS millimetres. Order and distance come from ImagePositionPatient projected on the normal
row x column, never from InstanceNumber, SliceLocation, SliceThickness or file names.
Source: DICOM PS3.3 C.7.6.2.1.1 (Image Plane Module).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agseg.errors import Code, InputError

ORTHONORMAL_TOLERANCE = 1e-3
"""Row and column directions are unit vectors and perpendicular within this."""

SAME_ORIENTATION_TOLERANCE = 1e-4
"""Orientations of one series differ by no more than this, per cosine."""

SAME_SPACING_TOLERANCE = 1e-4
"""PixelSpacing of one series differs by no more than this, relative."""

SAME_POSITION_MM = 0.01
"""Two slices nearer than this (mm) lie at one position."""

GAP_TOLERANCE_MM = 0.01
GAP_TOLERANCE_RELATIVE = 0.01
"""A slice distance may differ from the median by the larger of 0.01 mm and 1 %."""

TILT_THRESHOLD = 0.02
"""In-plane part of the mean step, relative to its length, from which the gantry was tilted."""

LARGEST_TILT = 1.0
"""A step that runs further in the plane than through it (45 degrees) is no gantry tilt."""

OFF_LINE_TOLERANCE_MM = 0.1
OFF_LINE_TOLERANCE_RELATIVE = 0.1
"""A slice may lie beside its place on the straight line through the stack by the larger of 0.1 mm and a tenth of a step."""

SMALLEST_SPACING_MM = 0.05
LARGEST_SPACING_MM = 20.0
"""Voxel distances (mm) outside these are not a CT of a person."""

COARSEST_PRINT_MM = 0.1
"""Positions printed more coarsely than this are not made even."""

GAPS_NAMED = 3
"""Gaps whose place a message names."""

MINIMAL_SLICES = 3


@dataclass(frozen=True, slots=True)
class Plane:
    """One slice or frame: matrix (rows, columns), LPS position of its first pixel (mm), row and column cosines (6), and
    PixelSpacing (distance between rows, between columns; mm).
    """

    rows: int | None
    columns: int | None
    position_mm: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    pixel_spacing_mm: tuple[float, ...] | None


@dataclass(frozen=True, eq=False)
class Stack:
    """Planes in order of position.

    ``order[k]`` are the planes that lie at position k: one, or several that must turn out identical.
    ``affine_lps`` is 4x4 float64, index (i = column, j = row, k = slice) to LPS mm; sheared if ``tilted``.
    """

    order: tuple[tuple[int, ...], ...]
    affine_lps: NDArray[np.float64]
    shape: tuple[int, int, int]
    tilted: bool

    @property
    def has_duplicates(self) -> bool:
        """True if some position holds more than one plane."""
        return any(len(planes) > 1 for planes in self.order)


def stack_planes(planes: Sequence[Plane]) -> Stack:
    """The stack that the planes make.

    Raises
    ------
    InputError
        ``E_NO_GEOMETRY``, ``E_NO_PIXELS``, ``E_HEADER_INVALID``, ``E_IMPLAUSIBLE_SPACING``, ``E_MIXED_SERIES``,
        ``E_TOO_FEW_SLICES``, ``E_4D``, ``E_MISSING_SLICES``, ``E_NONUNIFORM_SPACING``, ``E_GANTRY_TILT``.
    """
    _check_present(planes)
    if len(planes) < MINIMAL_SLICES:
        raise InputError(
            "too few slices for a volume", code=Code.TOO_FEW_SLICES, value=len(planes), expected=f"at least {MINIMAL_SLICES}"
        )
    orientation, spacing = _common_frame(planes)
    row, column = orientation[:3] / np.linalg.norm(orientation[:3]), orientation[3:] / np.linalg.norm(orientation[3:])
    normal = np.cross(row, column)
    normal /= np.linalg.norm(normal)
    positions = np.array([plane.position_mm for plane in planes], dtype=np.float64)
    order = _group_positions(positions @ normal)
    if len(order) < MINIMAL_SLICES:
        raise InputError(
            "too few slice positions", code=Code.TOO_FEW_SLICES, value=len(order), expected=f"at least {MINIMAL_SLICES}"
        )
    centres = np.array([positions[group[0]] for group in order])
    distances = np.diff(centres @ normal)
    if not _printed_evenly(centres, normal):
        _check_gaps(distances)
    _check_plausible(np.array([np.median(distances)]))
    step = (centres[-1] - centres[0]) / (len(order) - 1)
    tilted = _check_tilt(step, normal)
    _check_line(positions, order, centres[0], step)
    affine = np.eye(4)
    # Column index i steps along the row direction by the distance between columns, which is PixelSpacing's second value.
    affine[:3, 0] = row * spacing[1]
    affine[:3, 1] = column * spacing[0]
    affine[:3, 2] = step
    affine[:3, 3] = centres[0]
    rows, columns = planes[0].rows, planes[0].columns
    assert rows is not None
    assert columns is not None
    return Stack(order, affine, (columns, rows, len(order)), tilted)


def _check_present(planes: Sequence[Plane]) -> None:
    for plane in planes:
        if not plane.rows or not plane.columns:
            raise InputError("no Rows or Columns: there is no image matrix", code=Code.NO_PIXELS)
        for name, values, count in (
            ("ImagePositionPatient", plane.position_mm, 3),
            ("ImageOrientationPatient", plane.orientation, 6),
            ("PixelSpacing", plane.pixel_spacing_mm, 2),
        ):
            if values is None or len(values) != count or not np.isfinite(values).all():
                raise InputError(f"{name} is missing or not {count} numbers", code=Code.NO_GEOMETRY)


def _common_frame(planes: Sequence[Plane]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Orientation (6) and PixelSpacing (2) that all planes share."""
    if len({(plane.rows, plane.columns) for plane in planes}) > 1:
        raise InputError("slices of different matrix size in one series", code=Code.MIXED_SERIES)
    spacings = np.array([plane.pixel_spacing_mm for plane in planes], dtype=np.float64)
    if (spacings <= 0).any():
        raise InputError("PixelSpacing is not positive", code=Code.HEADER_INVALID)
    if (np.abs(spacings / spacings[0] - 1) > SAME_SPACING_TOLERANCE).any():
        raise InputError("slices of different PixelSpacing in one series", code=Code.MIXED_SERIES)
    _check_plausible(spacings[0])
    cosines = np.array([plane.orientation for plane in planes], dtype=np.float64)
    rows, columns = cosines[:, :3], cosines[:, 3:]
    errors = (
        np.abs(np.linalg.norm(rows, axis=1) - 1),
        np.abs(np.linalg.norm(columns, axis=1) - 1),
        np.abs(np.einsum("ij,ij->i", rows, columns)),
    )
    if max(error.max() for error in errors) > ORTHONORMAL_TOLERANCE:
        raise InputError("ImageOrientationPatient is not two perpendicular unit vectors", code=Code.HEADER_INVALID)
    if (np.abs(cosines - cosines[0]) > SAME_ORIENTATION_TOLERANCE).any():
        raise InputError("slices of different orientation in one series", code=Code.MIXED_SERIES)
    return cosines[0], spacings[0]


def _check_plausible(spacing_mm: NDArray[np.float64]) -> None:
    if spacing_mm.min() < SMALLEST_SPACING_MM or spacing_mm.max() > LARGEST_SPACING_MM:
        raise InputError(
            "implausible voxel spacing",
            code=Code.IMPLAUSIBLE_SPACING,
            value=[round(float(s), 6) for s in spacing_mm],
            expected=f"{SMALLEST_SPACING_MM} to {LARGEST_SPACING_MM} mm",
        )


def _group_positions(along_normal: NDArray[np.float64]) -> tuple[tuple[int, ...], ...]:
    """Plane numbers per position, in rising order; planes nearer than SAME_POSITION_MM share a position."""
    groups: list[list[int]] = []
    last = -np.inf
    for index in np.argsort(along_normal, kind="stable"):
        if along_normal[index] - last < SAME_POSITION_MM:
            groups[-1].append(int(index))
        else:
            groups.append([int(index)])
            last = along_normal[index]
    return tuple(tuple(group) for group in groups)


def _check_gaps(distances_mm: NDArray[np.float64]) -> None:
    median = float(np.median(distances_mm))
    tolerance = max(GAP_TOLERANCE_MM, GAP_TOLERANCE_RELATIVE * median)
    far = np.abs(distances_mm - median) >= tolerance
    odd = distances_mm[far]
    if odd.size:
        multiples = np.rint(odd / median)
        lost = bool((multiples >= 2).all() and (np.abs(odd - multiples * median) < tolerance * multiples).all())
        # As many wide steps as narrow ones is a change of spacing, not a few lost slices.
        if lost and odd.size < distances_mm.size / 3:
            places = _places(np.flatnonzero(far) + 1, distances_mm.size + 1)
            empty = int((multiples - 1).sum())
            value = f"{empty} empty position{'s' if empty > 1 else ''}, {places}"
            raise InputError("slices are missing", code=Code.MISSING_SLICES, value=value)
        raise InputError(
            "slices are not evenly spaced",
            code=Code.NONUNIFORM_SPACING,
            value=f"{distances_mm.min():.3f} to {distances_mm.max():.3f} mm",
        )


def _places(before: NDArray[np.intp], slices: int) -> str:
    """Behind which slices, counted from 1 in order of position, something is missing; the first few of them."""
    named = ", ".join(str(number) for number in before[:GAPS_NAMED])
    more = f" and {before.size - GAPS_NAMED} more" if before.size > GAPS_NAMED else ""
    return f"behind slice {named}{more} of {slices} in order of position"


def _printed_evenly(centres: NDArray[np.float64], normal: NDArray[np.float64]) -> bool:
    """Whether even positions, printed with few decimals, can be what stands there: 0.625 mm slices as steps of 0.62 and 0.63.

    Then every position lies within a unit of the last decimal of the line fitted to all; a lost slice lies off by half a step.
    """
    finest = 10.0 ** -np.array([_decimals(column) for column in centres.T])
    slack = float(np.abs(normal) @ finest) / 2
    if slack == 0 or max(finest[np.abs(normal) > 0.01]) > COARSEST_PRINT_MM:
        return False
    along = centres @ normal
    number = np.arange(len(along))
    step, start = np.polyfit(number, along, 1)
    away = float(np.abs(along - (start + step * number)).max())
    return bool(away <= min(2 * slack, OFF_LINE_TOLERANCE_RELATIVE * abs(step)) + 1e-6)


def _decimals(values: NDArray[np.float64]) -> int:
    """Digits behind the point with which the values are printed; 4 stands for more."""
    return next((d for d in range(4) if (np.abs(values - np.round(values, d)) < 1e-7).all()), 4)


def _check_tilt(step_mm: NDArray[np.float64], normal: NDArray[np.float64]) -> bool:
    through = float(step_mm @ normal)
    in_plane = float(np.linalg.norm(step_mm - through * normal))
    if in_plane > LARGEST_TILT * through:
        raise InputError("slices are stacked askew by more than any gantry tilts", code=Code.GANTRY_TILT)
    return in_plane > TILT_THRESHOLD * float(np.linalg.norm(step_mm))


def _check_line(
    positions: NDArray[np.float64], order: Sequence[Sequence[int]], first: NDArray[np.float64], step: NDArray[np.float64]
) -> None:
    tolerance = max(OFF_LINE_TOLERANCE_MM, OFF_LINE_TOLERANCE_RELATIVE * float(np.linalg.norm(step)))
    for k, group in enumerate(order):
        away = np.linalg.norm(positions[list(group)] - (first + k * step), axis=1).max()
        if away > tolerance:
            raise InputError(
                "slices do not lie one behind the other", code=Code.NONUNIFORM_SPACING, value=f"{away:.2f} mm beside the line"
            )
