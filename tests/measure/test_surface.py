import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agseg.measure.surface import boundary, s2s_slice_mm, surface_dice, surface_distance


def cube(shape, low, high):
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    return mask


def test_single_voxels_lie_their_spacing_apart():
    one, other = np.zeros((5, 5, 5), dtype=bool), np.zeros((5, 5, 5), dtype=bool)
    one[1, 1, 1] = other[4, 1, 3] = True
    found = surface_distance(one, truth=other, spacing_mm=(2.0, 1.0, 3.0))
    expected = math.hypot(3 * 2.0, 2 * 3.0)
    assert found.s2s_mm == pytest.approx(expected)
    assert found.hausdorff_mm == pytest.approx(expected)
    assert found.hausdorff95_mm == pytest.approx(expected)


def test_hand_worked_both_directions():
    # A is one voxel, B a row of three along j: A -> B 0; B -> A 0, 2, 4 mm. Half of (0 + 2) is 1.
    one, row = np.zeros((1, 3, 1), dtype=bool), np.ones((1, 3, 1), dtype=bool)
    one[0, 0, 0] = True
    found = surface_distance(one, truth=row, spacing_mm=(1.0, 2.0, 1.0))
    assert found.s2s_mm == pytest.approx(1.0)
    assert found.hausdorff_mm == pytest.approx(4.0)


def test_parallel_plates():
    first, second = cube((8, 6, 6), (1, 0, 0), (2, 6, 6)), cube((8, 6, 6), (4, 0, 0), (5, 6, 6))
    assert surface_distance(first, truth=second, spacing_mm=(1.5, 1, 1)).s2s_mm == pytest.approx(4.5)


def test_only_the_boundary_counts():
    solid = cube((7, 7, 7), (1, 1, 1), (6, 6, 6))
    hollow = solid.copy()
    hollow[3, 3, 3] = False
    assert boundary(solid).sum() == 5**3 - 3**3
    assert boundary(np.ones((3, 3, 3), dtype=bool)).sum() == 26  # beyond the array is outside
    assert surface_distance(solid, truth=solid, spacing_mm=(1, 1, 1)).s2s_mm == 0
    assert surface_distance(solid, truth=hollow, spacing_mm=(1, 1, 1)).s2s_mm > 0


def test_empty_has_no_distance():
    nothing, something = np.zeros((3, 3, 3), dtype=bool), np.ones((3, 3, 3), dtype=bool)
    for prediction, truth in ((nothing, something), (something, nothing), (nothing, nothing)):
        assert math.isnan(surface_distance(prediction, truth=truth, spacing_mm=(1, 1, 1)).s2s_mm)
        assert math.isnan(s2s_slice_mm(prediction, truth=truth, spacing_mm=(1, 1, 1)))


def test_slicewise_ignores_slices_that_only_one_reaches():
    first, second = np.zeros((6, 6, 4), dtype=bool), np.zeros((6, 6, 4), dtype=bool)
    first[2, 2, :] = True
    second[2, 4, 0] = second[2, 3, 1] = True
    found = s2s_slice_mm(first, truth=second, spacing_mm=(1.0, 2.0, 5.0))
    assert found == pytest.approx((4.0 + 2.0) / 2)
    assert surface_distance(first, truth=second, spacing_mm=(1.0, 2.0, 5.0)).s2s_mm > found


def test_slicewise_follows_its_axis():
    first, second = cube((6, 6, 6), (0, 0, 0), (1, 1, 6)), cube((6, 6, 6), (3, 0, 0), (4, 1, 6))
    assert s2s_slice_mm(first, truth=second, spacing_mm=(2, 1, 1), slice_axis=2) == pytest.approx(6.0)
    assert math.isnan(s2s_slice_mm(first, truth=second, spacing_mm=(2, 1, 1), slice_axis=0))


@settings(deadline=None, max_examples=30)
@given(
    shift=st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)),
    spacing=st.tuples(*[st.floats(0.5, 5)] * 3),
    axis=st.integers(0, 2),
)
def test_symmetric_mirror_invariant_and_scaled_by_spacing(shift, spacing, axis):
    first = cube((9, 9, 9), (1, 1, 1), (4, 5, 3))
    second = np.roll(first, shift, axis=(0, 1, 2))
    found = surface_distance(first, truth=second, spacing_mm=spacing)
    assert found.s2s_mm == pytest.approx(surface_distance(second, truth=first, spacing_mm=spacing).s2s_mm)
    mirrored = surface_distance(np.flip(first, axis), truth=np.flip(second, axis), spacing_mm=spacing)
    assert found.s2s_mm == pytest.approx(mirrored.s2s_mm)
    doubled = surface_distance(first, truth=second, spacing_mm=[2 * s for s in spacing])
    assert doubled.s2s_mm == pytest.approx(2 * found.s2s_mm)
    moved_mm = math.sqrt(sum((n * s) ** 2 for n, s in zip(shift, spacing, strict=True)))
    assert found.s2s_mm <= found.hausdorff95_mm + 1e-9 <= found.hausdorff_mm + 2e-9 <= moved_mm + 3e-9


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 999), spacing=st.tuples(*[st.floats(0.5, 5)] * 3), slice_axis=st.integers(0, 2))
def test_perpendicular_axes_and_their_spacing_say_the_same(seed, spacing, slice_axis):
    first, second = np.random.default_rng(seed).random((2, 6, 5, 7)) < 0.3
    axes = np.linalg.qr(np.random.default_rng(seed).random((3, 3)))[0] * spacing
    one = surface_distance(first, truth=second, spacing_mm=spacing)
    other = surface_distance(first, truth=second, spacing_mm=spacing, axes_mm=axes)
    assert (one.s2s_mm, one.hausdorff_mm, one.hausdorff95_mm) == pytest.approx(
        (other.s2s_mm, other.hausdorff_mm, other.hausdorff95_mm)
    )
    assert s2s_slice_mm(first, truth=second, spacing_mm=spacing, slice_axis=slice_axis) == pytest.approx(
        s2s_slice_mm(first, truth=second, spacing_mm=spacing, slice_axis=slice_axis, axes_mm=axes)
    )


@pytest.mark.parametrize("spacing", [(1, 1), (1, 0, 1)])
def test_a_spacing_that_does_not_fit_is_refused(spacing):
    with pytest.raises(ValueError, match="spacing"):
        surface_distance(np.ones((2, 2, 2), bool), truth=np.ones((2, 2, 2), bool), spacing_mm=spacing)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="differ in shape"):
        surface_distance(np.ones((2, 2, 2), bool), truth=np.ones((2, 2, 3), bool), spacing_mm=(1, 1, 1))


def test_surface_dice_counts_what_lies_within_the_tolerance():
    one, moved = cube((20, 20, 20), (4, 4, 4), (12, 12, 12)), cube((20, 20, 20), (6, 4, 4), (14, 12, 12))
    assert surface_dice(one, truth=one, spacing_mm=(1, 1, 1), tolerance_mm=0.0) == 1.0
    assert surface_dice(one, truth=moved, spacing_mm=(1, 1, 1), tolerance_mm=2.0) == 1.0
    partly = surface_dice(one, truth=moved, spacing_mm=(1, 1, 1), tolerance_mm=1.0)
    assert 0.3 < partly < 1.0
    assert surface_dice(one, truth=moved, spacing_mm=(3, 1, 1), tolerance_mm=2.0) < 1.0
    assert surface_dice(one, truth=np.zeros_like(one), spacing_mm=(1, 1, 1), tolerance_mm=2.0) == 0.0
    assert math.isnan(surface_dice(np.zeros_like(one), truth=np.zeros_like(one), spacing_mm=(1, 1, 1), tolerance_mm=2.0))
