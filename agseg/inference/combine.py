"""Several networks' masks of one volume as one mask: one label per organ, one organ per voxel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from agseg.errors import Code
from agseg.inference.segment import Segmentation
from agseg.labels import Label, LabelSet
from agseg.volume import LabelMask, Warned

__all__ = ["combine"]


def combine(results: Sequence[Segmentation]) -> Segmentation:
    """One segmentation from several on the same grid.

    The first result keeps its label indices; organs of the others take the lowest free ones, in order. Where two networks
    claim a voxel, the earlier result keeps it, and a warning says how many voxels that were.

    Parameters
    ----------
    results
        At least one, in the order of the run's networks; no organ is in two of them.

    Raises
    ------
    ValueError
        If an organ is in two results, or there are more organs than a mask of uint8 can hold.
    """
    if len(results) == 1:
        return results[0]
    labels = results[0].mask.labels.copy(order="K")
    named = list(results[0].mask.label_set)
    warnings = list(results[0].warnings)
    for result in results[1:]:
        table, added = _renumbered(result.mask.label_set, taken={label.index for label in named})
        moved = table[result.mask.labels]
        clash = int(np.count_nonzero((moved > 0) & (labels > 0)))
        if clash:
            told = f"{clash} voxels were claimed by two networks: they belong to the organ of the one named first"
            warnings.append(Warned(Code.OVERLAP, told))
        np.copyto(labels, moved, where=labels == 0)
        named += added
        warnings += result.warnings
    stages = dict.fromkeys(stage for result in results for stage in result.seconds)
    return Segmentation(
        LabelMask(labels, results[0].mask.grid, LabelSet(tuple(named))),
        {organ: value for result in results for organ, value in result.probability.items()},
        {organ: count for result in results for organ, count in result.components.items()},
        {stage: sum(result.seconds.get(stage, 0.0) for result in results) for stage in stages},
        tuple(warnings),
    )


def _renumbered(labels: LabelSet, *, taken: set[int]) -> tuple[np.ndarray[tuple[int], np.dtype[np.uint8]], list[Label]]:
    """A table from old to new indices (uint8, length 256), and the labels with their new ones."""
    table = np.zeros(256, dtype=np.uint8)
    free = iter(sorted(set(range(1, 256)) - taken))
    added = []
    for label in labels:
        index = next(free, None)
        if index is None:
            raise ValueError("a mask holds at most 255 organs")
        table[label.index] = index
        added.append(Label(index, label.name))
    return table, added
