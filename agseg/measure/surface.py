"""Surface distances between two masks, in mm.

The surface of a mask is the set of *centres* of its boundary voxels: voxels of the mask with at least one of their six
neighbours (four in a slice) outside it; beyond the array is outside. Distances are Euclidean, with the spacing of each axis,
and where the axes are not perpendicular (a tilted gantry) between the places of the voxels in the patient.
If either mask is empty there is no distance, and every value is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import KDTree

ROBUST_PERCENTILE = 95.0
"""Percentile of the robust Hausdorff distance."""


@dataclass(frozen=True)
class SurfaceDistance:
    """Distances between two surfaces (mm).

    Parameters
    ----------
    s2s_mm
        ½ (mean d(A→B) + mean d(B→A)): the symmetric mean surface distance.
    hausdorff_mm
        The largest of all distances, both ways.
    hausdorff95_mm
        The larger of the two directions' 95th percentiles.
    surface_dice
        Part of both surfaces within the tolerance of the other one, 0 to 1 (:func:`surface_dice`); 0 where one mask is empty.
    """

    s2s_mm: float
    hausdorff_mm: float
    hausdorff95_mm: float
    surface_dice: float = math.nan


TOLERANCE_MM = 2.0
"""Tolerance of the surface Dice where nobody names another (mm)."""


def boundary(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Voxels of the mask with a face neighbour outside it; same shape, any number of axes."""
    inner = ndimage.binary_erosion(mask, structure=ndimage.generate_binary_structure(mask.ndim, 1), border_value=0)
    return np.asarray(mask & ~inner)


def surface_distance(
    prediction: NDArray[np.bool_],
    *,
    truth: NDArray[np.bool_],
    spacing_mm: Sequence[float],
    axes_mm: NDArray[np.float64] | None = None,
    tolerance_mm: float = TOLERANCE_MM,
) -> SurfaceDistance:
    """Compare two masks of one shape (i, j, k) by their surfaces.

    Divergence from the public AGN code, which averages in-plane contour distances over slices: the papers' text says mesh
    surface distance, which this approximates in 3D; :func:`s2s_slice_mm` gives the slice-wise value beside it.

    Parameters
    ----------
    axes_mm
        One step along each voxel axis as a column (mm, the affine's 3x3), for axes that are not perpendicular.
    tolerance_mm
        Of the surface Dice.

    Raises
    ------
    ValueError
        If the shapes differ or the spacing does not fit.
    """
    first, second = checked(prediction, truth, spacing_mm)
    box = common_box(first, second)
    if box is None or not first.any() or not second.any():
        return SurfaceDistance(math.nan, math.nan, math.nan, math.nan if box is None else 0.0)
    there, back = _distances_mm(first[box], second[box], spacing_mm, axes_mm)
    return SurfaceDistance(
        s2s_mm=float((there.mean() + back.mean()) / 2),
        hausdorff_mm=float(max(there.max(), back.max())),
        hausdorff95_mm=float(max(np.percentile(there, ROBUST_PERCENTILE), np.percentile(back, ROBUST_PERCENTILE))),
        surface_dice=_within(there, back, tolerance_mm),
    )


def s2s_slice_mm(
    prediction: NDArray[np.bool_],
    *,
    truth: NDArray[np.bool_],
    spacing_mm: Sequence[float],
    slice_axis: int = 2,
    axes_mm: NDArray[np.float64] | None = None,
) -> float:
    """Symmetric mean contour distance in each slice (mm), averaged over the slices where both masks have a contour.

    This is what the public AGN code calls S2S. It ignores slices that only one of the two reaches, so it flatters a mask
    that ends too early; NaN if no slice has both.

    Parameters
    ----------
    slice_axis
        Which axis counts the slices. The papers' are axial: the axis closest to Superior, which is not the third of every
        array.
    axes_mm
        As in :func:`surface_distance`.
    """
    first, second = checked(prediction, truth, spacing_mm)
    in_plane = [spacing for axis, spacing in enumerate(spacing_mm) if axis != slice_axis]
    steps = None if axes_mm is None else np.delete(axes_mm, slice_axis, axis=1)
    values = []
    for index in range(first.shape[slice_axis]):
        one, other = np.asarray(first.take(index, slice_axis)), np.asarray(second.take(index, slice_axis))
        if one.any() and other.any():
            there, back = _distances_mm(one, other, in_plane, steps)
            values.append((there.mean() + back.mean()) / 2)
    return float(np.mean(values)) if values else math.nan


def surface_dice(
    prediction: NDArray[np.bool_],
    *,
    truth: NDArray[np.bool_],
    spacing_mm: Sequence[float],
    tolerance_mm: float,
    axes_mm: NDArray[np.float64] | None = None,
) -> float:
    """Part of both surfaces that lies within a tolerance of the other one, 0 to 1; NaN if both are empty.

    The normalised surface Dice of Nikolov et al. (2021), counted over boundary voxels instead of surface area.
    """
    first, second = checked(prediction, truth, spacing_mm)
    box = common_box(first, second)
    if box is None:
        return math.nan
    if not first.any() or not second.any():
        return 0.0
    there, back = _distances_mm(first[box], second[box], spacing_mm, axes_mm)
    return _within(there, back, tolerance_mm)


def _within(there: NDArray[np.float64], back: NDArray[np.float64], tolerance_mm: float) -> float:
    return float(((there <= tolerance_mm).sum() + (back <= tolerance_mm).sum()) / (len(there) + len(back)))


def _distances_mm(
    first: NDArray[np.bool_], second: NDArray[np.bool_], spacing_mm: Sequence[float], axes_mm: NDArray[np.float64] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distance of every boundary voxel of each mask to the other's nearest boundary voxel (mm)."""
    edge_first, edge_second = boundary(first), boundary(second)
    if axes_mm is not None:
        points_first, points_second = np.argwhere(edge_first) @ axes_mm.T, np.argwhere(edge_second) @ axes_mm.T
        return KDTree(points_second).query(points_first)[0], KDTree(points_first).query(points_second)[0]
    to_first = ndimage.distance_transform_edt(~edge_first, sampling=list(spacing_mm))
    to_second = ndimage.distance_transform_edt(~edge_second, sampling=list(spacing_mm))
    return np.asarray(to_second[edge_first]), np.asarray(to_first[edge_second])


def common_box(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> tuple[slice, ...] | None:
    """The smallest box that holds both masks, or None if both are empty; makes the distance transforms small."""
    found = ndimage.find_objects((first | second).astype(np.uint8))
    return found[0] if found else None


def checked(
    prediction: NDArray[np.bool_], truth: NDArray[np.bool_], spacing_mm: Sequence[float]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Both as bool; ValueError if their shapes differ or the spacing does not fit them."""
    prediction, truth = np.asarray(prediction, dtype=bool), np.asarray(truth, dtype=bool)
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction {prediction.shape} and truth {truth.shape} differ in shape")
    if len(spacing_mm) != truth.ndim or min(spacing_mm) <= 0:
        raise ValueError(f"the spacing {tuple(spacing_mm)} needs {truth.ndim} positive values (mm)")
    return prediction, truth
