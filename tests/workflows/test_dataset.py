"""Each provider's layout, made small and true to its file names, through ``prepare`` and ``check``."""

import json

import nibabel
import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from agseg.errors import RecipeError
from agseg.training.cohort import open_cohort
from agseg.training.frames import open_frames
from agseg.training.splits import read_split
from agseg.workflows.check_dataset import check_dataset
from agseg.workflows.dataset import prepare_dataset
from agseg.workflows.dataset_new import NewDataset, new_dataset
from tests.workflows.own_phantoms import AFFINE, case_labels, write_raw

SHAPE = (8, 6, 5)  # columns, rows, slices
SPACING_MM = (1.5, 1.5, 2.0)


def write_series(folder, values, *, modality="CT", reverse=False):
    """One DICOM file per slice; ``values`` are HU or signal (column, row, slice)."""
    folder.mkdir(parents=True)
    series, study, frame = generate_uid(), generate_uid(), generate_uid()
    for k in range(values.shape[2]):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2" if modality == "CT" else "1.2.840.10008.5.1.4.1.1.4"
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        number = values.shape[2] - k if reverse else k + 1
        path = folder / f"IMG-{number:04d}.dcm"
        ds = FileDataset(path, {}, file_meta=meta, preamble=b"\0" * 128)
        ds.SOPClassUID, ds.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
        ds.Modality, ds.PatientID, ds.ImageType = modality, "anonymous", ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.SeriesInstanceUID, ds.StudyInstanceUID, ds.FrameOfReferenceUID = series, study, frame
        ds.Rows, ds.Columns = values.shape[1], values.shape[0]
        ds.PixelSpacing, ds.SliceThickness = [SPACING_MM[1], SPACING_MM[0]], SPACING_MM[2]
        ds.ImageOrientationPatient, ds.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [-10.0, -20.0, 30.0 + SPACING_MM[2] * k]
        ds.InstanceNumber, ds.SamplesPerPixel, ds.PhotometricInterpretation = number, 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
        if modality == "CT":
            ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = 1, 0, "HU"
        ds.PixelData = np.ascontiguousarray(values[:, :, k].T.astype("<i2")).tobytes()
        ds.save_as(path)


RAS_OF_SERIES = np.array([[-1.5, 0, 0, 10], [0, -1.5, 0, 20], [0, 0, 2.0, 30], [0, 0, 0, 1.0]])


def scan(seed):
    hu = np.random.default_rng(seed).integers(-50, 200, SHAPE).astype(np.int16)
    labels = np.zeros(SHAPE, dtype=np.uint8)
    labels[2:5, 1:4, 1:4] = 1
    return hu, labels


def save_nifti(path, values, affine):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, affine), path)


@pytest.fixture
def tcia(tmp_path):
    """Five scans of Pancreas-CT's layout: one of the excluded, with labels; number 2 holds its content too."""
    for number in (1, 2, 3, 4, 25):
        hu, labels = scan(2 if number == 25 else number)
        write_series(tmp_path / f"Pancreas-CT/PANCREAS_{number:04d}/11-24-2015/Pancreas-{number}", hu, reverse=number == 3)
        save_nifti(tmp_path / f"TCIA_pancreas_labels-02-05-2017/label{number:04d}.nii.gz", labels, RAS_OF_SERIES)
    (tmp_path / "Pancreas-CT/PANCREAS_0070").mkdir()
    return tmp_path


@pytest.mark.slow
def test_tcia_pancreas(tcia, tmp_path):
    report = prepare_dataset("ct82", download=tcia, output=tmp_path / "out")
    assert report.cases == ("PANCREAS_0001", "PANCREAS_0002", "PANCREAS_0003", "PANCREAS_0004")
    assert set(report.excluded) == {"PANCREAS_0025"}
    cohort = open_cohort(tmp_path / "out")
    hu, labels = scan(3)
    volume = cohort.read_volume("PANCREAS_0003")
    assert np.array_equal(volume.voxels, hu)  # by position, although the files are numbered backwards
    assert np.allclose(volume.grid.affine, RAS_OF_SERIES)
    assert np.array_equal(cohort.read_mask("PANCREAS_0003", grid=volume.grid).labels, labels)
    assert check_dataset(tmp_path / "out").problems == ()
    split = read_split(tmp_path / "out", "61-21")
    assert len(split.train) + len(split.validation) + len(split.test) == 4


def test_copies_are_left_out_by_their_content(tcia, tmp_path):
    hu, labels = scan(1)
    write_series(tcia / "Pancreas-CT/PANCREAS_0050/a/b", hu)
    save_nifti(tcia / "label0050.nii.gz", labels, RAS_OF_SERIES)
    report = prepare_dataset("ct82", download=tcia, output=tmp_path / "out")
    assert report.excluded["PANCREAS_0050"] == "the same image as PANCREAS_0001"


def test_labels_on_another_grid_are_refused_not_guessed(tcia, tmp_path):
    _, labels = scan(1)
    save_nifti(tcia / "TCIA_pancreas_labels-02-05-2017/label0001.nii.gz", labels, np.diag([1.5, 1.5, 2, 1]))
    with pytest.raises(RecipeError, match="another grid"):
        prepare_dataset("ct82", download=tcia, output=tmp_path / "out")


def test_a_scan_without_labels_is_an_error(tcia, tmp_path):
    (tcia / "TCIA_pancreas_labels-02-05-2017/label0001.nii.gz").unlink()
    with pytest.raises(RecipeError, match="no label file"):
        prepare_dataset("ct82", download=tcia, output=tmp_path / "out")


@pytest.mark.slow
def test_lits(tmp_path):
    for number in (0, 2, 10):
        hu, labels = scan(number)
        labels = labels.copy()
        labels[3, 2, 2] = 2  # tumour
        save_nifti(tmp_path / f"in/Training Batch 1/volume-{number}.nii", hu, RAS_OF_SERIES)
        save_nifti(tmp_path / f"in/Training Batch 1/segmentation-{number}.nii", labels, RAS_OF_SERIES)
    save_nifti(tmp_path / "in/Test/test-volume-0.nii", scan(5)[0], RAS_OF_SERIES)
    report = prepare_dataset("lits", download=tmp_path / "in", output=tmp_path / "out")
    assert report.cases == ("lits_0000", "lits_0002", "lits_0010")
    mask = open_cohort(tmp_path / "out").read_mask("lits_0002")
    assert mask.label_set.names == ("liver",)
    assert np.array_equal(mask.labels, scan(2)[1])  # the tumour is liver
    assert check_dataset(tmp_path / "out").problems == ()


def test_chaos(tmp_path):
    values = {"liver": 63, "right kidney": 126, "left kidney": 189, "spleen": 252}
    for number in (1, 2, 3):
        for sequence in ("T1DUAL/DICOM_anon/InPhase", "T1DUAL/DICOM_anon/OutPhase", "T2SPIR/DICOM_anon"):
            signal = np.random.default_rng(number).integers(0, 900, SHAPE) + len(sequence)
            write_series(tmp_path / f"in/Train_Sets/MR/{number}/{sequence}", signal, modality="MR")
        for sequence in ("T1DUAL", "T2SPIR"):
            ground = tmp_path / f"in/Train_Sets/MR/{number}/{sequence}/Ground"
            ground.mkdir()
            for k in range(SHAPE[2]):
                mask = np.zeros((SHAPE[1], SHAPE[0]), dtype=np.uint8)
                mask[0, :4] = list(values.values())
                mask[5, k] = 63
                Image.fromarray(mask).save(ground / f"IMG-{k + 1:04d}.png")
    report = prepare_dataset("chaos", download=tmp_path / "in", output=tmp_path / "out")
    assert len(report.cases) == 9
    assert "chaos_02_t1dual_out" in report.cases
    cohort = open_cohort(tmp_path / "out")
    assert cohort.modality == "MR"
    mask = cohort.read_mask("chaos_01_t2spir")
    assert mask.labels[:4, 0, 0].tolist() == [1, 2, 2, 3]
    assert [int(mask.labels[k, 5, k]) for k in range(SHAPE[2])] == [1] * SHAPE[2]
    split = read_split(tmp_path / "out")
    patients = [{case[:8] for case in side} for side in (split.train, split.validation, split.test)]
    assert not patients[0] & patients[2]
    assert not patients[1] & patients[2]


@pytest.mark.slow
def test_isic(tmp_path):
    generator = np.random.default_rng(0)
    number = 0
    for stage, count in (("Training", 4), ("Validation", 1), ("Test_v2", 2)):
        data = tmp_path / f"in/ISIC-2017_{stage}_Data"
        truth = tmp_path / f"in/ISIC-2017_{stage}_Part1_GroundTruth"
        data.mkdir(parents=True)
        truth.mkdir()
        for _ in range(count):
            name = f"ISIC_{number:07d}"
            number += 1
            Image.fromarray(generator.integers(0, 255, (12, 16, 3)).astype(np.uint8)).save(data / f"{name}.jpg")
            Image.fromarray(np.zeros((12, 16), np.uint8)).save(data / f"{name}_superpixels.png")
            mask = np.zeros((12, 16), np.uint8)
            mask[2:6, 3:9] = 255
            Image.fromarray(mask).save(truth / f"{name}_segmentation.png")
    report = prepare_dataset("isic2017", download=tmp_path / "in", output=tmp_path / "out")
    assert len(report.cases) == 7
    cohort = open_cohort(tmp_path / "out")
    assert cohort.read_picture("ISIC_0000000").shape == (3, 12, 16)
    assert int(cohort.read_picture_labels("ISIC_0000000").sum()) == 24
    split = read_split(tmp_path / "out", "provider")
    assert (len(split.train), len(split.validation), len(split.test)) == (4, 1, 2)
    assert check_dataset(tmp_path / "out").problems == ()


@pytest.mark.slow
def test_lung(tmp_path):
    for folder in ("2d_images", "2d_masks"):
        (tmp_path / "in" / folder).mkdir(parents=True)
    for number in range(4):
        hu = np.full((10, 10), 40 + 20 * number, dtype=np.int32)
        hu[2:8, 2:5] = -850
        hu[9, 9], hu[0, 0] = 2900, -2000  # metal, and the padding around a scanner's circle
        Image.fromarray(hu).save(tmp_path / f"in/2d_images/ID_{number:04d}_Z_0142.tif")
        Image.fromarray(((hu < -500) * 255).astype(np.uint8)).save(tmp_path / f"in/2d_masks/ID_{number:04d}_Z_0142.tif")
    report = prepare_dataset("lung", download=tmp_path / "in", output=tmp_path / "out")
    assert len(report.cases) == 4
    cohort = open_cohort(tmp_path / "out")
    picture, mask = cohort.read_picture("ID_0002_Z_0142")[0], cohort.read_picture_labels("ID_0002_Z_0142")
    # No window: every HU is there, air at zero.
    assert (picture[3, 3], picture[5, 8], picture[9, 9], picture[0, 0]) == (-850 + 1024, 80 + 1024, 2900 + 1024, 0)
    assert mask.sum() == 19
    assert check_dataset(tmp_path / "out").problems == ()


def test_fetal_frames(tmp_path):
    for subject in range(5):
        for label in ("Femur", "Background", "Brain (Cb.)"):
            folder = tmp_path / f"in/exam{subject}/{label}"
            folder.mkdir(parents=True)
            Image.fromarray(np.full((6, 8), 10 * subject, np.uint8)).save(folder / "0001.png")
    report = prepare_dataset("fetal-us", download=tmp_path / "in", output=tmp_path / "out")
    assert len(report.cases) == 15
    assert open_frames(tmp_path / "out").labels == ("Background", "Brain (Cb.)", "Femur")
    assert check_dataset(tmp_path / "out").problems == ()
    (tmp_path / "in/exam0/Foot").mkdir()
    Image.fromarray(np.zeros((6, 8), np.uint8)).save(tmp_path / "in/exam0/Foot/0001.png")
    with pytest.raises(RecipeError, match="not one of the classes"):
        prepare_dataset("fetal-us", download=tmp_path / "in", output=tmp_path / "again")


@pytest.mark.slow
def test_check_says_what_is_wrong(tcia, tmp_path):
    out = tmp_path / "out"
    prepare_dataset("ct82", download=tcia, output=out)
    save_nifti(out / "imagesTr/PANCREAS_0001_0000.nii.gz", scan(7)[0], RAS_OF_SERIES)
    save_nifti(out / "imagesTr/PANCREAS_0002_0000.nii.gz", np.full(SHAPE, -900, np.int16), RAS_OF_SERIES)
    save_nifti(out / "labelsTr/PANCREAS_0003.nii.gz", np.full(SHAPE, 9, np.uint8), RAS_OF_SERIES)
    (out / "imagesTr/PANCREAS_0004_0000.nii.gz").unlink()
    (out / "labelsTr/PANCREAS_0004.nii.gz").unlink()
    said = "\n".join(check_dataset(out).problems)
    assert "PANCREAS_0001: the image is not the one that was recorded" in said
    assert "PANCREAS_0002: pancreas has a mean of -900 HU" in said
    assert "PANCREAS_0003: the mask holds unknown labels" in said
    assert "PANCREAS_0004: prepared, but no longer here" in said
    assert "splits.json names PANCREAS_0004" in said


@pytest.mark.slow
def test_nnunet_cohorts_are_read_as_they_are(tmp_path):
    for number in range(3):
        hu, labels = scan(number)
        save_nifti(tmp_path / f"imagesTr/case{number}_0000.nii.gz", hu, RAS_OF_SERIES)
        save_nifti(tmp_path / f"labelsTr/case{number}.nii.gz", labels, RAS_OF_SERIES)
    labels = {"background": 0, "pancreas": 1}
    described = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 3, "file_ending": ".nii.gz"}
    (tmp_path / "dataset.json").write_text(json.dumps(described))
    folds = [{"train": ["case0", "case1"], "val": ["case2"]}]
    (tmp_path / "splits_final.json").write_text(json.dumps(folds))
    report = check_dataset(tmp_path)
    assert (report.cases, report.labels, report.problems) == (3, ("pancreas",), ())
    assert read_split(tmp_path).validation == ("case2",)


def test_an_output_folder_that_is_not_empty_is_left_alone(tcia, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/keep.txt").write_text("mine")
    with pytest.raises(RecipeError, match="not empty"):
        prepare_dataset("ct82", download=tcia, output=tmp_path / "out")


def test_a_folder_in_another_layout_is_refused(tmp_path):
    (tmp_path / "in").mkdir()
    with pytest.raises(RecipeError, match="nothing in the layout"):
        prepare_dataset("lits", download=tmp_path / "in", output=tmp_path / "out")
    with pytest.raises(RecipeError, match="as it is"):
        prepare_dataset("ct150", download=tmp_path / "in", output=tmp_path / "out2")


def test_check_finds_what_nobody_sees_by_looking(tmp_path):
    data = write_raw(tmp_path / "raw", cases=6)
    names = {1: "liver", 2: "tumour", 3: "cyst", 4: "stone"}
    new_dataset(data, NewDataset("toy", ("CT",), names))
    images, labels = data / "imagesTr", data / "labelsTr"
    (labels / "lesion_000.nii.gz").unlink()
    (images / "lesion_001_0000.nii.gz").unlink()
    blank = np.zeros(case_labels(2).shape)
    save_nifti(images / "lesion_002_0000.nii.gz", blank.astype(np.float32) + 7, AFFINE)
    broken = case_labels(3) * 50.0 - 100
    broken[0, 0, :5] = np.nan
    save_nifti(images / "lesion_003_0000.nii.gz", broken.astype(np.float32), AFFINE)
    save_nifti(labels / "lesion_004.nii.gz", blank.astype(np.uint8), AFFINE)
    save_nifti(images / "lesion_005_0001.nii.gz", blank.astype(np.float32), AFFINE)
    said_so = check_dataset(data)
    assert f"not cut into sides yet: agseg dataset split {data}" in said_so.notes
    assert "split" not in "".join(said_so.problems)  # which is what comes next
    report = check_dataset(data, recipe="unet3d-ct82-scr")
    said, noted = "\n".join(report.problems), "\n".join(report.notes)
    for expected in (
        "lesion_000: an image without labels",
        "lesion_001: labels without an image; lesion_001_0000.nii.gz is missing",
        "lesion_002: CT: every voxel is 7",
        "lesion_003: 5 voxels were NaN or infinite",
        "lesion_005_0001.nii.gz: a channel that dataset.json does not name",
        "numTraining",
        "unet3d-ct82-scr: the data set does not label this organ: found pancreas",
    ):
        assert expected in said
    assert "lesion_004: no label" in noted
    assert "no case has the label stone" in noted
