"""Key images and the PDF: of the right patient, valid, what was drawn, and the same objects when made again."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import PIL.Image
import pydicom
import pytest

from agseg.io.dicom_out.result import DicomResult, is_own_object
from agseg.io.dicom_out.screens import PDF_FILE, write_pdf, write_sc
from agseg.io.dicom_out.source import DicomSource
from agseg.io.outputs import Outputs, OutputType
from agseg.io.writers import Result, write_all
from agseg.measure.volumes import measure
from agseg.report import DISCLAIMER
from agseg.study import Study, StudyKind
from agseg.volume import Volume
from tests.io.ct_series import WEIGHTS, make_mask, make_series
from tests.io.dicom_out.test_seg import validate

PICTURES = (PIL.Image.new("RGB", (301, 201), (10, 200, 30)), PIL.Image.new("RGB", (64, 48), (0, 0, 255)))


def result_of(*, created: datetime = datetime(2026, 1, 2, 3, 4, 5), **changes: object) -> DicomResult:
    series = make_series()
    mask = make_mask(series.grid)
    volume = Volume(np.zeros(mask.grid.shape, dtype=np.int16), mask.grid)
    source = DicomSource.of(series.headers)
    return replace(DicomResult(mask, source, WEIGHTS, {}, measure(mask, volume), created), **changes)  # type: ignore[arg-type]


def test_key_images_are_of_the_patient_and_valid_and_hold_what_was_drawn(tmp_path: Path) -> None:
    result = result_of()
    assert write_sc(tmp_path, result, PICTURES) == ("sc.dcm", "sc-2.dcm")
    written = [pydicom.dcmread(tmp_path / name) for name in ("sc.dcm", "sc-2.dcm")]
    for dataset, picture in zip(written, PICTURES, strict=True):
        assert np.array_equal(dataset.pixel_array, np.asarray(picture))
        assert dataset.PatientID == result.source.first.PatientID
        assert dataset.StudyInstanceUID == result.source.first.StudyInstanceUID
        assert dataset.ImageComments == DISCLAIMER
        assert is_own_object(dataset)
    assert len({str(dataset.SeriesInstanceUID) for dataset in written}) == 1
    assert len({str(dataset.SOPInstanceUID) for dataset in written}) == 2
    assert [validate(tmp_path / name) for name in ("sc.dcm", "sc-2.dcm")] == [[], []]


def test_the_pdf_is_one_and_valid(tmp_path: Path) -> None:
    assert write_pdf(tmp_path, result_of(), PICTURES) == (PDF_FILE,)
    dataset = pydicom.dcmread(tmp_path / PDF_FILE)
    document = dataset.EncapsulatedDocument[: dataset.EncapsulatedDocumentLength]
    assert document.startswith(b"%PDF")
    assert document.rstrip().endswith(b"%%EOF")
    assert validate(tmp_path / PDF_FILE) == []
    if shutil.which("pdfinfo"):
        (tmp_path / "report.pdf").write_bytes(document)
        said = subprocess.run(["pdfinfo", tmp_path / "report.pdf"], capture_output=True, text=True, check=True).stdout
        assert "Pages:           3" in said


def test_made_again_they_are_the_same_objects_and_other_pictures_other_ones(tmp_path: Path) -> None:
    def uids(result: DicomResult, *pictures: PIL.Image.Image) -> list[str]:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        names = [*write_sc(folder, result, pictures), *write_pdf(folder, result, pictures)]
        return [str(pydicom.dcmread(folder / name).SOPInstanceUID) for name in names]

    first = uids(result_of(), *PICTURES)
    assert uids(result_of(created=datetime(2027, 1, 1)), *PICTURES) == first
    assert not set(uids(result_of(), PIL.Image.new("RGB", (9, 9), (1, 1, 1)))) & set(first)


@pytest.mark.parametrize("kind", [OutputType.SC, OutputType.PDF])
def test_a_source_that_is_no_dicom_keeps_its_masks_and_says_why(kind: OutputType, tmp_path: Path) -> None:
    mask = make_mask(make_series().grid)
    volume = Volume(np.zeros(mask.grid.shape, dtype=np.int16), mask.grid)
    study = Study("one", tmp_path, (tmp_path / "one.nii.gz",), StudyKind.NIFTI)
    result = Result(study, volume, mask, measure(mask, volume), WEIGHTS, outputs=Outputs(kinds=(kind,)))
    written = write_all(tmp_path, result, write=(str(kind),))
    assert written[str(kind)].files == ()
    assert written[str(kind)].warnings
    assert "nifti" in written


def test_a_series_of_other_weights_is_told_from_the_one_before_by_number_and_description() -> None:
    roles = ("seg", "sr", "rtstruct", "sc", "pdf")
    results = [result_of(weights=(replace(WEIGHTS[0], id=f"net-{number}", sha256=f"{number:064x}"),)) for number in range(12)]
    numbers = [[result.series_number(role) for role in roles] for result in results]
    assert all(9600 <= number <= 9999 for of_one in numbers for number in of_one)
    assert all(len(set(of_one)) == len(roles) for of_one in numbers)
    assert len({of_one[0] for of_one in numbers}) > 6  # of 40 numbers; by chance a few agree
    assert numbers[0] == [result_of(weights=results[0].weights).series_number(role) for role in roles]
    described = [result.series_description("Organs") for result in results]
    assert len(set(described)) == len(results)
    assert all("unreviewed" in text and len(text) <= 64 for text in described)
