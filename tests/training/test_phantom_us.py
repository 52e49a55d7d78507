import numpy as np
import pytest

from agseg.training.phantom_us import FRAME_SHAPE, PLANES, make_frame, make_frames


def test_every_class_is_drawn_and_boxed():
    frames = list(make_frames(subjects=1))
    assert [frame.label for frame in frames] == list(PLANES)
    for frame in frames:
        assert frame.pixels.shape == FRAME_SHAPE
        assert frame.pixels.dtype == np.uint8
        assert frame.pixels[0, 0] == 0  # outside the fan
        assert frame.pixels.max() > 100
        if frame.label == "Background":
            assert frame.box is None
            continue
        x0, y0, x1, y1 = frame.box
        assert 0 <= x0 < x1 <= FRAME_SHAPE[1]
        assert 0 <= y0 < y1 <= FRAME_SHAPE[0]


def test_a_frame_depends_on_its_seed_subject_and_number_alone():
    frame = make_frame("Femur", subject=2, frame=6, seed=1)
    assert np.array_equal(frame.pixels, make_frame("Femur", subject=2, frame=6, seed=1).pixels)
    for other in (
        {"subject": 3, "frame": 6, "seed": 1},
        {"subject": 2, "frame": 7, "seed": 1},
        {"subject": 2, "frame": 6, "seed": 2},
    ):
        assert not np.array_equal(frame.pixels, make_frame("Femur", **other).pixels)


def test_the_femur_is_bright_inside_its_box():
    brighter = 0
    for number in range(10):
        frame = make_frame("Femur", subject=number, frame=0)
        x0, y0, x1, y1 = frame.box
        inside = np.zeros(FRAME_SHAPE, dtype=bool)
        inside[y0:y1, x0:x1] = True
        outside = ~inside & (frame.pixels > 0)
        brighter += np.percentile(frame.pixels[inside], 95) > np.percentile(frame.pixels[outside], 95)
    assert brighter == 10


def test_an_unknown_class_is_a_key_error():
    with pytest.raises(KeyError):
        make_frame("Foot", subject=1)
