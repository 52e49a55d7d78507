"""Oblique and sheared scans: resample them to the patient's axes first, and carry the mask back to the source slices.

A network has seen upright patients. Where the source's axes deviate from the patient's by more than
``OBLIQUE_LIMIT_DEG``, or are not perpendicular (gantry tilt), the volume is resampled to a grid along the patient's axes;
everything then works there, and each source voxel takes the label of the straight voxel its centre falls into.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from agseg.grid import OBLIQUE_LIMIT_DEG, Grid
from agseg.volume import HU_MIN, Quantity, Volume

__all__ = ["labels_on", "needs_straightening", "straighten"]


def needs_straightening(grid: Grid) -> bool:
    """Whether the axes of this grid are too far from the patient's, or not perpendicular."""
    return not grid.is_rectangular or grid.obliquity_deg > OBLIQUE_LIMIT_DEG


def straighten(volume: Volume, *, finest_mm: float | None = None) -> Volume:
    """The volume on a grid along the patient's axes (RAS), trilinear; outside the scan is air (or the smallest signal).

    Parameters
    ----------
    volume
        Any grid.
    finest_mm
        No axis is sampled more coarsely than the source's along it, nor more coarsely than this (mm), so that the mask
        carried back loses nothing to the detour.
    """
    oriented, _, _ = volume.grid.reoriented("RAS")
    spacing = [min(s, finest_mm) if finest_mm else s for s in oriented.spacing_mm]
    target = volume.grid.straightened(spacing)
    to_source = np.linalg.inv(volume.grid.affine) @ target.affine
    outside = float(HU_MIN) if volume.quantity is Quantity.HU else float(volume.voxels.min())
    voxels = np.empty(target.shape, dtype=np.float32, order="F")
    matrix, offset = to_source[:3, :3], to_source[:3, 3]
    source = volume.voxels
    for k in range(target.shape[2]):
        # One slice at a time: scipy would otherwise hold coordinates for the whole grid.
        voxels[:, :, k] = ndimage.affine_transform(
            source,
            matrix,
            offset + matrix[:, 2] * k,
            output_shape=(*target.shape[:2], 1),
            output=np.float32,
            order=1,
            cval=outside,
            prefilter=False,
        )[:, :, 0]
    return Volume(voxels, target, volume.quantity, volume.modality, volume.warnings)


def labels_on(grid: Grid, labels: NDArray[np.uint8], straight: Grid) -> NDArray[np.uint8]:
    """Labels of ``straight`` at the voxel centres of ``grid`` (nearest), uint8, Fortran order; 0 outside."""
    to_straight = np.linalg.inv(straight.affine) @ grid.affine
    out = np.zeros(grid.shape, dtype=np.uint8, order="F")
    matrix, offset = to_straight[:3, :3], to_straight[:3, 3]
    for k in range(grid.shape[2]):
        out[:, :, k] = ndimage.affine_transform(
            labels,
            matrix,
            offset + matrix[:, 2] * k,
            output_shape=(*grid.shape[:2], 1),
            output=np.uint8,
            order=0,
            cval=0,
            prefilter=False,
        )[:, :, 0]
    return out
