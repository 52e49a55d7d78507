"""Where the frames of a DICOM object lie, and which voxels of a grid they are.

Works from positions and directions alone, for axial, coronal, sagittal, oblique and tilted series, single-frame or
multi-frame: no plane is called by its name and no label decides about a flip.
Source: DICOM PS3.3 C.7.6.2.1.1 (Image Plane) and C.7.6.16 (Multi-frame Functional Groups).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agseg.errors import Code, OutputError
from agseg.grid import LPS_TO_RAS, Grid
from agseg.io.dicom.stack import Plane

SLICE_TOLERANCE_STEPS = 0.25
"""A frame lies in a slice of the grid if it is nearer to it than this, in steps between slices."""

IN_PLANE_TOLERANCE_VOXELS = 1.0
"""A frame may lie beside its slice by this: readers accept slices a tenth of a step off the line through the stack."""

DIRECTION_TOLERANCE = 0.01
"""Frame axes and grid axes are the same direction if their cosine differs from 1 by no more than this."""


@dataclass(frozen=True, eq=False)
class FrameMap:
    """How frames [row, column] and voxels (i, j, k) correspond.

    Parameters
    ----------
    slices
        Grid index along the slice axis of each frame; -1 for a frame outside the grid.
    axes
        Grid axis of (frame number, row number, column number).
    flips
        Whether (rows, columns) run against their grid axis.
    """

    slices: NDArray[np.intp]
    axes: tuple[int, int, int]
    flips: tuple[bool, bool]

    def to_frames(self, labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """uint8 (i, j, k) as uint8 [frame, row, column]; frames outside the grid are empty."""
        stack = self._as_stack(labels)
        frames = np.ascontiguousarray(stack[np.maximum(self.slices, 0)])
        frames[self.slices < 0] = 0
        return frames

    def place(self, frame: NDArray[np.bool_], number: int, target: NDArray[np.uint8], value: int) -> None:
        """Set ``value`` in ``target`` (uint8 (i, j, k), changed in place) where frame ``number`` [row, column] is true."""
        if self.slices[number] < 0:
            raise OutputError("a frame lies outside the grid")
        self._as_stack(target)[self.slices[number]][frame] = value

    def _as_stack(self, labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        stack = labels.transpose(self.axes)
        steps = tuple(slice(None, None, -1 if flip else 1) for flip in self.flips)
        return stack[:, steps[0], steps[1]]


def planes_of(dataset: Any) -> list[Plane]:
    """The plane of each frame of a pydicom data set, in its own order; one for a single-frame image."""
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence")
    if not per_frame:
        return [_plane(dataset, dataset, dataset, dataset)]
    names = ("PlanePosition", "PlaneOrientation", "PixelMeasures")
    return [_plane(dataset, *(functional_group(dataset, own, name) for name in names)) for own in per_frame]


def functional_group(dataset: Any, own: Any, name: str) -> Any:
    """The item of a macro for one frame: its own (``own`` is the frame's item), or what all frames share.

    Raises
    ------
    OutputError
        If neither has it.
    """
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [None])[0]
    for group in (own, shared):
        items = None if group is None else group.get(f"{name}Sequence")
        if items:
            return items[0]
    raise OutputError(f"a frame has no {name}", code=Code.NO_GEOMETRY)


def _plane(dataset: Any, position: Any, orientation: Any, measures: Any) -> Plane:
    return Plane(
        int(dataset.Rows),
        int(dataset.Columns),
        tuple(float(x) for x in position.ImagePositionPatient),
        tuple(float(x) for x in orientation.ImageOrientationPatient),
        tuple(float(x) for x in measures.PixelSpacing),
    )


def map_frames(planes: Sequence[Plane], grid: Grid) -> FrameMap:
    """Find the slice of the grid each plane is, and how rows and columns run in it.

    Raises
    ------
    OutputError
        If the planes are not slices of the grid.
    """
    orientation = np.asarray(planes[0].orientation, dtype=np.float64)
    spacing = np.asarray(planes[0].pixel_spacing_mm, dtype=np.float64)
    to_ras = LPS_TO_RAS[:3, :3]
    # Along a row the column number grows; the distance between columns is PixelSpacing's second value.
    column_step = to_ras @ orientation[:3] * spacing[1]
    row_step = to_ras @ orientation[3:] * spacing[0]
    column_axis, column_flip = _grid_axis(column_step, grid)
    row_axis, row_flip = _grid_axis(row_step, grid)
    frame_axis = 3 - row_axis - column_axis
    rows, columns = int(planes[0].rows or 0), int(planes[0].columns or 0)
    if row_axis == column_axis or (rows, columns) != (grid.shape[row_axis], grid.shape[column_axis]):
        raise OutputError("the frames and the mask differ in matrix size", value=(rows, columns), expected=grid.shape)
    origins = np.array([plane.position_mm for plane in planes], dtype=np.float64) @ to_ras.T
    centres = grid.to_index(origins + row_step * (rows - 1) / 2 + column_step * (columns - 1) / 2)
    slices = np.rint(centres[:, frame_axis]).astype(np.intp)
    off_slice = np.abs(centres[:, frame_axis] - slices)
    middle = (np.asarray(grid.shape) - 1) / 2
    off_plane = np.abs(centres - middle)[:, [row_axis, column_axis]]
    inside = (slices >= 0) & (slices < grid.shape[frame_axis])
    if (off_slice[inside] > SLICE_TOLERANCE_STEPS).any() or (off_plane[inside] > IN_PLANE_TOLERANCE_VOXELS).any():
        raise OutputError("the frames are not slices of the mask's grid")
    slices[~inside] = -1
    return FrameMap(slices, (frame_axis, row_axis, column_axis), (row_flip, column_flip))


def _grid_axis(step_mm: NDArray[np.float64], grid: Grid) -> tuple[int, bool]:
    """The grid axis that runs along a step between pixels, and whether it runs against it."""
    direction = step_mm / np.linalg.norm(step_mm)
    cosines = grid.directions.T @ direction
    axis = int(np.abs(cosines).argmax())
    length = float(np.linalg.norm(step_mm))
    if 1 - abs(cosines[axis]) > DIRECTION_TOLERANCE or abs(length / grid.spacing_mm[axis] - 1) > DIRECTION_TOLERANCE:
        raise OutputError("the frames do not run along the mask's axes")
    return axis, bool(cosines[axis] < 0)
