"""Made-up scenes without any abdominal organ: heads, thighs, shapeless bodies, an empty table.

A network that has only seen trunks finds a liver in every head. These cases hold no organ, so every organ found in them is
wrong; bending and recolouring at each draw keeps them from being learned by heart. All are made from a seed.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

import torch
import torch.nn.functional as F
from torch import Tensor

from agseg.training.cases import AIR_HU, Case
from agseg.training.patches import uniform

FLUID, NERVE, MUSCLE, SKULL, OUTSIDE, FAT, SOFT, BONE, GAS = 4, 79, 80, 91, 200, 201, 202, 203, 204
"""Structure numbers as in :mod:`agseg.training.anatomy` and TotalSegmentator's list."""

_HU = {FLUID: 8.0, NERVE: 35.0, MUSCLE: 55.0, SKULL: 800.0, OUTSIDE: AIR_HU, FAT: -100.0, SOFT: 40.0, BONE: 500.0, GAS: -950.0}
"""Mean density of what scenes are made of (HU)."""

TEXTURE_HU = 10.0
"""Standard deviation of what a scene's structures show inside (HU)."""


class Scene(StrEnum):
    """Closed choice of scenes."""

    HEAD = "head"
    THIGHS = "thighs"
    SHAPELESS = "shapeless"
    TABLE = "table"


def make_scene(scene: Scene, *, seed: int, spacing_mm: float = 4.0, weight: float = 1.0) -> Case:
    """A case of 384 x 320 x 256 mm without organs, all its labels 0."""
    generator = torch.Generator().manual_seed(seed)
    shape = tuple(round(mm / spacing_mm) for mm in (384.0, 320.0, 256.0))
    axes = [(torch.arange(n) - (n - 1) / 2) * spacing_mm for n in shape]
    x, y, z = torch.meshgrid(*axes, indexing="ij")
    structures = torch.full(shape, OUTSIDE, dtype=torch.uint8)
    painters: dict[Scene, Callable[[Tensor, Tensor, Tensor, Tensor, torch.Generator], None]] = {
        Scene.HEAD: _paint_head,
        Scene.THIGHS: _paint_thighs,
        Scene.SHAPELESS: _paint_shapeless,
        Scene.TABLE: _paint_nothing,
    }
    painters[scene](structures, x, y, z, generator)
    _paint_table(structures, x, y, generator)
    table = torch.zeros(256)
    for number, hu in _HU.items():
        table[number] = hu
    image = table[structures.long()]
    image = image + torch.randn(shape, generator=generator) * TEXTURE_HU * (structures != OUTSIDE)
    labels = torch.zeros(shape, dtype=torch.uint8)
    return Case(f"scene_{scene}_{seed}", image, labels, None, structures, weight)


_Point = tuple[float, float, float]


def _ellipsoid(
    x: Tensor, y: Tensor, z: Tensor, centre: tuple[float, float, float], radii: tuple[float, float, float]
) -> Tensor:
    """Distance to the centre in radii: 1 at the surface."""
    parts = [((axis - c) / r).square() for axis, c, r in zip((x, y, z), centre, radii, strict=True)]
    return (parts[0] + parts[1] + parts[2]).sqrt()


def _paint_head(structures: Tensor, x: Tensor, y: Tensor, z: Tensor, generator: torch.Generator) -> None:
    size = uniform(0.9, 1.1, generator)
    top = uniform(-30, 60, generator)
    head = _ellipsoid(x, y, z, (0, 0, top), (78 * size, 98 * size, 115 * size))
    neck = _ellipsoid(x, y, z * 0, (0, -20, 0), (58 * size, 62 * size, 1)).where(z < top - 60, torch.tensor(9.0))
    structures[neck < 1] = FAT
    structures[neck < 0.9] = MUSCLE
    structures[_ellipsoid(x, y, z * 0, (0, -35, 0), (16, 16, 1)).where(z < top - 60, torch.tensor(9.0)) < 1] = BONE
    structures[_ellipsoid(x, y, z * 0, (0, 5, 0), (9, 9, 1)).where(z < top - 60, torch.tensor(9.0)) < 1] = GAS
    structures[head < 1] = FAT
    structures[head < 0.95] = SKULL
    structures[head < 0.87] = NERVE
    for side in (-1, 1):
        structures[_ellipsoid(x, y, z, (side * 14.0, 5.0, top + 10), (8, 35, 14)) < 1] = FLUID
        structures[_ellipsoid(x, y, z, (side * 30.0, 70.0, top - 45), (16, 22, 20)) < 1] = GAS
        structures[_ellipsoid(x, y, z, (side * 32.0, 80.0, top - 20), (13, 13, 13)) < 1] = SOFT


def _paint_thighs(structures: Tensor, x: Tensor, y: Tensor, z: Tensor, generator: torch.Generator) -> None:
    radius = uniform(60, 95, generator)
    both = uniform(0, 1, generator) < 0.7
    for side in (-1, 1) if both else (1,):
        centre = side * (radius + 5) if both else 0.0
        lean = uniform(-0.15, 0.15, generator)
        taper = 1 + z * uniform(-0.001, 0.001, generator)
        r = ((x - centre - lean * z).square() + y.square()).sqrt() / (radius * taper)
        fat = uniform(0.65, 0.9, generator)
        structures[r < 1] = FAT
        structures[r < fat] = MUSCLE
        structures[(r < 0.22) & (r >= 0.12)] = BONE
        structures[r < 0.12] = FAT
        septa = torch.sin(torch.atan2(y, x - centre) * 5 + uniform(0, 6, generator)).abs() < 0.07
        structures[septa & (r < fat) & (r > 0.3)] = FAT
        spot = (((x - centre - lean * z) / (0.2 * radius)).square() + ((y - 0.45 * radius) / (0.12 * radius)).square()) < 1
        structures[spot] = SOFT


def _paint_shapeless(structures: Tensor, x: Tensor, y: Tensor, z: Tensor, generator: torch.Generator) -> None:
    body = _ellipsoid(
        x, y, z, (0, 0, 0), (uniform(90, 180, generator), uniform(70, 130, generator), uniform(90, 400, generator))
    )
    coarse = [max(3, round(n / uniform(5, 14, generator))) for n in x.shape]
    fields = F.interpolate(torch.randn((1, 5, *coarse), generator=generator), size=x.shape, mode="trilinear")[0]
    inside = torch.tensor([FAT, MUSCLE, SOFT, FLUID, NERVE], dtype=torch.uint8)[fields.argmax(0)]
    structures[body < 1] = FAT
    within = body < 0.92
    structures[within] = inside[within]


def _paint_nothing(structures: Tensor, x: Tensor, y: Tensor, z: Tensor, generator: torch.Generator) -> None:
    """The table comes by itself."""


def _paint_table(structures: Tensor, x: Tensor, y: Tensor, generator: torch.Generator) -> None:
    curve = uniform(0, 0.0015, generator)
    level = y + uniform(105, 140, generator) - curve * x.square()
    structures[(level.abs() < uniform(2, 6, generator)) & (x.abs() < 180) & (structures == OUTSIDE)] = SOFT
