"""Label values: what the file means, or an error; never wrapped, never cut off."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agseg.errors import Code, InputError
from agseg.io.voxels import LABEL_TOLERANCE, as_labels

SHAPE = (4, 3, 5)
EVERY_TYPE = ["u1", "i1", "u2", "<i2", ">i2", "i4", "u4", "i8", "u8", "<f4", ">f4", "f8"]


def filled(value: float, dtype: str = "f8") -> np.ndarray:
    """One voxel of this value among zeros, Fortran-ordered."""
    stored = np.zeros(SHAPE, dtype=dtype, order="F")
    stored[1, 2, 3] = value
    return stored


@given(label=st.integers(0, 127), dtype=st.sampled_from(EVERY_TYPE))
def test_every_type_of_number_gives_the_same_labels(label: int, dtype: str) -> None:
    labels = as_labels(filled(label, dtype), None)
    assert (labels.dtype, labels.shape, labels.flags.f_contiguous) == (np.uint8, SHAPE, True)
    assert labels[1, 2, 3] == label
    assert labels.sum(dtype=int) == label


@given(label=st.integers(0, 255), error=st.floats(-0.9 * LABEL_TOLERANCE, 0.9 * LABEL_TOLERANCE))
def test_a_label_that_a_detour_over_fractions_moved_is_rounded(label: int, error: float) -> None:
    assert as_labels(filled(label + error), None)[1, 2, 3] == label


@given(
    label=st.integers(0, 255),
    slope=st.sampled_from([0.5, 1.0, 2.0, 255 / 65535, -1.0]),
    intercept=st.sampled_from([0.0, -3.0, 1.0, 255.0]),
)
def test_the_headers_scale_is_applied(label: int, slope: float, intercept: float) -> None:
    stored = np.full(SHAPE, (label - intercept) / slope, order="F")
    assert (as_labels(stored, (slope, intercept)) == label).all()


@pytest.mark.parametrize(
    ("stored", "scale"),
    [
        (filled(256, "i2"), None),
        (filled(257, "u2"), None),
        (filled(-1, "i1"), None),
        (filled(2**32 + 1, "i8"), None),
        (filled(0.5), None),
        (filled(1.002), None),
        (filled(np.nan), None),
        (filled(np.inf), None),
        (filled(128, "u1"), (2.0, 0.0)),
        (filled(1, "u1"), (0.5, 0.0)),
    ],
)
def test_what_no_mask_can_hold_is_refused(stored: np.ndarray, scale: tuple[float, float] | None) -> None:
    with pytest.raises(InputError, match="expected 0 to 255") as caught:
        as_labels(stored, scale)
    assert caught.value.code is Code.DTYPE


def test_the_error_names_the_value() -> None:
    with pytest.raises(InputError, match="found 257,"):
        as_labels(filled(257, "i2"), None)


def test_bytes_without_a_scale_are_not_copied() -> None:
    stored = filled(7, "u1")
    assert as_labels(stored, None) is stored
