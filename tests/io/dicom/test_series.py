"""A series is one acquisition of one patient: passes become studies of their own, and nothing is ever mixed in silence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agseg.errors import Code, InputError
from agseg.io.discover import discover
from agseg.io.read import read_volume
from agseg.study import Reason
from tests import phantoms

SHAPE, SPACING = (14, 12, 6), (1.5, 2.0, 2.5)
AFFINE = phantoms.dicom_affine("axial", SHAPE, SPACING)


def soft_hu(world):
    """As a CT's values lie: some of them below water."""
    return phantoms.linear_hu(world) - 200


def write(folder: Path, *, shift_mm: float = 0.0, add_hu: int = 0, name: str = "", shape=SHAPE, series=2, **tags) -> list[Path]:
    """One pass of the linear phantom, moved along the body; ``tags`` stand in every image."""
    affine = AFFINE.copy()
    affine[2, 3] += shift_mm
    hu = phantoms.sampled(soft_hu, shape, affine) + np.int16(add_hu)

    def change(dataset, k):
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
        for keyword, value in tags.items():
            setattr(dataset, keyword, value(k) if callable(value) else value)

    place = folder / f"pass{name}"
    paths = phantoms.write_dicom(place, hu, affine, series=series, change=change)
    folder.mkdir(exist_ok=True)
    return [path.rename(folder / f"{name}{path.name}") for path in paths]


def ids(folder: Path) -> list[str]:
    return [study.id for study in discover([folder]).studies]


def codes(folder: Path) -> set[str]:
    found = set()
    for study in discover([folder]).studies:
        try:
            read_volume(study)
            found.add("ok")
        except InputError as error:
            found.add(str(error.code))
    return found


def warned(folder: Path) -> set[Code]:
    return {warning.code for study in discover([folder]).studies for warning in study.warnings}


def change_file(path: Path, **tags) -> None:
    dataset = pydicom.dcmread(path)
    for keyword, value in tags.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    dataset.save_as(path)


TELLS_APART = {
    "acquisition": lambda n: {"AcquisitionNumber": 4 + n},
    "temporal": lambda n: {"TemporalPositionIdentifier": n + 1},
    "time": lambda n: {"AcquisitionTime": f"10{15 + n}00.5"},
    "datetime": lambda n: {"AcquisitionDateTime": f"202601011015{20 * n:02d}.25"},
    "each_slice_has_its_time": lambda n: {"AcquisitionTime": lambda k: f"1015{30 * n + 2 * k:02d}"},
    "phase": lambda n: {"NominalPercentageOfCardiacPhase": 30.0 + 40 * n},
    "voltage": lambda n: {"KVP": 80 + 60 * n},
    "image_type": lambda n: {"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", "AB"[n]]},
    "kernel": lambda n: {"ConvolutionKernel": ["SOFT", "BONE"][n]},
    "number": lambda n: {"InstanceNumber": lambda k: 100 * n + k + 1},
}


class TestPasses:
    @pytest.mark.parametrize("shift", [0.0, 0.5, 0.4])
    @pytest.mark.parametrize("what", TELLS_APART)
    def test_each_pass_is_a_study_of_its_own(self, tmp_path, what, shift):
        for n in range(2):
            write(tmp_path / "in", shift_mm=n * shift * SPACING[2], add_hu=70 * n, name="AB"[n], **TELLS_APART[what](n))
        studies = discover([tmp_path / "in"]).studies
        assert len(studies) == 2
        assert all("/acquisition-" in study.id for study in studies)
        for n, study in enumerate(studies):
            volume = read_volume(study)
            expected = soft_hu(phantoms.world(SHAPE, volume.grid.affine)) + 70 * n
            assert volume.voxels.shape == SHAPE
            assert np.abs(volume.voxels - expected).max() <= 0.51

    def test_the_acquisition_number_names_the_study(self, tmp_path):
        for n in range(2):
            write(tmp_path / "in", name="AB"[n], add_hu=n, AcquisitionNumber=[7, 3][n])
        assert ids(tmp_path / "in") == ["in/acquisition-3", "in/acquisition-7"]
        write(tmp_path / "in", name="C", series=5)
        assert {name.split("/")[1].split("-")[1] for name in ids(tmp_path / "in")} == {"2", "5"}

    @given(st.permutations(range(12)))
    @settings(max_examples=15)
    def test_the_order_of_files_does_not_matter(self, tmp_path_factory, order):
        folder = tmp_path_factory.mktemp("ct")
        paths = [path for n in range(2) for path in write(folder, name="AB"[n], add_hu=70 * n, AcquisitionNumber=n)]
        moved = [path.rename(folder / f"x{number:02d}.dcm") for path, number in zip(paths, order, strict=True)]
        studies = discover([folder]).studies
        by_name = {study.id.rpartition("/")[2]: {moved.index(path) for path in study.files} for study in studies}
        assert by_name == {"acquisition-0": set(range(6)), "acquisition-1": set(range(6, 12))}

    def test_steps_of_one_pass_stay_together(self, tmp_path):
        """Step and shoot: every rotation is an acquisition of its own, one behind the other."""
        write(tmp_path, AcquisitionNumber=lambda k: k // 3, AcquisitionTime=lambda k: f"1015{10 * (k // 3):02d}")
        assert codes(tmp_path) == {"ok"}
        assert len(ids(tmp_path)) == 1

    def test_a_lost_rotation_does_not_make_two_studies(self, tmp_path):
        shape = (14, 12, 12)
        paths = write(tmp_path, shape=shape, AcquisitionNumber=lambda k: k // 3)
        for path in paths[3:6]:
            path.unlink()
        assert len(ids(tmp_path)) == 1
        assert codes(tmp_path) <= {"E_MISSING_SLICES", "E_NONUNIFORM_SPACING"}

    def test_a_dynamic_scan_has_no_volume(self, tmp_path):
        for n in range(4):
            write(tmp_path, name="ABCD"[n], add_hu=n, AcquisitionNumber=n, AcquisitionTime=f"10150{n}")
        assert codes(tmp_path) == {"E_4D"}

    def test_phases_that_nothing_tells_apart_are_refused(self, tmp_path):
        for n in range(2):
            write(tmp_path, name="AB"[n], add_hu=50 * n, InstanceNumber=1)
        assert codes(tmp_path) <= {"E_4D", "E_DUPLICATE_POSITIONS"}

    def test_a_phase_that_covers_less_is_a_volume_too(self, tmp_path):
        write(tmp_path, name="A", shape=(14, 12, 9), AcquisitionNumber=1)
        write(tmp_path, name="B", shape=(14, 12, 4), shift_mm=2 * SPACING[2], add_hu=30, AcquisitionNumber=2)
        shapes = sorted(read_volume(study).voxels.shape[2] for study in discover([tmp_path]).studies)
        assert shapes == [4, 9]

    def test_two_scans_under_one_uid_are_not_one_long_scan(self, tmp_path):
        for n in range(2):
            write(tmp_path / f"case_{n}", shift_mm=n * 6 * SPACING[2], add_hu=90 * n, InstanceNumber=lambda k: k + 1)
        assert len(ids(tmp_path)) == 2
        assert Code.IDENTITY_ODD in warned(tmp_path)
        for path in (tmp_path / "case_1").iterdir():
            path.rename(tmp_path / "case_0" / f"second_{path.name}")
        assert codes(tmp_path / "case_0") == {"E_MIXED_SERIES"}

    def test_passes_inside_one_multi_frame_file_are_refused(self, tmp_path):
        hu = phantoms.sampled(soft_hu, (14, 12, 12), AFFINE)
        dataset = pydicom.dcmread(phantoms.write_enhanced(tmp_path / "x.dcm", hu, AFFINE))
        for k, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
            content = pydicom.Dataset()
            content.TemporalPositionIndex = k % 2 + 1
            group.FrameContentSequence = [content]
        dataset.save_as(tmp_path / "x.dcm")
        assert codes(tmp_path) == {"E_4D"}


class TestOwners:
    @pytest.mark.parametrize("keyword", ["PatientID", "StudyInstanceUID"])
    @pytest.mark.parametrize("which", [slice(0, None, 2), slice(3, None), slice(5, None), slice(2, 4)])
    @pytest.mark.parametrize("apart", [False, True])
    def test_half_a_correction_is_refused(self, tmp_path, keyword, which, apart):
        paths = write(tmp_path / "a")
        for path in paths[which]:
            change_file(path, **{keyword: "1.2.3.4" if keyword.endswith("UID") else "OTHER"})
            if apart:
                (tmp_path / "b").mkdir(exist_ok=True)
                path.rename(tmp_path / "b" / path.name)
        assert codes(tmp_path) == {"E_IDENTITY"}
        assert len(ids(tmp_path)) == 1

    def test_a_scan_that_was_refiled_is_there_twice_and_half_of_it_is_not(self, tmp_path):
        paths = write(tmp_path / "wrong")
        (tmp_path / "right").mkdir()
        for path in paths:
            copy = tmp_path / "right" / path.name
            copy.write_bytes(path.read_bytes())
            change_file(copy, PatientID="RIGHT")
        assert codes(tmp_path) == {"ok"}
        assert ids(tmp_path) == ["right", "wrong"]
        assert warned(tmp_path) == {Code.IDENTITY_ODD}
        (tmp_path / "right" / paths[-1].name).unlink()
        rejected = {study.id: study.rejected and study.rejected.code for study in discover([tmp_path]).studies}
        assert rejected == {"right": Code.IDENTITY, "wrong": None}

    def test_patients_whose_series_share_a_uid_are_not_one_another(self, tmp_path):
        write(tmp_path / "a", PatientID="A", StudyInstanceUID="1.2.1")
        write(tmp_path / "b", PatientID="B", StudyInstanceUID="1.2.2", shift_mm=1.1, add_hu=20)
        assert codes(tmp_path) == {"ok"}
        assert len(ids(tmp_path)) == 2

    def test_an_image_without_a_patient_id_is_taken_with_a_warning(self, tmp_path):
        change_file(write(tmp_path)[2], PatientID="")
        assert codes(tmp_path) == {"ok"}
        assert warned(tmp_path) == {Code.IDENTITY_ODD}

    def test_two_frames_of_reference_are_refused_and_one_for_each_image_is_odd(self, tmp_path):
        paths = write(tmp_path)
        for n, path in enumerate(paths):
            change_file(path, FrameOfReferenceUID=f"1.2.3.{n}")
        assert codes(tmp_path) == {"ok"}
        assert warned(tmp_path) == {Code.IDENTITY_ODD}
        for n, path in enumerate(paths):
            change_file(path, FrameOfReferenceUID=f"1.2.3.{n // 4}")
        assert codes(tmp_path) == {"E_MIXED_SERIES"}


PAGE = dict.fromkeys(("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"))


class TestOtherImages:
    @pytest.mark.parametrize(
        "tags",
        [
            {**PAGE, "ImageType": ["DERIVED", "SECONDARY", "OTHER", "DOSE_INFO"]},
            {**PAGE, "RescaleSlope": None, "RescaleIntercept": None},
            {**PAGE, "SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"},
            {"PhotometricInterpretation": "PALETTE COLOR"},
            {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]},
        ],
    )
    def test_a_page_of_another_kind_is_left_out_and_named(self, tmp_path, tags):
        page = write(tmp_path, shape=(14, 12, 7))[-1]
        change_file(page, **tags)
        found = discover([tmp_path])
        assert [skip.reason for skip in found.skipped] == [Reason.OTHER_KIND]
        (study,) = found.studies
        assert Code.LEFT_OUT in {warning.code for warning in study.warnings}
        assert read_volume(study).voxels.shape == SHAPE

    def test_a_slice_that_lost_its_place_is_no_page(self, tmp_path):
        change_file(write(tmp_path)[-1], **PAGE)
        assert codes(tmp_path) == {"E_NO_GEOMETRY"}

    def test_what_a_normal_examination_has_beside_its_volume_is_no_failure(self, tmp_path):
        write(tmp_path / "axial")
        write(tmp_path / "pre", series=3, shape=(14, 12, 1))
        monitoring = [write(tmp_path / "bolus", series=4, shape=(14, 12, 1), name=str(n), add_hu=9 * n) for n in range(7)]
        for path in write(tmp_path / "dose", series=5, shape=(14, 12, 1)):
            change_file(path, ImageType=["DERIVED", "SECONDARY"], **PAGE)
        found = discover([tmp_path])
        assert [study.id for study in found.studies] == ["axial"]
        assert [skip.reason for skip in found.skipped] == [Reason.MONITORING] * 9
        assert len(monitoring) == 7

    def test_a_series_that_lost_its_images_is_no_monitoring(self, tmp_path):
        write(tmp_path / "axial")
        write(tmp_path / "portal", series=3, shape=(14, 12, 2), ImagesInAcquisition=80)
        assert codes(tmp_path) == {"ok", "E_TOO_FEW_SLICES"}

    def test_alone_it_is_what_it_is(self, tmp_path):
        write(tmp_path / "pre", shape=(14, 12, 1))
        assert codes(tmp_path) == {"E_TOO_FEW_SLICES"}

    def test_monitoring_images_inside_the_series_are_left_out(self, tmp_path):
        write(tmp_path, AcquisitionNumber=9)
        for n in range(4):
            write(tmp_path, name=str(n), shape=(14, 12, 1), shift_mm=2 * SPACING[2], add_hu=9 * n, AcquisitionNumber=n)
        (study,) = discover([tmp_path]).studies
        assert read_volume(study).voxels.shape == SHAPE
        assert Code.LEFT_OUT in warned(tmp_path)

    @pytest.mark.parametrize(("stated", "is_odd"), [(6, False), (5, False), (7, True), (40, True)])
    def test_images_that_the_header_counts_are_missed(self, tmp_path, stated, is_odd):
        write(tmp_path, ImagesInAcquisition=stated)
        assert codes(tmp_path) == {"ok"}
        assert (Code.INCOMPLETE in warned(tmp_path)) is is_odd

    @pytest.mark.parametrize(
        ("tags", "word"),
        [
            ({"ImageType": ["DERIVED", "SECONDARY", "AXIAL", "MIP"]}, "maximum"),
            ({"ImageType": ["DERIVED", "SECONDARY", "MINIP"]}, "minimum"),
            ({"ImageType": ["DERIVED", "SECONDARY", "AXIAL", "CT_SOM5 MIP"]}, "maximum"),
            ({"ImageType": ["DERIVED", "SECONDARY", "SUBTRACTION"]}, "subtraction"),
            ({"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "MONO_70KEV"]}, "monoenergetic"),
            ({"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "IODINE"]}, "material"),
            ({"ImageType": ["DERIVED", "SECONDARY"], "SeriesDescription": "Liver VNC 3.0"}, "unenhanced"),
            ({"ImageType": ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"], "VolumeBasedCalculationTechnique": "MAX_IP"}, "maximum"),
            ({"ImageType": ["DERIVED", "SECONDARY", "REFORMATTED", "AVERAGE"]}, None),
            ({"ImageType": ["DERIVED", "PRIMARY", "AXIAL"], "DerivationDescription": "Lossy compression"}, None),
        ],
    )
    def test_what_a_derived_volume_shows_is_said(self, tmp_path, tags, word):
        write(tmp_path, **tags)
        (study,) = discover([tmp_path]).studies
        messages = [warning.message for warning in study.warnings if warning.code is Code.DERIVED]
        assert [word in message for message in messages] == ([True] if word else [])
        assert read_volume(study).voxels.shape == SHAPE
