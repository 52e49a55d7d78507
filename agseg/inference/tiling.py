"""Tiles over a model grid, and blending of their scores without ever holding the whole map.

Laws (tests/inference/test_tiling.py): every voxel is covered; a constant network gives a constant map at any tiling; blocks
come out in order and cover the grid exactly once.

A sliding window in the order of the grid finishes the map from one corner to the other. :func:`sweep` therefore keeps, per
axis, only the part of the scores that a later tile will still add to (a fraction ``overlap`` of one layer of tiles) and
yields every other voxel as soon as it is final. With 105 classes that is the difference between 15 GB and 1 GB.

All sums are made in float32. What is kept from one layer of tiles to the next is float16 where the network's own output is
half precision: its 11 bits are no coarser than fp16's and finer than bf16's 8, and with many classes it is the largest part
of all memory. Networks of nnU-Net are blended as nnU-Net does it, see :mod:`agseg.inference.half_sums`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor

from agseg.weights.input_spec import Placement

GAUSSIAN_SIGMA = 0.125
"""Standard deviation of the blending Gaussian as a fraction of the tile (nnU-Net's and MONAI's choice)."""

MINIMAL_IMPORTANCE = 1e-3
"""Floor of the blending weight, so that no voxel divides by nothing (MONAI's choice)."""

SPATIAL = 3
"""Axes of a grid."""

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
        Axes from outermost to innermost loop.
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

    def kept(self, axis: int, n: int) -> int:
        """How many voxels along ``axis`` are final once tile ``n`` is in: up to the next tile, or to the end."""
        starts = self.starts[axis]
        return (starts[n + 1] if n + 1 < len(starts) else starts[n] + self.tile[axis]) - starts[n]

    def indices(self) -> Iterator[Corner]:
        """Number of every tile along (order[0], order[1], order[2]), in lexicographic order."""
        yield from product(*(range(len(self.starts[axis])) for axis in self.order))

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
    room
        The same memory with one layer more in front along every axis: for whoever needs the neighbours' last layers there.
    """

    index: Corner
    last: tuple[bool, bool, bool]
    start: Corner
    scores: Tensor
    room: Tensor


def plan(
    shape: tuple[int, int, int], *, tile: tuple[int, int, int], overlap: float, placement: Placement = Placement.STEPS
) -> TilePlan:
    """Tiles of one shape with at least ``overlap`` shared between neighbours.

    The last one is moved back to fit, or all are spread evenly (nnU-Net's ``compute_steps_for_sliding_window``). A grid smaller
    than the tile is padded evenly on both sides (MONAI's rule, and nnU-Net's).

    The longest axis is the outermost loop, so that what is held is smallest. For nnU-Net, whose sums depend on their order, the
    loops are its own; an axis with a single tile may go anywhere, and goes inside.
    """
    padded = tuple(max(n, t) for n, t in zip(shape, tile, strict=True))
    before = tuple((p - n) // 2 for p, n in zip(padded, shape, strict=True))
    starts = []
    for size, extent in zip(padded, tile, strict=True):
        if placement is Placement.SPREAD:
            count = 1 + int(np.ceil((size - extent) / (extent * (1.0 - overlap))))
            step_size = (size - extent) / max(1, count - 1)
            starts.append(tuple(dict.fromkeys(int(np.round(step_size * n)) for n in range(count))))
            continue
        step = max(1, int(extent * (1.0 - overlap)))
        count = 1 + -(-(size - extent) // step)
        starts.append(tuple(dict.fromkeys(min(n * step, size - extent) for n in range(count))))
    if placement is Placement.SPREAD:
        order = tuple(sorted(range(3), key=lambda axis: (len(starts[axis]) == 1, axis)))
    else:
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
    memory: _Memory | None = None

    def one_tile() -> Tensor:
        nonlocal done, memory
        scores = next(source)
        if memory is None:
            memory = _Memory(tiles, classes=scores.shape[0], dtype=scores.dtype, device=scores.device)
        for weighted, score in pieces(memory.tile[:-1], scores):
            torch.mul(score, memory.weights, out=weighted)
        del scores
        memory.tile[-1] = memory.weights
        done += 1
        if on_tile is not None:
            on_tile(done)
        return memory.tile

    def descend(level: int) -> Iterator[tuple[tuple[int, ...], Tensor]]:
        if level == 3:
            yield (), one_tile()
            return
        axis = tiles.order[level]
        shared = 0
        for n in range(len(tiles.starts[axis])):
            kept = tiles.kept(axis, n)
            rest = tiles.tile[axis] - kept
            for key, piece in descend(level + 1):
                if memory is not None and (shared or rest):
                    scores, weights = memory.held(level, key)
                    for ours, held in (*pieces(piece[:-1], scores), (piece[-1], weights)):
                        at = ours.ndim - SPATIAL + axis
                        ours.narrow(at, 0, shared).add_(held.narrow(at, 0, shared))
                        held.narrow(at, 0, rest).copy_(ours.narrow(at, kept, rest))
                yield (n, *key), piece.narrow(axis + 1, 0, kept)
            shared = rest

    for index, _ in descend(0):
        if memory is not None:
            yield _finished(tiles, (index[0], index[1], index[2]), memory.room)


def pieces(ours: Tensor, theirs: Tensor) -> Iterable[tuple[Tensor, Tensor]]:
    """Two stacks of maps in the pieces that one operation takes: class by class on the CPU, where an operation on mixed types
    makes a float32 copy of all of its operand; all at once on a GPU, where each operation costs a launch and none a copy.
    """
    return zip(ours, theirs, strict=True) if ours.device.type == "cpu" else ((ours, theirs),)


class _Memory:
    """All that a sweep holds, allocated once: pieces that come and go would scatter over the heap.

    One weighted tile, and per axis what later tiles will still add to: along that axis the overlap, along the inner ones the
    whole grid, along the outer ones a tile.
    """

    def __init__(self, tiles: TilePlan, *, classes: int, dtype: torch.dtype, device: torch.device) -> None:
        self._tiles = tiles
        self.weights = importance(tiles.tile, device=device)
        self.room = torch.empty((classes + 1, *(extent + 1 for extent in tiles.tile)), device=device)
        self.tile = self.room[:, 1:, 1:, 1:]
        kept_as = torch.float16 if dtype in (torch.float16, torch.bfloat16) else torch.float32
        extents = [self._extent(level) for level in range(3)]
        self._scores = [torch.empty((classes, *extent), dtype=kept_as, device=device) for extent in extents]
        self._weights = [torch.empty(extent, device=device) for extent in extents]

    def _extent(self, level: int) -> list[int]:
        tiles, extent = self._tiles, list(self._tiles.tile)
        axis = tiles.order[level]
        extent[axis] = max(tiles.tile[axis] - tiles.kept(axis, n) for n in range(len(tiles.starts[axis])))
        for inner in tiles.order[level + 1 :]:
            extent[inner] = tiles.shape[inner]
        return extent

    def held(self, level: int, key: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Where the overlap of one piece is kept: its scores (classes, ...) and its weights (...).

        ``key`` numbers the piece along the inner axes.
        """
        scores, weights = self._scores[level], self._weights[level]
        for inner, n in zip(self._tiles.order[level + 1 :], key, strict=True):
            start, kept = self._tiles.starts[inner][n], self._tiles.kept(inner, n)
            scores, weights = scores.narrow(inner + 1, start, kept), weights.narrow(inner, start, kept)
        return scores, weights


def _finished(tiles: TilePlan, index: Corner, room: Tensor) -> Block:
    """The final part of the tile in ``room``, its weights divided out and its padding cut off."""
    start, last = [0, 0, 0], [False, False, False]
    for level, axis in enumerate(tiles.order):
        begin = tiles.starts[axis][index[level]]
        last[level] = index[level] == len(tiles.starts[axis]) - 1
        skip = max(0, tiles.pad_before[axis] - begin)
        end = min(begin + tiles.kept(axis, index[level]), tiles.pad_before[axis] + tiles.real_shape[axis])
        room = room.narrow(axis + 1, skip, end - begin - skip + 1)
        start[axis] = begin + skip - tiles.pad_before[axis]
    summed = room[:, 1:, 1:, 1:]
    # In place: the next tile fills this memory anew. A block is therefore only valid until the next one is asked for.
    scores = summed[:-1].div_(summed[-1:])
    return Block(index, (last[0], last[1], last[2]), (start[0], start[1], start[2]), scores, room[:-1])
