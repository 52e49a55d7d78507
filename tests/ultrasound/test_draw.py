"""Pictures: the right size, the box where it belongs, and nothing else in the file."""

import numpy as np
import PIL.ImageDraw
import pytest

from agseg.ultrasound.draw import annotate, class_colour, draw_timeline
from agseg.ultrasound.timeline import PLANES, FrameState, make_timeline


def test_the_timeline_is_drawn_for_one_frame_and_for_many():
    for count in (1, 3, 5000):
        rows = np.full((count, 14), 1 / 14, np.float32)
        found = make_timeline(rows, classes=PLANES, indices=range(count), times_s=[None] * count, moving=False)
        image = draw_timeline(found)
        assert image.size[0] == 1200
        assert image.info == {}


@pytest.mark.parametrize(("count", "named"), [(1, 1), (3, 3), (7, 7), (12, 12), (5000, 6)])
def test_each_of_a_few_frames_is_named_below_the_timeline(monkeypatch, count, named):
    said = []
    draw = PIL.ImageDraw.ImageDraw.text
    monkeypatch.setattr(
        PIL.ImageDraw.ImageDraw, "text", lambda self, xy, text, *a, **k: (said.append(text), draw(self, xy, text, *a, **k))
    )
    rows = np.full((count, 14), 1 / 14, np.float32)
    draw_timeline(make_timeline(rows, classes=PLANES, indices=range(count), times_s=[None] * count, moving=False))
    assert len({text for text in said if text.startswith("#")}) == named


def test_each_plane_has_a_colour_of_its_own():
    assert len({class_colour(PLANES, name) for name in PLANES}) == len(PLANES)


def test_the_box_is_drawn_around_its_pixels_and_the_map_only_inside_its_view():
    pixels = np.zeros((300, 400, 3), np.uint8)
    heat = np.zeros((208, 272), np.float32)
    heat[80:120, 100:160] = 1
    drawn = annotate(
        pixels,
        label="Femur",
        state=FrameState.PLANE,
        probability=0.9,
        box=(100, 120, 200, 220),
        heat=heat,
        view=(50, 40, 350, 260),
    )
    assert drawn[120, 150].any()
    assert drawn[219, 150].any()
    assert not drawn[125, 98].any()
    assert not drawn[270:].any()
    inside = drawn[40:260, 50:350].astype(int).sum()
    without = annotate(
        pixels,
        label="Femur",
        state=FrameState.PLANE,
        probability=0.9,
        box=(100, 120, 200, 220),
        heat=None,
        view=(50, 40, 350, 260),
    )
    assert inside > without[40:260, 50:350].astype(int).sum()
