"""Surface distances weighted by area: every piece of a surface counts as much as it is large, whatever the voxels' shape.

The surface of a mask lies halfway between voxel centres inside and outside it. It is cut into pieces by cells, boxes with eight
voxel centres as corners; a piece is the polygon (or polygons) that marching cubes draws in its cell, and distances run from the
middle of a piece to the nearest middle of the other surface's pieces. Counting boundary voxels instead gives a face that cuts
the grid obliquely, or that looks along a short side of the voxels, another weight than its area.

Source: Nikolov et al., Clinically applicable segmentation of head and neck anatomy (2021), and the measures published with it
(surface-distance): cells, areas and the surface Dice. There distances run between the middles of cells, which lie up to half a
cell beside the surface: on two wavy shapes that are 0.44 voxels apart (densely sampled) that gives 0.28, the middles of pieces
0.44. Polygons are traced, not looked up in a table, so axes that are not perpendicular have areas too.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from agseg.measure.surface import ROBUST_PERCENTILE, TOLERANCE_MM, checked, common_box

_CORNERS = tuple(itertools.product((0, 1), repeat=3))
"""Of a cell; a cell's code has bit n where corner n is inside the mask."""

_AROUND = ((0, 0), (0, 1), (1, 1), (1, 0))
"""Corners of a face in the order of its outline."""

_Edge = tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True)
class AreaDistance:
    """Distances between two surfaces (mm), weighted by area.

    Parameters
    ----------
    s2s_mm
        ½ (mean d(A→B) + mean d(B→A)), each mean over the area of its surface.
    hausdorff95_mm
        The larger of the two distances within which 95 % of a surface's area lies of the other one.
    surface_dice
        Part of both surfaces' area within the tolerance of the other one, 0 to 1; 0 where one mask is empty.
    truth_mm2, prediction_mm2
        The two areas.
    """

    s2s_mm: float
    hausdorff95_mm: float
    surface_dice: float
    truth_mm2: float
    prediction_mm2: float


def area_distance(
    prediction: NDArray[np.bool_],
    *,
    truth: NDArray[np.bool_],
    spacing_mm: Sequence[float],
    axes_mm: NDArray[np.float64] | None = None,
    tolerance_mm: float = TOLERANCE_MM,
) -> AreaDistance:
    """Compare two masks of one shape (i, j, k) by their surfaces, piece by piece.

    Parameters
    ----------
    axes_mm
        One step along each voxel axis as a column (mm, the affine's 3x3), for axes that are not perpendicular.
    tolerance_mm
        Of the surface Dice.

    Raises
    ------
    ValueError
        If the shapes differ or the spacing does not fit three axes.
    """
    found, true = checked(prediction, truth, spacing_mm)
    if true.ndim != 3:
        raise ValueError(f"a surface has an area in three dimensions, not in {true.ndim}")
    axes = np.diag(np.asarray(spacing_mm, dtype=np.float64)) if axes_mm is None else np.asarray(axes_mm, dtype=np.float64)
    box = common_box(found, true)
    if box is None:
        return AreaDistance(math.nan, math.nan, math.nan, 0.0, 0.0)
    (points, areas), (true_points, true_areas) = (_pieces(mask[box], axes) for mask in (found, true))
    sizes = (float(true_areas.sum()), float(areas.sum()))
    if not len(points) or not len(true_points):
        return AreaDistance(math.nan, math.nan, 0.0, *sizes)
    sides = ((KDTree(true_points).query(points)[0], areas), (KDTree(points).query(true_points)[0], true_areas))
    within = sum(float(weight[distance <= tolerance_mm].sum()) for distance, weight in sides)
    return AreaDistance(
        s2s_mm=sum(float(np.average(distance, weights=weight)) for distance, weight in sides) / 2,
        hausdorff95_mm=max(_percentile(distance, weight) for distance, weight in sides),
        surface_dice=within / sum(sizes),
        truth_mm2=sizes[0],
        prediction_mm2=sizes[1],
    )


def _pieces(mask: NDArray[np.bool_], axes_mm: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Middle (mm) and area (mm²) of every cell's surface."""
    areas, middles = cell_pieces(tuple(axes_mm.ravel().tolist()))
    codes = _codes(mask)
    cells = np.nonzero(areas[codes])
    of_cell = codes[cells]
    return np.stack(cells, axis=1) @ axes_mm.T + middles[of_cell], areas[of_cell]


def _percentile(distance: NDArray[np.float64], weight: NDArray[np.float64]) -> float:
    """The distance within which 95 % of the weight lies."""
    order = np.argsort(distance, kind="stable")
    share = np.cumsum(weight[order])
    place = int(np.searchsorted(share, share[-1] * ROBUST_PERCENTILE / 100))
    return float(distance[order][min(place, len(order) - 1)])


def _codes(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The code of every cell, one more than voxels along each axis; beyond the array is outside."""
    padded = np.pad(mask, 1).astype(np.uint8)
    codes = np.zeros([n + 1 for n in mask.shape], dtype=np.uint8)
    for bit, corner in enumerate(_CORNERS):
        codes |= padded[tuple(slice(c, c + n) for c, n in zip(corner, codes.shape, strict=True))] << np.uint8(bit)
    return codes


@functools.lru_cache(maxsize=64)
def cell_pieces(axes_mm: tuple[float, ...]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Area (mm²) of the surface in a cell, float64 by code, and its middle (mm from the cell's first corner), (code, 3).

    Parameters
    ----------
    axes_mm
        The affine's 3x3 row by row: one step along each voxel axis as a column (mm).
    """
    axes = np.array(axes_mm, dtype=np.float64).reshape(3, 3)
    areas, middles = np.zeros(256), np.zeros((256, 3))
    for code in range(256):
        inside = {corner: bool(code >> bit & 1) for bit, corner in enumerate(_CORNERS)}
        loops = [np.array(loop) @ axes.T for loop in _loops(inside)]
        sizes = [_area(loop) for loop in loops]
        if loops:
            areas[code] = sum(sizes)
            middles[code] = np.average([loop.mean(axis=0) for loop in loops], axis=0, weights=sizes)
    for table in (areas, middles):
        table.setflags(write=False)
    return areas, middles


def _loops(inside: dict[tuple[int, ...], bool]) -> list[list[NDArray[np.float64]]]:
    """The polygons of a cell: points halfway along the edges that leave the mask, in order."""
    beside: dict[_Edge, list[_Edge]] = {}
    for axis, side in itertools.product(range(3), (0, 1)):
        corners = [(*pair[:axis], side, *pair[axis:]) for pair in _AROUND]
        # Two corners inside that face each other are kept apart, in both cells of the face: the surface has no hole.
        for begin, end in _lines(corners, inside):
            beside.setdefault(begin, []).append(end)
            beside.setdefault(end, []).append(begin)
    loops = []
    while beside:
        loop = [next(iter(beside))]
        while following := beside.pop(loop[-1], []):
            loop.append(next((edge for edge in following if edge in beside), loop[0]))
        loops.append([np.mean(edge, axis=0) for edge in loop[:-1]])
    return loops


def _lines(corners: Sequence[tuple[int, ...]], inside: dict[tuple[int, ...], bool]) -> list[tuple[_Edge, _Edge]]:
    """The lines that the surface draws on a face: one around every run of corners inside, from edge to edge."""
    leaves: list[_Edge] = []
    enters: list[_Edge] = []
    for here, after in itertools.pairwise((*corners, corners[0])):
        if inside[here] != inside[after]:
            edge: _Edge = (min(here, after), max(here, after))
            (leaves if inside[here] else enters).append(edge)
    if len(enters) == 2 and not inside[corners[0]]:
        return list(zip(enters, leaves, strict=True))
    # The run that the outline began in ends first.
    return list(zip(enters[-1:] + enters[:-1], leaves, strict=True))


def _area(loop: NDArray[np.float64]) -> float:
    """Of a polygon, as triangles around its middle."""
    spokes = loop - loop.mean(axis=0)
    return float(np.linalg.norm(np.cross(spokes, np.roll(spokes, -1, axis=0)), axis=1).sum() / 2)
