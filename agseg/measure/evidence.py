"""What tells whether an organ is where it should be, and as large and as dense: facts about masks, before any rule.

The rules are in :mod:`agseg.measure.review`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agseg.grid import Grid
from agseg.measure.components import components
from agseg.measure.intensity import share_between
from agseg.measure.runs import Runs
from agseg.measure.shape import Shape
from agseg.measure.volumes import Survey
from agseg.slabs import memory_order
from agseg.volume import FAT_HU, HU_MIN, OTHER_HU, LabelMask, Volume

PATCH_MM, PATCH_HU = 12.0, 30.0
"""Side of a patch, and how far its mean may lie from the organ's median."""

_FULL = 0.6
"""A patch counts where so much of it is organ: the rim's partial volumes are no evidence."""

EDGE_MM = 5.0
"""An organ that comes so near to a face of the field of view goes on behind it: networks miss the last slice."""

_BODY_HU = -300.0
_STRIDE, _BODY_SLICES = 4, 8
"""For the middle of the body every so many voxels of a slice are looked at, and about so many of an organ's slices."""


@dataclass(frozen=True)
class Evidence:
    """Facts about one organ.

    Parameters
    ----------
    extent_mm
        Left to right, front to back, feet to head.
    cut
        Whether the field of view ends in the organ, or within :data:`EDGE_MM` of it, along each of these.
    centre_mm
        Its centre of mass, RAS+ mm.
    from_midline_mm
        How far to the patient's right of the middle of the body its centre lies (mm), in the slices that show it.
    second_piece
        Size of its second largest piece, as a share of the largest.
    median_hu
        None unless the image is HU, as the next two.
    fat_share
        Share of its voxels below :data:`FAT_HU`.
    other_share
        Share of its voxels further than :data:`OTHER_HU` from its median.
    patch_share
        Share of its patches (cubes of :data:`PATCH_MM`) whose mean is further than :data:`PATCH_HU` from its median: noise is
        averaged away in them, an effusion, a tumour or a neighbour is not.
    """

    extent_mm: tuple[float, float, float]
    cut: tuple[bool, bool, bool]
    centre_mm: tuple[float, float, float]
    from_midline_mm: float
    second_piece: float
    median_hu: float | None = None
    fat_share: float = 0.0
    other_share: float = 0.0
    patch_share: float = 0.0


def collect(mask: LabelMask, volume: Volume, survey: Survey) -> dict[str, Evidence]:
    """The evidence of every organ that has a voxel, by name; mask and image (i, j, k) are on one grid."""
    grid, labels, counts, found = mask.grid, mask.labels, survey.histograms, survey.shapes
    pieces = components(labels, survey.runs)
    axes = [next(axis for axis, code in enumerate(grid.axis_codes) if code in pair) for pair in ("LR", "AP", "SI")]
    evidence = {}
    for label in mask.label_set:
        shape = found.get(label.index)
        if shape is None:
            continue
        centre = grid.to_world(_centre(labels, pieces[label.index].runs)[None])[0]
        midline = _midline(volume.voxels, shape, grid, up=axes[2], is_hu=counts is not None)
        sizes = np.sort(pieces[label.index].sizes)[::-1]
        near = [
            bool(min(shape.first[axis], labels.shape[axis] - 1 - shape.last[axis]) * grid.spacing_mm[axis] <= EDGE_MM)
            for axis in range(3)
        ]
        evidence[label.name] = Evidence(
            extent_mm=shape.extent_mm,
            cut=(near[axes[0]], near[axes[1]], near[axes[2]]),
            centre_mm=(float(centre[0]), float(centre[1]), float(centre[2])),
            from_midline_mm=0.0 if midline is None else float(centre[0]) - midline,
            second_piece=float(sizes[1] / sizes[0]) if len(sizes) > 1 else 0.0,
            **({} if counts is None else _density(counts[label.index])),
        )
        seen = evidence[label.name]
        if seen.median_hu is not None:
            patches = _patch_share(labels, volume.voxels, label.index, shape, grid, median=seen.median_hu)
            evidence[label.name] = replace(seen, patch_share=patches)
    return evidence


def _density(histogram: NDArray[np.int64]) -> dict[str, float]:
    reached = np.cumsum(histogram)
    median = float(np.searchsorted(reached, reached[-1] / 2)) + HU_MIN
    return {
        "median_hu": median,
        "fat_share": share_between(histogram, -np.inf, FAT_HU - 1),
        "other_share": 1.0 - share_between(histogram, median - OTHER_HU, median + OTHER_HU),
    }


def _patch_share(
    labels: NDArray[np.uint8],
    values: NDArray[np.int16] | NDArray[np.float32],
    index: int,
    shape: Shape,
    grid: Grid,
    *,
    median: float,
) -> float:
    """Share of full patches whose mean is far from the median; 0 where no patch is full. A layer of patches at a time."""
    sides = [max(1, round(PATCH_MM / spacing)) for spacing in grid.spacing_mm]
    starts = [np.arange(0, shape.last[axis] + 1 - shape.first[axis], sides[axis]) for axis in range(3)]
    full, far = 0, 0
    for begin in starts[2] + shape.first[2]:
        box = (
            slice(shape.first[0], shape.last[0] + 1),
            slice(shape.first[1], shape.last[1] + 1),
            slice(int(begin), min(int(begin) + sides[2], shape.last[2] + 1)),
        )
        inside = labels[box] == index
        count = _summed(inside.sum(axis=2, dtype=np.int64), starts)
        total = _summed(np.where(inside, values[box], 0).sum(axis=2, dtype=np.float64), starts)
        whole = count >= _FULL * np.prod(sides)
        full += int(whole.sum())
        far += int((np.abs(total[whole] / count[whole] - median) > PATCH_HU).sum())
    return far / full if full else 0.0


def _summed(layer: NDArray[Any], starts: list[NDArray[np.intp]]) -> NDArray[Any]:
    """Sums over the patches of one layer, (patches along the first axis, along the second)."""
    return np.add.reduceat(np.add.reduceat(layer, starts[0], axis=0), starts[1], axis=1)


def _centre(labels: NDArray[np.uint8], runs: Runs) -> NDArray[np.float64]:
    """Centre of mass of one label, (i, j, k)."""
    lengths = runs.lengths
    plane, line = np.divmod(runs.row, runs.shape[1])
    # Twice the middle of a run times its length: whole numbers, so that the sums are exact.
    sums = (
        2 * int((plane * lengths).sum()),
        2 * int((line * lengths).sum()),
        int(((runs.begin + runs.end - 1) * lengths).sum()),
    )
    centre, count = np.zeros(3), int(lengths.sum())
    for axis, length, total in zip(memory_order(labels.strides), runs.shape, sums, strict=True):
        mean = total / 2 / count
        centre[axis] = length - 1 - mean if labels.strides[axis] < 0 else mean
    return centre


def _midline(
    values: NDArray[np.int16] | NDArray[np.float32], shape: Shape, grid: Grid, *, up: int, is_hu: bool
) -> float | None:
    """Middle of the body from left to right (x, RAS+ mm) in some of an organ's slices; None where they show none."""
    numbers = range(shape.first[up], shape.last[up] + 1)
    across = [axis for axis in range(3) if axis != up]
    count, sums = 0, np.zeros(3)
    for number in numbers[:: max(1, len(numbers) // _BODY_SLICES)]:
        here = values[(slice(None),) * up + (number,)][::_STRIDE, ::_STRIDE]
        # Without HU there is no telling body from air: the middle of the field of view stands for that of the body.
        inside = here > _BODY_HU if is_hu else np.ones(here.shape, dtype=bool)
        by_row, by_column = inside.sum(axis=1, dtype=np.int64), inside.sum(axis=0, dtype=np.int64)
        found = int(by_row.sum())
        count += found
        sums[across[0]] += _STRIDE * float(by_row @ np.arange(by_row.size))
        sums[across[1]] += _STRIDE * float(by_column @ np.arange(by_column.size))
        sums[up] += found * number
    return float(grid.to_world((sums / count)[None])[0][0]) if count else None
