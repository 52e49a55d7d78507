"""Interpolation along one axis at a time.

A source grid and a model grid share their axes (up to order and direction), so every resampling in agseg is three
one-dimensional ones. One axis of one of them is an :class:`AxisMap`: output index ``o`` looks at input index
``offset + scale * o``. A negative scale flips.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["AxisMap", "interpolate", "resample", "weight_matrix"]


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

    def inverse(self) -> AxisMap:
        """The map of the way back."""
        return AxisMap(self.n_out, self.n_in, 1.0 / self.scale, -self.offset / self.scale)


def weight_matrix(axis: AxisMap, *, antialias: bool) -> NDArray[np.float32]:
    """Weights (n_out, n_in) of linear interpolation; every row sums to 1.

    With ``antialias`` the triangle widens to the distance of two output voxels where that is more than one input voxel
    (what Pillow and ``torch.nn.functional.interpolate(antialias=True)`` do), so that fine noise is averaged, not picked.
    """
    width = max(1.0, abs(axis.scale)) if antialias else 1.0
    distance = np.abs(np.arange(axis.n_in)[None, :] - axis.coordinates[:, None])
    weights = np.maximum(0.0, 1.0 - distance / width)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32)


def resample(array: Tensor, axes: tuple[AxisMap, AxisMap, AxisMap], *, antialias: bool, slab: int = 32) -> Tensor:
    """Resample a volume (any dtype, three axes, C-contiguous) to float32 along all three axes.

    The two fast axes are done slab by slab, so that never more than one slab of the input is held as float32. Everything is
    a matrix product: the same code is fast on CPU and GPU.
    """
    slow, middle, fast = axes
    device = array.device
    to_slow, to_middle, to_fast = (torch.from_numpy(weight_matrix(axis, antialias=antialias)).to(device) for axis in axes)
    planes = torch.empty((slow.n_in, middle.n_out, fast.n_out), dtype=torch.float32, device=device)
    for first in range(0, slow.n_in, slab):
        piece = array[first : first + slab].to(torch.float32)
        piece = piece @ to_fast.T
        planes[first : first + slab] = torch.matmul(to_middle, piece)
    return (to_slow @ planes.reshape(slow.n_in, -1)).reshape(slow.n_out, middle.n_out, fast.n_out)


def interpolate(scores: Tensor, coordinates: tuple[NDArray[np.float64], ...]) -> Tensor:
    """Linear interpolation of one score map (three axes, float32) at the product of three coordinate lists.

    Rows and planes are blended by copying whole lines (cheap); the contiguous axis is a small matrix product, which is
    faster than gathering single values.
    """
    slow, middle, fast = coordinates
    out = _blend(scores, slow, dim=0)
    out = out @ _fast_weights(fast, scores.shape[2], scores.device, scores.dtype)
    return _blend(out, middle, dim=1)


def _blend(values: Tensor, coordinates: NDArray[np.float64], *, dim: int) -> Tensor:
    last = values.shape[dim] - 1
    below = np.clip(np.floor(coordinates).astype(np.int64), 0, max(last - 1, 0))
    weight = torch.from_numpy((coordinates - below).astype(np.float32)).to(values.device)
    shape = [1, 1, 1]
    shape[dim] = -1
    index = torch.from_numpy(below).to(values.device)
    upper = values.index_select(dim, torch.clamp(index + 1, max=last))
    return values.index_select(dim, index).lerp_(upper, weight.reshape(shape))


def _fast_weights(coordinates: NDArray[np.float64], n_in: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    weights = np.maximum(0.0, 1.0 - np.abs(np.arange(n_in)[:, None] - coordinates[None, :]))
    return torch.from_numpy(weights.astype(np.float32)).to(device=device, dtype=dtype)
