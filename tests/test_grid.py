"""Laws of the grid: index and world are inverses, reorientation moves no voxel, resampling keeps the first centre."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from agseg.errors import Code, InputError
from agseg.grid import Grid

CODES = ["".join(c) for axes in itertools.permutations(("LR", "PA", "IS")) for c in itertools.product(*axes)]
shapes = st.tuples(*[st.integers(1, 40)] * 3)
spacings = st.tuples(*[st.floats(0.1, 8.0)] * 3)
angles = st.tuples(*[st.floats(-180, 180)] * 3)
origins = st.tuples(*[st.floats(-500, 500)] * 3)


@st.composite
def grids(draw):
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", draw(angles), degrees=True).as_matrix() @ np.diag(draw(spacings))
    if draw(st.booleans()):
        affine[:3, 0] *= -1  # left-handed grids exist
    affine[:3, 3] = draw(origins)
    return Grid(draw(shapes), affine)


@settings(deadline=None)
@given(grids(), st.lists(st.tuples(*[st.floats(-50, 50)] * 3), min_size=1, max_size=5))
def test_index_and_world_are_inverses(grid, points):
    np.testing.assert_allclose(grid.to_index(grid.to_world(points)), points, atol=1e-6)


@settings(deadline=None)
@given(grids(), st.sampled_from(CODES))
def test_reorientation_moves_no_voxel(grid, codes):
    new, permutation, flips = grid.reoriented(codes)
    assert new.axis_codes == codes
    assert sorted(permutation) == [0, 1, 2]
    assert new.voxel_volume_mm3 == pytest.approx(grid.voxel_volume_mm3)
    index = np.array([n // 3 for n in new.shape])
    old = np.zeros(3)
    for a in range(3):
        old[permutation[a]] = new.shape[a] - 1 - index[a] if flips[a] else index[a]
    np.testing.assert_allclose(new.to_world([index])[0], grid.to_world([old])[0], atol=1e-6)


@settings(deadline=None)
@given(grids(), spacings)
def test_resampling_keeps_the_first_centre_and_covers_the_last_within_half_a_voxel(grid, spacing):
    new = grid.resampled(spacing)
    np.testing.assert_allclose(new.affine[:3, 3], grid.affine[:3, 3])
    np.testing.assert_allclose(new.spacing_mm, spacing)
    for axis in range(3):
        old_length = (grid.shape[axis] - 1) * grid.spacing_mm[axis]
        assert abs((new.shape[axis] - 1) * spacing[axis] - old_length) <= spacing[axis] / 2 + 1e-6


@settings(deadline=None)
@given(grids(), spacings)
def test_a_straightened_grid_covers_every_voxel(grid, spacing):
    straight = grid.straightened(spacing)
    assert straight.axis_codes == "RAS"
    assert straight.obliquity_deg == pytest.approx(0, abs=1e-6)
    index = straight.to_index(grid.corners_mm())
    assert (index > -1e-4).all()
    assert (index < np.array(straight.shape) - 1 + 1e-4).all()


@settings(deadline=None)
@given(grids(), st.tuples(*[st.integers(-3, 10)] * 3))
def test_a_crop_lies_where_it_was(grid, start):
    stop = [s + 4 for s in start]
    crop = grid.cropped(start, stop)
    assert crop.shape == (4, 4, 4)
    np.testing.assert_allclose(crop.to_world([[1, 2, 3]]), grid.to_world([np.add(start, (1, 2, 3))]), atol=1e-6)


def test_a_shear_is_seen_and_its_volume_is_the_determinant():
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    affine[1, 2] = 0.5
    grid = Grid((4, 4, 4), affine)
    assert not grid.is_rectangular
    assert grid.voxel_volume_mm3 == pytest.approx(2.0)


def test_grids_match_within_the_tolerance_and_not_beyond():
    grid = Grid((10, 10, 10), np.eye(4))
    near = np.eye(4)
    near[0, 3] = 0.005
    far = np.eye(4)
    far[0, 0] = 1.01
    assert grid.matches(Grid((10, 10, 10), near))
    assert not grid.matches(Grid((10, 10, 10), far))
    assert not grid.matches(Grid((10, 10, 9), np.eye(4)))


@pytest.mark.parametrize(
    ("affine", "code"),
    [
        (np.zeros((4, 4)) + np.diag([0, 0, 0, 1]), Code.SINGULAR_AFFINE),
        (np.diag([1, 1, np.nan, 1.0]), Code.HEADER_INVALID),
        (np.diag([1, 1, 1, 2.0]), Code.HEADER_INVALID),
    ],
)
def test_an_affine_that_is_none_is_refused(affine, code):
    with pytest.raises(InputError) as caught:
        Grid((2, 2, 2), affine)
    assert caught.value.code == code
