"""Surface distances weighted by area, held against closed forms."""

import itertools
import math

import numpy as np
import pytest

from agseg.measure.surface import surface_distance
from agseg.measure.surface_area import area_distance, cell_pieces

UNIT = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def ball(radius_mm, spacing_mm, *, side_mm=50.0, centre_mm=(0.13, 0.21, -0.17)):
    counts = [int(side_mm / spacing) for spacing in spacing_mm]
    axes = [(np.arange(n) - n / 2) * s - c for n, s, c in zip(counts, spacing_mm, centre_mm, strict=True)]
    return sum(np.square(a) for a in np.meshgrid(*axes, indexing="ij")) <= radius_mm**2


def below(normal, offset, shape=(24, 24, 24)):
    """Voxels below a plane."""
    return sum(n * i for n, i in zip(normal, np.indices(shape), strict=True)) <= offset


def cut(mask, margin=2):
    """The middle of a mask: where a plane ends at the array's edge, other faces would count."""
    codes = np.zeros([n + 1 for n in mask.shape], dtype=int)
    padded = np.pad(mask, 1)
    for bit, corner in enumerate(itertools.product((0, 1), repeat=3)):
        codes += padded[tuple(slice(c, c + n) for c, n in zip(corner, codes.shape, strict=True))].astype(int) << bit
    return codes[(slice(margin, -margin),) * 3]


@pytest.mark.parametrize("normal", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, -1, 0), (0, 1, 1), (1, 1, 1), (1, -1, 1)])
@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (0.7, 0.8, 3.0)])
def test_planes_through_the_grid_have_their_own_area(normal, spacing_mm):
    """Exact in every direction of a cell's edges and diagonals: per voxel column along x, the area is the column's over cos."""
    areas, _ = cell_pieces(tuple(np.diag(spacing_mm).ravel()))
    offset = sum(n * 12 for n in normal) if any(n < 0 for n in normal) else sum(normal) * 12 + 0.5
    found = areas[cut(below(normal, offset))]
    # In index space the plane n·i = c is, in mm, (n / spacing)·x = c: columns along an axis that it cuts all over.
    across = max(range(3), key=lambda axis: abs(normal[axis]))
    steep = np.array(normal) / spacing_mm
    cosine = abs(steep[across]) / np.linalg.norm(steep)
    columns = found.sum(axis=across)
    full = columns[4:-4, 4:-4] if sum(map(abs, normal)) == 1 else None
    column_mm2 = np.prod(spacing_mm) / spacing_mm[across]
    if full is not None:
        np.testing.assert_allclose(full, column_mm2 / cosine)
    else:
        middle = (slice(9, 12),) * 2  # columns that the plane meets well inside the array
        assert columns[middle].mean() == pytest.approx(column_mm2 / cosine, rel=1e-9)


def test_the_surface_of_a_mask_is_that_of_what_lies_around_it_and_no_cell_leaks():
    """Of masks without corners that face each other, inside and outside have the same pieces; all pieces close together."""
    areas, middles = cell_pieces(UNIT)
    assert areas[0] == areas[255] == 0
    assert areas[1] == pytest.approx(math.sqrt(3) / 8)
    np.testing.assert_allclose(middles[1], [1 / 6] * 3)
    assert areas[0b1111] == pytest.approx(1.0)
    straight = [c for c in range(256) if bin(c).count("1") in (1, 2, 7, 6) and abs(areas[c] - areas[255 - c]) < 1e-12]
    assert {1, 3, 254, 252} <= set(straight)
    turned = np.array([sum(1 << bit for bit in range(8) if code >> (7 - bit) & 1) for code in range(256)])  # about the middle
    np.testing.assert_allclose(areas[turned], areas)
    np.testing.assert_allclose(middles[turned][1:255], 1 - middles[1:255])


@pytest.mark.parametrize(("spacing_mm", "steps"), [((1.0, 1.0, 1.0), 1.09), ((0.5, 0.5, 0.5), 1.09), ((0.7, 0.7, 2.5), 1.2)])
def test_a_ball_has_the_area_of_its_steps(spacing_mm, steps):
    """A surface of facets is larger than the sphere, by at most a tenth on cubes; thick slices make larger steps."""
    found = area_distance(ball(20, spacing_mm), truth=ball(20, spacing_mm), spacing_mm=spacing_mm)
    assert 1.0 < found.truth_mm2 / (4 * math.pi * 20**2) < steps
    assert found.truth_mm2 == found.prediction_mm2
    assert (found.s2s_mm, found.hausdorff95_mm, found.surface_dice) == (0, 0, 1)


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (0.7, 0.7, 2.5), (0.8, 0.8, 5.0)])
@pytest.mark.parametrize("gap_mm", [1.0, 4.0])
def test_concentric_balls_lie_as_far_apart_as_their_radii(spacing_mm, gap_mm):
    inner, outer = ball(18, spacing_mm), ball(18 + gap_mm, spacing_mm)
    found = area_distance(inner, truth=outer, spacing_mm=spacing_mm)
    assert found.s2s_mm == pytest.approx(gap_mm, rel=0.13)
    assert abs(found.s2s_mm - gap_mm) <= abs(surface_distance(inner, truth=outer, spacing_mm=spacing_mm).s2s_mm - gap_mm) + 0.05


def test_a_shifted_box_is_worked_out_by_hand():
    """A box of 10 x 10 x 2 voxels, moved 3 along x: one end is 3 mm away, the other lies inside, the rest is 0 to 3 away."""
    box = np.zeros((30, 30, 12), dtype=bool)
    box[8:18, 10:20, 5:7] = True
    moved = np.roll(box, 3, axis=0)
    found = area_distance(box, truth=moved, spacing_mm=(1.0, 1.0, 1.0))
    assert found.hausdorff95_mm == pytest.approx(3.0, abs=0.3)
    # An end of 20 mm² at 3 mm, one between broad faces at 0 to 1 mm, and 3 mm of an outline of 24 mm at 0 to 3 mm.
    assert found.s2s_mm == pytest.approx((20 * 3 + 20 * 0.5 + 3 * 24 * 1.5) / 280, rel=0.1)


def test_a_face_counts_by_its_area_and_not_by_its_voxels():
    """Thick slices: a plate's broad faces have few voxels beside its rim in mm²; their distance must not be drowned."""
    spacing = (1.0, 1.0, 10.0)
    plate, taller = np.zeros((40, 40, 12), dtype=bool), np.zeros((40, 40, 12), dtype=bool)
    plate[5:35, 5:35, 4:6] = True
    taller[5:35, 5:35, 4:7] = True
    found = area_distance(plate, truth=taller, spacing_mm=spacing)
    # The plate's top lies within the taller one: 10 mm below its top, or nearer to a side, 4333 mm³ in all. The taller one's
    # top is 10 mm away, and the rim below it 5 on average. Counted by voxels the same is 3.4.
    expected = (4333 / 4200 + (900 * 10 + 1200 * 5) / 5400) / 2
    assert found.s2s_mm == pytest.approx(expected, rel=0.1)
    assert surface_distance(plate, truth=taller, spacing_mm=spacing).s2s_mm > 1.25 * expected


def test_sheared_axes_are_measured_in_the_patient():
    """A tilted gantry: the same solid drawn on a sheared grid has the area and distances that it has on an upright one."""
    axes = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0], [0.0, 0.0, 2.0]])
    places = np.stack(np.indices((60, 60, 24)), axis=-1) @ axes.T

    def drawn(radius):
        return np.linalg.norm(places - places[30, 30, 12] - 0.1, axis=-1) <= radius

    found = area_distance(drawn(15), truth=drawn(18), spacing_mm=np.linalg.norm(axes, axis=0), axes_mm=axes)
    assert found.s2s_mm == pytest.approx(3.0, rel=0.1)
    assert 1.0 < found.truth_mm2 / (4 * math.pi * 18**2) < 1.25


def test_empty_masks_and_other_dimensions():
    nothing, something = np.zeros((3, 3, 3), dtype=bool), np.ones((3, 3, 3), dtype=bool)
    both = area_distance(nothing, truth=nothing, spacing_mm=(1, 1, 1))
    assert math.isnan(both.s2s_mm)
    assert math.isnan(both.surface_dice)
    one = area_distance(nothing, truth=something, spacing_mm=(1, 1, 1))
    assert math.isnan(one.s2s_mm)
    assert (one.surface_dice, one.prediction_mm2) == (0.0, 0.0)
    with pytest.raises(ValueError, match="three dimensions"):
        area_distance(np.ones((3, 3), dtype=bool), truth=np.ones((3, 3), dtype=bool), spacing_mm=(1, 1))
    with pytest.raises(ValueError, match="differ in shape"):
        area_distance(something, truth=np.ones((3, 3, 4), dtype=bool), spacing_mm=(1, 1, 1))
