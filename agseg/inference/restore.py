"""Postprocessing: scores on the model grid to labels on the source grid, block by block.

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

from agseg.inference.certainty import Calibrations, calibrated
from agseg.inference.decide import ByProbability, Rule, lines_with
from agseg.inference.device import to_host
from agseg.inference.model_grid import ModelGrid
from agseg.inference.score_checks import not_finite
from agseg.inference.tiling import Block, TilePlan


@dataclass(frozen=True, eq=False)
class Restored:
    """A label map on the source grid.

    Parameters
    ----------
    labels
        uint8 (i, j, k), the winning class per voxel.
    probability
        Mean winning probability per class index over the voxels that it won, calibrated where the class has a calibration;
        empty where it won none.
    certainty
        The winning probability of each voxel as the network gave it, float32 (i, j, k), 0 where background was never
        questioned; None where nobody asked for it.
    """

    labels: NDArray[np.uint8]
    probability: dict[int, float]
    certainty: NDArray[np.float32] | None = None


class Restorer:
    """Takes finished blocks in order and fills the label map, on the device that the blocks are on.

    A block costs one wait for the device at most: what the host must know of it is asked in one go, and labels and sums are
    fetched when all blocks are in.

    Parameters
    ----------
    model_grid
        How the model grid lies on the source.
    tiles
        The plan whose blocks will come.
    order
        Source axes from slowest to fastest in memory; the label map is laid out the same way.
    rule
        How scores become labels.
    calibrations
        Of classes whose mean probability is to be a calibrated one.
    keep_certainty
        Keep the winning probability of every voxel too.
    """

    def __init__(
        self,
        model_grid: ModelGrid,
        *,
        tiles: TilePlan,
        order: Sequence[int],
        rule: Rule | None = None,
        calibrations: Calibrations | None = None,
        keep_certainty: bool = False,
    ) -> None:
        self._rule = rule or ByProbability()
        self._calibrations, self._keeps = calibrations or {}, keep_certainty
        self._model_grid = model_grid
        self._tiles = tiles
        self._loop = tiles.order
        self._memory: _HaloMemory | None = None
        self._order = (order[0], order[1], order[2])
        self._model_axes = model_grid.model_order(self._order)
        self._coordinates = tuple(model_grid.model_coordinates(axis) for axis in self._order)
        self._found: _Found | None = None

    def add(self, block: Block) -> None:
        """Label every source voxel that this block completes; its scores (classes, ...) are what the rule expects.

        Raises
        ------
        NonFiniteScoresError
            If any score is not a finite number.
        """
        if self._found is None:
            shape = [self._model_grid.source.shape[axis] for axis in self._order]
            self._found = _Found(shape, block.scores.device, self._calibrations, keep_certainty=self._keeps)
        scores, start = self._with_halo(block)
        arranged = scores.permute(0, *(axis + 1 for axis in self._model_axes))
        hits, known = self._asked(block, scores, arranged)
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
            inside = (picked >= self._model_grid.start[self._order[position]]) & (
                picked < self._model_grid.stop[self._order[position]]
            )
            picked = picked[inside]
            if picked.size == 0:
                return
            ranges.append(slice(int(picked[0]), int(picked[-1]) + 1))
            local.append(m[picked] - low)
        known = to_host(self._rule.survey(arranged)) if known is None else known
        label, best = self._rule.decide(arranged, (local[0], local[1], local[2]), known)
        self._found.add((ranges[0], ranges[1], ranges[2]), label, best)

    def finish(self) -> Restored:
        """The label map in (i, j, k) order and the mean winning probabilities."""
        if self._found is None:
            return Restored(np.zeros(self._model_grid.source.shape, dtype=np.uint8), {})
        back = np.argsort(self._order)
        kept = self._found.certainty
        certainty = None if kept is None else to_host(kept).transpose(back)
        return Restored(to_host(self._found.labels).transpose(back), self._found.means(), certainty)

    def _asked(
        self, block: Block, scores: Tensor, arranged: Tensor
    ) -> tuple[tuple[NDArray[np.intp], ...], NDArray[np.float32] | None]:
        """Along each axis of ``scores`` the lines that hold any foreground, and what the rule must know.

        On the CPU no answer costs a wait, and the second is left out: most blocks have no foreground.
        """
        questions = [self._rule.are_finite(block.scores).reshape(1), *lines_with(self._rule.foreground(scores))]
        if scores.device.type != "cpu":
            questions.append(self._rule.survey(arranged))
        answer = to_host(torch.cat([question.float() for question in questions]))
        if not answer[0]:
            raise not_finite()
        *lines, known = np.split(answer[1:], np.cumsum(scores.shape[1:]))
        return tuple(np.flatnonzero(line) for line in lines), known if known.size else None

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


class _Found:
    """The label map so far, in source memory order, and how probable each class was where it won."""

    def __init__(self, shape: Sequence[int], device: torch.device, calibrations: Calibrations, *, keep_certainty: bool) -> None:
        self._calibrations = calibrations
        self.certainty = torch.zeros(tuple(shape), device=device) if keep_certainty else None
        self.labels = torch.zeros(tuple(shape), dtype=torch.uint8, device=device)
        # A class has 8 bits. float64 counts exactly, and adds without losing what is small.
        self._won = torch.zeros(256, dtype=torch.float64, device=device)
        self._sum = torch.zeros_like(self._won)

    def add(self, where: tuple[slice, slice, slice], label: Tensor, best: Tensor) -> None:
        """Take a box of labels (uint8) and their probabilities (float32)."""
        self.labels[where] = label
        if self.certainty is not None:
            self.certainty[where] = best
        classes, values = calibrated(label, best, self._calibrations)
        self._won.scatter_add_(0, classes, torch.ones_like(values))
        self._sum.scatter_add_(0, classes, values)

    def means(self) -> dict[int, float]:
        """Mean probability of each class that won anywhere, background left out."""
        won, total = to_host(torch.stack((self._won, self._sum)))
        return {int(c): float(total[c] / won[c]) for c in np.flatnonzero(won) if c != 0}


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


def _without_front(scores: Tensor, axes: Sequence[int]) -> Tensor:
    """The scores without their first layer along these axes."""
    for axis in axes:
        scores = scores.narrow(axis + 1, 1, scores.shape[axis + 1] - 1)
    return scores
