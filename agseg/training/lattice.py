"""Reading an image and its labels at a lattice of points.

Points are one coordinate per axis (float32, voxels of the source), each of a shape that broadcasts to the tile's: an axis that
nothing turns stays as short as it is, and costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def turned(offsets: Sequence[Tensor], column: Tensor) -> Tensor:
    """One coordinate of the offsets times a matrix, of which this is the column; as large as what it depends on."""
    terms = [offset * factor for offset, factor in zip(offsets, column, strict=True) if factor != 0]
    whole = terms[0] if terms else offsets[0] * 0.0
    for term in terms[1:]:
        whole = whole + term
    return whole


def sampled(source: Tensor, points: Sequence[Tensor], *, edge: bool = False) -> Tensor:
    """``source`` [C, *grid] at ``points`` (a coordinate per axis, voxels), linear; 0 beyond it, or its edge's value."""
    there = [at * _reach(n) - 1.0 for at, n in zip(points, source.shape[1:], strict=True)]
    if source.ndim == 4 and source.shape[3] == 1:
        there[2] = torch.zeros_like(there[2])  # a single slice has no extent to be outside of
    shape = [max(sides) for sides in zip(*(at.shape for at in there), strict=True)]
    grid = torch.stack([at.expand(shape) for at in there[::-1]], dim=-1)
    padding = "border" if edge else "zeros"
    return F.grid_sample(source[None], grid[None], mode="bilinear", padding_mode=padding, align_corners=True)[0]


def nearest(labels: Tensor, points: Sequence[Tensor]) -> Tensor:
    """``labels`` [*grid] at the voxels nearest to ``points``; 0 beyond. Reads nothing else of a mapped file.

    Coordinates go to -1..1 and back as in ``grid_sample``, so that what lies halfway between two voxels is rounded alike.
    """
    flat, inside = torch.zeros((), dtype=torch.int64), torch.ones((), dtype=torch.bool)
    for at, n in zip(points, labels.shape, strict=True):
        index = ((at * _reach(n) - 1.0 + 1.0) / 2.0 * (n - 1)).round_()
        inside = inside & (index >= 0) & (index <= n - 1)
        flat = flat * n + index.clamp_(0, n - 1).to(torch.int64)
    return torch.where(inside, labels.flatten()[flat.flatten()].reshape(flat.shape), 0)


def _reach(n: int) -> float:
    """Voxels to the coordinates of ``grid_sample``, in which an axis of ``n`` voxels is 2 long."""
    return float(torch.tensor(2.0) / torch.tensor(float(n - 1)).clamp_min(1.0))
