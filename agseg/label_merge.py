"""Several masks of one volume as one: one label per organ, one organ per voxel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from agseg.errors import Code
from agseg.labels import Label, LabelSet
from agseg.volume import LabelMask, Warned


def merge_masks(masks: Sequence[LabelMask]) -> tuple[LabelMask, int]:
    """One mask from several on the same grid, and how many voxels two of them claimed.

    An organ keeps its label value where that is free, and takes the lowest free one otherwise. Where two masks claim a voxel,
    the earlier one keeps it.

    Parameters
    ----------
    masks
        At least one, in order of precedence; no organ is in two of them.

    Raises
    ------
    ValueError
        If an organ is in two masks, or there are more organs than a mask of uint8 can hold.
    """
    if len(masks) == 1:
        return masks[0], 0
    labels = masks[0].labels.copy(order="K")
    named, clashes = list(masks[0].label_set), 0
    for mask in masks[1:]:
        table, added = _renumbered(mask.label_set, taken={label.index for label in named})
        moved = table[mask.labels]
        clashes += int(np.count_nonzero((moved > 0) & (labels > 0)))
        np.copyto(labels, moved, where=labels == 0)
        named += added
    return LabelMask(labels, masks[0].grid, LabelSet(tuple(named))), clashes


def _renumbered(labels: LabelSet, *, taken: set[int]) -> tuple[NDArray[np.uint8], list[Label]]:
    """A table from old to new indices (uint8, length 256), and the labels with their new ones."""
    table = np.zeros(256, dtype=np.uint8)
    kept = {label.index for label in labels if label.index not in taken}
    free = iter(sorted(set(range(1, 256)) - taken - kept))
    added = []
    for label in labels:
        index = label.index if label.index in kept else next(free, None)
        if index is None:
            raise ValueError("a mask holds at most 255 organs")
        table[label.index] = index
        added.append(Label(index, label.name))
    return table, added


def overlap(voxels: int) -> Warned:
    """The warning that two networks claimed so many voxels."""
    return Warned(Code.OVERLAP, f"{voxels} voxels were claimed by two networks: they belong to the organ that was there first")
