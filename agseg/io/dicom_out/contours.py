"""Closed contours of a binary slice, with holes joined to their outline by keyholes.

Vertices lie half-way between a pixel inside and its neighbour outside, so a pixel centre is inside a contour exactly if its
pixel is in the mask. A hole is joined to the contour around it by a channel of no width (DICOM PS3.3 C.8.8.6.3 calls it the
keyhole technique): readers that fill each contour, and readers that combine contours by exclusive or, both get the hole.
CLOSEDPLANAR_XOR, the alternative, is unknown to many planning systems and viewers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Contour = NDArray[np.float64]
"""Vertices (n, 2) as (row, column), in pixels; the last one is not the first again."""


def trace_contours(mask: NDArray[np.bool_]) -> list[Contour]:
    """Contours of a binary slice [row, column]; each is one face-connected region with its holes."""
    from skimage.measure import find_contours

    if not mask.any():
        return []
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    corner = np.array([rows[0], columns[0]], dtype=np.float64)
    mask = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    padded = np.pad(mask, 1)
    # "low": the background is connected over corners, so a region is connected over faces.
    find: Callable[..., list[Contour]] = find_contours
    found = find(padded.astype(np.float64), 0.5, fully_connected="low", positive_orientation="low")
    contours = [np.round(contour[:-1] - 1, 1) for contour in found]
    areas = [_signed_area(contour) for contour in contours]
    outer_sign = np.sign(areas[int(np.argmax(np.abs(areas)))])
    owner = {(row, column): number for number, contour in enumerate(contours) for row, column in contour.tolist()}
    merged = {number: contour for number, contour in enumerate(contours) if np.sign(areas[number]) == outer_sign}
    parents = {number: number for number in merged}
    holes = [number for number in range(len(contours)) if number not in merged]
    # The contour right of a hole reaches further right than the hole: from right to left it has its parent already.
    for number in sorted(holes, key=lambda n: -contours[n][:, 1].max()):
        start = int(contours[number][:, 1].argmax())
        row, column = contours[number][start]
        end = _edge_to_the_right(mask, int(row), int(column + 0.5))
        parent = parents[owner[(row, end)]]
        parents[number] = parent
        merged[parent] = _joined(merged[parent], (row, end), np.roll(contours[number], -start, axis=0))
    return [_without_collinear(contour) + corner for contour in merged.values()]


def fill_contours(contours: Sequence[Contour], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Boolean [row, column]: pixel centres inside an odd number of contours (the even-odd rule, over all together)."""
    start = np.concatenate(contours)
    end = np.concatenate([np.roll(contour, -1, axis=0) for contour in contours])
    upwards = start[:, :1] > end[:, :1]
    low, high = np.where(upwards, end, start), np.where(upwards, start, end)
    # An edge crosses the whole rows in [low, high): a vertex on a row counts once, a horizontal edge never.
    first = np.clip(np.ceil(low[:, 0]), 0, shape[0]).astype(int)
    count = np.clip(np.ceil(high[:, 0]), 0, shape[0]).astype(int) - first
    edge = np.repeat(np.arange(len(low)), count)
    rows = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + first[edge]
    slope = (high[edge, 1] - low[edge, 1]) / (high[edge, 0] - low[edge, 0])
    columns = np.clip(np.ceil(low[edge, 1] + (rows - low[edge, 0]) * slope), 0, shape[1]).astype(int)
    crossings = np.zeros((shape[0], shape[1] + 1), dtype=np.int32)
    np.add.at(crossings, (rows, columns), 1)
    return np.asarray(np.cumsum(crossings, axis=1)[:, :-1] % 2 == 1)


def _signed_area(contour: Contour) -> float:
    rows, columns = contour.T
    return float(np.dot(columns, np.roll(rows, -1)) - np.dot(rows, np.roll(columns, -1))) / 2


def _edge_to_the_right(mask: NDArray[np.bool_], row: int, column: int) -> float:
    """Column of the edge at which the run of mask pixels that contains (row, column) ends."""
    outside = np.flatnonzero(~mask[row, column:])
    end = column + int(outside[0]) if len(outside) else mask.shape[1]
    return end - 0.5


def _joined(contour: Contour, at: tuple[float, float], hole: Contour) -> Contour:
    """The contour with a channel from its vertex ``at`` to the hole's first vertex, round the hole and back."""
    vertex = int(np.flatnonzero((contour == at).all(axis=1))[0])
    return np.concatenate([contour[: vertex + 1], hole, hole[:1], contour[vertex:]])


def _without_collinear(contour: Contour) -> Contour:
    """Without vertices in the middle of a straight run; the turning points of channels stay."""
    before, after = contour - np.roll(contour, 1, axis=0), np.roll(contour, -1, axis=0) - contour
    cross = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
    dot = (before * after).sum(axis=1)
    keep = ~((np.abs(cross) < 1e-9) & (dot > 0))
    return np.asarray(contour[keep])
