"""Body mask and bounding boxes of a CT, without the table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agseg.volume import Volume

BODY_THRESHOLD_HU = -300
"""Tissue is denser than this (HU); clothes, foam and air are not."""

OPENING_MM = 6.0
"""Width of the in-plane opening that cuts table and sheets off the body (mm)."""

COARSE_MM = 3.0
"""The body is looked for at about this in-plane spacing (mm)."""


@dataclass(frozen=True)
class Box:
    """A box of voxels: first index and one past the last, per source axis."""

    start: tuple[int, int, int]
    stop: tuple[int, int, int]


def body_extents(volume: Volume, axis: int) -> NDArray[np.int64]:
    """First and one-past-last body voxel of every slice across ``axis``, along the other two axes.

    The body is the largest three-dimensional component of HU > -300 after an in-plane opening, looked for on a coarser grid.

    Returns
    -------
    extents
        int64 (slices, 2 other axes, 2), in voxels of the source; -1 where a slice holds no body.
    """
    from scipy import ndimage

    spacing = volume.grid.spacing_mm
    step = tuple(1 if a == axis else max(1, round(COARSE_MM / spacing[a])) for a in range(3))
    tissue = volume.voxels[:: step[0], :: step[1], :: step[2]] > BODY_THRESHOLD_HU
    size = [1 if a == axis else max(1, round(OPENING_MM / (spacing[a] * step[a]))) for a in range(3)]
    opened = ndimage.binary_opening(tissue, structure=np.ones(size, dtype=bool))
    components, count = ndimage.label(opened)
    others = [a for a in range(3) if a != axis]
    extents = np.full((volume.grid.shape[axis], 2, 2), -1, dtype=np.int64)
    if count == 0:
        return extents
    sizes = np.bincount(components.reshape(-1))
    sizes[0] = 0
    body = components == int(sizes.argmax())
    for o, other in enumerate(others):
        flat = body.any(axis=others[1 - o])  # (axis, other) in ascending axis order
        flat = flat if axis < other else flat.T
        hit = flat.any(axis=1)
        first = flat.argmax(axis=1) * step[other]
        last = (flat.shape[1] - 1 - flat[:, ::-1].argmax(axis=1)) * step[other] + step[other]
        extents[hit, o, 0] = first[hit]
        extents[hit, o, 1] = np.minimum(last[hit], volume.grid.shape[other])
    return extents


def median_box(extents: NDArray[np.int64], axis: int, first: int, last: int) -> Box | None:
    """The box of slices ``first`` up to ``last``: in plane the median of the slices' extents; None without any body."""
    part = extents[first:last]
    part = part[part[:, 0, 0] >= 0]
    if len(part) == 0:
        return None
    middle = np.rint(np.median(part, axis=0)).astype(int)
    start, stop = [0, 0, 0], [0, 0, 0]
    others = [a for a in range(3) if a != axis]
    start[axis], stop[axis] = first, last
    for o, other in enumerate(others):
        start[other], stop[other] = int(middle[o, 0]), int(max(middle[o, 1], middle[o, 0] + 1))
    return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))
