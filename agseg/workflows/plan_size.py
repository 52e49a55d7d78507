"""How large a patch, how deep and how wide a network: what a training step may take decides.

The rules are nnU-Net's in spirit: a patch of the median scan's shape, cut until it fits; pooling while sides are long enough.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agseg.errors import RecipeError
from agseg.training.recipe import NetworkChoice
from agseg.training.survey import Survey

LEAST_SIDE = 4
"""Voxels that are left of a patch's side at the coarsest level (nnU-Net's)."""

MOST_POOLINGS = 4

WIDTHS = {3: 16, 2: 32}
"""Channels of the first level, in 3D and in 2D."""

MOST_CHANNELS = 320
"""nnU-Net's limit in 3D."""

BATCHES = {3: 2, 2: 12}

BYTES_PER_ACTIVATION = 40
"""What a voxel and channel of one level costs in training: ten maps of float32 (a rule of thumb, see docs/own-data.md)."""


@dataclass(frozen=True)
class Sizing:
    """What is decided already: spacing (mm, first to third axis), architecture, slices or patches, scores, memory (GB)."""

    spacing_mm: tuple[float, float, float]
    architecture: str
    flat: bool
    classes: int
    memory_gb: float


def sized(found: Survey, given: Sizing, why: dict[str, str]) -> tuple[tuple[int, int, int], NetworkChoice, int]:
    """Tile, network and batch that fit the memory; ``why`` is told the reasons.

    Raises
    ------
    RecipeError
        If no patch fits.
    """
    spacing, dims = given.spacing_mm, 2 if given.flat else 3
    median = np.median(found.extents_mm / np.array(spacing), axis=0)
    sides = [max(LEAST_SIDE, round(float(side))) for side in median[:dims]]
    batch = BATCHES[dims]
    while True:
        strides = _strides(sides, spacing, dims, alike=given.architecture != "nnunet-plain")
        multiples = [math.prod(stride[axis] for stride in strides) for axis in range(dims)]
        tile = [_rounded(side, m) for side, m in zip(sides, multiples, strict=True)] + [1] * (3 - dims)
        widths = [min(WIDTHS[dims] * 2**level, MOST_CHANNELS) for level in range(len(strides))]
        bytes_ = _bytes(tile, strides, widths) * batch
        if bytes_ <= given.memory_gb * 1e9:
            break
        able = [axis for axis in range(dims) if tile[axis] > 2 * LEAST_SIDE]
        if not able:
            raise RecipeError("no patch fits this memory", value=f"{given.memory_gb} GB", expected="more, with --memory")
        # The side that is most of its scan gives way; a side that was cut to a few voxels does not.
        axis = max(able, key=lambda axis: (tile[axis] > LEAST_SIDE * multiples[axis], tile[axis] / median[axis], tile[axis]))
        sides[axis] = max(LEAST_SIDE, tile[axis] - max(multiples[axis], tile[axis] // 8))
    why["input.tile"] = (
        f"of a median scan of {' x '.join(str(round(float(s))) for s in median)} voxels, what a batch of {batch} may take of "
        f"{given.memory_gb:g} GB (about {bytes_ / 1e9:.1f})"
    )
    why["batch"] = "the smallest that is not one scan alone" if dims == 3 else "slices are small"
    config: dict[str, Any] = {"dims": dims, "in_channels": len(found.channels), "classes": given.classes}
    if given.architecture == "nnunet-plain":
        levels = len(strides)
        config |= {
            "features_per_stage": widths,
            "kernel_sizes": _kernels(strides, spacing, dims),
            "strides": [list(stride) for stride in strides],
            "n_conv_per_stage": [2] * levels,
            "n_conv_per_stage_decoder": [2] * (levels - 1),
        }
    else:
        config["widths"] = widths
    a, b, c = tile
    return (a, b, c), NetworkChoice(given.architecture, config), batch


def _strides(sides: Sequence[int], spacing: Sequence[float], dims: int, *, alike: bool) -> list[tuple[int, ...]]:
    """Pooling per level, the first being none: while a side is long enough; one by one, the finest axes first, or all alike."""
    size, mm = [float(side) for side in sides[:dims]], [float(side) for side in spacing[:dims]]
    strides: list[tuple[int, ...]] = [(1,) * dims]
    while len(strides) <= MOST_POOLINGS:
        able = [axis for axis in range(dims) if size[axis] >= 2 * LEAST_SIDE]
        if alike and len(able) < dims and len(strides) > 1:
            break
        if not able:
            break
        finest = min(mm[axis] for axis in able)
        halved = range(dims) if alike else [axis for axis in able if mm[axis] < 2 * finest]
        stride = tuple(2 if axis in halved else 1 for axis in range(dims))
        size, mm = [s / n for s, n in zip(size, stride, strict=True)], [m * n for m, n in zip(mm, stride, strict=True)]
        strides.append(stride)
    return strides if len(strides) > 1 else [*strides, (2,) * dims]


def _kernels(strides: Sequence[Sequence[int]], spacing: Sequence[float], dims: int) -> list[list[int]]:
    """3 along an axis once its spacing is within twice the finest, else 1 (nnU-Net's rule)."""
    mm, kernels = [float(side) for side in spacing[:dims]], []
    for stride in strides:
        mm = [m * n for m, n in zip(mm, stride, strict=True)]
        kernels.append([3 if side < 2 * min(mm) else 1 for side in mm])
    return kernels


def _rounded(side: int, multiple: int) -> int:
    """The nearest multiple, at least one."""
    return max(multiple, round(side / multiple) * multiple)


def _bytes(tile: Sequence[int], strides: Sequence[Sequence[int]], widths: Sequence[int]) -> float:
    voxels, total = float(math.prod(tile)), 0.0
    for stride, width in zip(strides, widths, strict=True):
        voxels /= math.prod(stride)
        total += voxels * width * BYTES_PER_ACTIVATION
    return total
