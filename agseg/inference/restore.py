"""From scores on the model grid to labels on the source grid, block by block.

All classes at the source's resolution would be gigabytes; only a running maximum is kept. Three facts make it fast and
leave the labels exactly what the whole map would give:

* Where background wins at all eight surrounding model voxels it wins between them too, because interpolation weights are
  non-negative and the same for every class. Such regions are never interpolated.
* A class that nowhere in a block reaches 1 / classes cannot win in it, because probabilities sum to 1.
* A block together with one layer of voxels of its lower neighbours is all that the source voxels inside it depend on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agseg.inference.axis import interpolate
from agseg.inference.frame import Frame
from agseg.inference.tiling import Block

__all__ = ["Restored", "Restorer", "winner"]


@dataclass(frozen=True, eq=False)
class Restored:
    """A label map on the source grid.

    Parameters
    ----------
    labels
        uint8 (i, j, k), the winning class per voxel.
    probability
        Mean winning probability per class index over the voxels that it won; empty where it won none.
    """

    labels: NDArray[np.uint8]
    probability: dict[int, float]


class Restorer:
    """Takes finished blocks in order and fills the label map.

    Parameters
    ----------
    frame
        How the model grid lies on the source.
    order
        Source axes from slowest to fastest in memory; the label map is laid out the same way.
    """

    def __init__(self, frame: Frame, *, order: Sequence[int]) -> None:
        self._frame = frame
        self._order = (order[0], order[1], order[2])
        self._model_axes = frame.model_order(self._order)
        self._coordinates = tuple(frame.model_coordinates(axis) for axis in self._order)
        self._labels = np.zeros([frame.source.shape[axis] for axis in self._order], dtype=np.uint8)
        self._halos: tuple[dict[tuple[int, ...], Tensor], ...] = ({}, {}, {})
        self._won = np.zeros(256)
        self._sum = np.zeros(256)

    def add(self, block: Block, *, axes_order: Sequence[int]) -> None:
        """Label every source voxel that this block completes.

        Parameters
        ----------
        block
            ``block.scores`` are probabilities (classes, ...) in model axis order.
        axes_order
            The plan's loop order of the model axes.
        """
        extended = self._with_halo(block, axes_order)
        if extended is None:
            return
        scores, start = extended
        foreground = scores[1:].amax(dim=0) >= scores[0]
        ranges, local = [], []
        for position, axis in enumerate(self._model_axes):
            others = tuple(a for a in range(3) if a != axis)
            hit = torch.nonzero(foreground.any(dim=max(others)).any(dim=min(others))).flatten()
            size = scores.shape[axis + 1]
            low, high = start[axis], start[axis] + size - 1
            is_last = block.last[list(axes_order).index(axis)]
            m = self._coordinates[position]
            owned = (m >= low) & ((m <= high) if is_last else (m < high))
            owned &= (m > low + int(hit[0]) - 1) & (m < low + int(hit[-1]) + 1)
            picked = np.flatnonzero(owned)
            inside = (picked >= self._frame.start[self._order[position]]) & (picked < self._frame.stop[self._order[position]])
            picked = picked[inside]
            if picked.size == 0:
                return
            ranges.append(slice(int(picked[0]), int(picked[-1]) + 1))
            local.append(m[picked] - low)
        arranged = scores.permute(0, *(axis + 1 for axis in self._model_axes))
        label, best = winner(arranged, (local[0], local[1], local[2]))
        self._labels[tuple(ranges)] = label.cpu().numpy()
        self._tally(label, best)

    def finish(self) -> Restored:
        """The label map in (i, j, k) order and the mean winning probabilities."""
        back = np.argsort(self._order)
        probability = {int(c): float(self._sum[c] / self._won[c]) for c in np.flatnonzero(self._won) if c != 0}
        return Restored(self._labels.transpose(back), probability)

    def _tally(self, label: Tensor, best: Tensor) -> None:
        flat = label.flatten().to(torch.int64)
        self._won += torch.bincount(flat, minlength=256).cpu().numpy()
        self._sum += torch.bincount(flat, weights=best.flatten(), minlength=256).cpu().numpy()

    def _with_halo(self, block: Block, axes_order: Sequence[int]) -> tuple[Tensor, tuple[int, int, int]] | None:
        """The block with the last layer of its lower neighbours in front; None where all of it is background.

        The block's own last layers are remembered for its upper neighbours: the innermost axis first, so that the layers of
        the outer axes include the corners.
        """
        scores, start = block.scores, list(block.start)
        keys = [tuple(n for other, n in enumerate(block.index) if other != level) for level in range(3)]
        before = [self._halos[level].pop(keys[level], None) for level in range(3)]
        whole = scores
        if any(halo is not None for halo in before):
            shape = list(scores.shape)
            for level, halo in enumerate(before):
                shape[axes_order[level] + 1] += halo is not None
            whole = torch.empty(shape, dtype=scores.dtype, device=scores.device)
        part = whole
        for level, halo in enumerate(before):
            if halo is not None:
                axis = axes_order[level] + 1
                part = part.narrow(axis, 1, part.shape[axis] - 1)
                start[axes_order[level]] -= 1
        if part is not whole:
            part.copy_(scores)
        some = _has_foreground(scores)
        for level in (2, 1, 0):
            axis = axes_order[level] + 1
            # What has been filled so far: all of the inner axes, without the halo of this and the outer ones.
            filled = whole
            for outer in range(level + 1):
                if before[outer] is not None:
                    outer_axis = axes_order[outer] + 1
                    filled = filled.narrow(outer_axis, 1, filled.shape[outer_axis] - 1)
            if not block.last[level]:
                self._halos[level][keys[level]] = filled.narrow(axis, filled.shape[axis] - 1, 1).clone()
            halo = before[level]
            if halo is not None:
                front = whole.narrow(axis, 0, 1)
                for outer in range(level):
                    if before[outer] is not None:
                        outer_axis = axes_order[outer] + 1
                        front = front.narrow(outer_axis, 1, front.shape[outer_axis] - 1)
                front.copy_(halo)
                some = some or _has_foreground(halo)
        return (whole, (start[0], start[1], start[2])) if some else None


def _has_foreground(scores: Tensor) -> bool:
    return bool((scores[1:].amax(dim=0) >= scores[0]).any())


def winner(scores: Tensor, coordinates: tuple[NDArray[np.float64], ...]) -> tuple[Tensor, Tensor]:
    """Index (uint8) and value (float32) of the largest interpolated score at the product of three coordinate lists.

    ``scores`` are probabilities (classes, slow, middle, fast), contiguous or not. On a tie the lower class wins.
    """
    classes = scores.shape[0]
    shape = tuple(len(c) for c in coordinates)
    best = interpolate(scores[0].contiguous(), coordinates)
    label = torch.zeros(shape, dtype=torch.uint8, device=scores.device)
    peaks = scores.flatten(1).amax(dim=1).tolist() if scores.is_contiguous() else scores.amax(dim=(1, 2, 3)).tolist()
    for index in range(1, classes):
        if peaks[index] < 1.0 / classes:
            continue
        value = interpolate(scores[index].contiguous(), coordinates)
        better = value > best
        torch.where(better, value, best, out=best)
        label.masked_fill_(better, index)
    return label, best
