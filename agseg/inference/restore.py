"""From scores on the model grid to labels on the source grid, block by block.

What a voxel's label is, :mod:`agseg.inference.decide` says; regions where background wins are never interpolated. A block
together with one layer of voxels of its lower neighbours is all that the source voxels inside it depend on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agseg.inference.decide import ByProbability, Rule
from agseg.inference.frame import Frame
from agseg.inference.tiling import Block, TilePlan

__all__ = ["Restored", "Restorer"]


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
    tiles
        The plan whose blocks will come.
    order
        Source axes from slowest to fastest in memory; the label map is laid out the same way.
    rule
        How scores become labels.
    """

    def __init__(self, frame: Frame, *, tiles: TilePlan, order: Sequence[int], rule: Rule | None = None) -> None:
        self._rule = rule or ByProbability()
        self._frame = frame
        self._tiles = tiles
        self._loop = tiles.order
        self._memory: _HaloMemory | None = None
        self._order = (order[0], order[1], order[2])
        self._model_axes = frame.model_order(self._order)
        self._coordinates = tuple(frame.model_coordinates(axis) for axis in self._order)
        self._labels = np.zeros([frame.source.shape[axis] for axis in self._order], dtype=np.uint8)
        self._won = np.zeros(256)
        self._sum = np.zeros(256)

    def add(self, block: Block) -> None:
        """Label every source voxel that this block completes; its scores (classes, ...) are what the rule expects."""
        scores, start = self._with_halo(block)
        hits = _lines_with(self._rule.foreground(scores))
        if not hits[0].size:
            return
        ranges, local = [], []
        for position, axis in enumerate(self._model_axes):
            hit = hits[axis]
            size = scores.shape[axis + 1]
            low, high = start[axis], start[axis] + size - 1
            is_last = block.last[self._loop.index(axis)]
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
        label, best = self._rule.decide(arranged, (local[0], local[1], local[2]))
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

    def _with_halo(self, block: Block) -> tuple[Tensor, tuple[int, int, int]]:
        """The block with the last layer of its lower neighbours in front.

        The block's own last layers are remembered for its upper neighbours: the innermost axis first, so that the layers of
        the outer axes include the corners.
        """
        loop = self._loop
        if self._memory is None:
            self._memory = _HaloMemory(self._tiles, classes=block.scores.shape[0], device=block.scores.device)
        memory = self._memory
        extended = [n > 0 for n in block.index]
        start = list(block.start)
        for axis, more in zip(loop, extended, strict=True):
            start[axis] -= more
        whole = _without_front(block.room, [axis for axis, more in zip(loop, extended, strict=True) if not more])
        for level in (2, 1, 0):
            axis = loop[level] + 1
            outer = [loop[o] for o in range(level) if extended[o]]
            # Filled so far: everything along the inner axes, nothing yet of the layers in front along this and the outer ones.
            filled = _without_front(whole, [*outer, loop[level]] if extended[level] else outer)
            if not block.last[level]:
                ours = filled.narrow(axis, filled.shape[axis] - 1, 1)
                memory.layer(level, block.index[level], start, ours.shape).copy_(ours)
            if extended[level]:
                front = _without_front(whole.narrow(axis, 0, 1), outer)
                front.copy_(memory.layer(level, block.index[level] - 1, start, front.shape))
        return whole, (start[0], start[1], start[2])


class _HaloMemory:
    """What the restorer holds, allocated once: pieces that come and go would scatter over the heap.

    Per axis the last layer of the blocks before, along the inner axes over the whole grid. Two of each, used in turn: a block
    writes its own layer before its neighbours have read the one before.
    """

    def __init__(self, tiles: TilePlan, *, classes: int, device: torch.device) -> None:
        self._tiles = tiles
        self._layers = [[torch.empty((classes, *self._extent(level)), device=device) for _ in range(2)] for level in range(3)]

    def _extent(self, level: int) -> list[int]:
        extent = [size + 1 for size in self._tiles.tile]
        extent[self._tiles.order[level]] = 1
        for inner in self._tiles.order[level + 1 :]:
            extent[inner] = self._tiles.real_shape[inner]
        return extent

    def layer(self, level: int, number: int, start: Sequence[int], shape: Sequence[int]) -> Tensor:
        """Where the last layer of block ``number`` along an axis is kept, for a block that begins at ``start``."""
        view = self._layers[level][number % 2]
        inner = self._tiles.order[level + 1 :]
        for axis in range(3):
            if axis != self._tiles.order[level]:
                view = view.narrow(axis + 1, start[axis] if axis in inner else 0, shape[axis + 1])
        return view


def _lines_with(foreground: Tensor) -> tuple[NDArray[np.intp], ...]:
    """Along each axis the lines that hold any foreground; asked of the device in one go, because it waits for the answer."""
    lines = [foreground.any(dim=others[1]).any(dim=others[0]) for others in ((1, 2), (0, 2), (0, 1))]
    answer = torch.cat(lines).cpu().numpy()
    ends = np.cumsum(foreground.shape)
    return tuple(np.flatnonzero(part) for part in np.split(answer, ends[:-1]))


def _without_front(scores: Tensor, axes: Sequence[int]) -> Tensor:
    """The scores without their first layer along these axes."""
    for axis in axes:
        scores = scores.narrow(axis + 1, 1, scores.shape[axis + 1] - 1)
    return scores
