"""Connected components of each label, from runs along the fastest axis of memory.

An organ of millions of voxels has some ten thousand runs, and neither an image of numbers nor a copy of the organ's box is
needed to tell which of them touch. What it costs grows with the organs' surfaces, not with the volume.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agseg.slabs import in_memory_order, slabs

_BATCHES = 8
"""A label's runs look up their neighbours in so many batches, which bounds the temporary arrays."""

_VOXELS = 1 << 18
"""Voxels that are rewritten at a time."""

_HALF_NEIGHBOURHOOD = ((0, -1), (-1, -1), (-1, 0), (-1, 1))
"""Rows (plane, line) before one's own that touch it, corners included; those after it see it from their side."""


@dataclass(frozen=True, eq=False)
class _Runs:
    """Runs of one or of all labels, in the order of memory.

    Parameters
    ----------
    value
        uint8, the label.
    row
        int64, plane * lines + line.
    begin, end
        int64, first voxel along the row, and first one behind the run.
    """

    value: NDArray[np.uint8]
    row: NDArray[np.int64]
    begin: NDArray[np.int64]
    end: NDArray[np.int64]

    def only(self, chosen: NDArray[np.bool_]) -> _Runs:
        return _Runs(self.value[chosen], self.row[chosen], self.begin[chosen], self.end[chosen])


@dataclass(frozen=True, eq=False)
class Components:
    """The components of one label.

    Parameters
    ----------
    sizes
        Voxels of each component, in the order in which memory meets them first.
    """

    sizes: NDArray[np.int64]
    _runs: _Runs
    _number: NDArray[np.int64]

    def remove(self, labels: NDArray[np.uint8], which: NDArray[np.bool_]) -> None:
        """Set the voxels of these components to 0 in ``labels``, the array they were found in."""
        chosen = self._runs.only(which[self._number])
        view = in_memory_order(labels)
        lines = view.shape[1]
        lengths = chosen.end - chosen.begin
        for part in _in_parts(lengths, _VOXELS):
            long = lengths[part]
            plane, line = np.divmod(np.repeat(chosen.row[part], long), lines)
            along = np.arange(long.sum()) + np.repeat(chosen.begin[part] - np.cumsum(long) + long, long)
            view[plane, line, along] = 0


def components(labels: NDArray[np.uint8]) -> dict[int, Components]:
    """The 26-connected components of every label but 0 that occurs, by label.

    Parameters
    ----------
    labels
        uint8 (i, j, k), in any memory order.
    """
    runs = _runs(labels)
    shape = in_memory_order(labels).shape
    found = {}
    for value in np.flatnonzero(np.bincount(runs.value, minlength=1)):
        ours = runs.only(runs.value == value)
        roots, number = np.unique(_joined(ours, shape), return_inverse=True)
        lengths = (ours.end - ours.begin).astype(np.float64)
        sizes = np.bincount(number, weights=lengths, minlength=len(roots)).astype(np.int64)
        found[int(value)] = Components(sizes, ours, number)
    return found


def _runs(labels: NDArray[np.uint8]) -> _Runs:
    pieces: list[_Runs] = []
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
            pieces.append(_Runs(value[marked], local + row, begin - local * width, end - local * width))
        row += rows
    if not pieces:
        none = np.zeros(0, dtype=np.int64)
        return _Runs(np.zeros(0, dtype=np.uint8), none, none, none)
    return _Runs(*(np.concatenate([getattr(p, name) for p in pieces]) for name in ("value", "row", "begin", "end")))


def _joined(runs: _Runs, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """For each run of one label the first run of its component."""
    lines, stride = shape[1], shape[2] + 2
    first, last = runs.row * stride + runs.begin, runs.row * stride + runs.end
    line = runs.row % lines
    root = np.arange(len(runs.row))
    batch = -(-len(root) // _BATCHES)
    for plane_step, line_step in _HALF_NEIGHBOURHOOD:
        inside = np.flatnonzero((line + line_step >= 0) & (line + line_step < lines))
        towards = (plane_step * lines + line_step) * stride
        for start in range(0, len(inside), batch):
            these = inside[start : start + batch]
            # Ends are exclusive: a run that ends where ours begins touches it at a corner.
            low = np.searchsorted(last, first[these] + towards, side="left")
            high = np.searchsorted(first, last[these] + towards, side="right")
            count = np.maximum(high - low, 0)
            others = np.arange(count.sum()) + np.repeat(low - np.cumsum(count) + count, count)
            root = _united(root, np.repeat(these, count), others)
    return root


def _united(root: NDArray[np.int64], one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.int64]:
    """The roots after joining pairs of runs; the smaller number is the root."""
    while True:
        a, b = root[one], root[other]
        apart = a != b
        if not apart.any():
            return root
        one, other, a, b = one[apart], other[apart], a[apart], b[apart]
        np.minimum.at(root, np.maximum(a, b), np.minimum(a, b))
        while True:
            further = root[root]
            if np.array_equal(further, root):
                break
            root = further


def _in_parts(lengths: NDArray[np.int64], most: int) -> list[slice]:
    """Slices over runs of about so many voxels each."""
    if not len(lengths):
        return []
    part = np.cumsum(lengths) // most
    edges = [0, *(np.flatnonzero(np.diff(part)) + 1).tolist(), len(lengths)]
    return [slice(a, b) for a, b in itertools.pairwise(edges)]
