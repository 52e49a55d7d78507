"""Extent, surface and the spread of HU, against shapes and values that are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ellipeinc, ellipkinc

from agseg.grid import Grid
from agseg.measure.intensity import histograms, share_between, spread
from agseg.measure.shape import shapes


def ellipsoid(semi_mm: tuple[float, float, float], spacing_mm: tuple[float, float, float]) -> tuple[np.ndarray, Grid]:
    shape = tuple(int(2 * (a + 8) / s) for a, s in zip(semi_mm, spacing_mm, strict=True))
    axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing_mm, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    inside = (x / semi_mm[0]) ** 2 + (y / semi_mm[1]) ** 2 + (z / semi_mm[2]) ** 2 <= 1
    return inside.astype(np.uint8), Grid(inside.shape, np.diag([*spacing_mm, 1.0]))


def surface_of(semi_mm: tuple[float, float, float]) -> float:
    """Surface of an ellipsoid (cm2). Source: Legendre's formula with incomplete elliptic integrals, DLMF 19.33."""
    a, b, c = sorted(semi_mm, reverse=True)
    phi = np.arccos(c / a)
    m = a**2 * (b**2 - c**2) / (b**2 * (a**2 - c**2))
    turned = np.sin(phi) ** 2 * ellipeinc(phi, m) + np.cos(phi) ** 2 * ellipkinc(phi, m)
    return float(2 * np.pi * c**2 + 2 * np.pi * a * b / np.sin(phi) * turned) / 100


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (0.8, 0.8, 2.5)])
@pytest.mark.parametrize("semi_mm", [(40.0, 39.0, 38.0), (60.0, 35.0, 25.0)])
def test_an_ellipsoid_has_its_extent_and_its_surface(
    semi_mm: tuple[float, float, float], spacing_mm: tuple[float, float, float]
) -> None:
    labels, grid = ellipsoid(semi_mm, spacing_mm)
    found = shapes(labels * 3, grid)[3]
    assert found.extent_mm == pytest.approx([2 * a for a in semi_mm], abs=2.6)
    assert found.surface_cm2 == pytest.approx(surface_of(semi_mm), rel=0.06)


def test_neither_depends_on_how_the_array_lies_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agseg.measure.shape.SLAB_VOXELS", 700)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, (9, 11, 13)).astype(np.uint8)
    labels[:2] = labels[:, -1:] = labels[:, :, :3] = 0  # so that it shows if an axis is read from the wrong end
    grid = Grid(labels.shape, np.diag([1.0, 2.0, 3.0, 1.0]))
    expected = shapes(labels, grid)
    for turned in (np.asfortranarray(labels), np.flip(np.flip(labels, 0).copy(), 0)):
        assert shapes(turned, grid) == expected
    other, permutation, flips = grid.reoriented("SPL")
    moved = labels.transpose(permutation)[tuple(slice(None, None, -1 if flip else None) for flip in flips)]
    for label, shape in shapes(moved, other).items():
        assert shape.extent_mm == expected[label].extent_mm
        assert shape.surface_cm2 == pytest.approx(expected[label].surface_cm2)


def test_the_spread_is_that_of_the_organs_values() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(60, 20, (20, 20, 20)).round().astype(np.int16)
    labels = (rng.random((20, 20, 20)) < 0.3).astype(np.uint8) * 2
    counts = histograms(labels, values)
    inside = values[labels == 2]
    found = spread(counts[2])
    assert found is not None
    assert found.sd == pytest.approx(inside.std())
    for percent, value in found.percentiles.items():
        assert value == np.percentile(inside, percent, method="inverted_cdf")
    assert share_between(counts[2], 40, 80) == pytest.approx(((inside >= 40) & (inside <= 80)).mean())
    assert spread(counts[1]) is None
    assert share_between(counts[1], 0, 1) == 0
