"""Organs as surfaces: one binary STL per organ, vertices in mm of DICOM's patient space (LPS: left, posterior, superior).

The surface is that of marching cubes through the voxel centres at half height, neither smoothed nor thinned out: it encloses
what the mask holds, but for the corners that it cuts off the staircase of voxels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agseg.grid import Grid
from agseg.io.atomic import write_bytes
from agseg.volume import LabelMask

_HEADER_BYTES = 80
_TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
_TO_LPS = np.array([-1.0, -1.0, 1.0])


def write_meshes(folder: Path, mask: LabelMask) -> tuple[str, ...]:
    """A file per organ that is present; returns their names."""
    names = []
    for label in mask.label_set:
        inside = mask.labels == label.index
        if inside.any():
            names.append(f"{label.name}.stl")
            write_bytes(folder / names[-1], _stl(surface(inside, mask.grid), label.name))
    return tuple(names)


def surface(inside: NDArray[np.bool_], grid: Grid) -> NDArray[np.float64]:
    """Triangles around an organ, float64 (n, corner, axis) in LPS mm; corners run anticlockwise seen from outside.

    Parameters
    ----------
    inside
        Boolean mask (i, j, k) with at least one voxel.
    grid
        Where its voxels are.
    """
    from skimage import measure

    occupied = [np.flatnonzero(inside.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    start = np.array([found[0] for found in occupied])
    box = tuple(slice(int(found[0]), int(found[-1]) + 1) for found in occupied)
    # A rim of background closes the surface where the organ touches the edge of the field of view.
    padded = np.pad(inside[box].astype(np.float32), 1)
    marching_cubes: Any = measure.marching_cubes
    vertices, faces, _, _ = marching_cubes(padded, 0.5, allow_degenerate=False)
    corners: NDArray[np.float64] = grid.to_world(vertices + start - 1)[faces] * _TO_LPS
    return corners if _signed_volume(corners) > 0 else corners[:, ::-1]


def _signed_volume(corners: NDArray[np.float64]) -> float:
    """Volume inside a closed surface, negative if its corners run clockwise seen from outside."""
    return float(np.einsum("ni,ni->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6)


def _stl(corners: NDArray[np.float64], name: str) -> bytes:
    triangles = np.zeros(len(corners), dtype=_TRIANGLE)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    triangles["normal"] = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    triangles["corners"] = corners
    # 3D Slicer and others look for the coordinate system here.
    header = f"agseg SPACE=LPS mm {name}".encode("ascii", "replace")[:_HEADER_BYTES].ljust(_HEADER_BYTES)
    return header + len(corners).to_bytes(4, "little") + triangles.tobytes()
