"""Figure 1 in our form: what enters a gate, its coefficients, and what leaves it, where they are."""

from __future__ import annotations

import numpy as np
import pytest

from agseg.grid import Grid
from agseg.io.gating import SIDE_PX, draw_gating, middle_of, planes_of

GRID = Grid((20, 16, 12), np.diag([2.0, 2.0, 3.0, 1.0]))


def arrays() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    labels = np.zeros(GRID.shape, dtype=np.uint8)
    labels[4:8, 5:9, 3:7] = 1
    image = labels * 100.0
    before = np.full(GRID.shape, 2.0, dtype=np.float32)
    alpha = np.where(labels > 0, 0.96, 0.90).astype(np.float32)  # moves little: seen on a scale of its own
    return labels, image, before, alpha


def columns(sheet: np.ndarray, count: int) -> list[np.ndarray]:
    """The axial row's panels: 20 x 16 voxels of 2 mm."""
    height = round(SIDE_PX * 16 / 20)
    return [sheet[20 : 20 + height, n * (SIDE_PX + 6) : n * (SIDE_PX + 6) + SIDE_PX].astype(int) for n in range(count)]


def drawn(grid: Grid = GRID, turn: tuple[int, ...] = (), *, flips: tuple[bool, ...] = (False,) * 3) -> np.ndarray:
    parts = []
    for values in arrays():
        laid = values.transpose(turn or (0, 1, 2))[tuple(slice(None, None, -1 if flip else None) for flip in flips)]
        parts.append(laid)
    labels, image, before, alpha = parts
    at = middle_of(labels)
    planes = [planes_of(values, grid, at) for values in (image, before, alpha, alpha**8)]
    return np.asarray(draw_gating(planes[0], planes[1], {"gate1-1": planes[2], "gate1-2": planes[3]}, grid=grid))


def test_a_gate_that_closes_darkens_its_features_and_its_coefficients_have_their_own_scale() -> None:
    image, first, second, before, after, _ = columns(drawn(), 6)
    assert np.array_equal(first, second)
    bright = image[..., 0] > 200
    assert 0.03 < bright.mean() < 0.08
    assert first[bright][:, 0].mean() > 240  # red where it is open
    assert first[~bright][:, 2].mean() > 100  # blue elsewhere, though 0.90 of all passes
    assert np.ptp(before[5:-5, 5:-5]) == 0
    assert after[bright].mean() == pytest.approx(0.96 * 255, abs=4)
    assert after[~bright].mean() == pytest.approx(0.90 * 255, abs=4)


def test_the_sheet_does_not_depend_on_how_the_array_lies() -> None:
    grid, order, flips = GRID.reoriented("SLA")
    np.testing.assert_array_equal(drawn(grid, order, flips=flips), drawn())


def test_planes_go_through_what_is_labelled_and_else_through_the_middle() -> None:
    labels, *_ = arrays()
    assert middle_of(labels) == (4, 5, 3)
    assert middle_of(np.zeros((5, 7, 9), dtype=np.uint8)) == (2, 3, 4)
