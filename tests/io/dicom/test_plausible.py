"""Values that contradict the header: bits beyond BitsStored, and HU that no body has."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest

from agseg.errors import Code, InputError
from agseg.io.dicom.pixels import Rescale
from agseg.io.dicom.plausible import check_hu
from agseg.io.discover import discover
from agseg.io.read import read_volume
from tests import phantoms

SHAPE = (60, 54, 8)
AFFINE = phantoms.dicom_affine("axial", SHAPE, (2.5, 2.5, 4.0))
BODY = phantoms.sampled(phantoms.body_hu, SHAPE, AFFINE)


def body(seed: int = 0) -> np.ndarray:
    """The trunk with noise and a rim of fat, HU (i, j, k)."""
    x, y = phantoms.world(SHAPE, AFFINE)[..., 0], phantoms.world(SHAPE, AFFINE)[..., 1]
    hu = np.where((x / 66) ** 2 + (y / 51) ** 2 < 1, np.maximum(BODY, -100), -1000)
    return (hu + np.random.default_rng(seed).normal(0, 12, SHAPE)).astype(np.int16)


def scale(intercept: float = -1024) -> Rescale:
    return Rescale(16, 16, False, 1.0, intercept, None, None)


def check(hu: np.ndarray, intercepts: list[float] | None = None) -> Code | None:
    voxels = np.clip(hu, -1024, 3071).astype(np.int16).transpose(2, 1, 0)
    try:
        check_hu(voxels, [scale(v) for v in intercepts or [-1024] * SHAPE[2]])
    except InputError as error:
        return error.code
    return None


def test_a_body_is_taken_whole_or_in_part_with_and_without_padding():
    hu = body()
    assert check(hu) is None
    assert check(np.where(hu < -500, -2000, hu)) is None  # air set to padding
    lung = hu.copy()
    lung[10:50, 10:44, 3:] = -850
    assert check(lung) is None  # from one slice to the next the body becomes lung


@pytest.mark.parametrize("shift", [1024, 1000, 2048, 3000])
@pytest.mark.parametrize("noise", [0, 40])
def test_a_lost_intercept_is_found(shift, noise):
    hu = body() + np.random.default_rng(2).normal(0, noise + 1e-9, SHAPE)
    assert check(hu + shift) is Code.NOT_HU
    corners = hu + shift
    corners[:9, :9] = -3000  # outside the circle of the scan
    assert check(corners) is Code.NOT_HU


@pytest.mark.parametrize("shift", [-1024, -700, 400, 1024])
@pytest.mark.parametrize("slices", [slice(0, 3), slice(3, 4), slice(6, None), slice(None, None, 2)])
def test_a_shift_of_some_slices_is_found_whether_their_header_says_so_or_not(shift, slices):
    hu = body().astype(int)
    hu[:, :, slices] += shift
    # Shifted down so far, air and fat leave the range, and what is left looks like air: only the header can tell then.
    if shift != -1024:
        assert check(hu) is Code.NOT_HU
    intercepts = np.full(SHAPE[2], -1024.0)
    intercepts[slices] += shift
    assert check(hu, list(intercepts)) is Code.NOT_HU
    assert check(body(), list(intercepts)) is None  # a rescale of each slice's own that gives one scale


@pytest.mark.parametrize("values", [(0, 255), (0, 4000), (0, 1), (3, 9)])
def test_windows_and_numbers_are_no_hu(values):
    low, high = values
    hu = body().astype(float)
    hu = low + (np.clip(hu, -160, 240) + 160) / 400 * (high - low)
    assert check(hu) is Code.NOT_HU


def series(tmp_path, change) -> Code | set[Code]:
    phantoms.write_dicom(tmp_path, body(), AFFINE, change=change)
    (study,) = discover([tmp_path]).studies
    try:
        return {warning.code for warning in read_volume(study).warnings}
    except InputError as error:
        return error.code


@pytest.mark.parametrize("bits", [9, 10, 11])
def test_values_larger_than_bits_stored_are_refused(tmp_path, bits):
    def change(dataset, _k):
        dataset.BitsStored, dataset.HighBit = bits, bits - 1

    assert series(tmp_path, change) is Code.HEADER_LIES


@pytest.mark.parametrize("plane", [12, 13, 15])
def test_an_overlay_in_unused_bits_is_masked_with_a_warning(tmp_path, plane):
    def change(dataset, _k):
        stored = np.frombuffer(dataset.PixelData, "<u2").reshape(dataset.Rows, dataset.Columns).copy()
        stored[10:20, 12:30] |= 1 << plane
        dataset.BitsStored, dataset.HighBit, dataset.PixelData = 12, 11, stored.tobytes()

    assert series(tmp_path, change) == {Code.UNUSED_BITS}


def test_sign_and_padding_are_not_foreign(tmp_path):
    def change(dataset, _k):
        stored = np.frombuffer(dataset.PixelData, "<u2").astype(np.int16) - 2000
        stored[stored < -1500] = -1500
        dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation, dataset.RescaleIntercept = 12, 11, 1, "0"
        stored = stored.reshape(dataset.Rows, dataset.Columns)
        stored[:4, :4] = -32768
        dataset.PixelPaddingValue = -32768
        dataset["PixelPaddingValue"].VR = "SS"
        dataset.PixelData = stored.tobytes()

    assert series(tmp_path, change) == set()


def test_more_frames_compressed_than_stated_and_12_bit_lossy_are_refused_by_name(tmp_path):
    pytest.importorskip("jpeg_ls")
    from pydicom.encaps import encapsulate, get_frame
    from pydicom.uid import JPEGExtended12Bit, JPEGLSLossless

    paths = phantoms.write_dicom(tmp_path, body(), AFFINE, transfer_syntax=JPEGLSLossless)
    dataset = pydicom.dcmread(paths[3])
    code = get_frame(dataset.PixelData, 0, number_of_frames=1)
    for syntax, frames, expected in (
        (JPEGLSLossless, [code, code], Code.HEADER_LIES),
        (JPEGLSLossless, [code[: len(code) // 2]], Code.TRUNCATED),
        (JPEGExtended12Bit, [b"\xff\xd8\xff\xc1\0\x0b\x0c\0\x36\0\x3c\x01\x01\x11\0\xff\xd9"], Code.TRANSFER_SYNTAX),
    ):
        dataset.PixelData = encapsulate([frame + b"\0" * (len(frame) % 2) for frame in frames])
        dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.save_as(paths[3])
        (study,) = discover([tmp_path]).studies
        with pytest.raises(InputError) as caught:
            read_volume(study)
        assert caught.value.code is expected


@pytest.mark.parametrize("shift", [-1024, -1500])
def test_a_rescale_that_was_applied_twice_is_found(shift):
    assert check(np.maximum(body(), -1000) + shift) is Code.NOT_HU
