"""How far two masks of one volume agree, organ by organ."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agseg.slabs import slabs
from agseg.volume import LabelMask


@dataclass(frozen=True)
class Agreement:
    """Two masks of one organ.

    Parameters
    ----------
    dice
        2 |A and B| / (|A| + |B|), None where neither has a voxel.
    volume_ml, other_ml
        What the one and the other found.
    """

    dice: float | None
    volume_ml: float
    other_ml: float


def agreement(mask: LabelMask, other: LabelMask) -> dict[str, Agreement]:
    """The agreement of every organ that both masks know, by name.

    Parameters
    ----------
    mask, other
        uint8 (i, j, k) on one grid. Neither is copied: they are walked a slab at a time.

    Raises
    ------
    ValueError
        If they differ in shape.
    """
    if mask.labels.shape != other.labels.shape:
        raise ValueError(f"masks of {mask.labels.shape} and {other.labels.shape} voxels differ in shape")
    pairs = np.zeros((256, 256), dtype=np.int64)
    for one, two in slabs(mask.labels, other.labels):
        told = np.bincount(one.ravel().astype(np.intp) * 256 + two.ravel(), minlength=pairs.size)
        pairs += told.reshape(pairs.shape)
    voxel_ml = mask.grid.voxel_volume_ml
    found = {}
    for label in mask.label_set:
        if label.name not in other.label_set:
            continue
        mine, its = label.index, other.label_set[label.name].index
        count, other_count = int(pairs[mine].sum()), int(pairs[:, its].sum())
        both = count + other_count
        dice = 2 * int(pairs[mine, its]) / both if both else None
        found[label.name] = Agreement(dice, count * voxel_ml, other_count * voxel_ml)
    return found
