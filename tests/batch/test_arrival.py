from __future__ import annotations

import os
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from agseg.batch.arrival import check_unchanged, files_beside, newest_mtime_s, states_of
from agseg.batch.fingerprint import SAMPLE_BYTES, input_fingerprint, resume_key
from agseg.errors import Code, InputError
from agseg.study import Study, StudyKind


def slice_file(path: Path, series: str) -> Path:
    dataset = pydicom.Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2"
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, "1.2"
    dataset.SeriesInstanceUID = series
    dataset.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture
def study(tmp_path: Path) -> Study:
    files = tuple(slice_file(tmp_path / f"{number}.dcm", "1.2.3") for number in range(3))
    return Study("x", tmp_path, files, StudyKind.DICOM)


def changed(study: Study, act: object) -> bool:
    states, listing = states_of(study), files_beside(study)
    act()
    try:
        check_unchanged(study, states, listing=listing)
    except InputError as error:
        return error.code is Code.CHANGED
    return False


def test_a_quiet_study_is_unchanged(study: Study) -> None:
    assert not changed(study, lambda: None)


def test_growth_touch_and_loss_are_changes(study: Study) -> None:
    assert changed(study, lambda: study.files[1].write_bytes(study.files[1].read_bytes() + b"x"))
    assert changed(study, lambda: os.utime(study.files[2], ns=(1, 1)))
    assert changed(study, study.files[0].unlink)


def test_a_new_slice_of_the_series_is_a_change_and_another_series_is_not(study: Study, tmp_path: Path) -> None:
    assert not changed(study, lambda: slice_file(tmp_path / "other.dcm", "9.9"))
    assert not changed(study, lambda: (tmp_path / "notes.txt").write_text("x" * 300))
    assert changed(study, lambda: slice_file(tmp_path / "late.dcm", "1.2.3"))


def test_age_is_that_of_the_newest_file(study: Study) -> None:
    for number, path in enumerate(study.files):
        os.utime(path, (1000 + number, 1000 + number))
    assert newest_mtime_s(states_of(study)) == 1002


def test_the_fingerprint_knows_name_time_size_and_both_ends(tmp_path: Path) -> None:
    path = tmp_path / "v.nii"
    body = bytearray(3 * SAMPLE_BYTES)

    def fingerprint(name: str = "v.nii") -> str:
        target = tmp_path / name
        target.write_bytes(body)
        os.utime(target, (1, 1))
        study = Study("v", tmp_path, (target,), StudyKind.NIFTI)
        return input_fingerprint(study.files, states_of(study))

    first = fingerprint()
    assert fingerprint() == first
    assert fingerprint("w.nii") != first
    for position in (0, SAMPLE_BYTES - 1, -SAMPLE_BYTES, -1):
        body[position] = 1
        assert fingerprint() != first
        body[position] = 0
    body.append(0)
    assert fingerprint() != first
    os.utime(path, (2, 2))


def test_the_key_knows_everything_a_result_depends_on() -> None:
    given = {"fingerprint": "f", "weights_sha256": "w", "usage_sha256": "r", "shaping": {"a": 1, "b": 2}, "version": "1"}
    key = resume_key(**given)  # type: ignore[arg-type]
    assert resume_key(**{**given, "shaping": {"b": 2, "a": 1}}) == key  # type: ignore[arg-type]
    changes = (
        {"fingerprint": "g"},
        {"weights_sha256": "v"},
        {"usage_sha256": "s"},
        {"shaping": {"a": 2, "b": 2}},
        {"version": "2"},
    )
    for change in changes:
        assert resume_key(**{**given, **change}) != key  # type: ignore[arg-type]
