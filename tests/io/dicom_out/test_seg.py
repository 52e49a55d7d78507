"""Laws of DICOM segmentation output."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as DicomCode

from agseg.errors import Code, OutputError, UsageError
from agseg.io.dicom_out import seg as seg_module
from agseg.io.dicom_out.result import DicomResult, is_own_object
from agseg.io.dicom_out.seg import read_seg, write_seg
from agseg.io.dicom_out.source import CARRIED, DicomSource
from agseg.io.dicom_out.write import DICOM_KINDS, write_from_headers
from agseg.io.outputs import OutputType, SegEncoding
from agseg.labels import LabelSet, known_structures
from agseg.volume import LabelMask
from tests.io.ct_series import LABELS, ORIENTATIONS, WEIGHTS, Series, make_enhanced, make_mask, make_series, measured

ALL = DICOM_KINDS


def result_of(series: Series, mask: LabelMask, **changes: object) -> DicomResult:
    facts = {"weights": WEIGHTS, "parameters": {"overlap": 0.5}, "measurements": measured(mask), **changes}
    return DicomResult(mask, DicomSource.of(series.headers), **facts)  # type: ignore[arg-type]


def in_labels(numbers: np.ndarray, result: DicomResult) -> np.ndarray:
    lookup = np.zeros(256, dtype=np.uint8)
    for number, label in enumerate(result.present, start=1):
        lookup[number] = label.index
    return lookup[numbers]


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_promise_5_seg_read_by_highdicom_equals_the_mask(orientation: str, tmp_path: Path) -> None:
    series = make_series(orientation)
    mask = make_mask(series.grid)
    result = result_of(series, mask)
    write_seg(tmp_path / "seg.dcm", result)
    # An independent reader, and the geometry of the mask itself as what it must be carried back to.
    volume = hd.seg.segread(tmp_path / "seg.dcm").get_volume(combine_segments=True)
    lps = np.diag([-1.0, -1, 1, 1]) @ series.grid.affine
    there = hd.VolumeGeometry(lps, series.grid.shape, coordinate_system="PATIENT")
    numbers = volume.match_geometry(there).array
    assert np.array_equal(in_labels(numbers, result), mask.labels)


@pytest.mark.parametrize("encoding", SegEncoding)
def test_every_encoding_reads_back(encoding: SegEncoding, tmp_path: Path) -> None:
    series = make_series("oblique")
    mask = make_mask(series.grid)
    result = result_of(series, mask)
    dataset = write_seg(tmp_path / "seg.dcm", result, encoding=encoding)
    assert dataset.SegmentationType == encoding.value.upper()
    assert np.array_equal(in_labels(read_seg(tmp_path / "seg.dcm", mask.grid), result), mask.labels)


def test_a_tilted_series_keeps_its_own_planes(tmp_path: Path) -> None:
    series = make_series("axial", tilt_mm=0.7)
    mask = make_mask(series.grid)
    result = result_of(series, mask)
    write_seg(tmp_path / "seg.dcm", result)
    assert np.array_equal(in_labels(read_seg(tmp_path / "seg.dcm", mask.grid), result), mask.labels)
    assert result.slice_distance_mm == pytest.approx(2.5)


@pytest.mark.parametrize("encoding", SegEncoding)
@pytest.mark.parametrize("slices", [[1, 4], [3]])
def test_one_organ_in_few_slices(encoding: SegEncoding, slices: list[int], tmp_path: Path) -> None:
    # What all frames have in common stands in the shared groups then, the segment's number included.
    series = make_series("coronal")
    labels = np.zeros(series.grid.shape, np.uint8)
    labels[4:7, 3:6, slices] = 4
    mask = LabelMask(labels, series.grid, LABELS)
    result = result_of(series, mask)
    written = write_from_headers(
        tmp_path, kinds=ALL, headers=series.headers, mask=mask, measurements=measured(mask), weights=WEIGHTS, parameters={},
        encoding=encoding,
    )  # fmt: skip
    assert written.files == ("seg.dcm", "sr.dcm", "rtstruct.dcm")
    assert np.array_equal(in_labels(read_seg(tmp_path / "seg.dcm", mask.grid), result), labels)


@pytest.mark.parametrize("codes_wanted", ["RAS", "LPS", "SPL", "AIR"])
def test_the_axes_of_the_mask_do_not_matter(codes_wanted: str, tmp_path: Path) -> None:
    series = make_series("coronal")
    mask = make_mask(series.grid)
    grid, permutation, flips = series.grid.reoriented(codes_wanted)
    labels = mask.labels.transpose(permutation)[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]
    turned = LabelMask(np.ascontiguousarray(labels), grid, mask.label_set)
    one, two = write_seg(tmp_path / "a.dcm", result_of(series, mask)), write_seg(tmp_path / "b.dcm", result_of(series, turned))
    assert one.PixelData == two.PixelData


def test_an_enhanced_multi_frame_source(tmp_path: Path) -> None:
    series = make_series("sagittal")
    mask = make_mask(series.grid)
    source = DicomSource.of([make_enhanced(series)])
    result = DicomResult(mask, source, WEIGHTS, {})
    write_seg(tmp_path / "seg.dcm", result)
    assert np.array_equal(in_labels(read_seg(tmp_path / "seg.dcm", mask.grid), result), mask.labels)
    reference = pydicom.dcmread(tmp_path / "seg.dcm").PerFrameFunctionalGroupsSequence[0]
    image = reference.DerivationImageSequence[0].SourceImageSequence[0]
    number = int(image.ReferencedFrameNumber)
    assert (
        make_enhanced(series).PerFrameFunctionalGroupsSequence[number - 1].PlanePositionSequence[0].ImagePositionPatient
        == reference.PlanePositionSequence[0].ImagePositionPatient
    )


def test_promise_6_left_and_right_differ_by_code(tmp_path: Path) -> None:
    series = make_series()
    dataset = write_seg(tmp_path / "seg.dcm", result_of(series, make_mask(series.grid)))
    kidneys = {
        s.SegmentLabel: s.SegmentedPropertyTypeCodeSequence[0] for s in dataset.SegmentSequence if "kidney" in s.SegmentLabel
    }
    assert {k.CodeValue for k in kidneys.values()} == {"64033007"}
    sides = {name: k.SegmentedPropertyTypeModifierCodeSequence[0].CodeValue for name, k in kidneys.items()}
    assert sides == {"kidney_left": "7771000", "kidney_right": "24028007"}


def test_codes_mean_what_the_dicom_tables_say() -> None:
    """About two thirds are in DICOM's tables (ribs and most muscles are not); there code and meaning must fit."""
    known: dict[str, set[str]] = {}
    for keyword in codes.SCT.dir():
        code = getattr(codes.SCT, keyword)
        if isinstance(code, DicomCode):
            known.setdefault(code.value, set()).update((code.meaning.lower(), keyword.lower()))
    for name, structure in known_structures().items():
        assert structure.code.scheme == "SCT"
        stem = structure.code.meaning.lower().split()[0][:4]
        meanings = known.get(structure.code.value)
        assert meanings is None or any(stem in meaning for meaning in meanings), name
        if structure.laterality is not None:
            assert structure.laterality.value == getattr(codes.cid244, structure.laterality.meaning).value
    absent = [name for name, structure in known_structures().items() if structure.code.value not in known]
    assert len(absent) < len(known_structures()) / 3
    assert codes.cid7150.AnatomicalStructure.value == "91723000"


def test_promise_8_patient_study_and_frame_of_reference_are_carried(tmp_path: Path) -> None:
    series = make_series()
    mask = make_mask(series.grid)
    write_from_headers(
        tmp_path, kinds=ALL, headers=series.headers, mask=mask, measurements=measured(mask), weights=WEIGHTS, parameters={}
    )
    for name in ("seg", "sr", "rtstruct"):
        dataset = pydicom.dcmread(tmp_path / f"{name}.dcm")
        for keyword in CARRIED:
            assert dataset[keyword].value == series.headers[0][keyword].value, (name, keyword)
        assert is_own_object(dataset)
    seg, rt = pydicom.dcmread(tmp_path / "seg.dcm"), pydicom.dcmread(tmp_path / "rtstruct.dcm")
    assert seg.FrameOfReferenceUID == rt.FrameOfReferenceUID == series.headers[0].FrameOfReferenceUID
    assert pydicom.dcmread(tmp_path / "sr.dcm").VerificationFlag == "UNVERIFIED"
    assert rt.ApprovalStatus == "UNAPPROVED"
    assert not is_own_object(series.headers[0])


@pytest.mark.slow
def test_promise_9_the_same_result_has_the_same_uids(tmp_path: Path) -> None:
    series = make_series()
    mask = make_mask(series.grid)

    def uids(folder: str, *, given: Series = series, **changes: object) -> list[str]:
        facts = {"mask": mask, "weights": WEIGHTS, "parameters": {"overlap": 0.5, "organ": ["liver"]}, **changes}
        measurements = measured(facts["mask"])  # type: ignore[arg-type]
        write_from_headers(tmp_path / folder, kinds=ALL, headers=given.headers, measurements=measurements, **facts)  # type: ignore[arg-type]
        return [
            str(value)
            for name in ("seg", "sr", "rtstruct")
            for ds in [pydicom.dcmread(tmp_path / folder / f"{name}.dcm")]
            for value in (ds.SOPInstanceUID, ds.SeriesInstanceUID)
        ]

    first = uids("a")
    assert len(set(first)) == 6
    assert all(uid.startswith("2.25.") and len(uid) <= 64 for uid in first)
    assert uids("b", parameters={"organ": ["liver"], "overlap": 0.5}) == first
    changed = mask.labels.copy()
    changed[5, 5, 4] = 1 if changed[5, 5, 4] != 1 else 3
    changes: tuple[dict[str, Any], ...] = (
        {"mask": LabelMask(changed, mask.grid, mask.label_set)},
        {"parameters": {"overlap": 0.25}},
        {"weights": (replace(WEIGHTS[0], sha256="00" * 32),)},
        {"weights": (*WEIGHTS, replace(WEIGHTS[0], id="second", sha256="11" * 32))},
    )
    for number, change in enumerate(changes):
        assert not set(uids(f"c{number}", **change)) & set(first)
    # The same images, filed again under the right patient or in the right study: an archive must not take them for known.
    for keyword, value in (("PatientID", "ph-2"), ("StudyInstanceUID", "1.2.826.0.1.3680043.8.498.77.99")):
        moved = make_series()
        for header in moved.headers:
            setattr(header, keyword, value)
        assert not set(uids(f"moved-{keyword}", given=moved)) & set(first)


def test_each_organ_names_the_weights_that_made_it(tmp_path: Path) -> None:
    series = make_series()
    mask = make_mask(series.grid)
    weights = (WEIGHTS[0], replace(WEIGHTS[0], id="second", sha256="11" * 32))
    found = tuple(replace(m, weights="second" if m.name == "liver" else WEIGHTS[0].id) for m in measured(mask))
    write_from_headers(
        tmp_path, kinds=ALL, headers=series.headers, mask=mask, measurements=found, weights=weights, parameters={}
    )
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    named = {s.SegmentLabel: s.SegmentationAlgorithmIdentificationSequence[0].AlgorithmName for s in seg.SegmentSequence}
    assert named == {m.name: m.weights for m in found if m.voxels}
    assert list(seg.SoftwareVersions)[1:] == [one.id for one in weights]
    regions = pydicom.dcmread(tmp_path / "rtstruct.dcm").StructureSetROISequence
    assert all(named[region.ROIName] in region.ROIGenerationDescription for region in regions)
    report = pydicom.dcmread(tmp_path / "sr.dcm").to_json()
    assert all(f"weights sha256 {one.sha256}" in report for one in weights)


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID"])
def test_promise_10_no_study_uid_no_dicom_output(keyword: str, tmp_path: Path) -> None:
    series = make_series()
    for header in series.headers:
        header[keyword].value = ""
    mask = make_mask(series.grid)
    written = write_from_headers(
        tmp_path / "out", kinds=ALL, headers=series.headers, mask=mask, measurements=(), weights=WEIGHTS, parameters={}
    )
    assert written.files == ()
    assert [w.code for w in written.warnings] == [Code.MISSING_UIDS]
    assert not (tmp_path / "out").exists()


def test_instance_uids_are_recovered_from_the_file_meta(tmp_path: Path) -> None:
    series = make_series()
    wanted = [str(header.SOPInstanceUID) for header in series.headers]
    for header in series.headers:
        header.SOPInstanceUID, header.SOPClassUID = "", ""
    dataset = write_seg(tmp_path / "seg.dcm", result_of(series, make_mask(series.grid)))
    referenced = [str(item.ReferencedSOPInstanceUID) for item in dataset.ReferencedSeriesSequence[0].ReferencedInstanceSequence]
    assert set(referenced) <= set(wanted)
    assert [header.SOPInstanceUID for header in series.headers] == [""] * len(wanted)


def test_bad_header_values_are_left_empty_not_invented(tmp_path: Path) -> None:
    series = make_series()
    for number, header in enumerate(series.headers):
        del header.AccessionNumber
        header.PatientAge = "0Y"
        header.FrameOfReferenceUID = f"1.2.3.{number + 1}"
    source = DicomSource.of(series.headers)
    assert source.first.AccessionNumber == ""
    assert "PatientAge" not in source.first
    assert {str(header.FrameOfReferenceUID) for header in source.headers} == {"1.2.3.1"}
    write_seg(tmp_path / "seg.dcm", result_of(series, make_mask(series.grid)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("names", "kept", "name"),
    [
        ("ISO_IR 192", "ISO_IR 192", "Phantom^Größe^夢"),
        (["", "ISO 2022 IR 149"], ["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
        ("ISO_IR 999", "ISO_IR 192", "Phantom^Plain"),
    ],
)
def test_names_in_any_script_are_carried(names: object, kept: object, name: str, tmp_path: Path) -> None:
    series = make_series()
    for header in series.headers:
        header.SpecificCharacterSet, header.PatientName = names, name
    mask = make_mask(series.grid)
    written = write_from_headers(
        tmp_path, kinds=ALL, headers=series.headers, mask=mask, measurements=measured(mask), weights=WEIGHTS, parameters={}
    )
    for file in written.files:
        dataset = pydicom.dcmread(tmp_path / file)
        assert dataset.SpecificCharacterSet == kept
        assert str(dataset.PatientName) == name


@pytest.mark.parametrize(("thickness", "spacing"), [(None, None), (0, -2.5), (5, 7)])
def test_the_spacing_between_slices_is_that_of_their_positions(
    thickness: float | None, spacing: float | None, tmp_path: Path
) -> None:
    series = make_series("oblique")
    for header in series.headers:
        del header.SliceThickness
        if thickness is not None:
            header.SliceThickness, header.SpacingBetweenSlices = thickness, spacing
    dataset = write_seg(tmp_path / "seg.dcm", result_of(series, make_mask(series.grid)))
    measures = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert measures.SpacingBetweenSlices == pytest.approx(2.5)
    assert measures.SliceThickness == (thickness or pytest.approx(2.5))
    assert [header.get("SpacingBetweenSlices") for header in series.headers] == [spacing] * len(series.headers)


def test_slices_that_share_a_uid_have_no_dicom_output(tmp_path: Path) -> None:
    series = make_series()
    series.headers[1].SOPInstanceUID = series.headers[0].SOPInstanceUID
    mask = make_mask(series.grid)
    written = write_from_headers(
        tmp_path, kinds=ALL, headers=series.headers, mask=mask, measurements=(), weights=WEIGHTS, parameters={}
    )
    assert (written.files, [w.code for w in written.warnings]) == ((), [Code.DUPLICATE_UID])


def test_an_absent_organ_has_no_segment(tmp_path: Path) -> None:
    series = make_series()
    mask = make_mask(series.grid)
    dataset = write_seg(tmp_path / "seg.dcm", result_of(series, mask))
    assert [s.SegmentLabel for s in dataset.SegmentSequence] == ["liver", "kidney_left", "kidney_right"]
    empty = LabelMask(np.zeros(mask.grid.shape, np.uint8), mask.grid, mask.label_set)
    written = write_from_headers(
        tmp_path / "none", kinds=ALL, headers=series.headers, mask=empty, measurements=measured(empty), weights=WEIGHTS,
        parameters={},
    )  # fmt: skip
    assert written.files == ("sr.dcm",)
    assert [w.code for w in written.warnings] == [Code.NO_ORGAN]


def test_a_label_without_a_code_is_named_in_a_warning(tmp_path: Path) -> None:
    series = make_series()
    labels = make_mask(series.grid).labels
    mask = LabelMask(labels, series.grid, LabelSet.from_mapping({1: "liver", 3: "spare_part", 4: "spleen"}))
    written = write_from_headers(
        tmp_path,
        kinds=[OutputType.DICOM_SEG],
        headers=series.headers,
        mask=mask,
        measurements=(),
        weights=WEIGHTS,
        parameters={},
    )
    assert [w.code for w in written.warnings] == [Code.NOT_CODED]
    assert "spare_part" in written.warnings[0].message
    assert [s.SegmentLabel for s in pydicom.dcmread(tmp_path / "seg.dcm").SegmentSequence] == ["liver", "spleen"]


def test_a_mask_on_another_grid_is_refused(tmp_path: Path) -> None:
    series, other = make_series(), make_series("coronal")
    with pytest.raises(OutputError):
        write_seg(tmp_path / "seg.dcm", result_of(series, make_mask(other.grid)))
    shifted = series.grid.affine.copy()
    shifted[:3, 3] += 3.0
    with pytest.raises(OutputError):
        write_seg(tmp_path / "seg.dcm", result_of(series, make_mask(type(series.grid)(series.grid.shape, shifted))))
    assert list(tmp_path.iterdir()) == []


def test_an_object_that_does_not_read_back_never_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    series = make_series()
    mask = make_mask(series.grid)
    real = seg_module.build_seg
    mirrored = LabelMask(np.ascontiguousarray(mask.labels[::-1]), mask.grid, mask.label_set)
    monkeypatch.setattr(seg_module, "build_seg", lambda _result, **how: real(result_of(series, mirrored), **how))
    with pytest.raises(OutputError, match="read back"):
        write_seg(tmp_path / "seg.dcm", result_of(series, mask))
    assert list(tmp_path.iterdir()) == []


def test_a_missing_highdicom_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    series = make_series()
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(UsageError) as caught:
        write_seg(tmp_path / "seg.dcm", result_of(series, make_mask(series.grid)))
    assert caught.value.hint == "pip install 'agseg[dicom]'"


def test_a_volume_that_is_not_the_masks_is_refused() -> None:
    series = make_series()
    mask = make_mask(series.grid)
    wrong = [type(m)(m.name, m.status, None if m.volume_ml is None else m.volume_ml * 1.01, m.voxels) for m in measured(mask)]
    with pytest.raises(OutputError, match="volume"):
        result_of(series, mask, measurements=tuple(wrong))


def test_promise_42_the_disclaimer_stands_in_every_object(tmp_path: Path) -> None:
    series = make_series()
    mask = make_mask(series.grid)
    written = write_from_headers(
        tmp_path, kinds=ALL, headers=series.headers, mask=mask, measurements=measured(mask), weights=WEIGHTS, parameters={}
    )
    for name in written.files:
        content = (tmp_path / name).read_bytes()
        assert b"Not for clinical decisions without review" in content
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600


def validate(path: Path) -> list[str]:
    """The lines of dciodvfy that begin with Error."""
    tool = shutil.which("dciodvfy")
    if tool is None:
        pytest.skip("dciodvfy is not installed (.ci/install-test-tools)")
    done = subprocess.run([tool, str(path)], capture_output=True, text=True, timeout=60, check=False, env={"LC_ALL": "C"})
    lines = (done.stdout + done.stderr).splitlines()
    assert lines, "dciodvfy said nothing at all"
    return [line for line in lines if line.startswith(("Error", "Abort"))]


@pytest.mark.slow
@pytest.mark.parametrize("orientation", ["axial", "oblique"])
def test_promise_4_objects_validate_without_errors(orientation: str, tmp_path: Path) -> None:
    series = make_series(orientation)
    mask = make_mask(series.grid)
    written = write_from_headers(
        tmp_path, kinds=ALL, headers=series.headers, mask=mask, measurements=measured(mask), weights=WEIGHTS, parameters={}
    )
    assert written.files == ("seg.dcm", "sr.dcm", "rtstruct.dcm")
    for name in written.files:
        assert validate(tmp_path / name) == []


@pytest.mark.slow
@pytest.mark.shared
def test_promise_4_objects_of_a_real_series_validate_without_errors(shared_data: Path, tmp_path: Path) -> None:
    from agseg.io.dicom.read import read_dicom, read_headers
    from agseg.measure.volumes import measure
    from agseg.study import Study, StudyKind

    folder = shared_data / "ct_unlabelled" / "lidc0314_upper_abdomen"
    files = tuple(sorted(folder.iterdir()))
    study = Study("lidc", folder, files, StudyKind.DICOM)
    volume = read_dicom(study)
    # Boxes filled by a threshold stand for organs: what is tested is the encoding, not the anatomy.
    labels = np.zeros(volume.grid.shape, np.uint8)
    for index, box in ((1, np.s_[100:220, 180:300, :]), (3, np.s_[300:360, 280:350, 5:50]), (4, np.s_[150:210, 305:360, 8:55])):
        labels[box][(volume.voxels[box] > 0) & (volume.voxels[box] < 250)] = index
    mask = LabelMask(labels, volume.grid, LABELS)
    facts = {"measurements": measure(mask, volume), "weights": WEIGHTS, "parameters": {}}
    written = write_from_headers(tmp_path, kinds=ALL, headers=read_headers(study), mask=mask, **facts)
    assert written.files == ("seg.dcm", "sr.dcm", "rtstruct.dcm")
    for name in written.files:
        assert validate(tmp_path / name) == []
    done = subprocess.run(
        ["dcentvfy", *(str(tmp_path / name) for name in written.files), *map(str, files)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert [line for line in (done.stdout + done.stderr).splitlines() if line.startswith(("Error", "Abort"))] == []
    dump = subprocess.run(["dsrdump", str(tmp_path / "sr.dcm")], capture_output=True, text=True, timeout=60, check=False)
    assert dump.returncode == 0
    assert "UNVERIFIED" in dump.stdout
