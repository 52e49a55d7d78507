"""Several networks' masks of one volume as one mask: one label per organ, one organ per voxel."""

from __future__ import annotations

from collections.abc import Sequence

from agseg.inference.segment import Segmentation
from agseg.label_merge import merge_masks, overlap


def combine(results: Sequence[Segmentation]) -> Segmentation:
    """One segmentation from several on the same grid.

    Where two networks claim a voxel, the earlier result keeps it, and a warning says how many voxels that were.

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
    mask, clashes = merge_masks([result.mask for result in results])
    warnings = [warned for result in results for warned in result.warnings]
    if clashes:
        warnings.append(overlap(clashes))
    stages = dict.fromkeys(stage for result in results for stage in result.seconds)
    return Segmentation(
        mask,
        {organ: value for result in results for organ, value in result.probability.items()},
        {organ: count for result in results for organ, count in result.components.items()},
        {stage: sum(result.seconds.get(stage, 0.0) for result in results) for stage in stages},
        tuple(warnings),
    )
