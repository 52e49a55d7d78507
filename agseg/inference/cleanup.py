"""What is done to a mask after the network: as little as possible, and only what was measured to help."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from agseg.labels import LabelSet
from agseg.measure.components import components
from agseg.slabs import slabs
from agseg.weights.entry import Cleanup

LARGE_SHARE = 0.1
"""A component with less of the largest one's voxels is small."""


def clean_up(labels: NDArray[np.uint8], rules: Mapping[int, Cleanup]) -> dict[int, int]:
    """Apply the rule of each label index, if it has one, to a mask, uint8 (i, j, k), in place.

    Of components of equal size the one found first counts as the largest.

    Returns
    -------
    dict of int to int
        Number of 26-connected components per label index, as it was before.
    """
    counts = {}
    for index, found in components(labels).items():
        counts[index] = len(found.sizes)
        if index in rules and len(found.sizes) > 1:
            sizes = found.sizes
            only_largest = rules[index] is Cleanup.LARGEST_COMPONENT
            small = np.arange(len(sizes)) != sizes.argmax() if only_largest else sizes < LARGE_SHARE * sizes.max()
            found.remove(labels, small)
    return counts


def keep_largest(labels: NDArray[np.uint8], indices: Sequence[int]) -> None:
    """Of several labels taken together, only the largest 26-connected component stays; in place."""
    table = np.zeros(256, dtype=np.uint8)
    table[list(indices)] = 1
    together = table[labels]
    clean_up(together, {1: Cleanup.LARGEST_COMPONENT})
    labels[(together == 0) & (table[labels] > 0)] = 0


def keep_only(labels: NDArray[np.uint8], wanted: LabelSet) -> None:
    """Labels that were not asked for become background, in place."""
    table = np.zeros(256, dtype=np.uint8)
    for label in wanted:
        table[label.index] = label.index
    for (slab,) in slabs(labels):
        slab[:] = table[slab]
