"""Slices of another rescale are found in every format, and a sound body is never taken for one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from agseg.errors import Code, InputError
from agseg.io.discover import discover
from agseg.io.read import read_volume
from agseg.io.slice_jumps import check_no_jumps
from tests import phantoms

SHAPE, SPACING = (48, 40, 12), (3.0, 3.0, 4.0)


def body() -> np.ndarray:
    """The trunk with noise, HU (i, j, k)."""
    hu = phantoms.sampled(phantoms.body_hu, SHAPE, phantoms.coded_affine("LPS", SHAPE, SPACING))
    return (hu + np.random.default_rng(0).normal(0, 12, SHAPE)).astype(np.int16)


def write(path: Path, hu: np.ndarray) -> None:
    if path.name.endswith(".nii.gz"):
        phantoms.write_nifti(path, hu, phantoms.coded_affine("LPS", SHAPE, SPACING))
        return
    image = SimpleITK.GetImageFromArray(hu.transpose(2, 1, 0))
    image.SetSpacing(SPACING)
    SimpleITK.WriteImage(image, str(path))


def outcome(path: Path) -> Code | None:
    (study,) = discover([path]).studies
    try:
        read_volume(study)
    except InputError as error:
        return error.code
    return None


SLICES: dict[str, Callable[[int], bool]] = {
    "every second": lambda k: k % 2 == 0,
    "every third": lambda k: k % 3 == 0,
    "half": lambda k: k >= 6,
    "some": lambda k: k in (4, 5),
    "the last": lambda k: k == 11,
}


@pytest.mark.parametrize("name", ["x.nii.gz", "x.mha", "x.nrrd"])
@pytest.mark.parametrize("which", SLICES)
@pytest.mark.parametrize("shift", [1024, -600])
def test_slices_that_are_shifted_are_refused(tmp_path: Path, name: str, which: str, shift: int) -> None:
    hu = body()
    for k in filter(SLICES[which], range(SHAPE[2])):
        hu[:, :, k] += shift
    write(tmp_path / name, hu)
    assert outcome(tmp_path / name) in (Code.NOT_HU, Code.MODALITY)


@pytest.mark.parametrize("name", ["x.nii.gz", "x.mha", "x.nrrd"])
@pytest.mark.parametrize("change", ["upside down", "rescaled twice"])
def test_values_upside_down_or_without_tissue_are_refused(tmp_path: Path, name: str, change: str) -> None:
    hu = body()
    write(tmp_path / name, -hu if change == "upside down" else np.maximum(hu - 1024, -1400) + 300)
    assert outcome(tmp_path / name) is Code.MODALITY


@pytest.mark.parametrize("name", ["x.nii.gz", "x.mha", "x.nrrd"])
def test_a_body_is_taken_with_air_above_it_and_with_padding(tmp_path: Path, name: str) -> None:
    hu = body()
    hu[:, :, 9:] = -1000 + np.random.default_rng(1).integers(-9, 9, hu[:, :, 9:].shape)
    hu[:5, :5] = -2000
    write(tmp_path / name, hu)
    assert outcome(tmp_path / name) is None


def test_slices_of_their_own_rescale_agree_if_their_values_do() -> None:
    slices = body().transpose(2, 1, 0)
    check_no_jumps(slices, [(1.0, -1000.0 - k % 2 * 100) for k in range(SHAPE[2])])
