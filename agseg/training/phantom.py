"""Synthetic abdominal CT with labels: patients that differ, scanned at two sites that differ as CT-150 and CT-82 do.

What they have: inter-patient variation of build, organ size, shape and place; soft-tissue contrast by phase; texture; noise
with a kernel; partial volume; a field of view that may cut the body. What they cannot show is said in docs/protocols.md: a
score on phantoms says that the machinery learns and measures, nothing about patients.

Everything follows from (site, seed, index): case 7 is the same whether 8 or 80 are made.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from agseg.errors import RecipeError
from agseg.grid import Grid
from agseg.labels import LabelSet
from agseg.training.phantom_anatomy import Anatomy, Piece, sample_anatomy
from agseg.volume import HU_MAX, HU_MIN, LabelMask, Volume

_FIXED_HU = {"air": -990.0, "fat": -102.0, "fluid": 8.0, "muscle": 55.0, "bone": 420.0, "bowel": 38.0, "oral_contrast": 260.0}
"""Tissues that intravenous contrast does not change."""

_WARP_MM = 4.0
"""Standard deviation of the smooth deformation that makes no two livers alike (mm)."""

_WARP_SCALE_MM = 45.0
"""Distance over which that deformation changes (mm)."""

_ROUGH_SCALE_MM = 9.0
"""Distance over which surfaces are lobulated (mm)."""


@dataclass(frozen=True)
class Site:
    """A hospital's scanner, protocol, patients and annotation.

    Parameters
    ----------
    name
        On the command line.
    organs
        What its readers annotate, in order of the label index.
    phases
        HU of each enhancing tissue, per contrast phase the site uses.
    spacing_mm
        Voxel spacing (mm); the third is also the slice thickness.
    axis_codes
        How its files are stored.
    noise_hu, kernel_mm
        Standard deviation of the noise, and how far it is correlated in plane (mm).
    field_of_view_mm
        Range of the reconstructed width (mm); smaller ones cut the body.
    range_mm
        Mean lowest and highest slice relative to the pancreas' head (mm).
    body_size
        Mean size of its patients.
    oral_contrast
        Share of patients who drank contrast medium.
    """

    name: str
    organs: tuple[str, ...]
    phases: tuple[dict[str, float], ...]
    spacing_mm: tuple[float, float, float]
    axis_codes: str
    noise_hu: tuple[float, float]
    kernel_mm: float
    field_of_view_mm: tuple[float, float]
    range_mm: tuple[float, float]
    body_size: float
    oral_contrast: float

    @property
    def label_set(self) -> LabelSet:
        """Organs by index, from 1."""
        return LabelSet.from_mapping(dict(enumerate(self.organs, start=1)))


SITES: dict[str, Site] = {
    # Portal venous phase, water in the stomach, a smooth kernel, thick slices; three organs annotated.
    "ct150": Site(
        name="ct150",
        organs=("spleen", "pancreas", "kidney"),
        phases=({"liver": 112, "spleen": 122, "pancreas": 98, "kidney": 185, "artery": 155, "vein": 160},),
        spacing_mm=(2.5, 2.5, 3.0),
        axis_codes="LPS",
        noise_hu=(7.0, 13.0),
        kernel_mm=1.6,
        field_of_view_mm=(370.0, 420.0),
        range_mm=(-105.0, 110.0),
        body_size=1.0,
        oral_contrast=0.0,
    ),
    # Earlier and mixed phases, oral contrast, a sharper and noisier kernel, thinner slices, leaner patients; pancreas only.
    "ct82": Site(
        name="ct82",
        organs=("pancreas",),
        phases=(
            {"liver": 76, "spleen": 138, "pancreas": 118, "kidney": 170, "artery": 270, "vein": 105},
            {"liver": 95, "spleen": 112, "pancreas": 84, "kidney": 190, "artery": 150, "vein": 165},
        ),
        spacing_mm=(2.2, 2.2, 2.0),
        axis_codes="RAS",
        noise_hu=(13.0, 22.0),
        kernel_mm=0.8,
        field_of_view_mm=(320.0, 380.0),
        range_mm=(-85.0, 95.0),
        body_size=0.93,
        oral_contrast=0.8,
    ),
}
"""The two sites, stand-ins for CT-150 (gastric cancer, private) and CT-82 (NIH Pancreas-CT)."""


@dataclass(frozen=True, eq=False)
class PhantomCase:
    """One synthetic scan: its id, image (int16 HU) and labels on one grid."""

    id: str
    volume: Volume
    mask: LabelMask


def make_cohort(site: str, *, cases: int, seed: int = 0, coarsen: float = 1.0) -> Iterator[PhantomCase]:
    """Cases 1 to ``cases`` of a site, one after the other; ``coarsen`` multiplies the voxel spacing."""
    for index in range(1, cases + 1):
        yield make_case(site, index=index, seed=seed, coarsen=coarsen)


def make_case(
    site: str, *, index: int, seed: int = 0, coarsen: float = 1.0, organs: tuple[str, ...] | None = None
) -> PhantomCase:
    """One synthetic patient, scanned once.

    ``organs`` labels other organs than the site's annotators did; the scan stays the same.

    Raises
    ------
    RecipeError
        If the site is not known.
    """
    if site not in SITES:
        raise RecipeError(f"unknown phantom {site!r}", expected=f"one of {', '.join(SITES)}")
    where = SITES[site] if organs is None else replace(SITES[site], organs=organs)
    generator = np.random.default_rng([zlib.crc32(site.encode()), seed, index])
    anatomy = sample_anatomy(generator, size=where.body_size, oral_contrast=bool(generator.random() < where.oral_contrast))
    grid = _grid(generator, where, coarsen)
    hu, labels = _paint(generator, anatomy, where, grid)
    voxels = np.rint(_scan(generator, hu, where, grid)).clip(HU_MIN, HU_MAX).astype(np.int16)
    stored, axes, flips = grid.reoriented(where.axis_codes)
    turn = tuple(slice(None, None, -1 if flip else 1) for flip in flips)
    return PhantomCase(
        id=f"{site}_{index:04d}",
        volume=Volume(np.asfortranarray(voxels.transpose(axes)[turn]), stored),
        mask=LabelMask(np.asfortranarray(labels.transpose(axes)[turn]), stored, where.label_set),
    )


def _grid(generator: np.random.Generator, site: Site, coarsen: float) -> Grid:
    """RAS grid of one scan: its field of view and range vary (mm)."""
    spacing = np.asarray(site.spacing_mm) * coarsen
    width = generator.uniform(*site.field_of_view_mm)
    low, high = np.asarray(site.range_mm) + generator.normal(0, 8, 2)
    centre = np.array([*generator.normal(0, 6, 2), (low + high) / 2])
    # Patients are wider than deep; the empty rows in front and behind are cut, as nobody stores a phantom for its air.
    extent = np.array([width, width * 0.75, high - low])
    size = np.maximum(np.rint(extent / spacing).astype(int), 2)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = centre - (size - 1) * spacing / 2
    return Grid((int(size[0]), int(size[1]), int(size[2])), affine)


def _paint(
    generator: np.random.Generator, anatomy: Anatomy, site: Site, grid: Grid
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """HU (float32) and labels (uint8), both (i, j, k): each piece covers what lies under it, softly at its edge."""
    phase = site.phases[int(generator.integers(len(site.phases)))]
    tissue_hu = {name: hu + generator.normal(0, 4 if hu < 100 else 8) for name, hu in (_FIXED_HU | phase).items()}
    axes = [grid.affine[a, 3] + np.arange(grid.shape[a]) * grid.spacing_mm[a] for a in range(3)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    for axis in range(3):
        points[..., axis] += _smooth_field(generator, grid, _WARP_SCALE_MM, _WARP_MM)
    # Clipped, or the tails of the field make crumbs that hang beside their organ.
    rough = _smooth_field(generator, grid, _ROUGH_SCALE_MM, 1.0).clip(-1.5, 1.5)
    texture = _smooth_field(generator, grid, 2 * _ROUGH_SCALE_MM, 4.0)
    hu = np.full(grid.shape, _FIXED_HU["air"], dtype=np.float32)
    labels = np.zeros(grid.shape, dtype=np.uint8)
    index_of = {name: index for index, name in enumerate(site.organs, start=1)}
    for piece in anatomy.pieces:
        box = _box(piece, grid)
        if box is None:
            continue
        inside = _occupancy(piece, points[box], rough[box], min(grid.spacing_mm))
        hu[box] += inside * (tissue_hu[piece.tissue] + (texture[box] if piece.organ else 0) - hu[box])
        labels[box] = np.where(inside > 0.5, index_of.get(piece.organ or "", 0), labels[box])
    return hu, labels


def _box(piece: Piece, grid: Grid) -> tuple[slice, slice, slice] | None:
    """The voxels a piece may touch once it is warped, or None if it lies outside the grid."""
    low, high = piece.shape.bounds_mm()
    margin = 5 * _WARP_MM + 4 * piece.roughness_mm + 2 * max(grid.spacing_mm)
    start = np.floor(grid.to_index((low - margin)[None])[0]).clip(0, grid.shape).astype(int)
    stop = np.ceil(grid.to_index((high + margin)[None])[0] + 1).clip(0, grid.shape).astype(int)
    if (stop <= start).any():
        return None
    return slice(start[0], stop[0]), slice(start[1], stop[1]), slice(start[2], stop[2])


def _occupancy(piece: Piece, points: NDArray[np.float64], rough: NDArray[np.float64], voxel_mm: float) -> NDArray[np.float64]:
    """Share of each voxel that the piece fills, 0 to 1: a linear edge one voxel wide."""
    distance = piece.shape.distance_mm(points) + piece.roughness_mm * rough
    return np.asarray(np.clip(0.5 - distance / voxel_mm, 0, 1))


def _smooth_field(generator: np.random.Generator, grid: Grid, scale_mm: float, sd: float) -> NDArray[np.float64]:
    """A random field (i, j, k) that changes over ``scale_mm`` and has standard deviation ``sd``, made on a coarse lattice."""
    extent = np.asarray(grid.shape) * np.asarray(grid.spacing_mm)
    coarse = np.maximum(np.ceil(extent / scale_mm).astype(int) + 3, 4)
    lattice = generator.normal(0, 1, coarse)
    zoom = [n / (c - 3) for n, c in zip(grid.shape, coarse, strict=True)]
    index = [1 + (np.arange(n) + 0.5) / z for n, z in zip(grid.shape, zoom, strict=True)]
    field = ndimage.map_coordinates(lattice, np.meshgrid(*index, indexing="ij"), order=1, mode="nearest")
    field = ndimage.gaussian_filter(field, [0.35 * scale_mm / s for s in grid.spacing_mm], mode="nearest", truncate=2.0)
    return np.asarray(field * (sd / max(float(field.std()), 1e-9)))


def _scan(generator: np.random.Generator, hu: NDArray[np.float32], site: Site, grid: Grid) -> NDArray[np.float32]:
    """Blur by the slice thickness and the kernel, then add correlated noise and a slow shading."""
    blurred = ndimage.gaussian_filter(hu, [0.35 * site.kernel_mm / s for s in grid.spacing_mm[:2]] + [0.35])
    noise = ndimage.gaussian_filter(
        generator.normal(0, 1, grid.shape), [site.kernel_mm / (2 * s) for s in grid.spacing_mm[:2]] + [0]
    )
    noise *= generator.uniform(*site.noise_hu) / max(float(noise.std()), 1e-9)
    shading = _smooth_field(generator, grid, 120.0, 3.0)
    return np.asarray(blurred + noise + shading, dtype=np.float32)
