"""Interpolation along one axis at a time.

A source grid and a model grid share their axes (up to order and direction), so every resampling in agseg is three
one-dimensional ones. One axis of one of them is an :class:`AxisMap`: output index ``o`` looks at input index
``offset + scale * o``. A negative scale flips.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agseg.inference.device import to_device

SPLINE_MARGIN = 12
"""Voxels by which a line is continued with its last value before the spline is fitted (SciPy's number): 0.27^12 is nothing."""


class Kernel(Enum):
    """What an output voxel takes from the input voxels around it."""

    LINEAR = auto()
    TRIANGLE = auto()
    """Linear, widened to the distance of two output voxels where that is more than one input voxel: noise is averaged, not
    picked (what Pillow and ``torch.nn.functional.interpolate(antialias=True)`` do)."""
    CUBIC = auto()
    """The cubic B-spline through the input voxels, which go on at both ends with the last value (SciPy's ``nearest``)."""
    NEAREST = auto()
    """One voxel; of two that are equally near the later one, in the order of the output."""


@dataclass(frozen=True)
class AxisMap:
    """Where each output index of an axis lies on the input axis.

    Parameters
    ----------
    n_in, n_out
        Number of voxels of both axes.
    scale, offset
        Input index = offset + scale * output index; beyond the ends the outermost voxel counts.
    """

    n_in: int
    n_out: int
    scale: float
    offset: float

    @property
    def coordinates(self) -> NDArray[np.float64]:
        """Input coordinate of every output index, clamped to the input, shape (n_out,)."""
        return np.clip(self.offset + self.scale * np.arange(self.n_out), 0.0, self.n_in - 1.0)

    @property
    def nearest(self) -> NDArray[np.int64]:
        """Index of the nearest input voxel of every output voxel, shape (n_out,); see :attr:`Kernel.NEAREST`."""
        at = self.offset + self.scale * np.arange(self.n_out)
        if _covers(self):
            # In nnU-Net's own arithmetic, so that a voxel half way between two goes to the same one.
            ratio = self.n_in / self.n_out
            at = ratio * (np.arange(self.n_out) + 0.5) - 0.5
            at = at if self.scale > 0 else self.n_in - 1.0 - at
        picked = np.floor(at + 0.5) if self.scale > 0 else np.ceil(at - 0.5)
        return np.asarray(np.clip(picked, 0, self.n_in - 1), dtype=np.int64)

    def inverse(self) -> AxisMap:
        """The map of the way back."""
        return AxisMap(self.n_out, self.n_in, 1.0 / self.scale, -self.offset / self.scale)


def weight_matrix(axis: AxisMap, kernel: Kernel = Kernel.LINEAR) -> NDArray[np.float32]:
    """Weights (n_out, n_in) of an interpolation along one axis; every row sums to 1."""
    match kernel:
        case Kernel.NEAREST:
            return np.asarray(np.arange(axis.n_in)[None, :] == axis.nearest[:, None], dtype=np.float32)
        case Kernel.CUBIC:
            return _spline_matrix(axis)
        case Kernel.LINEAR | Kernel.TRIANGLE:
            width = max(1.0, abs(axis.scale)) if kernel is Kernel.TRIANGLE else 1.0
            distance = np.abs(np.arange(axis.n_in)[None, :] - axis.coordinates[:, None])
            weights = np.maximum(0.0, 1.0 - distance / width)
            return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32)


def resample(
    array: NDArray[Any],
    axes: tuple[AxisMap, AxisMap, AxisMap],
    kernels: tuple[Kernel, Kernel, Kernel] = (Kernel.LINEAR,) * 3,
    *,
    slab: int = 32,
    device: torch.device | str = "cpu",
    prepared: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Resample a volume (any dtype, three axes, C-contiguous) to float32 along all three axes, on a device.

    The two fast axes are done slab by slab, so that never more than one slab of the input is held as float32, and a GPU works
    on one slab while the next is on its way. Everything is a matrix product: the same code is fast on CPU and GPU.

    Parameters
    ----------
    array, axes, kernels
        The volume, and what is done along each of its axes.
    slab
        Planes per slab.
    device
        Where it is done.
    prepared
        What is done to each slab (float32) first.
    """
    slow, middle, fast = axes
    device = torch.device(device)
    matrices = (weight_matrix(axis, kernel) for axis, kernel in zip(axes, kernels, strict=True))
    to_slow, to_middle, to_fast = (to_device(matrix, device) for matrix in matrices)
    planes = torch.empty((slow.n_in, middle.n_out, fast.n_out), dtype=torch.float32, device=device)
    for first in range(0, slow.n_in, slab):
        piece = to_device(array[first : first + slab], device).to(torch.float32)
        if prepared is not None:
            piece = prepared(piece)
        piece = piece @ to_fast.T
        planes[first : first + slab] = torch.matmul(to_middle, piece)
    return (to_slow @ planes.reshape(slow.n_in, -1)).reshape(slow.n_out, middle.n_out, fast.n_out)


class Interpolation:
    """Linear interpolation of score maps of one shape at the product of three coordinate lists.

    Its weights are made once, however many classes are interpolated with them. Rows and planes are blended by copying whole
    lines (cheap); the contiguous axis is a small matrix product, which is faster than gathering single values.

    Parameters
    ----------
    coordinates
        Where to interpolate along each of the three axes, in voxels of the map.
    like
        A map, or a stack of maps, of the shape (last three axes), dtype and device that will come.
    """

    def __init__(self, coordinates: tuple[NDArray[np.float64], ...], *, like: Tensor) -> None:
        slow, middle, fast = coordinates
        self.shape = (len(slow), len(middle), len(fast))
        self._slow = _Lines(slow, like.shape[-3], like.device)
        self._middle = _Lines(middle, like.shape[-2], like.device)
        distance = np.abs(np.arange(like.shape[-1])[:, None] - fast[None, :])
        weights = np.maximum(0.0, 1.0 - distance).astype(np.float32)
        self._fast = to_device(weights, like.device).to(like.dtype)

    def __call__(self, scores: Tensor) -> Tensor:
        """The map's values, (slow, middle, fast) as the coordinates."""
        return self._middle.blend(self._slow.blend(scores, dim=0) @ self._fast, dim=1)


class _Lines:
    """Pairs of neighbouring lines along one axis, and how much of the second counts."""

    def __init__(self, coordinates: NDArray[np.float64], size: int, device: torch.device) -> None:
        below = np.clip(np.floor(coordinates).astype(np.int64), 0, max(size - 2, 0))
        self._below = to_device(below, device)
        self._above = to_device(np.minimum(below + 1, size - 1), device)
        self._weight = to_device((coordinates - below).astype(np.float32), device)

    def blend(self, values: Tensor, *, dim: int) -> Tensor:
        shape = [1, 1, 1]
        shape[dim] = -1
        upper = values.index_select(dim, self._above)
        return values.index_select(dim, self._below).lerp_(upper, self._weight.reshape(shape))


def _covers(axis: AxisMap) -> bool:
    """Whether the output axis runs from edge to edge of the input axis."""
    ratio = axis.n_in / axis.n_out
    start = 0.5 * ratio - 0.5
    begins = start if axis.scale > 0 else axis.n_in - 1.0 - start
    return bool(np.isclose(abs(axis.scale), ratio, rtol=1e-9) and np.isclose(axis.offset, begins, atol=1e-6))


def _spline_matrix(axis: AxisMap) -> NDArray[np.float32]:
    """The cubic B-spline as a matrix: fitted to the input voxels, then read off at the output voxels.

    Source: Unser, "Splines: a perfect fit for signal and image processing" (1999); edges as ``scipy.ndimage.zoom`` with mode
    ``nearest`` has them. Coordinates are not clamped: up to half a voxel beyond the last centre the spline still bends.
    """
    from scipy.ndimage import spline_filter1d

    continued = np.pad(np.eye(axis.n_in), ((SPLINE_MARGIN, SPLINE_MARGIN), (0, 0)), mode="edge")
    coefficients = spline_filter1d(continued, order=3, axis=0, mode="mirror")
    at = np.clip(axis.offset + axis.scale * np.arange(axis.n_out), -1.0, float(axis.n_in)) + SPLINE_MARGIN
    first = np.floor(at).astype(np.int64) - 1
    weights = np.zeros((axis.n_out, axis.n_in))
    for tap in range(4):
        distance = np.abs(at - (first + tap))[:, None]
        inner = 2 / 3 - distance**2 * (1 - distance / 2)
        outer = np.maximum(2 - distance, 0.0) ** 3 / 6
        weights += np.where(distance < 1, inner, outer) * coefficients[first + tap]
    return weights.astype(np.float32)
