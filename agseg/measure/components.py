"""Connected components of each label, from its runs.

Neither an image of numbers nor a copy of the organ's box is needed to tell which runs touch.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agseg.measure.runs import Runs, find_runs
from agseg.slabs import in_memory_order

_BATCHES = 8
"""A label's runs look up their neighbours in so many batches, which bounds the temporary arrays."""

_VOXELS = 1 << 18
"""Voxels that are rewritten at a time."""

_HALF_NEIGHBOURHOOD = ((0, -1), (-1, -1), (-1, 0), (-1, 1))
"""Rows (plane, line) before one's own that touch it, corners included; those after it see it from their side."""


@dataclass(frozen=True, eq=False)
class Components:
    """The components of one label.

    Parameters
    ----------
    sizes
        Voxels of each component, in the order in which memory meets them first.
    runs
        The label's runs.
    """

    sizes: NDArray[np.int64]
    runs: Runs
    _number: NDArray[np.int64]

    def remove(self, labels: NDArray[np.uint8], which: NDArray[np.bool_]) -> None:
        """Set the voxels of these components to 0 in ``labels``, the array they were found in."""
        chosen = self.runs.only(which[self._number])
        view = in_memory_order(labels)
        lines, lengths = view.shape[1], chosen.lengths
        for part in _in_parts(lengths, _VOXELS):
            long = lengths[part]
            plane, line = np.divmod(np.repeat(chosen.row[part], long), lines)
            along = np.arange(long.sum()) + np.repeat(chosen.begin[part] - np.cumsum(long) + long, long)
            view[plane, line, along] = 0


def components(labels: NDArray[np.uint8], runs: Runs | None = None) -> dict[int, Components]:
    """The 26-connected components of every label but 0 that occurs, by label.

    Parameters
    ----------
    labels
        uint8 (i, j, k), in any memory order.
    runs
        Its runs, where the caller has them.
    """
    found = {}
    for label, ours in (runs or find_runs(labels)).by_label().items():
        root = _joined(ours)
        is_first = root == np.arange(len(root))
        number = (np.cumsum(is_first) - 1)[root]
        sizes = np.bincount(number, weights=ours.lengths.astype(np.float64)).astype(np.int64)
        found[label] = Components(sizes, ours, number)
    return found


def _joined(runs: Runs) -> NDArray[np.int64]:
    """For each run of one label the first run of its component."""
    lines, stride = runs.shape[1], runs.shape[2] + 2
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
            _unite(root, np.repeat(these, count), others)
    return _compressed(root)


def _unite(root: NDArray[np.int64], one: NDArray[np.int64], other: NDArray[np.int64]) -> None:
    """Join pairs of runs in the forest ``root``, in place; of two roots the smaller stays one.

    Only what the pairs lead to is followed. Going over the whole forest for each batch of pairs costs minutes for a mask of
    noise, which has a run for every third voxel.
    """
    a, b = _roots(root, one), _roots(root, other)
    while True:
        apart = a != b
        if not apart.any():
            return
        low, high = np.minimum(a, b)[apart], np.maximum(a, b)[apart]
        np.minimum.at(root, high, low)
        # Chains of these new links are halved until each leads to a root: every link of one begins in ``high``.
        while not np.array_equal(further := root[root[high]], root[high]):
            root[high] = further
        a, b = root[low], root[high]


def _roots(root: NDArray[np.int64], of: NDArray[np.int64]) -> NDArray[np.int64]:
    """The root of each of these runs, to which they are linked from now on."""
    found = root[of]
    while not np.array_equal(further := root[found], found):
        found = further
    root[of] = found
    return found


def _compressed(root: NDArray[np.int64]) -> NDArray[np.int64]:
    """The forest with every run linked to its root."""
    while not np.array_equal(further := root[root], root):
        root = further
    return root


def _in_parts(lengths: NDArray[np.int64], most: int) -> list[slice]:
    """Slices over runs of about so many voxels each."""
    if not len(lengths):
        return []
    part = np.cumsum(lengths) // most
    edges = [0, *(np.flatnonzero(np.diff(part)) + 1).tolist(), len(lengths)]
    return [slice(a, b) for a, b in itertools.pairwise(edges)]
