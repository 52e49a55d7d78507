import numpy as np
import pytest

from agseg.training import phantom_us
from agseg.training.phantom_us import FRAME_SHAPE, make_frame, make_frames
from agseg.ultrasound.fan import box_iou
from agseg.ultrasound.timeline import BACKGROUND_CLASS, PLANES


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


@pytest.mark.parametrize("label", [name for name in PLANES if name not in (BACKGROUND_CLASS, "Femur")])
def test_the_box_is_the_smallest_around_what_was_drawn(label, monkeypatch):
    """The same tissue with and without the structure differs within the box, and at each of its sides."""
    echoes = []

    def keep(echo, *_scanner):
        echoes.append(echo.copy())
        return np.zeros(FRAME_SHAPE, np.uint8)

    monkeypatch.setattr(phantom_us, "_scan", keep)
    x0, y0, x1, y1 = make_frame(label, subject=1, frame=3).box
    monkeypatch.setitem(phantom_us._DRAW, label, lambda _sketch: None)
    monkeypatch.setattr(phantom_us, "_box", lambda _extent: None)
    make_frame(label, subject=1, frame=3)
    rows, columns = np.nonzero(echoes[0] != echoes[1])
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (x0, y0, x1, y1)


def test_the_femur_is_bright_inside_its_box():
    brighter = 0
    for number in range(10):
        frame = make_frame("Femur", subject=number, frame=0)
        x0, y0, x1, y1 = frame.box
        inside = np.zeros(FRAME_SHAPE, dtype=bool)
        inside[y0:y1, x0:x1] = True
        outside = ~inside & (frame.pixels > 0)
        brighter += np.percentile(frame.pixels[inside], 95) > np.percentile(frame.pixels[outside], 95)
    assert brighter >= 8


@pytest.mark.slow
def test_no_one_box_fits_the_structures():
    """A box that ignores the picture must not be mistaken for one that found something."""
    boxes = [f.box for f in make_frames(subjects=8) if f.box is not None]
    middle = np.mean(boxes, axis=0)
    best = 0.0
    for width in range(30, 180, 25):
        for height in range(30, 180, 25):
            x, y = middle[0] / 2 + middle[2] / 2, middle[1] / 2 + middle[3] / 2
            constant = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
            best = max(best, float(np.mean([box_iou(constant, box) for box in boxes])))
    assert 0.1 < best < 0.35


@pytest.mark.slow
def test_structures_lie_where_the_networks_look():
    """Whatever its size and turn, a structure lies within the fan and the central 208 x 272 of the frame."""
    for frame in make_frames(subjects=6, seed=3):
        if frame.box is not None:
            x0, y0, x1, y1 = frame.box
            assert x0 >= 8
            assert x1 <= 280
            assert y0 >= 8
            assert y1 <= 216


def test_an_unknown_class_is_a_key_error():
    with pytest.raises(KeyError):
        make_frame("Foot", subject=1)
