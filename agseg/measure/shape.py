"""Extent and surface area of each organ, from one pass over the mask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agseg.grid import Grid
from agseg.slabs import SLAB_VOXELS, in_memory_order, memory_order

_VALUES = 256

_PATIENT_AXES = ("LR", "AP", "SI")

CROFTON = 2 / 3
"""Share of the areas of all voxel faces that is a surface, averaged over its directions: the three faces' areas add up to
|cos| of the angles to three axes, whose mean over the sphere is 3/2. (The Cauchy-Crofton formula with three directions.)"""


@dataclass(frozen=True)
class Shape:
    """The shape of one organ.

    Parameters
    ----------
    extent_mm
        From the outer face of its first voxel to that of its last, along the grid's axes nearest to the patient's: left to
        right, front to back, feet to head.
    surface_cm2
        Its surface inside the field of view; an estimate, within 3 % for round organs and up to a third off for a flat face
        that lies along the grid.
    first, last
        First and last voxel index per grid axis.
    """

    extent_mm: tuple[float, float, float]
    surface_cm2: float
    first: tuple[int, int, int]
    last: tuple[int, int, int]


def shapes(labels: NDArray[np.uint8], grid: Grid) -> dict[int, Shape]:
    """The shape of every label that occurs, by label; ``labels`` is uint8 (i, j, k) on ``grid``."""
    occupied, faces = _walk(labels)
    steps = grid.affine[:3, :3]
    areas = [float(np.linalg.norm(np.cross(steps[:, (a + 1) % 3], steps[:, (a + 2) % 3]))) for a in range(3)]
    found = {}
    for label in np.flatnonzero(occupied[0].any(axis=0)):
        if label == 0:
            continue
        places = [np.flatnonzero(along[:, label]) for along in occupied]
        first, last = (tuple(int(place[end]) for place in places) for end in (0, -1))
        sides = [(last[a] - first[a] + 1) * grid.spacing_mm[a] for a in range(3)]
        extent = tuple(float(sides[_axis_along(grid, pair)]) for pair in _PATIENT_AXES)
        surface = CROFTON * sum(int(count) * area for count, area in zip(faces[:, label], areas, strict=True)) / 100
        found[int(label)] = Shape(extent, surface, first, last)  # type: ignore[arg-type]
    return found


def _axis_along(grid: Grid, pair: str) -> int:
    return next(axis for axis, code in enumerate(grid.axis_codes) if code in pair)


def _walk(labels: NDArray[np.uint8]) -> tuple[list[NDArray[np.bool_]], NDArray[np.int64]]:
    """For each axis of the array where each label occurs, bool (length, 256); and its faces, int64 (axis, 256)."""
    order, view = memory_order(labels.strides), in_memory_order(labels)
    occupied = [np.zeros((labels.shape[axis], _VALUES), dtype=bool) for axis in range(3)]
    faces = np.zeros((3, _VALUES), dtype=np.int64)
    step = max(1, SLAB_VOXELS // max(1, int(np.prod(view.shape[1:]))))
    for start in range(0, view.shape[0], step):
        block = view[start : start + step]
        where = np.nonzero(block)
        marked = block[where]
        if not marked.size and not (start and view[start - 1].any()):
            continue
        for along, axis in enumerate(order):
            flipped = labels.strides[axis] < 0
            place = where[along] + (start if along == 0 else 0)
            occupied[axis][labels.shape[axis] - 1 - place if flipped else place, marked] = True
        # One plane before the block, so that every pair of neighbours is met once.
        with_last = view[max(0, start - 1) : start + step]
        for along, axis in enumerate(order):
            source = with_last if along == 0 else block
            low = source[(slice(None),) * along + (slice(None, -1),)]
            high = source[(slice(None),) * along + (slice(1, None),)]
            differs = low != high
            for side in (low, high):
                faces[axis] += np.bincount(side[differs], minlength=_VALUES)
    return occupied, faces
