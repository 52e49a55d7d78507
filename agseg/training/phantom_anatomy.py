"""The shapes of a synthetic abdomen: where each organ's surface is, in mm.

World coordinates are RAS+ mm with the origin in the middle of the body at the height of the pancreas' head. A shape gives the
signed distance of points to its surface (mm, negative inside); :mod:`agseg.training.phantom` paints shapes into voxels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]


class Shape(Protocol):
    """Something with a surface."""

    def distance_mm(self, points: Points) -> NDArray[np.float64]:
        """Signed distance of the points (..., 3) to the surface (mm), negative inside."""

    def bounds_mm(self) -> tuple[Points, Points]:
        """Lowest and highest corner of a box that holds the shape (mm)."""


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid along the patient's axes; centre and semi-axes in mm. An infinite semi-axis makes a cylinder."""

    centre_mm: tuple[float, float, float]
    semi_mm: tuple[float, float, float]

    def distance_mm(self, points: Points) -> NDArray[np.float64]:
        """First-order signed distance: exact on the surface, good near it."""
        scaled = (points - np.asarray(self.centre_mm)) / np.asarray(self.semi_mm)
        level = np.linalg.norm(scaled, axis=-1)
        slope = np.linalg.norm(scaled / np.asarray(self.semi_mm), axis=-1)
        return np.asarray(level * (level - 1) / np.maximum(slope, 1e-9))

    def bounds_mm(self) -> tuple[Points, Points]:
        """The box around it (mm)."""
        centre, semi = np.asarray(self.centre_mm), np.asarray(self.semi_mm)
        return centre - semi, centre + semi


@dataclass(frozen=True)
class Tube:
    """A tube of varying radius around a polyline: points (n, 3) and radii (n,), in mm."""

    points_mm: tuple[tuple[float, float, float], ...]
    radii_mm: tuple[float, ...]

    def distance_mm(self, points: Points) -> NDArray[np.float64]:
        """Signed distance to the union of the cones between neighbouring points."""
        nearest = np.full(points.shape[:-1], np.inf)
        nodes = np.asarray(self.points_mm)
        for start, stop, first, last in zip(nodes, nodes[1:], self.radii_mm, self.radii_mm[1:], strict=False):
            along = stop - start
            where = np.clip((points - start) @ along / max(float(along @ along), 1e-9), 0, 1)
            away = np.linalg.norm(points - start - where[..., None] * along, axis=-1)
            np.minimum(nearest, away - (first + where * (last - first)), out=nearest)
        return nearest

    def bounds_mm(self) -> tuple[Points, Points]:
        """The box around it (mm)."""
        nodes, widest = np.asarray(self.points_mm), max(self.radii_mm)
        return nodes.min(axis=0) - widest, nodes.max(axis=0) + widest


@dataclass(frozen=True)
class Piece:
    """A shape, the tissue it is filled with, and the organ it belongs to (None: no label). Later pieces cover earlier ones."""

    shape: Shape
    tissue: str
    organ: str | None = None
    roughness_mm: float = 0.0


@dataclass(frozen=True)
class Anatomy:
    """One patient: pieces from the outside to the inside, and how far the body reaches from the middle (mm)."""

    pieces: tuple[Piece, ...]
    half_width_mm: float
    half_depth_mm: float


def sample_anatomy(generator: np.random.Generator, *, size: float, oral_contrast: bool) -> Anatomy:
    """One patient whose build, and whose organs' sizes and places, vary independently.

    Parameters
    ----------
    generator
        Source of everything random.
    size
        Mean body size relative to an average adult.
    oral_contrast
        Whether stomach and bowel are filled with contrast medium.
    """
    build = size * generator.normal(1.0, 0.06)
    width, depth = 165 * build * generator.normal(1, 0.05), 112 * build * generator.normal(1, 0.06)
    fat, wall = generator.uniform(8, 30), generator.uniform(10, 16)
    place = _Placer(generator, build)
    endless = 1e4
    pieces = [
        Piece(Ellipsoid((0, 0, 0), (width, depth, endless)), "fat"),
        Piece(Ellipsoid((0, 0, 0), (width - fat, depth - fat, endless)), "muscle"),
        Piece(Ellipsoid((0, 4, 0), (width - fat - wall, depth - fat - wall, endless)), "fat"),
        *_skeleton(generator, width - fat, depth - fat),
        *_hollow_organs(generator, place, oral_contrast=oral_contrast),
        Piece(place.ellipsoid((78, 8, 45), (72, 62, 62)), "liver", "liver", 2.5),
        Piece(place.ellipsoid((52, 36, -6), (13, 15, 20)), "fluid"),
        Piece(place.ellipsoid((-98, -34, 42), (27, 40, 46)), "spleen", "spleen", 2.0),
        *_kidney(place, (58, -50, -28)),
        *_kidney(place, (-60, -48, -14)),
        *_vessels(place),
        *_pancreas(generator, place),
    ]
    return Anatomy(tuple(pieces), float(width), float(depth))


class _Placer:
    """Scales and jitters nominal positions and sizes (mm)."""

    def __init__(self, generator: np.random.Generator, build: float) -> None:
        self.generator = generator
        self.build = build

    def point(self, nominal: tuple[float, float, float], spread_mm: float = 5.0) -> tuple[float, float, float]:
        x, y, z = np.asarray(nominal) * self.build + self.generator.normal(0, spread_mm, 3)
        return float(x), float(y), float(z)

    def ellipsoid(self, centre: tuple[float, float, float], semi: tuple[float, float, float]) -> Ellipsoid:
        x, y, z = np.asarray(semi) * self.build * self.generator.normal(1, 0.08, 3).clip(0.75, 1.25)
        return Ellipsoid(self.point(centre), (float(x), float(y), float(z)))


def _skeleton(generator: np.random.Generator, width: float, depth: float) -> list[Piece]:
    """Spine with its muscles and canal, and rib sections in the wall."""
    back = -depth * 0.58
    endless = 1e4
    pieces = [
        Piece(Ellipsoid((38, back - 8, 0), (30, 22, endless)), "muscle"),
        Piece(Ellipsoid((-38, back - 8, 0), (30, 22, endless)), "muscle"),
        Piece(Ellipsoid((0, back, 0), (21, 18, endless)), "bone"),
        Piece(Ellipsoid((0, back - 20, 0), (9, 8, endless)), "fluid"),
    ]
    for height in np.arange(-90, 150, 28) + generator.uniform(-10, 10):
        for angle in (0.15, 0.75, np.pi - 0.75, np.pi - 0.15, -0.5, np.pi + 0.5):
            x, y = (width - 7) * np.cos(angle), (depth - 7) * np.sin(angle)
            pieces.append(Piece(Ellipsoid((float(x), float(y), float(height + 25 * np.sin(angle))), (6, 5, 8)), "bone"))
    return pieces


def _hollow_organs(generator: np.random.Generator, place: _Placer, *, oral_contrast: bool) -> list[Piece]:
    """Stomach with its air, duodenum, colon and loops of small bowel; the loops lie anywhere below and beside the pancreas."""
    filling = "oral_contrast" if oral_contrast else "bowel"
    stomach = place.ellipsoid((-52, 46, 42), (44, 27, 42))
    (x, y, z), (a, b, c) = stomach.centre_mm, stomach.semi_mm
    pieces = [
        Piece(stomach, "bowel", None, 2.0),
        Piece(Ellipsoid((x, y - 3, z), (a - 6, b - 8, c - 8)), filling),
        Piece(Ellipsoid((x, y + 0.45 * b, z), (a * 0.6, b * 0.35, c * 0.6)), "air"),
    ]
    duodenum = [place.point(p, 3.0) for p in ((30, 22, 12), (50, 8, 0), (52, 0, -28), (28, -8, -42), (-8, -4, -40))]
    pieces.append(Piece(Tube(tuple(duodenum), (11, 11, 11, 10, 9)), "bowel", None, 1.5))
    for _ in range(int(generator.integers(12, 20))):
        centre = (generator.uniform(-90, 90), generator.uniform(0, 62), generator.uniform(-95, -22))
        tissue = generator.choice([filling, "bowel", "bowel", "air"])
        pieces.append(Piece(place.ellipsoid(centre, (17, 14, 15)), "bowel", None, 1.5))
        pieces.append(Piece(place.ellipsoid(centre, (9, 8, 9)), str(tissue)))
    for side in (-105, 108):
        colon = [place.point((side, 5 + 3 * n, -95 + 22 * n), 5.0) for n in range(5)]
        pieces.append(Piece(Tube(tuple(colon), (19, 17, 18, 17, 16)), "bowel", None, 2.0))
    return pieces


def _kidney(place: _Placer, centre: tuple[float, float, float]) -> list[Piece]:
    """A kidney with its hilum turned to the spine."""
    body = place.ellipsoid(centre, (26, 23, 50))
    (x, y, z), (a, b, c) = body.centre_mm, body.semi_mm
    hilum = Ellipsoid((x - np.sign(x) * a * 0.8, y + 3, z), (a * 0.55, b * 0.4, c * 0.35))
    return [Piece(body, "kidney", "kidney", 1.0), Piece(hilum, "fat")]


def _vessels(place: _Placer) -> list[Piece]:
    """Aorta, inferior vena cava, and the splenic vein running behind the pancreas."""
    aorta = [place.point((-8, -34, z), 1.5) for z in (-140, -60, 20, 160)]
    cava = [place.point((20, -26, z), 2.0) for z in (-140, -60, 20, 160)]
    return [
        Piece(Tube(tuple(aorta), (9, 10, 11, 12)), "artery"),
        Piece(Tube(tuple(cava), (11, 11, 12, 13)), "vein"),
    ]


def _pancreas(generator: np.random.Generator, place: _Placer) -> list[Piece]:
    """A lobulated tube from the head in the duodenal loop over the spine to the tail at the spleen, and the splenic vein."""
    head_up, tail_up = generator.normal(0, 7), generator.normal(0, 9)
    nominal = (
        (34, -4, -24 + head_up),
        (28, 4, -8 + head_up),
        (10, 14, 6),
        (-18, 16, 14),
        (-46, 4, 22 + tail_up),
        (-76, -16, 32 + tail_up),
    )
    track = [place.point(point, 3.0) for point in nominal]
    thick = generator.normal(1, 0.13)
    radii = tuple(float(r * thick * generator.normal(1, 0.08)) for r in (14.5, 13.5, 9.5, 10.5, 11.0, 9.5))
    vein = [(x, y - r - 2.0, z) for (x, y, z), r in zip(track[2:], radii[2:], strict=True)]
    return [
        Piece(Tube(tuple(track), radii), "pancreas", "pancreas", 2.2),
        Piece(Tube(tuple(vein), (5.5, 5, 4.5, 4)), "vein"),
    ]
