"""Walking a volume in the order in which it is in memory, a few planes at a time.

A volume of 600 slices is 157 million voxels. Whatever copies it whole, or steps across its memory, costs seconds and hundreds
of megabytes per study; a slab stays in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

SLAB_VOXELS = 1 << 18
"""Voxels at a time: one plane of 512x512. A single plane may be larger."""


def memory_order(strides: tuple[int, ...]) -> tuple[int, int, int]:
    """Axes from slowest to fastest in memory, so that ``array.transpose(order)`` is C-contiguous."""
    order = sorted(range(3), key=lambda axis: -abs(strides[axis]))
    return order[0], order[1], order[2]


def slabs(*arrays: NDArray[Any], voxels: int | None = None) -> Iterator[tuple[NDArray[Any], ...]]:
    """The same slab of every array (all of one shape, three axes) as views, in the memory order of the first.

    Parameters
    ----------
    voxels
        The most voxels of a slab, unless a single plane has more; :data:`SLAB_VOXELS` by default.

    Yields
    ------
    slabs
        Views (slow, middle, fast) of planes along the slowest axis. An axis that runs backwards in the first array's memory is
        flipped in all of them.
    """
    turned = [_turned(array, arrays[0].strides) for array in arrays]
    planes = turned[0].shape[0]
    step = max(1, (voxels or SLAB_VOXELS) // max(1, int(np.prod(turned[0].shape[1:]))))
    for start in range(0, planes, step):
        yield tuple(array[start : start + step] for array in turned)


def in_memory_order(array: NDArray[Any]) -> NDArray[Any]:
    """A view (slow, middle, fast) whose every axis runs forwards in memory."""
    return _turned(array, array.strides)


def _turned(array: NDArray[Any], strides: tuple[int, ...]) -> NDArray[Any]:
    order = memory_order(strides)
    return array.transpose(order)[tuple(slice(None, None, -1 if strides[axis] < 0 else None) for axis in order)]
