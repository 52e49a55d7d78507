"""The fan is found where it is, wherever it is; letters around it are not shown."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from agseg.errors import InputError
from agseg.ultrasound.fan import (
    INPUT_ASPECT,
    SONONET_CROP,
    View,
    ViewKind,
    box_iou,
    cropped_view,
    find_view,
    masked,
    view_pixels,
)
from tests.ultrasound.scans import fan_frame


def grey(pixels):
    return np.asarray(Image.fromarray(pixels).convert("L"))


def bounds(view):
    xs, ys = zip(*view.outline, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


@given(x=st.integers(20, 300), y=st.integers(40, 160), width=st.integers(200, 320), height=st.integers(180, 300))
def test_a_fan_is_found_within_a_few_pixels_wherever_it_lies(x, y, width, height):
    box = (x, y, x + width, y + height)
    view = find_view(grey(fan_frame(box=box, seed=x)))
    assert view.kind is ViewKind.FAN
    assert np.allclose(bounds(view), np.array(box), atol=12)


def test_a_shifted_frame_gives_the_shifted_view():
    pixels = fan_frame(text=False)
    moved = np.roll(pixels, (20, -40), axis=(0, 1))
    one, other = find_view(grey(pixels)), find_view(grey(moved))
    assert np.allclose(np.array(other.box) - np.array(one.box), (-40, 20, -40, 20), atol=4)


def test_letters_outside_of_the_fan_are_black_in_what_is_shown_and_in_what_the_network_sees():
    with_text, without = fan_frame(text=True), fan_frame(text=False)
    view = find_view(grey(with_text))
    # Whatever the outline, the letters' pixels are not inside it.
    letters = (with_text != without).any(axis=2)
    assert letters.any()
    assert not (masked(with_text, view)[letters]).any()
    assert np.array_equal(view_pixels(with_text, view), view_pixels(without, view))


def test_the_view_keeps_the_proportions_of_the_input():
    view = find_view(grey(fan_frame()))
    width, height = view.box[2] - view.box[0], view.box[3] - view.box[1]
    assert width / height == pytest.approx(INPUT_ASPECT, abs=0.01)


def test_a_view_beyond_the_frame_is_black_there():
    pixels = np.full((100, 100, 3), 200, np.uint8)
    shown = view_pixels(pixels, View(ViewKind.FAN, (-10, -10, 110, 110), ((0, 0), (99, 0), (99, 99), (0, 99))))
    assert shown.shape == (120, 120, 3)
    assert not shown[:10].any()
    assert (shown[10:110, 10:110] == 200).all()


def test_a_black_frame_has_no_fan_and_is_used_whole():
    assert find_view(np.zeros((480, 640), np.uint8)).kind is ViewKind.WHOLE


def test_the_files_own_region_bounds_the_search():
    pixels = fan_frame(box=(160, 60, 500, 440))
    view = find_view(grey(pixels), region=(160, 60, 500, 250))
    assert bounds(view)[3] <= 250
    empty = find_view(np.zeros((480, 640), np.uint8), region=(100, 50, 300, 250))
    assert empty.kind is ViewKind.REGION


@pytest.mark.parametrize("size", [(975, 735), (976, 736), (974, 734)])
def test_the_sononet_layout_is_recognised_at_the_sizes_that_video_makes_of_it(size):
    pixels = np.zeros((size[1], size[0]), np.uint8)
    pixels[20:70, 150:950] = 60  # the scanner's panel
    pixels[115:700, 200:700] = 90
    view = find_view(pixels)
    assert view == View(ViewKind.SONONET_LAYOUT, SONONET_CROP)
    pixels[20:70] = 0
    assert find_view(pixels).kind is not ViewKind.SONONET_LAYOUT


def test_a_crop_is_cut_to_the_frame_and_refused_outside_of_it():
    assert cropped_view((-5, 10, 700, 400), (640, 480)).box == (0, 10, 640, 400)
    with pytest.raises(InputError):
        cropped_view((700, 10, 900, 400), (640, 480))


@given(
    st.tuples(*[st.integers(0, 50)] * 2, *[st.integers(51, 90)] * 2),
    st.tuples(*[st.integers(0, 50)] * 2, *[st.integers(51, 90)] * 2),
)
def test_box_iou_is_that_of_the_pixels(one, other):
    masks = []
    for box in (one, other):
        mask = np.zeros((100, 100), bool)
        mask[box[1] : box[3], box[0] : box[2]] = True
        masks.append(mask)
    expected = (masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum()
    assert box_iou(one, other) == pytest.approx(expected)


@pytest.mark.slow
@pytest.mark.shared
def test_real_frames_of_the_layout_are_recognised_and_real_fans_are_found(shared_data):
    for path in sorted((shared_data / "us/sononet_frames").glob("*.tiff")):
        with Image.open(path) as image:
            assert find_view(np.asarray(image.convert("L"))).kind is ViewKind.SONONET_LAYOUT
    for path in sorted((shared_data / "us/hc18/image").glob("*.png")):
        with Image.open(path) as image:
            view = find_view(np.asarray(image.convert("L")))
        assert view.kind is ViewKind.FAN
        x0, y0, x1, y1 = bounds(view)
        assert (x1 - x0) * (y1 - y0) > 0.6 * 800 * 540
