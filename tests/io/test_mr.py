"""MR: series and files are taken as a signal where MR is looked for, and CT is refused there; the other way round as before."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest

from agseg.errors import Code, InputError
from agseg.io.discover import discover
from agseg.io.read import read_volume
from agseg.volume import Quantity
from tests import phantoms

SHAPE, SPACING = (14, 12, 6), (3.0, 4.0, 5.0)
STORED = 2000
"""What the phantom's writer adds to the values before it stores them."""


@pytest.fixture
def ct():
    affine = phantoms.dicom_affine("axial", SHAPE, SPACING)
    return phantoms.sampled(phantoms.linear_hu, SHAPE, affine), affine


def without_rescale(dataset, _k):
    del dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType


def only(found):
    (study,) = found.studies
    return study


def test_a_series_is_read_as_it_is_stored_without_the_rules_for_hu(tmp_path, ct):
    hu, affine = ct
    phantoms.write_dicom(tmp_path, hu, affine, modality="MR", change=without_rescale)
    study = only(discover([tmp_path], modalities=["MR"]))
    volume = read_volume(study)
    assert (study.modality, study.reason) == ("MR", "MR series, 6 slices evenly spaced")
    assert (volume.quantity, volume.modality, volume.voxels.dtype) == (Quantity.SIGNAL, "MR", np.float32)  # 16 bits, unsigned
    np.testing.assert_array_equal(volume.voxels, hu + STORED)
    assert only(discover([tmp_path])).rejected.code is Code.MODALITY


def test_a_rescale_is_applied_and_whole_values_that_fit_stay_whole(tmp_path, ct):
    def scaled(dataset, _k):
        dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = "2", "7", "US"
        dataset.BitsStored, dataset.HighBit = 12, 11
        dataset.PixelPaddingValue = 0

    hu, affine = ct
    phantoms.write_dicom(tmp_path, hu, affine, modality="MR", change=scaled)
    volume = read_volume(only(discover([tmp_path], modalities=["MR"])))
    stored = hu.astype(np.int64) + STORED
    assert volume.voxels.dtype == np.int16
    np.testing.assert_array_equal(volume.voxels, np.where(stored == 0, 0, 2 * stored + 7))


def test_only_what_is_looked_for_is_taken(tmp_path, ct):
    phantoms.write_dicom(tmp_path / "a/ct", *ct)
    phantoms.write_dicom(tmp_path / "b/mr", *ct, modality="MR", series=3)
    for wanted, other in (("CT", "b/mr"), ("MR", "a/ct")):
        found = {study.id: study for study in discover([tmp_path / "a", tmp_path / "b"], modalities=[wanted]).studies}
        refused = found[other.split("/")[1]]
        assert refused.rejected.code is Code.MODALITY
        assert refused.rejected.message.endswith(f"expected {wanted}")
        assert sum(study.rejected is None for study in found.values()) == 1
    both = discover([tmp_path / "a", tmp_path / "b"], modalities=["CT", "MR"]).studies
    assert [(study.modality, study.rejected) for study in both] == [("CT", None), ("MR", None)]


def test_beside_a_volume_localizers_of_several_planes_are_no_failures(tmp_path, ct):
    phantoms.write_dicom(tmp_path / "scan", *ct, modality="MR", series=3)

    def turned(dataset, k):
        if k >= 3:
            dataset.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]

    phantoms.write_dicom(tmp_path / "scout", *ct, modality="MR", series=4, change=turned)
    found = discover([tmp_path], modalities=["MR"])
    assert only(found).id == "scan"
    assert found.skipped_reasons == {"monitoring": SHAPE[2]}


def test_echoes_under_one_series_are_volumes_of_their_own(tmp_path, ct):
    hu, affine = ct

    def echo(milliseconds, start):
        def change(dataset, k):
            dataset.EchoTime = milliseconds
            dataset.SOPInstanceUID = f"{dataset.SOPInstanceUID}.{start}"
            dataset.InstanceNumber = 2 * k + start

        return change

    phantoms.write_dicom(tmp_path / "one", hu, affine, modality="MR", change=echo(2.3, 1))
    phantoms.write_dicom(tmp_path / "two", hu, affine, modality="MR", change=echo(4.6, 2))
    found = discover([tmp_path], modalities=["MR"]).studies
    assert [(study.rejected, len(study.files)) for study in found] == [(None, SHAPE[2])] * 2


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd"])
def test_files_without_a_modality_are_what_is_looked_for_unless_their_values_forbid_it(tmp_path, ct, rng, ending):
    hu, affine = ct
    signal = rng.gamma(2.0, 300.0, SHAPE).astype(np.float32)
    signal[0, 0, 0] = np.nan
    for name, values in (("mr", signal), ("ct", np.where(hu < 0, -1000, hu).astype(np.int16))):
        path = tmp_path / f"{name}{ending}"
        if ending == ".nrrd":
            import SimpleITK as sitk

            sitk.WriteImage(sitk.GetImageFromArray(values.T), str(path))
        else:
            phantoms.write_nifti(path, values, affine)
    found = {study.id: study for study in discover([tmp_path], modalities=["MR"]).studies}
    volume = read_volume(found["mr"])
    assert (volume.quantity, volume.modality) == (Quantity.SIGNAL, "MR")
    assert {warned.code for warned in volume.warnings} == {Code.MODALITY_ASSUMED, Code.NONFINITE}
    np.testing.assert_array_equal(volume.voxels, np.nan_to_num(signal))
    with pytest.raises(InputError, match="no MR") as caught:
        read_volume(found["ct"])
    assert caught.value.code is Code.MODALITY
    with pytest.raises(InputError, match="no CT"):
        read_volume({study.id: study for study in discover([tmp_path]).studies}["mr"])


def test_values_beyond_16_bits_and_scale_factors_are_kept(tmp_path, ct):
    _, affine = ct
    values = (np.arange(np.prod(SHAPE)).reshape(SHAPE) * 50).astype(np.int32)
    image = nibabel.Nifti1Image(values, affine)
    nibabel.save(image, tmp_path / "mr.nii")
    volume = read_volume(only(discover([tmp_path], modalities=["MR"])))
    assert volume.voxels.dtype == np.float32
    np.testing.assert_array_equal(volume.voxels, values)
