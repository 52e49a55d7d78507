"""One table of writers: a form is a name, what it needs, and a function."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import nibabel
import numpy as np
import pytest
import SimpleITK

from agseg.errors import Code, UsageError
from agseg.grid import Grid
from agseg.io import writers
from agseg.io.nifti_write import label_table
from agseg.io.outputs import Outputs, OutputType, Written
from agseg.io.writers import WRITERS, Result, Writer, check_outputs, write_all
from agseg.labels import Label, LabelSet
from agseg.report import WeightsRef
from agseg.study import Study, StudyKind
from agseg.volume import LabelMask, Volume

GRID = Grid((4, 3, 2), np.diag([-1.0, -1.0, 2.0, 1.0]))


def result(folder: Path, *kinds: str, multilabel: bool = False) -> Result:
    labels = np.zeros(GRID.shape, dtype=np.uint8)
    labels[1:3, 1, 0] = 7
    mask = LabelMask(labels, GRID, LabelSet.from_mapping({2: "spleen", 7: "liver"}))
    volume = Volume(np.zeros(GRID.shape, dtype=np.int16), GRID)
    study = Study("x", folder, (folder / "x.nii",), StudyKind.NIFTI)
    outputs = Outputs(kinds=kinds, multilabel=multilabel)
    return Result(study, volume, mask, (), (WeightsRef("w", "0" * 64, "a", "l"),), {}, outputs)


def test_every_type_has_its_writer() -> None:
    assert list(WRITERS) == [str(kind) for kind in OutputType]


def test_a_new_form_is_a_function_and_a_line_in_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_count(folder: Path, finished: Result) -> Written:
        (folder / "voxels.txt").write_text(str(np.count_nonzero(finished.mask.labels)))
        return Written(("voxels.txt",))

    monkeypatch.setitem(WRITERS, "count", Writer("count", write_count))
    check_outputs(["count"])
    assert write_all(tmp_path, result(tmp_path, "count"))["count"].files == ("voxels.txt",)
    assert (tmp_path / "voxels.txt").read_text() == "2"


def test_what_is_not_installed_is_said_before_anything_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writers, "is_installed", lambda _name: False)
    with pytest.raises(UsageError, match="highdicom") as caught:
        check_outputs(["nifti", "rtstruct"])
    assert caught.value.hint == "pip install 'agseg[dicom]'"
    check_outputs(["nifti", "stl"])
    with pytest.raises(UsageError, match="no writer"):
        check_outputs(["mesh"])


def test_a_mask_that_the_wanted_form_cannot_hold_is_written_as_nifti_too(tmp_path: Path) -> None:
    written = write_all(tmp_path, result(tmp_path, OutputType.DICOM_SEG, OutputType.RTSTRUCT))
    assert {warned.code for one in written.values() for warned in one.warnings} == {Code.MISSING_UIDS}
    assert written["nifti"].files == ("spleen.nii.gz", "liver.nii.gz")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["liver.nii.gz", "spleen.nii.gz"]


def test_all_organs_in_one_file_come_with_their_key(tmp_path: Path) -> None:
    written = write_all(tmp_path, result(tmp_path, OutputType.NIFTI, multilabel=True))
    assert written["labels"].files == ("labels.nii.gz", "labels.json")
    assert json.loads((tmp_path / "labels.json").read_text()) == {"2": "spleen", "7": "liver"}


def test_the_key_stands_in_the_header_too_where_other_programs_look_for_it(tmp_path: Path) -> None:
    made = result(tmp_path, OutputType.NIFTI, multilabel=True)
    write_all(tmp_path, made)
    image = nibabel.load(tmp_path / "labels.nii.gz")
    (extension,) = image.header.extensions
    assert extension.get_code() == 0
    assert extension.get_sizeondisk() % 16 == 0
    table = ElementTree.fromstring(extension.get_content()).find("VolumeInformation/LabelTable")
    assert table is not None
    assert {row.get("Key"): row.text for row in table} == {"2": "spleen", "7": "liver"}
    assert all(0 <= float(row.get(colour, "2")) <= 1 for row in table for colour in ("Red", "Green", "Blue"))
    np.testing.assert_array_equal(np.asarray(image.dataobj), made.mask.labels)
    read = SimpleITK.ReadImage(tmp_path / "labels.nii.gz")
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(read).transpose(2, 1, 0), made.mask.labels)


def test_a_name_cannot_end_its_place_in_the_key() -> None:
    name = "a]]><b/>"
    table = label_table([Label(1, name)])[8:].decode()
    (row,) = ElementTree.fromstring(table).findall("VolumeInformation/LabelTable/Label")
    assert row.text == "a]] ><b/>"
    assert label_table([]) == b""
