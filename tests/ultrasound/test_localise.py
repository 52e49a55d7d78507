"""Boxes follow the maps, at any scale."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agseg.ultrasound.fan import box_iou
from agseg.ultrasound.localise import box_in_source, combine, find_box, resized

SHAPE = (208, 272)


def blob(centre, radius=20, shape=SHAPE):
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return np.exp(-((columns - centre[0]) ** 2 + (rows - centre[1]) ** 2) / (2 * radius**2)).astype(np.float32)


@given(st.integers(70, 200), st.integers(60, 150))
def test_the_box_moves_with_the_map(x, y):
    box = find_box([blob((x, y))])
    assert box is not None
    assert ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2) == pytest.approx((x, y), abs=2)


def test_a_mirrored_map_gives_the_mirrored_box():
    one = blob((90, 80)) + 0.4 * blob((130, 110))
    box, mirrored = find_box([one]), find_box([one[:, ::-1]])
    assert mirrored == (SHAPE[1] - box[2], box[1], SHAPE[1] - box[0], box[3])


def test_the_component_that_all_scales_support_wins_over_a_brighter_one_of_a_single_scale():
    lone = blob((60, 60), 18)
    shared = blob((200, 140), 18)
    box = find_box([0.5 * shared + 1.5 * lone, shared, shared])
    assert box_iou(box, find_box([shared])) > 0.7


def test_maps_that_say_nothing_give_no_box():
    assert find_box([np.zeros(SHAPE, np.float32)] * 3) is None
    assert not resized(np.full((13, 17), -1, np.float32), SHAPE).any()
    assert not resized(np.full((13, 17), np.nan, np.float32), SHAPE).any()


def test_the_strength_of_a_map_does_not_matter():
    grid = np.random.default_rng(0).random((13, 17)).astype(np.float32)
    assert np.allclose(resized(grid, SHAPE), resized(100 * grid, SHAPE), atol=1e-6)
    assert resized(grid, SHAPE).max() == pytest.approx(1)
    assert combine([resized(grid, SHAPE)] * 3).max() == pytest.approx(1)


@given(st.integers(0, 100), st.integers(0, 100), st.integers(200, 600), st.integers(200, 400))
def test_a_box_over_the_whole_input_is_the_view_in_the_source(x0, y0, width, height):
    view = (x0, y0, x0 + width, y0 + height)
    assert box_in_source((0, 0, 272, 208), shape=SHAPE, view=view, size=(800, 600)) == view


def test_a_box_beyond_the_frame_is_cut_to_it():
    assert box_in_source((0, 0, 272, 208), shape=SHAPE, view=(-50, -40, 850, 640), size=(800, 600)) == (0, 0, 800, 600)
