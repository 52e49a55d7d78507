"""The part of a model grid that is computed: over a box of the scan, or around the body."""

from __future__ import annotations

import numpy as np

from agseg.inference.body import body_extents
from agseg.inference.model_grid import ModelGrid
from agseg.inference.prepare import model_grid_of
from agseg.volume import Volume
from agseg.weights.input_spec import InputSpec

Box = tuple[tuple[int, int, int], tuple[int, int, int]]
"""First and one-past-last voxel per source axis."""

BODY_MARGIN_MM = 10.0
"""Margin around the body box in ``fast`` mode (mm)."""


def box_grid(whole: ModelGrid, box: Box, *, tile: tuple[int, int, int]) -> ModelGrid:
    """The part of a model grid over a box of the source, at least a tile large where the scan is: networks want context."""
    start, stop = [0, 0, 0], [0, 0, 0]
    for a, link in enumerate(whole.links):
        ends = sorted((box[side][link.source_axis] - side - link.offset) / link.scale for side in (0, 1))
        low, high = int(np.floor(ends[0])), int(np.ceil(ends[1])) + 1
        lack = max(0, tile[a] - (high - low))
        low = max(0, min(low - lack // 2, whole.shape[a] - max(high - low, tile[a])))
        start[a], stop[a] = low, min(whole.shape[a], max(high, low + tile[a]))
    return whole.cropped(start, stop)


def body_grid(volume: Volume, spec: InputSpec) -> ModelGrid | None:
    """The part of the model grid around the body, or None where there is no body to be found."""
    if spec.spacing_mm is None:
        return None
    whole = model_grid_of(volume, spec)
    _, permutation, _ = volume.grid.reoriented("RAS")
    axis = permutation[2]
    extents = body_extents(volume, axis)
    inside = np.flatnonzero(extents[:, 0, 0] >= 0)
    if inside.size == 0:
        return None
    low = extents[inside].min(axis=0)[:, 0]
    high = extents[inside].max(axis=0)[:, 1]
    start, stop = [0, 0, 0], list(whole.shape)
    others = [a for a in range(3) if a != axis]
    for a, link in enumerate(whole.links):
        if link.source_axis == axis:
            continue
        o = others.index(link.source_axis)
        ends = sorted(((low[o] - link.offset) / link.scale, (high[o] - 1 - link.offset) / link.scale))
        margin = BODY_MARGIN_MM / (spec.spacing_mm[a] or whole.grid.spacing_mm[a])
        start[a] = max(0, int(np.floor(ends[0] - margin)))
        stop[a] = min(whole.shape[a], int(np.ceil(ends[1] + margin)) + 1)
    return whole.cropped(start, stop)
