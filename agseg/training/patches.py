"""Patch sampling: which part of a scan a training step looks at, and how it is deformed.

A patch is a lattice of sampling points in the scan. Rotation, anisotropic scaling, a smooth random displacement and local
swelling are applied to the points, so that image and labels are interpolated once. Every choice comes from the generator
that is handed in: the same seed gives the same patch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from agseg.training.cases import AIR_HU, Case

BODY_HU = -300.0
"""Voxels above this (HU) count as patient when a centre is drawn outside the organs."""


@dataclass(frozen=True)
class Deformation:
    """How far a patch may be bent; every range is drawn from uniformly.

    Parameters
    ----------
    rotation_deg
        Largest rotation about each axis, either way.
    scale
        Smallest and largest magnification, drawn for all axes together.
    stretch
        Largest extra magnification of a single axis, either way (0.1 is 10 %).
    elastic
        Pairs (distance of the control points, largest standard deviation of their displacement), in voxels.
    probability
        Chance that a patch is bent at all.
    """

    rotation_deg: float = 10.0
    scale: tuple[float, float] = (0.85, 1.2)
    stretch: float = 0.12
    elastic: tuple[tuple[float, float], ...] = ((28.0, 3.5), (11.0, 1.2))
    probability: float = 0.9


@dataclass(frozen=True)
class Swelling:
    """A place (voxels) that is magnified locally: an organ grown or shrunk, its neighbours pushed aside.

    ``magnification`` is the linear scale at the centre; the effect fades as a Gaussian of width ``reach`` (voxels).
    """

    centre: tuple[float, float, float]
    reach: float
    magnification: float


def uniform(low: float, high: float, generator: torch.Generator) -> float:
    """One number between ``low`` and ``high``."""
    return low + (high - low) * float(torch.rand((), generator=generator))


def patch_centre(case: Case, *, shape: Sequence[int], organ_probability: float, generator: torch.Generator) -> Tensor:
    """Where a patch is centred (voxels, float32, shape (3,)): near a voxel of a random organ, or anywhere in the body."""
    classes = case.present_classes()
    if classes and uniform(0, 1, generator) < organ_probability:
        wanted = classes[int(torch.randint(len(classes), (), generator=generator))]
        candidates = case.voxels_of(wanted)
        spread = 0.25
    else:
        candidates = case.body_voxels(BODY_HU)
        spread = 0.1
    size = torch.tensor(case.image.shape, dtype=torch.float32)
    if len(candidates) == 0:
        return torch.rand(3, generator=generator) * size
    chosen = candidates[int(torch.randint(len(candidates), (), generator=generator))].float()
    jitter = (torch.rand(3, generator=generator) * 2 - 1) * torch.tensor(shape, dtype=torch.float32) * spread
    return chosen + jitter


def sampling_points(
    centre: Tensor,
    *,
    shape: Sequence[int],
    deformation: Deformation,
    generator: torch.Generator,
    swellings: Sequence[Swelling] = (),
) -> Tensor:
    """Points of the scan (voxel coordinates, float32, ``[*shape, 3]``) that a patch of ``shape`` voxels is read from."""
    axes = [torch.arange(n, dtype=torch.float32) - (n - 1) / 2 for n in shape]
    offsets = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    if uniform(0, 1, generator) >= deformation.probability:
        return offsets + centre
    offsets = offsets @ _random_matrix(deformation, generator).T
    for distance, largest in deformation.elastic:
        offsets = offsets + smooth_displacement(shape, (distance,) * 3, uniform(0, largest, generator), generator)
    points = offsets + centre
    for swelling in swellings:
        points = _swell(points, swelling)
    return points


def sample_image(image: Tensor, points: Tensor) -> Tensor:
    """``image`` (x, y, z; HU) at ``points``, trilinear; :data:`~agseg.training.cases.AIR_HU` outside."""
    return _sample((image - AIR_HU)[None, None], points, mode="bilinear") + AIR_HU


def sample_labels(labels: Tensor, points: Tensor) -> Tensor:
    """``labels`` (x, y, z; uint8) at the voxels nearest to ``points``; 0 outside."""
    return _sample(labels[None, None].float(), points, mode="nearest").to(torch.uint8)


def _sample(volume: Tensor, points: Tensor, *, mode: str) -> Tensor:
    size = torch.tensor(volume.shape[2:], dtype=torch.float32, device=points.device)
    grid = (points * (2.0 / (size - 1).clamp_min(1.0)) - 1.0).flip(-1)
    return F.grid_sample(volume, grid[None], mode=mode, padding_mode="zeros", align_corners=True)[0, 0]


def _random_matrix(deformation: Deformation, generator: torch.Generator) -> Tensor:
    """Patch offsets -> scan offsets: rotation after anisotropic scaling (a magnified organ means closer points)."""
    limit = torch.deg2rad(torch.tensor(deformation.rotation_deg))
    angles = (torch.rand(3, generator=generator) * 2 - 1) * limit
    matrix = torch.eye(3)
    for axis in range(3):
        a, b = (axis + 1) % 3, (axis + 2) % 3
        turn = torch.eye(3)
        c, s = torch.cos(angles[axis]), torch.sin(angles[axis])
        turn[a, a], turn[b, b], turn[a, b], turn[b, a] = c, c, -s, s
        matrix = matrix @ turn
    magnification = uniform(*deformation.scale, generator)
    stretch = 1 + (torch.rand(3, generator=generator) * 2 - 1) * deformation.stretch
    return matrix @ torch.diag(1.0 / (magnification * stretch))


def smooth_displacement(shape: Sequence[int], distances: Sequence[float], spread: float, generator: torch.Generator) -> Tensor:
    """Random displacement (``[*shape, dims]``, in the unit of ``spread``) interpolated from control points.

    Parameters
    ----------
    shape
        Two or three sides.
    distances
        Of the control points along each axis (voxels).
    spread
        Standard deviation of their displacement.
    """
    coarse = [max(2, round(n / distance) + 1) for n, distance in zip(shape, distances, strict=True)]
    control = torch.randn((1, len(shape), *coarse), generator=generator) * spread
    mode = "trilinear" if len(shape) == 3 else "bilinear"
    return F.interpolate(control, size=tuple(shape), mode=mode, align_corners=True)[0].movedim(0, -1)


def _swell(points: Tensor, swelling: Swelling) -> Tensor:
    """Points near the centre move towards it (grow) or away from it (shrink); monotone for magnifications above 0.5."""
    away = points - torch.tensor(swelling.centre, dtype=points.dtype)
    fade = torch.exp(away.square().sum(-1, keepdim=True) * (-0.5 / swelling.reach**2))
    return points - away * (1.0 - 1.0 / swelling.magnification) * fade
