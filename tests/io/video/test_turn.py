"""Turning: a pixel is shown where the display matrix sends it, for all eight ways a picture can lie."""

import itertools
import struct

import numpy as np
import pytest

from agseg.io.video.turn import UPRIGHT, Turn

WAYS = [
    tuple(sign * (k == axis) for axis, sign in zip(axes, signs, strict=True) for k in (0, 1))
    for axes in ((0, 1), (1, 0))
    for signs in itertools.product((1, -1), repeat=2)
]
"""(a, b, c, d): where the steps along x and along y lead."""


def matrix(a, b, c, d):
    return struct.pack("=9i", *(round(v * 65536) for v in (a, b, 0, c, d, 0, 320, 240)), 0x40000000)


@pytest.mark.parametrize("way", WAYS)
def test_every_pixel_is_shown_where_the_matrix_sends_it(way):
    a, b, c, d = way
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    turn = Turn.of_matrix(matrix(*way))
    shown = turn.apply(picture)
    assert (shown.shape[1], shown.shape[0]) == turn.size(7, 5)
    places = {(a * x + c * y, b * x + d * y): picture[y, x] for y in range(5) for x in range(7)}
    left, top = (min(place[axis] for place in places) for axis in (0, 1))
    for (x, y), colour in places.items():
        assert np.array_equal(shown[y - top, x - left], colour)


def test_what_is_no_quarter_turn_is_not_guessed():
    assert Turn.of_matrix(matrix(0.7071, 0.7071, -0.7071, 0.7071)) is None
    assert Turn.of_matrix(b"\0" * 36) is None
    assert Turn.of_matrix(b"") is None
    assert Turn.of_matrix(matrix(1, 0, 0, 1)) == UPRIGHT
