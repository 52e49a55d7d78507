"""Where voxels are.

Conventions, used everywhere in agseg:

* A voxel index is (i, j, k), zero-based; index (0, 0, 0) means the *centre* of the first voxel.
* World coordinates are millimetres in RAS+: +x is the patient's Right,
  +y is Anterior, +z is Superior (the NIfTI convention). DICOM's LPS is turned into RAS in one place, ``io.dicom``.
* ``affine`` maps an index to world: ``world = affine @ [i, j, k, 1]``. It is float64, always.
* Two grids are compared in millimetres, at the corners, never by comparing matrices entry by entry.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from agseg.errors import Code, InputError

__all__ = ["GRID_TOLERANCE_MM", "LPS_TO_RAS", "OBLIQUE_LIMIT_DEG", "SHEAR_TOLERANCE", "Grid"]

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""DICOM, MetaImage and NRRD's LPS count x to the Left and y to Posterior; agseg (and NIfTI) to the Right and Anterior."""

GRID_TOLERANCE_MM = 1e-2
"""Two grids are the same if no corner voxel lies further apart than this (mm)."""

SHEAR_TOLERANCE = 1e-3
"""Largest |cosine| between two voxel axes of a grid that still counts as rectangular."""

OBLIQUE_LIMIT_DEG = 3.0
"""A grid whose axes deviate from the patient's by more than this (degrees) is straightened before a network sees it."""

MINIMAL_DETERMINANT_MM3 = 1e-9
"""A voxel smaller than this (mm³) means a singular affine."""


@dataclass(frozen=True)
class Grid:
    """A regular lattice of voxel centres in the patient's space.

    Parameters
    ----------
    shape
        Number of voxels along (i, j, k), each at least 1.
    affine
        4x4, float64: index (i, j, k, 1) to RAS+ mm.

    Raises
    ------
    InputError
        ``E_SINGULAR_AFFINE`` if the affine cannot be inverted, ``E_HEADER_INVALID`` if it is not a finite 4x4 matrix with
        last row (0, 0, 0, 1), ``E_DIMENSIONS`` if the shape is not three positive numbers.
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.shape)
        if len(shape) != 3 or min(shape) < 1:
            raise InputError("a grid needs three positive sizes", code=Code.DIMENSIONS, value=list(self.shape))
        affine = np.array(self.affine, dtype=np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all() or not np.array_equal(affine[3], (0, 0, 0, 1)):
            raise InputError("the affine is not a finite 4x4 matrix ending in 0 0 0 1", code=Code.HEADER_INVALID)
        if abs(np.linalg.det(affine[:3, :3])) < MINIMAL_DETERMINANT_MM3:
            raise InputError("the affine is singular: voxels have no volume", code=Code.SINGULAR_AFFINE)
        affine.setflags(write=False)
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "affine", affine)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Grid):
            return NotImplemented
        return self.shape == other.shape and np.array_equal(self.affine, other.affine)

    def __hash__(self) -> int:
        return hash((self.shape, self.affine.tobytes()))

    # -- what it is -------------------------------------------------------------------------------------------------

    @cached_property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxel centres along i, j, k (mm)."""
        i, j, k = (float(n) for n in np.linalg.norm(self.affine[:3, :3], axis=0))
        return i, j, k

    @cached_property
    def voxel_volume_mm3(self) -> float:
        """|det| of the affine: right for sheared grids too (mm³)."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    @property
    def voxel_volume_ml(self) -> float:
        """Volume of one voxel (ml)."""
        return self.voxel_volume_mm3 / 1000.0

    @cached_property
    def directions(self) -> NDArray[np.float64]:
        """Unit vectors of the voxel axes as columns, shape (3, 3)."""
        return np.asarray(self.affine[:3, :3] / np.asarray(self.spacing_mm))

    @cached_property
    def axis_codes(self) -> str:
        """Where i, j, k grow towards, e.g. ``"RAS"`` or ``"LPS"``: the closest patient axis of each, all different."""
        permutation, flips = self._closest_axes()
        letters = ("LR", "PA", "IS")
        return "".join(letters[axis][0 if flip else 1] for axis, flip in zip(permutation, flips, strict=True))

    @cached_property
    def shear(self) -> float:
        """Largest |cosine| between two voxel axes; 0 for a rectangular grid."""
        cosines = self.directions.T @ self.directions - np.eye(3)
        return float(np.abs(cosines).max())

    @cached_property
    def obliquity_deg(self) -> float:
        """Largest angle between a voxel axis and the patient axis it is closest to (degrees)."""
        permutation, _ = self._closest_axes()
        cosines = [abs(self.directions[axis, column]) for column, axis in enumerate(permutation)]
        return float(np.degrees(np.arccos(min(1.0, *cosines))))

    @property
    def is_rectangular(self) -> bool:
        """True if the voxel axes are perpendicular within :data:`SHEAR_TOLERANCE`."""
        return self.shear <= SHEAR_TOLERANCE

    def _closest_axes(self) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
        """For each of i, j, k the patient axis (0 x, 1 y, 2 z) it runs along, and whether against it."""
        cosines = self.directions
        best = max(
            itertools.permutations(range(3)),
            key=lambda axes: sum(abs(cosines[axis, column]) for column, axis in enumerate(axes)),
        )
        flips = tuple(bool(cosines[axis, column] < 0) for column, axis in enumerate(best))
        return (best[0], best[1], best[2]), (flips[0], flips[1], flips[2])

    # -- between index and world ------------------------------------------------------------------------------------

    def to_world(self, index: NDArray[np.floating] | Sequence[Sequence[float]]) -> NDArray[np.float64]:
        """World points (..., 3) in RAS+ mm of the voxel indices (..., 3)."""
        index = np.asarray(index, dtype=np.float64)
        return np.asarray(index @ self.affine[:3, :3].T + self.affine[:3, 3])

    def to_index(self, world_mm: NDArray[np.floating] | Sequence[Sequence[float]]) -> NDArray[np.float64]:
        """Fractional voxel indices (..., 3) of the world points (..., 3) in RAS+ mm."""
        inverse = np.linalg.inv(self.affine)
        return np.asarray(np.asarray(world_mm, dtype=np.float64) @ inverse[:3, :3].T + inverse[:3, 3])

    def corners_mm(self) -> NDArray[np.float64]:
        """World points of the eight corner voxel centres, shape (8, 3)."""
        ends = [(0, n - 1) for n in self.shape]
        return self.to_world(list(itertools.product(*ends)))

    def matches(self, other: Grid, tolerance_mm: float = GRID_TOLERANCE_MM) -> bool:
        """True if both have the same shape and all corner voxels coincide within the tolerance (mm)."""
        return self.shape == other.shape and bool(
            np.linalg.norm(self.corners_mm() - other.corners_mm(), axis=1).max() <= tolerance_mm
        )

    # -- new grids from this one ------------------------------------------------------------------------------------

    def reoriented(self, codes: str = "RAS") -> tuple[Grid, tuple[int, int, int], tuple[bool, bool, bool]]:
        """The same voxels with axes permuted and flipped so that they grow towards ``codes``.

        Returns
        -------
        grid
            The reoriented grid.
        permutation
            Axis ``a`` of the new grid is axis ``permutation[a]`` of this one.
        flips
            Whether new axis ``a`` runs backwards over that axis.
        """
        patient_axis = {"L": 0, "R": 0, "P": 1, "A": 1, "I": 2, "S": 2}
        wanted = [patient_axis.get(code, -1) for code in codes]
        if sorted(wanted) != [0, 1, 2]:
            raise ValueError(f"axis codes must name each patient axis once, e.g. RAS, not {codes!r}")
        axes, against = self._closest_axes()
        permutation = tuple(axes.index(axis) for axis in wanted)
        flips = tuple((c in "LPI") != against[p] for c, p in zip(codes, permutation, strict=True))
        transform = np.zeros((4, 4))
        transform[3, 3] = 1
        for new, (old, flip) in enumerate(zip(permutation, flips, strict=True)):
            transform[old, new] = -1 if flip else 1
            transform[old, 3] = self.shape[old] - 1 if flip else 0
        shape = tuple(self.shape[p] for p in permutation)
        grid = Grid((shape[0], shape[1], shape[2]), self.affine @ transform)
        return grid, (permutation[0], permutation[1], permutation[2]), (flips[0], flips[1], flips[2])

    def cropped(self, start: Sequence[int], stop: Sequence[int]) -> Grid:
        """The part from index ``start`` up to but without ``stop``; negative starts and long stops extend the grid."""
        affine = self.affine.copy()
        affine[:3, 3] = self.to_world([list(start)])[0]
        size = [int(b) - int(a) for a, b in zip(start, stop, strict=True)]
        return Grid((size[0], size[1], size[2]), affine)

    def resampled(self, spacing_mm: Sequence[float]) -> Grid:
        """The same axes and first voxel centre at another spacing (mm).

        The number of voxels is ``round((n - 1) * old / new) + 1``: first and last voxel *centres* are kept as nearly as
        the spacing allows. This is MONAI's rule (``Spacing``, ``scale_extent=False``), so labels can be compared with it.
        """
        new = np.asarray(spacing_mm, dtype=np.float64)
        old = np.asarray(self.spacing_mm)
        size = np.rint((np.asarray(self.shape) - 1) * old / new).astype(int) + 1
        affine = self.affine.copy()
        affine[:3, :3] = self.directions * new
        return Grid((int(size[0]), int(size[1]), int(size[2])), affine)

    def straightened(self, spacing_mm: Sequence[float]) -> Grid:
        """A grid along the patient's axes (RAS) that covers this one, at the given spacing (mm)."""
        corners = self.corners_mm()
        low, high = corners.min(axis=0), corners.max(axis=0)
        new = np.asarray(spacing_mm, dtype=np.float64)
        size = np.ceil((high - low) / new - 1e-6).astype(int) + 1
        affine = np.diag([*new, 1.0])
        affine[:3, 3] = low
        return Grid((int(size[0]), int(size[1]), int(size[2])), affine)
