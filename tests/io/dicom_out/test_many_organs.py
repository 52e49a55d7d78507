"""All structures of a whole-body network through SEG, SR and RTSTRUCT: nothing lost, coded, objects of a bounded size."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pydicom
import pytest

from agseg.io.dicom_out.result import DicomResult
from agseg.io.dicom_out.rtstruct import read_rtstruct, write_rtstruct
from agseg.io.dicom_out.seg import FRAMES_PER_OBJECT, read_seg, write_segs
from agseg.io.dicom_out.source import DicomSource
from agseg.io.dicom_out.sr import read_sr_volumes, write_sr
from agseg.io.dicom_out.write import DICOM_KINDS, write_from_headers
from agseg.io.outputs import SegEncoding
from agseg.labels import LabelSet, known_structures
from agseg.volume import LabelMask
from tests.io.ct_series import WEIGHTS, make_series, measured

LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"
# The first 117 lines of the table are TotalSegmentator's classes, in its order.
ORGANS = LabelSet.from_mapping(dict(enumerate(list(known_structures())[:117], start=1)))


@pytest.fixture(scope="module")
def result() -> DicomResult:
    """Every organ on most slices."""
    series = make_series("oblique")
    labels = 1 + np.random.default_rng(5).permutation(np.arange(np.prod(series.grid.shape)) % 117)
    mask = LabelMask(labels.reshape(series.grid.shape).astype(np.uint8), series.grid, ORGANS)
    return DicomResult(mask, DicomSource.of(series.headers), WEIGHTS, {}, measured(mask))


@pytest.fixture(scope="module", params=[SegEncoding.BINARY, SegEncoding.LABELMAP])
def written(request, result, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, folder, write_segs(folder / "seg.dcm", result, encoding=request.param)


def organs_of(dataset):
    """The segments but for the background, which a label map lists too."""
    return [segment for segment in dataset.SegmentSequence if segment.SegmentNumber > 0]


def test_the_table_begins_with_the_117_classes():
    assert ORGANS.names[0] == "spleen"
    assert ORGANS.names[116] == "costal_cartilages"


@pytest.mark.slow
def test_no_object_has_more_frames_than_viewers_open(written):
    encoding, _, objects = written
    frames = [int(dataset.NumberOfFrames) for dataset in objects.values()]
    assert max(frames) <= FRAMES_PER_OBJECT
    assert list(objects)[:2] == (["seg.dcm"] if encoding is SegEncoding.LABELMAP else ["seg.dcm", "seg-2.dcm"])
    assert len({str(dataset.SeriesInstanceUID) for dataset in objects.values()}) == 1
    assert len({str(dataset.SOPInstanceUID) for dataset in objects.values()}) == len(objects)
    assert [int(dataset.InstanceNumber) for dataset in objects.values()] == list(range(1, len(objects) + 1))


def test_every_organ_reads_back_equal(written, result):
    _, folder, objects = written
    seen = set()
    for name, dataset in objects.items():
        numbers = read_seg(folder / name, result.mask.grid)
        for segment in organs_of(dataset):
            label = result.mask.label_set[str(segment.SegmentLabel)]
            assert np.array_equal(numbers == segment.SegmentNumber, result.mask.labels == label.index)
            seen.add(label.name)
    assert seen == set(ORGANS.names)


def test_segments_have_the_codes_of_the_table(written):
    for dataset in written[2].values():
        for segment in organs_of(dataset):
            structure = known_structures()[str(segment.SegmentLabel)]
            kind = segment.SegmentedPropertyTypeCodeSequence[0]
            assert segment.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "91723000"
            assert (kind.CodeValue, kind.CodingSchemeDesignator, kind.CodeMeaning) == (
                structure.code.value, "SCT", structure.code.meaning
            )  # fmt: skip
            place = kind if structure.region is None else segment.AnatomicRegionSequence[0]
            modifiers = (
                place.get("SegmentedPropertyTypeModifierCodeSequence") or place.get("AnatomicRegionModifierSequence") or []
            )
            assert [m.CodeMeaning for m in modifiers] == ([structure.laterality.meaning] if structure.laterality else [])


@pytest.mark.slow
def test_the_report_measures_each_on_the_segment_that_holds_it(written, result, tmp_path):
    _, _, objects = written
    report = write_sr(tmp_path / "sr.dcm", result, segs=tuple(objects.values()))
    assert len(read_sr_volumes(tmp_path / "sr.dcm")) == 117
    places = {
        (str(dataset.SOPInstanceUID), int(segment.SegmentNumber)): str(segment.TrackingUID)
        for dataset in objects.values()
        for segment in organs_of(dataset)
    }
    found, groups = {}, [report]
    while groups:
        tracking = place = None
        for item in groups.pop().get("ContentSequence", []):
            if item.ValueType == "CONTAINER":
                groups.append(item)
            elif item.ValueType == "UIDREF" and item.ConceptNameCodeSequence[0].CodeValue == "112040":
                tracking = str(item.UID)
            elif item.ValueType == "IMAGE" and "ReferencedSegmentNumber" in item.ReferencedSOPSequence[0]:
                reference = item.ReferencedSOPSequence[0]
                place = (str(reference.ReferencedSOPInstanceUID), int(reference.ReferencedSegmentNumber))
        if place is not None:
            found[place] = tracking
    assert found == places


@pytest.mark.slow
def test_contours_fill_to_every_organ(result, tmp_path):
    write_rtstruct(tmp_path / "rtstruct.dcm", result)
    regions = read_rtstruct(tmp_path / "rtstruct.dcm", result)
    assert set(regions) == set(ORGANS.names)
    assert all(np.array_equal(inside, result.mask.of(name)) for name, inside in regions.items())


@pytest.mark.slow
@pytest.mark.parametrize("encoding", [SegEncoding.BINARY, SegEncoding.LABELMAP])
def test_all_objects_validate_without_errors(encoding, result, tmp_path):
    tool = shutil.which("dciodvfy")
    if tool is None:
        pytest.skip("dciodvfy is not installed (.ci/install-test-tools)")
    written = write_from_headers(
        tmp_path, kinds=DICOM_KINDS, headers=result.source.headers, mask=result.mask, measurements=result.measurements,
        weights=WEIGHTS, parameters={}, encoding=encoding,
    )  # fmt: skip
    assert {"seg.dcm", "sr.dcm", "rtstruct.dcm"} <= set(written.files)
    assert written.is_complete
    for name in written.files:
        if pydicom.dcmread(tmp_path / name, stop_before_pixels=True).SOPClassUID == LABEL_MAP:
            continue  # newer than the validator
        done = subprocess.run([tool, str(tmp_path / name)], capture_output=True, text=True, timeout=60, check=False)
        lines = (done.stdout + done.stderr).splitlines()
        assert lines
        wrong = [line for line in lines if line.startswith(("Error", "Abort"))]
        if encoding is SegEncoding.LABELMAP:  # nor does it know that a label map's segments may be referred to
            wrong = [line for line in wrong if "that is not segmentation - attribute <ReferencedSegmentNumber>" not in line]
        assert wrong == [], name
