"""Label maps of whole anatomies: read onto a scan's model grid, and completed where nothing is labelled.

Structures are numbered as TotalSegmentator numbers them (1 spleen, 5 liver, ...); what is not labelled is told apart by
density alone, under numbers of our own from 200.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from agseg.grid import Grid
from agseg.io.nifti import read_labels

OUTSIDE, FAT, SOFT, BONE, GAS = 200, 201, 202, 203, 204
"""Structures that density tells: beyond the skin, fat, other soft tissue, dense tissue, gas and lung."""

BODY_HU = -250.0
"""Denser than this is body."""

FAT_BELOW_HU = -20.0
"""Fat lies between :data:`BODY_HU` and this."""

BONE_FROM_HU = 200.0
"""Unlabelled tissue denser than this counts as bone."""


def structures_on(grid: Grid, path: Path, *, outside: int = 0) -> NDArray[np.uint8]:
    """The label map of a NIfTI file at the voxels of ``grid`` (i, j, k), nearest voxel in the patient's space.

    ``outside`` is the number where the map does not reach.
    """
    header, stored = read_labels(path)
    matrix = np.linalg.inv(header.grid.affine) @ grid.affine
    labels = ndimage.affine_transform(
        stored, matrix[:3, :3], offset=matrix[:3, 3], output_shape=grid.shape, order=0, mode="constant", cval=outside
    )
    return np.asarray(labels, dtype=np.uint8)


def body_mask(image: NDArray[np.float32]) -> NDArray[np.bool_]:
    """The patient without table (bool, i, j, k): the largest dense component after an opening, filled slice by slice."""
    dense = ndimage.binary_opening(image > BODY_HU, iterations=2)
    parts, count = ndimage.label(dense)
    if count == 0:
        return np.asarray(dense)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    body = parts == sizes.argmax()
    for k in range(body.shape[2]):
        body[:, :, k] = ndimage.binary_fill_holes(body[:, :, k])
    return np.asarray(body)


def complete(image: NDArray[np.float32], structures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """``structures`` with every 0 replaced by what the density (HU) says."""
    body, free = body_mask(image), structures == 0
    whole = structures.copy()
    whole[free & ~body] = OUTSIDE
    inside = free & body
    whole[inside & (image < BODY_HU)] = GAS
    whole[inside & (image >= BODY_HU) & (image < FAT_BELOW_HU)] = FAT
    whole[inside & (image >= FAT_BELOW_HU) & (image < BONE_FROM_HU)] = SOFT
    whole[inside & (image >= BONE_FROM_HU)] = BONE
    return whole
