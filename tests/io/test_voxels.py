"""Label values: what the file means, or an error; never wrapped, never cut off. And what is taken for HU, and what is not."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agseg.errors import Code, InputError
from agseg.io.voxels import LABEL_TOLERANCE, as_hounsfield, as_labels, check_looks_like_hu
from agseg.volume import HU_MAX, HU_MIN
from tests import phantoms

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


AIR, FAT, MUSCLE, LIVER, BONE = -1000, -100, 50, 110, 900


def scan(*, noise_hu: float = 12) -> np.ndarray:
    """A body of fat, muscle, an organ and bone, in air, with a scanner's noise; float32 HU (i, j, k)."""
    away = np.linalg.norm(phantoms.world((40, 36, 10), phantoms.coded_affine("RAS", (40, 36, 10), (8, 8, 8))), axis=-1)
    hu = np.full(away.shape, AIR, np.float64)
    for radius_mm, value in ((150, FAT), (125, MUSCLE), (70, LIVER), (15, BONE)):
        hu[away < radius_mm] = value
    return (hu + np.random.default_rng(0).normal(0, noise_hu, hu.shape)).astype(np.float32)


def _body(hu: np.ndarray) -> np.ndarray:
    return hu > -500


def _only_fat_and_muscle(hu: np.ndarray) -> np.ndarray:
    part = hu[2:9, 15:21, 3:7]
    assert part.min() > -200
    assert part.max() < 120
    return part


REAL = {
    "whole": lambda hu: hu,
    "clipped at -1024": lambda hu: np.where(_body(hu), hu, -1024),
    "filled with 0 around the body": lambda hu: np.where(_body(hu), hu, 0),
    "filled with -2000 around the body": lambda hu: np.where(_body(hu), hu, -2000),
    "nothing around the body": lambda hu: np.where(_body(hu), hu, np.nan),
    "a slab": lambda hu: hu[:, :, 4:7],
    "inside the body, no gas and no bone": _only_fat_and_muscle,
    "a window of soft tissue": lambda hu: np.clip(hu, -160, 240),
    "a narrower window": lambda hu: np.clip(hu, -100, 150),
}
NO_HU = {
    "0 to 1": lambda hu: (np.clip(hu, -160, 240) + 160) / 400,
    "-1 to 1": lambda hu: (np.clip(hu, -160, 240) + 160) / 200 - 1,
    "standard deviations": lambda hu: (hu - hu.mean()) / hu.std(),
    "standard deviations of the body": lambda hu: (hu - hu[_body(hu)].mean()) / hu[_body(hu)].std(),
    "standard deviations, nothing around the body": lambda hu: np.where(_body(hu), (hu - 60) / 90, np.nan),
    "standard deviations, filled with -2000": lambda hu: np.where(_body(hu), (hu - 60) / 90, -2000),
    "thousands of HU": lambda hu: hu / 1000,
    "attenuation, water at 1": lambda hu: 1 + hu / 1000,
    "shifted by 1024": lambda hu: hu + 1024,
}


@pytest.mark.parametrize("scale", [1, 1.1, 0.9])
@pytest.mark.parametrize("name", REAL)
def test_hu_are_taken_however_they_were_cut(name: str, scale: float) -> None:
    voxels, _ = as_hounsfield(np.asfortranarray(REAL[name](scan() * scale)), None)
    check_looks_like_hu(voxels)


@pytest.mark.parametrize("name", NO_HU)
def test_values_made_ready_for_a_network_are_no_hu(name: str) -> None:
    voxels, _ = as_hounsfield(np.asfortranarray(NO_HU[name](scan())), None)
    with pytest.raises(InputError) as caught:
        check_looks_like_hu(voxels)
    assert caught.value.code is Code.MODALITY
    assert "-50 HU" in caught.value.sentence() or "below 0" in caught.value.sentence()


@pytest.mark.parametrize(
    ("window_hu", "is_taken"),
    [
        ((-50, 100), True),
        ((-100, 240), True),
        ((-160, 240), True),
        ((-45, 105), False),
        ((-40, 160), False),
        ((-50, 99), False),
    ],
)
def test_values_clipped_to_a_window_are_taken_where_it_holds_fat_and_the_range_of_a_body(
    window_hu: tuple[float, float], is_taken: bool
) -> None:
    voxels, _ = as_hounsfield(np.asfortranarray(np.clip(scan(), *window_hu)), None)
    with nullcontext() if is_taken else pytest.raises(InputError, match="do not look like HU"):
        check_looks_like_hu(voxels)


STORED = [np.int8, np.uint8, np.int16, np.uint16, np.int32]
SCALES = st.one_of(
    st.sampled_from([None, (1.0, 0.0), (1.0, -1024.0), (-1.0, 5.0), (0.0, 7.0), (16384.0, 16384.0), (16385.0, 0.0)]),
    st.tuples(st.integers(-70_000, 70_000).map(float), st.integers(-70_000, 70_000).map(float)),
    st.tuples(st.floats(-4, 4), st.floats(-2000, 2000)),
)


@given(st.sampled_from(STORED), SCALES, st.integers(0, 2**32 - 1), st.booleans())
def test_hu_are_those_of_float64_whatever_arithmetic_makes_them(dtype, scale, seed, in_place):
    rng, of = np.random.default_rng(seed), np.iinfo(dtype)
    stored = np.asfortranarray(rng.integers(of.min, of.max, (3, 4, 5), dtype=dtype, endpoint=True))
    stored.flat[0], stored.flat[1] = of.min, of.max
    slope, intercept = scale or (1.0, 0.0)
    expected = np.clip(stored.astype(np.float64) * slope + intercept, HU_MIN, HU_MAX)
    before = stored.copy()
    voxels, warnings = as_hounsfield(stored, scale, in_place=in_place)
    assert warnings == ()
    np.testing.assert_array_equal(voxels, expected.astype(voxels.dtype))
    if not in_place:
        np.testing.assert_array_equal(stored, before)


def test_hu_take_no_second_memory_where_the_first_will_do():
    stored = np.full((2, 3, 4), 4000, dtype=np.int16, order="F")
    assert np.shares_memory(as_hounsfield(stored, (1.0, -24.0), in_place=True)[0], stored)
    stored.flags.writeable = False
    assert not np.shares_memory(as_hounsfield(stored, None, in_place=True)[0], stored)
