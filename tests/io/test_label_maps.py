"""Whole numbers from 0 to 255 are labels; grey values of 8 bits are not, and nobody may lose a CT because of them."""

from __future__ import annotations

import numpy as np
import pytest

from agseg.errors import Code, InputError
from agseg.io.label_maps import is_label_map
from agseg.io.voxels import LABEL_LIMIT

RANDOM = np.random.default_rng(0)


def pieces(values: np.ndarray, count: int = 3):
    return iter(np.array_split(values.ravel(order="F"), count))


def blocks(labels: int, dtype: str = "u1") -> np.ndarray:
    """A volume of solid structures on background."""
    volume = np.zeros((48, 48, 48), dtype=dtype)
    for number in range(labels):
        x, y, z = np.unravel_index(number % 512, (8, 8, 8))
        volume[6 * x : 6 * x + 5, 6 * y : 6 * y + 5, 6 * z : 6 * z + 5] = number + 1
    return volume


@pytest.mark.parametrize("labels", [1, 5, 30, 117])
@pytest.mark.parametrize("dtype", ["u1", "<i2", ">u2", "<f4"])
def test_structures_are_labels(labels, dtype):
    assert is_label_map(pieces(blocks(labels, dtype)))


@pytest.mark.parametrize("values", [256, 200, 60])
def test_grey_values_are_no_labels(values):
    body = RANDOM.integers(1, values, (40, 40, 40))
    body[:12] = 0  # air, clipped by the window
    assert not is_label_map(pieces(body.astype("u1")))


def test_empty_bytes_may_be_a_mask_and_empty_words_are_an_image():
    assert is_label_map(pieces(np.zeros((9, 9, 9), dtype="u1")))
    assert not is_label_map(pieces(np.zeros((9, 9, 9), dtype="<i2")))


@pytest.mark.parametrize("value", [-1, LABEL_LIMIT + 1, 0.5, np.nan, np.inf])
def test_one_value_that_no_label_has_is_enough(value):
    volume = blocks(3, "<f4")
    volume[-1, -1, -1] = value
    assert not is_label_map(pieces(volume))


def test_damage_is_left_to_the_reader():
    def damaged():
        yield np.zeros(9, dtype="u1")
        raise InputError("cut", code=Code.TRUNCATED)

    assert not is_label_map(damaged())
