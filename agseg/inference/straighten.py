"""Resample oblique or gantry-tilted volumes to the patient's axes, and map the labels back to the source slices.

A network has seen upright patients. Where the source's axes deviate from the patient's by more than
``OBLIQUE_LIMIT_DEG``, or are not perpendicular (gantry tilt), the volume is resampled to a grid along the patient's axes;
everything then works there, and each source voxel takes the label of the straight voxel its centre falls into.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from agseg.grid import OBLIQUE_LIMIT_DEG, Grid
from agseg.volume import HU_MIN, Quantity, Volume

_ROUNDING = 1e-6
"""How far beyond a face (voxels) still counts as on it: affine maps are rounded."""


def needs_straightening(grid: Grid, *, as_stored: bool = False) -> bool:
    """Whether the axes of this grid are not perpendicular, or too far from the patient's.

    Networks that take scans ``as_stored`` were trained on oblique ones too, voxel by voxel.
    """
    return not grid.is_rectangular or (not as_stored and grid.obliquity_deg > OBLIQUE_LIMIT_DEG)


def straighten(volume: Volume, *, finest_mm: float | None = None) -> Volume:
    """The volume on a grid along the patient's axes (RAS), trilinear; outside the scan is air (or the smallest signal).

    A scan ends where its outer voxels end, half a voxel beyond their centres; up to there the outermost voxel counts. Air from
    the centres on would hide an organ that the field of view cuts.

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
    voxels = _resampled(volume.voxels, to_source, target, outside)
    more = tuple(_resampled(channel, to_source, target, float(channel.min())) for channel in volume.more)
    return Volume(voxels, target, volume.quantity, volume.modality, volume.warnings, more)


def _resampled(source: NDArray[Any], to_source: NDArray[np.float64], target: Grid, outside: float) -> NDArray[np.float32]:
    """A channel's values (float32, Fortran order) at the voxels of ``target``."""
    from scipy import ndimage

    voxels: NDArray[np.float32] = np.empty(target.shape, dtype=np.float32, order="F")
    matrix, offset = to_source[:3, :3], to_source[:3, 3]
    for k in range(target.shape[2]):
        # One slice at a time: scipy would otherwise hold coordinates for the whole grid.
        corner = offset + matrix[:, 2] * k
        sampled = ndimage.affine_transform(
            source,
            matrix,
            corner,
            output_shape=(*target.shape[:2], 1),
            output=np.float32,
            order=1,
            mode="nearest",
            prefilter=False,
        )[:, :, 0]
        voxels[:, :, k] = np.where(_inside(source.shape, matrix[:, :2], corner, target.shape[:2]), sampled, outside)
    return voxels


def labels_on(grid: Grid, labels: NDArray[np.uint8], straight: Grid) -> NDArray[np.uint8]:
    """Labels of ``straight`` at the voxel centres of ``grid`` (nearest), uint8, Fortran order."""
    from scipy import ndimage

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
            # The straight grid covers the source; a coordinate beyond its edge is rounding.
            mode="nearest",
            prefilter=False,
        )[:, :, 0]
    return out


def _inside(
    shape: tuple[int, ...], matrix: NDArray[np.float64], offset: NDArray[np.float64], size: tuple[int, ...]
) -> NDArray[np.bool_]:
    """Which points ``matrix @ (i, j) + offset`` (voxels, i < size[0], j < size[1]) lie in a scan of this shape, (i, j)."""
    inside = np.ones(size, dtype=bool)
    i, j = np.arange(size[0])[:, None], np.arange(size[1])[None, :]
    for axis, count in enumerate(shape):
        at = matrix[axis, 0] * i + matrix[axis, 1] * j + offset[axis]
        inside &= (at >= -0.5 - _ROUNDING) & (at <= count - 0.5 + _ROUNDING)
    return inside
