"""Runs of one label along the fastest axis of memory: what a mask holds, without an image.

An organ of millions of voxels has some ten thousand runs. What costs one step per run grows with the organs' surfaces, not
with the volume.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agseg.slabs import in_memory_order, slabs


@dataclass(frozen=True, eq=False)
class Runs:
    """Runs of one or of all labels but 0, in the order of memory.

    Parameters
    ----------
    shape
        Planes, lines and voxels of a line of the view that they are in (:func:`agseg.slabs.in_memory_order`).
    value
        uint8, the label.
    row
        int64, plane * lines + line.
    begin, end
        int64, first voxel along the row, and first one behind the run.
    """

    shape: tuple[int, int, int]
    value: NDArray[np.uint8]
    row: NDArray[np.int64]
    begin: NDArray[np.int64]
    end: NDArray[np.int64]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Voxels of each run."""
        return self.end - self.begin

    def only(self, chosen: NDArray[np.bool_] | NDArray[np.intp]) -> Runs:
        """Those of them."""
        return Runs(self.shape, self.value[chosen], self.row[chosen], self.begin[chosen], self.end[chosen])

    def by_label(self) -> dict[int, Runs]:
        """The runs of each label that occurs."""
        counts = np.bincount(self.value, minlength=1)
        order = np.argsort(self.value, kind="stable")
        theirs = np.split(order, np.cumsum(counts)[:-1])
        return {label: self.only(which) for label, which in enumerate(theirs) if which.size}


def find_runs(labels: NDArray[np.uint8]) -> Runs:
    """The runs of a mask, uint8 (i, j, k) in any memory order."""
    pieces: list[tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]] = []
    row = 0
    for (slab,) in slabs(labels):
        rows, width = slab.shape[0] * slab.shape[1], slab.shape[2]
        flat = slab.reshape(-1)
        if flat.max(initial=0):
            starts = np.empty(flat.shape, dtype=bool)
            np.not_equal(flat[1:], flat[:-1], out=starts[1:])
            starts[::width] = True
            begin = np.flatnonzero(starts)
            end = np.append(begin[1:], flat.size)
            value = flat[begin]
            marked = value != 0
            begin, end = begin[marked], end[marked]
            local = begin // width
            pieces.append((value[marked], local + row, begin - local * width, end - local * width))
        row += rows
    if not pieces:
        none = np.zeros(0, dtype=np.int64)
        pieces.append((np.zeros(0, dtype=np.uint8), none, none, none))
    planes, lines, width = in_memory_order(labels).shape
    return Runs((planes, lines, width), *(np.concatenate(column) for column in zip(*pieces, strict=True)))
