"""An image drawn from an anatomical label map alone: another one at every draw.

Every structure gets a mean density from the table of contrast phases and a texture; kidneys get a cortex, the liver vessels,
the pancreas lobules of fat, bowel a wall, contents and gas that collects in front. What the map leaves open is filled: fat with
strands between the organs, muscle near the body's outline, and around it a wall, fat and skin of a thickness that each draw
chooses. Edges are softened by partial volume at the end.

Source: SynthSeg (Billot et al., 2023) draws every structure from one Gaussian; what is drawn inside structures is our own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError
from torch import Tensor

from agseg.training.anatomy import OUTSIDE
from agseg.training.augment import soften
from agseg.training.cases import AIR_HU
from agseg.training.patches import uniform
from agseg.training.synthesis import RANDOM_HU, ContrastTable, Phase, Tissue, add_lesion, brighten_cortex, draw_phase, mask_of

FILL, INNER_WALL, FIRST_SHELL, SHELLS = 205, 206, 210, 24
"""Numbers of what a map leaves open: inside the body, within it near its outline, and shells of one voxel each around it."""

INNER_WALL_VOXELS = 3
"""Depth of the inner wall below the outline."""

ARMS = (69, 70)
"""Structures (upper arm bones) that the body's outline does not enclose."""

_GAS_PART: Mapping[int, float] = {6: 0.25, 18: 0.06, 19: 0.08, 20: 0.4, 15: 0.1}
"""Typical part of a bowel's lumen that is gas, per structure number."""


def enclose(structures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A label map (i, j, k; k along the body) with every 0 replaced: by what fills the body, by shells around it, or air.

    The outline of a slice is the convex hull of what is labelled in it and its two neighbours on either side.
    """
    labelled = (structures > 0) & ~np.isin(structures, ARMS)
    inside = np.zeros(labelled.shape, dtype=bool)
    for k in range(labelled.shape[2]):
        inside[:, :, k] = _hull(np.asarray(labelled[:, :, max(0, k - 2) : k + 3].any(axis=2)))
    inside |= structures > 0
    depth, beyond = _distance(inside), _distance(~inside)
    whole = structures.copy()
    free = structures == 0
    whole[free & inside] = FILL
    whole[free & inside & (depth <= INNER_WALL_VOXELS)] = INNER_WALL
    shell = np.ceil(np.minimum(beyond, SHELLS + 2.0) - 1e-6).astype(int) - 1
    around = free & ~inside & (shell < SHELLS)
    whole[around] = (FIRST_SHELL + shell[around]).astype(np.uint8)
    whole[free & ~inside & (shell >= SHELLS)] = OUTSIDE
    return whole


def _distance(where: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Distance (voxels) within each slice to the nearest voxel that is not ``where``."""
    found = np.zeros(where.shape)
    for k in range(where.shape[2]):
        layer = where[:, :, k]
        found[:, :, k] = np.inf if layer.all() else ndimage.distance_transform_edt(layer)
    return found


def _hull(layer: NDArray[np.bool_]) -> NDArray[np.bool_]:
    points = np.argwhere(layer)
    if len(points) < 3:
        return layer
    try:
        sides = ConvexHull(points).equations
    except QhullError:  # all on one line
        return layer
    everywhere = np.indices(layer.shape).reshape(2, -1).T
    inside = (everywhere @ sides[:, :2].T + sides[:, 2] <= 1e-6).all(axis=1)
    return np.asarray(inside).reshape(layer.shape)


@dataclass(frozen=True, eq=False)
class _Noise:
    """Smooth random fields of about unit spread: over many voxels, over a few, and per voxel."""

    wide: Tensor
    middle: Tensor
    other: Tensor
    fine: Tensor

    @classmethod
    def drawn(cls, shape: Sequence[int], generator: torch.Generator) -> _Noise:
        return cls(
            _field(shape, uniform(6, 12, generator), generator),
            _field(shape, uniform(2.0, 4.0, generator), generator),
            _field(shape, uniform(3.0, 6.0, generator), generator),
            torch.randn(tuple(shape), generator=generator),
        )


def _field(shape: Sequence[int], distance: float, generator: torch.Generator) -> Tensor:
    coarse = [max(2, round(n / distance) + 1) for n in shape]
    noise = torch.randn((1, 1, *coarse), generator=generator)
    # Interpolation between control points loses about a third of the spread.
    return F.interpolate(noise, size=tuple(shape), mode="trilinear", align_corners=True)[0, 0] * 1.5


def draw_anatomy(
    structures: Tensor,
    *,
    tissues: Mapping[int, Tissue],
    contrast: ContrastTable,
    random_chance: float,
    lesion_chance: float,
    generator: torch.Generator,
) -> Tensor:
    """An image (x, y, z; HU; x towards the right or left, y towards anterior) of an enclosed label map.

    Parameters
    ----------
    structures
        uint8, see :func:`enclose`; 0 is beyond the map.
    random_chance
        Part of the images whose intensities ignore anatomy.
    """
    phase = None if uniform(0, 1, generator) < random_chance else draw_phase(generator)
    noise = _Noise.drawn(structures.shape, generator)
    levels = _levels(tissues, contrast, phase, generator)
    index = structures.long()
    image = levels[index]
    soft = (structures != 0) & (structures != OUTSIDE)
    image = image + soft * (uniform(2, 14, generator) * noise.middle + uniform(0, 8, generator) * noise.fine)
    image = _fill(image, structures, noise, levels, generator)
    image = _bones_and_lungs(image, structures, tissues, noise, generator)
    image = _vessels(image, structures, tissues, noise, levels, generator)
    pancreas = mask_of(structures, tissues, (Tissue.PANCREAS,))
    lobules = (0.5 * noise.middle + 0.35 * noise.fine + uniform(-1.2, 0.25, generator)).clamp(0.0, 0.8)
    image = torch.lerp(image, torch.full_like(image, -95.0), pancreas * lobules)
    if phase in (Phase.ARTERIAL, Phase.VENOUS):
        image = brighten_cortex(image, structures, tissues, generator)
    image = _bowel(image, structures, tissues, noise, generator)
    if uniform(0, 1, generator) < lesion_chance:
        image = add_lesion(image, structures, tissues, generator)
    image = torch.where(soft, image, torch.full_like(image, AIR_HU))
    return soften(image.clamp(AIR_HU, 1500.0), uniform(0.4, 0.75, generator))


def _levels(tissues: Mapping[int, Tissue], contrast: ContrastTable, phase: Phase | None, generator: torch.Generator) -> Tensor:
    """Mean HU per structure number, float32 of length 256."""
    levels = torch.full((256,), uniform(25, 60, generator))
    ranks = {tissue: uniform(-0.1, 1.1, generator) for tissue in Tissue}
    for structure, tissue in tissues.items():
        if tissue not in contrast:
            continue
        low, high = contrast[tissue][phase or Phase.VENOUS]
        if phase is None and tissue is not Tissue.FAT:
            low, high = RANDOM_HU
        levels[structure] = low + (high - low) * ranks[tissue] + uniform(-6, 6, generator)
    levels[0] = levels[OUTSIDE] = AIR_HU
    return levels


def _fill(image: Tensor, structures: Tensor, noise: _Noise, levels: Tensor, generator: torch.Generator) -> Tensor:
    """Fat with strands where the map is open, and wall, fat and skin around the body."""
    fat, muscle = uniform(-118, -85, generator), uniform(35, 70, generator)
    strands = torch.sigmoid((0.6 * noise.middle + 0.5 * noise.other - uniform(0.5, 1.8, generator)) * 4.0)
    walls = torch.sigmoid((0.4 * noise.middle + 0.4 * noise.other - uniform(-1.3, 0.4, generator)) * 5.0)
    bright = muscle + uniform(-15, 60, generator) * noise.wide.clamp(-0.5, 1.0)
    image = torch.where(structures == FILL, fat + (bright - fat) * strands, image)
    image = torch.where(structures == INNER_WALL, fat + (muscle - fat) * walls, image)
    depth = structures.float() - FIRST_SHELL + 0.6 * noise.wide
    wall, fat_depth = uniform(0.0, 4.0, generator), uniform(0.0, 11.0, generator) * (1.0 + 0.3 * noise.wide.clamp(-2, 2))
    around = torch.where(depth < wall, fat + (muscle - fat) * walls, torch.full_like(image, fat) + 6.0 * noise.middle)
    around = torch.where(depth > wall + fat_depth, torch.full_like(image, muscle - 30.0), around)
    around = torch.where(depth > wall + fat_depth + 1.0, torch.full_like(image, AIR_HU), around)
    return torch.where((structures >= FIRST_SHELL) & (structures < FIRST_SHELL + SHELLS), around, image)


def _rim(mask: Tensor, reach: int = 3) -> Tensor:
    """1 within a mask near its edge (float32)."""
    inner = F.avg_pool3d(mask[None, None], reach, stride=1, padding=reach // 2, count_include_pad=False)[0, 0]
    return mask * (inner < 0.99)


def _bones_and_lungs(
    image: Tensor, structures: Tensor, tissues: Mapping[int, Tissue], noise: _Noise, generator: torch.Generator
) -> Tensor:
    bone = mask_of(structures, tissues, (Tissue.BONE,))
    marrow = uniform(80, 280, generator) + uniform(20, 80, generator) * noise.fine
    image = torch.where(bone > 0, marrow + _rim(bone) * uniform(100, 500, generator), image)
    lung = mask_of(structures, tissues, (Tissue.LUNG,))
    vessels = torch.exp(-(noise.other / 0.15).square()) * uniform(200, 800, generator)
    return torch.where(lung > 0, uniform(-920, -780, generator) + 25.0 * noise.fine + vessels, image)


def _vessels(
    image: Tensor,
    structures: Tensor,
    tissues: Mapping[int, Tissue],
    noise: _Noise,
    levels: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """The liver's vessels: sheets where a smooth field crosses zero, as bright as the portal vein in part."""
    portal = [n for n, tissue in tissues.items() if tissue is Tissue.PORTAL]
    liver = mask_of(structures, tissues, (Tissue.LIVER,))
    if not portal:
        return image
    width = uniform(0.05, 0.25, generator)
    sheet = torch.exp(-(noise.other / width).square()) * torch.exp(-(noise.wide / 0.6).square())
    return torch.lerp(image, levels[portal[0]].expand_as(image), liver * sheet * uniform(0.0, 0.9, generator))


def _bowel(
    image: Tensor, structures: Tensor, tissues: Mapping[int, Tissue], noise: _Noise, generator: torch.Generator
) -> Tensor:
    """Wall, contents and gas of stomach and bowel; each structure has contents of its own."""
    front = torch.linspace(-1.0, 1.0, image.shape[1])[None, :, None]
    for number in sorted(n for n, tissue in tissues.items() if tissue is Tissue.GUT):
        here = structures == number
        if not bool(here.any()):
            continue
        lumen = here & (_rim(here.float()) == 0)
        contents = uniform(-5, 45, generator) + 4.0 * noise.middle
        kind = uniform(0, 1, generator)
        if kind < 0.2:
            contents = contents + uniform(60, 350, generator)  # oral contrast
        elif kind < 0.5:
            contents = contents + uniform(20, 90, generator) * noise.middle  # food, stool
        elif kind < 0.65:
            contents = image  # collapsed
        image = torch.where(lumen, contents, image)
        part = _GAS_PART.get(number, 0.1) * uniform(0.0, 2.0, generator)
        rise = 0.7 * noise.wide + 0.4 * noise.other + front * 1.5
        values = rise[lumen]
        if part > 0.01 and len(values) > 8:
            level = torch.quantile(values[:: max(1, len(values) // 4096)], max(0.0, 1.0 - part))
            image = torch.where(lumen & (rise > level), torch.full_like(image, uniform(-980, -820, generator)), image)
    return image
