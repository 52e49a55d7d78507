"""What is done to a mask after the network: as little as possible, and only what was measured to help."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from agseg.weights.entry import Cleanup

__all__ = ["apply_cleanup", "count_components", "keep_largest_component"]

_NEIGHBOURS = np.ones((3, 3, 3), dtype=bool)


def apply_cleanup(labels: NDArray[np.uint8], rule: Cleanup) -> NDArray[np.uint8]:
    """The mask after ``rule``, uint8 (i, j, k); changed in place."""
    if rule is Cleanup.LARGEST_COMPONENT:
        for box, index in _boxes(labels):
            keep_largest_component(labels[box], index)
    return labels


def keep_largest_component(labels: NDArray[np.uint8], index: int) -> None:
    """Clear, in place, every 26-connected component of label ``index`` but the largest (the first of equals)."""
    components, count = ndimage.label(labels == index, structure=_NEIGHBOURS)
    if count > 1:
        sizes = np.bincount(components.reshape(-1))
        sizes[0] = 0
        labels[(components != int(sizes.argmax())) & (components > 0)] = 0


def count_components(labels: NDArray[np.uint8]) -> dict[int, int]:
    """Number of 26-connected components per label index."""
    return {index: int(ndimage.label(labels[box] == index, structure=_NEIGHBOURS)[1]) for box, index in _boxes(labels)}


def _boxes(labels: NDArray[np.uint8]) -> list[tuple[tuple[slice, ...], int]]:
    return [(box, n + 1) for n, box in enumerate(ndimage.find_objects(labels)) if box is not None]
