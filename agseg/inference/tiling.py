"""Tiles over a model grid, and how their scores become one map without ever holding the whole of it.

Laws (tests/inference/test_tiling.py): every voxel is covered; a constant network gives a constant map at any tiling; blocks
come out in order and cover the grid exactly once.

A sliding window in the order of the grid finishes the map from one corner to the other. :func:`sweep` therefore keeps, per
axis, only the part of the scores that a later tile will still add to (a fraction ``overlap`` of one layer of tiles) and
yields every other voxel as soon as it is final. With 105 classes that is the difference between 15 GB and 1 GB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

__all__ = ["GAUSSIAN_SIGMA", "MINIMAL_IMPORTANCE", "Block", "TilePlan", "importance", "plan", "sweep"]

GAUSSIAN_SIGMA = 0.125
"""Standard deviation of the blending Gaussian as a fraction of the tile (nnU-Net's and MONAI's choice)."""

MINIMAL_IMPORTANCE = 1e-3
"""Floor of the blending weight, so that no voxel divides by nothing (MONAI's choice)."""

Corner = tuple[int, int, int]


@dataclass(frozen=True)
class TilePlan:
    """Where tiles lie on a model grid.

    Parameters
    ----------
    shape
        The grid, padded to at least one tile.
    pad_before
        How far the padded grid begins before the real one, per axis.
    real_shape
        The grid itself.
    tile
        Tile shape.
    starts
        First index of each tile per axis, ascending.
    order
        Axes from outermost to innermost loop; the longest axis is outermost, so that what is held is smallest.
    """

    shape: tuple[int, int, int]
    pad_before: tuple[int, int, int]
    real_shape: tuple[int, int, int]
    tile: tuple[int, int, int]
    starts: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    order: tuple[int, int, int]

    @property
    def count(self) -> int:
        """Number of tiles."""
        return len(self.starts[0]) * len(self.starts[1]) * len(self.starts[2])

    def corners(self) -> Iterator[Corner]:
        """First index of every tile in the order in which :func:`sweep` consumes them."""
        for ordered in product(*(self.starts[axis] for axis in self.order)):
            corner = [0, 0, 0]
            for axis, start in zip(self.order, ordered, strict=True):
                corner[axis] = start
            yield corner[0], corner[1], corner[2]


@dataclass(frozen=True, eq=False)
class Block:
    """A finished part of the score map.

    Parameters
    ----------
    index
        Number of the block along (order[0], order[1], order[2]); blocks come in lexicographic order.
    last
        Whether it is the last one along each of these axes.
    start
        First voxel on the real (unpadded) grid.
    scores
        float32 (classes, ...), blended and divided by the weights; a view that the next block overwrites.
    """

    index: Corner
    last: tuple[bool, bool, bool]
    start: Corner
    scores: Tensor


def plan(shape: tuple[int, int, int], *, tile: tuple[int, int, int], overlap: float) -> TilePlan:
    """Tiles of one shape with at least ``overlap`` shared between neighbours; the last one is moved back to fit.

    A grid smaller than the tile is padded evenly on both sides (MONAI's rule).
    """
    padded = tuple(max(n, t) for n, t in zip(shape, tile, strict=True))
    before = tuple((p - n) // 2 for p, n in zip(padded, shape, strict=True))
    starts = []
    for size, extent in zip(padded, tile, strict=True):
        step = max(1, int(extent * (1.0 - overlap)))
        count = 1 + -(-(size - extent) // step)
        starts.append(tuple(dict.fromkeys(min(n * step, size - extent) for n in range(count))))
    order = tuple(sorted(range(3), key=lambda axis: (-padded[axis], -axis)))
    return TilePlan(padded, before, shape, tile, tuple(starts), order)  # type: ignore[arg-type]


def importance(tile: tuple[int, int, int], *, device: torch.device | str = "cpu") -> Tensor:
    """Blending weights of a tile, float32: a Gaussian around its centre with a floor."""
    weights = torch.ones((), dtype=torch.float32, device=device)
    for axis, extent in enumerate(tile):
        x = torch.arange(extent, dtype=torch.float32, device=device) - (extent - 1) / 2
        profile = torch.exp(-0.5 * (x / (GAUSSIAN_SIGMA * extent)) ** 2)
        shape = [1, 1, 1]
        shape[axis] = extent
        weights = weights * profile.reshape(shape)
    return weights.clamp_min(MINIMAL_IMPORTANCE)


def sweep(tiles: TilePlan, outputs: Iterable[Tensor], *, on_tile: Callable[[int], None] | None = None) -> Iterator[Block]:
    """Blend the outputs of a network into finished blocks.

    Parameters
    ----------
    tiles
        The plan.
    outputs
        Score maps (classes, *tile) in the order of ``tiles.corners()``; any float dtype, blended in float32.
    on_tile
        Told the number of tiles done so far.
    """
    source = iter(outputs)
    done = 0
    weights: Tensor | None = None
    weighted = torch.empty(0)

    def one_tile() -> Tensor:
        nonlocal done, weights, weighted
        scores = next(source)
        if weights is None:
            weights = importance(tiles.tile, device=scores.device)
            # One buffer for every tile: what a later tile needs of an earlier one was copied away before this is called again.
            weighted = torch.empty((scores.shape[0] + 1, *tiles.tile), dtype=torch.float32, device=scores.device)
        torch.mul(scores, weights, out=weighted[:-1])
        del scores
        weighted[-1] = weights
        done += 1
        if on_tile is not None:
            on_tile(done)
        return weighted

    def descend(level: int) -> Iterator[tuple[tuple[int, ...], Tensor]]:
        if level == 3:
            yield (), one_tile()
            return
        axis = tiles.order[level]
        starts, extent = tiles.starts[axis], tiles.tile[axis]
        carried: dict[tuple[int, ...], Tensor] = {}
        for n, start in enumerate(starts):
            kept = (starts[n + 1] if n + 1 < len(starts) else start + extent) - start
            for key, piece in descend(level + 1):
                head = carried.pop(key, None)
                if head is not None:
                    piece.narrow(axis + 1, 0, head.shape[axis + 1]).add_(head)
                if kept < extent:
                    tail = piece.narrow(axis + 1, kept, extent - kept)
                    # Into the same memory where it fits: long-lived pieces would otherwise scatter over the heap.
                    carried[key] = head.copy_(tail) if head is not None and head.shape == tail.shape else tail.clone()
                yield (n, *key), piece.narrow(axis + 1, 0, kept)

    for index, summed in descend(0):
        yield _finished(tiles, (index[0], index[1], index[2]), summed)


def _finished(tiles: TilePlan, index: Corner, summed: Tensor) -> Block:
    """Divide the weights out and cut the padding off."""
    start, last = [0, 0, 0], [False, False, False]
    for level, axis in enumerate(tiles.order):
        begin = tiles.starts[axis][index[level]]
        last[level] = index[level] == len(tiles.starts[axis]) - 1
        skip = max(0, tiles.pad_before[axis] - begin)
        end = min(begin + summed.shape[axis + 1], tiles.pad_before[axis] + tiles.real_shape[axis])
        summed = summed.narrow(axis + 1, skip, end - begin - skip)
        start[axis] = begin + skip - tiles.pad_before[axis]
    # In place: the next tile fills this memory anew. A block is therefore only valid until the next one is asked for.
    scores = summed[:-1].div_(summed[-1:])
    return Block(index, (last[0], last[1], last[2]), (start[0], start[1], start[2]), scores)
