"""The three planes of a scan as pictures, as a radiologist holds them.

Radiological display: the patient's right is on the left of axial and coronal pictures, anterior is up in axial, superior is up
in coronal and sagittal pictures, and anterior is on the left of the sagittal one. Pixels are square in millimetres.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from agseg.grid import Grid

T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True)
class View:
    """How one plane of a RAS volume is laid out as a picture.

    Parameters
    ----------
    name
        For the caption.
    through
        RAS axis that is cut.
    across, down
        RAS axes along the picture's columns and rows; both run against the axis in radiological display.
    letters
        What lies left, right, top, bottom.
    """

    name: str
    through: int
    across: int
    down: int
    letters: tuple[str, str, str, str]


VIEWS = (
    View("axial", 2, 0, 1, ("R", "L", "A", "P")),
    View("coronal", 1, 0, 2, ("R", "L", "S", "I")),
    View("sagittal", 0, 1, 2, ("A", "P", "S", "I")),
)


def plane_of(values: NDArray[T], view: View, at: int) -> NDArray[T]:
    """Plane number ``at`` of an array (R, A, S) in display orientation, (row, column)."""
    # The two other axes stay in RAS order (across, down); rows must run down: superior or anterior first.
    return values[(slice(None),) * view.through + (at,)].T[::-1, ::-1]


def pixel_mm(grid: Grid, view: View) -> tuple[float, float]:
    """Height and width of a pixel of that plane; the grid's axes are R, A, S."""
    return grid.spacing_mm[view.down], grid.spacing_mm[view.across]


def size_px(shape: Sequence[int], size_mm: tuple[float, float], *, side_px: int) -> tuple[int, int]:
    """A picture's height and width in pixels: the longer one ``side_px``, true to scale."""
    height_mm, width_mm = shape[0] * size_mm[0], shape[1] * size_mm[1]
    per_mm = side_px / max(height_mm, width_mm)
    return max(1, round(height_mm * per_mm)), max(1, round(width_mm * per_mm))


def around(masks: Sequence[NDArray[np.bool_]], size_mm: tuple[float, float], *, margin_mm: float) -> tuple[slice, slice]:
    """The part of a plane (row, column) that holds every mask, with a margin; all of it where none is there."""
    together = np.any(masks, axis=0)
    parts = []
    for axis in range(2):
        there = np.flatnonzero(together.any(axis=1 - axis))
        margin = math.ceil(margin_mm / size_mm[axis])
        first, last = (there[0], there[-1]) if there.size else (0, together.shape[axis] - 1)
        parts.append(slice(max(0, int(first) - margin), int(last) + margin + 1))
    return parts[0], parts[1]
