"""Extent and surface area of each organ, from one pass over the mask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agseg.grid import Grid
from agseg.measure.runs import Runs, find_runs
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


def shapes(labels: NDArray[np.uint8], grid: Grid, runs: Runs | None = None) -> dict[int, Shape]:
    """The shape of every label that occurs, by label; ``labels`` is uint8 (i, j, k) on ``grid``, ``runs`` are its runs."""
    runs = runs or find_runs(labels)
    occupied, faces = _occupied(labels, runs), _faces(labels, runs)
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


def _occupied(labels: NDArray[np.uint8], runs: Runs) -> list[NDArray[np.bool_]]:
    """For each axis of the array where each label occurs, bool (length, 256)."""
    planes, lines, width = runs.shape
    plane, line = np.divmod(runs.row, lines)
    in_memory = [np.zeros((length, _VALUES), dtype=bool) for length in (planes, lines)]
    in_memory[0][plane, runs.value] = True
    in_memory[1][line, runs.value] = True
    size = (width + 1) * _VALUES
    begun, ended = (np.bincount(at * _VALUES + runs.value, minlength=size) for at in (runs.begin, runs.end))
    in_memory.append(np.cumsum((begun - ended).reshape(-1, _VALUES), axis=0)[:-1] > 0)
    occupied = [in_memory[0]] * 3
    for axis, along in zip(memory_order(labels.strides), in_memory, strict=True):
        occupied[axis] = along[::-1] if labels.strides[axis] < 0 else along
    return occupied


def _faces(labels: NDArray[np.uint8], runs: Runs) -> NDArray[np.int64]:
    """Faces of each label's voxels across each axis that lie between it and something else, int64 (axis, 256)."""
    order, view = memory_order(labels.strides), in_memory_order(labels)
    faces = np.zeros((3, _VALUES), dtype=np.int64)
    for inside in (runs.begin > 0, runs.end < runs.shape[2]):
        faces[order[2]] += np.bincount(runs.value[inside], minlength=_VALUES)
    step = max(1, SLAB_VOXELS // max(1, int(np.prod(view.shape[1:]))))
    for start in range(0, view.shape[0], step):
        block = view[start : start + step]
        # One plane before the block, so that every pair of neighbours is met once.
        with_last = view[max(0, start - 1) : start + step]
        if not with_last.any():
            continue
        for axis, low, high in (
            (order[0], with_last[:-1], with_last[1:]),
            (order[1], block[:, :-1], block[:, 1:]),
        ):
            differs = low != high
            for side in (low, high):
                faces[axis] += np.bincount(side[differs], minlength=_VALUES)
    return faces
