"""nnU-Net's sums of overlapping tiles: in half precision, tile after tile in the order of its loops, each fold by itself.

nnU-Net adds every weighted tile to one float16 array of the whole map, and divides by the float16 sum of the weights. Every
addition rounds to 11 bits, and near the map's corners, where a weight is the smallest number that float16 has, to whole
numbers: where scores lie close together this decides labels. Its labels therefore take its order of additions, and its types.

What is held here is that array, but along the first axis that has several tiles only as far as one tile reaches: float16
(folds, classes, ...). For one fold that is less than :func:`agseg.inference.tiling.sweep` mostly holds in float32.

Source: ``nnUNetPredictor._internal_predict_sliding_window_return_logits`` and ``predict_logits_from_preprocessed_data``,
``compute_gaussian`` (nnU-Net 2.8.1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from agseg.inference.tiling import GAUSSIAN_SIGMA, Block, Corner, TilePlan, pieces

LARGEST_WEIGHT = 10
"""Weight of a tile's middle (nnU-Net's ``value_scaling_factor``)."""

CPU_PLANES = 16
"""So many planes of a tile are added at a time on a CPU: what is between stays in its cache."""


def half_importance(tile: tuple[int, int, int]) -> Tensor:
    """nnU-Net's blending weights, float16: a Gaussian around voxel ``size // 2``, cut off at four deviations."""
    weights = np.ones((), dtype=np.float64)
    for extent in tile:
        sigma = GAUSSIAN_SIGMA * extent
        x = np.arange(extent) - extent // 2
        profile = np.where(np.abs(x) <= int(4 * sigma + 0.5), np.exp(-0.5 * (x / sigma) ** 2), 0.0)
        weights = weights[..., None] * profile
    scaled = torch.from_numpy(LARGEST_WEIGHT * weights).half()
    return scaled.masked_fill(scaled == 0, float(scaled[scaled > 0].min()))


def sweep_in_half(
    tiles: TilePlan, outputs: Iterable[Tensor], *, folds: int = 1, on_tile: Callable[[int], None] | None = None
) -> Iterator[Block]:
    """Blend the outputs of a network, or of its folds, into finished blocks as nnU-Net does.

    Parameters
    ----------
    tiles
        The plan; axes with several tiles in ascending order.
    outputs
        Score maps (classes, *tile) in the order of ``tiles.corners()``, those of all folds for each tile; any float dtype.
    folds
        How many there are.
    on_tile
        Told the number of tiles done so far.
    """
    source = iter(outputs)
    sums: _Sums | None = None
    for done, (index, corner) in enumerate(zip(tiles.indices(), tiles.corners(), strict=True), start=1):
        for fold in range(folds):
            scores = next(source)
            if sums is None:
                sums = _Sums(tiles, folds=folds, classes=scores.shape[0], device=scores.device)
            sums.add(scores, fold, index, corner)
            del scores
        if on_tile is not None:
            on_tile(done)
        if sums is not None:
            yield sums.finished(index)


class _Sums:
    """All that such a sweep holds, allocated once.

    Parameters
    ----------
    tiles, folds, classes, device
        What will come.
    """

    def __init__(self, tiles: TilePlan, *, folds: int, classes: int, device: torch.device) -> None:
        self._tiles = tiles
        self._along = tiles.order[0]
        shape = list(tiles.shape)
        shape[self._along] = tiles.tile[self._along]
        self._scores = torch.zeros((folds, classes, *shape), dtype=torch.float16, device=device)
        self._weights = torch.zeros(shape, dtype=torch.float16, device=device)
        self._half_importance = half_importance(tiles.tile).to(device)
        self._importance = self._half_importance.float()
        on_cpu = device.type == "cpu"
        self._planes = min(tiles.tile[0], CPU_PLANES) if on_cpu else tiles.tile[0]
        work = (() if on_cpu else (classes,)) + (self._planes, *tiles.tile[1:])
        self._weighted, self._sum = (torch.empty(work, device=device) for _ in range(2))
        self._room = torch.empty((classes, *(extent + 1 for extent in tiles.tile)), device=device)
        self._layer = 0

    def add(self, scores: Tensor, fold: int, index: Corner, corner: Corner) -> None:
        """Add one fold's scores (classes, *tile) of the tile at ``corner``."""
        if index[0] > self._layer:
            self._move_on(self._tiles.kept(self._along, self._layer))
            self._layer = index[0]
        where = self._under(corner, self._tiles.tile)
        if fold == 0:
            self._weights[where] += self._half_importance
        for total, score in pieces(self._scores[(fold, slice(None), *where)], scores):
            split = (torch.split(each, self._planes, dim=-3) for each in (total, score, self._importance))
            for sums, more, weights in zip(*split, strict=True):
                weighted, summed = (work.narrow(-3, 0, len(weights)) for work in (self._weighted, self._sum))
                # In float32, and rounded once per addition: what `half += float` is, without its temporary copies.
                torch.mul(more, weights, out=weighted)
                sums.copy_(summed.copy_(sums).add_(weighted))

    def finished(self, index: Corner) -> Block:
        """What no later tile touches: divided by the weights, averaged over the folds, its padding cut off."""
        tiles = self._tiles
        begin, start, size, last = [0, 0, 0], [0, 0, 0], [0, 0, 0], [False, False, False]
        for level, axis in enumerate(tiles.order):
            first, before = tiles.starts[axis][index[level]], tiles.pad_before[axis]
            begin[axis] = max(first, before)
            start[axis] = begin[axis] - before
            size[axis] = min(first + tiles.kept(axis, index[level]), before + tiles.real_shape[axis]) - begin[axis]
            last[level] = index[level] == len(tiles.starts[axis]) - 1
        where = self._under(begin, size)
        room = self._room[(slice(None), *(slice(0, extent + 1) for extent in size))]
        block = room[:, 1:, 1:, 1:]
        weights = self._weights[where]
        for number, scores in enumerate(block):
            mean = self._scores[(0, number, *where)] / weights
            for more in self._scores[(slice(1, None), number, *where)]:
                mean += more / weights
            scores.copy_(mean.div_(len(self._scores)) if len(self._scores) > 1 else mean)
        return Block(index, (last[0], last[1], last[2]), (start[0], start[1], start[2]), block, room)

    def _under(self, begin: Corner | list[int], size: Corner | list[int]) -> tuple[slice, slice, slice]:
        """Where a box of the padded grid lies in what is held."""
        low = list(begin)
        low[self._along] -= self._tiles.starts[self._along][self._layer]
        a, b, c = (slice(first, first + extent) for first, extent in zip(low, size, strict=True))
        return a, b, c

    def _move_on(self, planes: int) -> None:
        """Let go of the first planes; the rest moves to the front, and what is new is 0."""
        for sums in (*self._scores.flatten(0, 1), self._weights):
            along = sums.movedim(self._along, 0)
            for n in range(len(along) - planes):
                along[n] = along[n + planes]
            along[len(along) - planes :] = 0
