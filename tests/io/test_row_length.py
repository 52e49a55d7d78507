"""A header with the wrong row length is found in every format, and no sound picture is taken for one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agseg.errors import Code, InputError
from agseg.io.discover import discover
from agseg.io.read import read_volume
from agseg.io.row_length import check_rows
from tests import phantoms

SHAPE, SPACING = (60, 48, 8), (2.5, 2.5, 4.0)
AFFINE = phantoms.coded_affine("LPS", SHAPE, SPACING)


def body(noise: float = 12) -> np.ndarray:
    """The trunk, HU (i, j, k)."""
    hu = phantoms.sampled(phantoms.body_hu, SHAPE, AFFINE) + np.random.default_rng(0).normal(0, noise, SHAPE)
    return hu.astype(np.int16)


def outcome(folder: Path) -> Code | None:
    (study,) = discover([folder]).studies
    try:
        read_volume(study)
    except InputError as error:
        return error.code
    return None


SIZES = [(48, 60), (30, 96), (40, 72), (72, 40)]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("syntax", [None, "1.2.840.10008.1.2.5"])
def test_dicom_with_rows_and_columns_of_another_shape_is_refused(tmp_path, sizes, syntax):
    for path in phantoms.write_dicom(tmp_path, body(), phantoms.dicom_affine("axial", SHAPE, SPACING), transfer_syntax=syntax):
        phantoms.edit_dicom(path, lambda dataset: (setattr(dataset, "Columns", sizes[0]), setattr(dataset, "Rows", sizes[1])))
    assert outcome(tmp_path) is Code.HEADER_LIES


@pytest.mark.parametrize("sizes", SIZES)
def test_nifti_of_another_shape_is_refused(tmp_path, sizes):
    path = phantoms.write_nifti(tmp_path / "x.nii", body(), AFFINE)
    content = bytearray(path.read_bytes())
    content[42:46] = np.array(sizes, "<i2").tobytes()
    path.write_bytes(content)
    assert outcome(tmp_path) is Code.HEADER_LIES


@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 0, 2), (2, 1, 0), (0, 2, 1)])
@pytest.mark.parametrize("noise", [0, 12, 200])
def test_a_body_is_taken_in_every_orientation_and_noise(axes, noise):
    shape, spacing = (60, 48, 40), (2.5, 2.5, 4.0)
    hu = phantoms.sampled(phantoms.body_hu, shape, phantoms.coded_affine("LPS", shape, spacing))
    check_rows(np.transpose(hu + np.random.default_rng(1).normal(0, noise + 1e-9, shape), axes))


@pytest.mark.parametrize("steps", [(0, 5), (5, 0), (3, 40), (4, -44), (40, 3)])
def test_slopes_layers_and_noise_are_pictures(steps):
    rows, columns = np.mgrid[:64, :50]
    picture = np.stack([rows * steps[1] + columns * steps[0]] * 3).astype(float)
    check_rows(picture)
    check_rows(picture + np.random.default_rng(2).normal(0, 100, picture.shape))
    check_rows(np.random.default_rng(3).normal(0, 100, picture.shape))
    check_rows(np.zeros((3, 64, 50)))
