"""Laws of the structured report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from agseg.errors import OutputError
from agseg.io.dicom_out import sr
from agseg.io.dicom_out.sr import read_sr_volumes, sensible
from agseg.io.dicom_out.write import DicomObjects, write_from_headers
from agseg.io.outputs import OutputType
from agseg.report import Measurement, OrganStatus
from tests.io.ct_series import WEIGHTS, make_mask, make_series, measured

Report = tuple[pydicom.Dataset, pydicom.Dataset, tuple[Measurement, ...]]
"""Segmentation, report, and what was measured."""


def write(folder: Path, measurements: tuple[Measurement, ...] | None = None) -> Report:
    series = make_series("oblique")
    mask = make_mask(series.grid)
    measurements = measured(mask) if measurements is None else measurements
    written = write_from_headers(
        folder,
        kinds=[OutputType.DICOM_SR],
        headers=series.headers,
        mask=mask,
        measurements=measurements,
        weights=WEIGHTS,
        parameters={},
    )
    # A report brings the segments that it measures.
    assert written.files == ("seg.dcm", "sr.dcm")
    return pydicom.dcmread(folder / "seg.dcm"), pydicom.dcmread(folder / "sr.dcm"), measurements


def items(node: pydicom.Dataset) -> list[pydicom.Dataset]:
    below = list(node.get("ContentSequence", []))
    return below + [deeper for item in below for deeper in items(item)]


def groups(report: pydicom.Dataset) -> dict[str, pydicom.Dataset]:
    found = {}
    for item in items(report):
        for child in item.get("ContentSequence", []):
            if child.ValueType == "TEXT" and child.ConceptNameCodeSequence[0].CodeValue == "112039":
                found[str(child.TextValue)] = item
    return found


def test_promise_7_report_volume_equals_measured_volume_and_mask(tmp_path: Path) -> None:
    seg, _, measurements = write(tmp_path)
    uids = {s.SegmentLabel: s.TrackingUID for s in seg.SegmentSequence}
    volumes = read_sr_volumes(tmp_path / "sr.dcm")
    assert volumes == {uids[m.name]: sensible(m.volume_ml) for m in measurements if m.volume_ml is not None}
    grid = make_series("oblique").grid
    mask = make_mask(grid)
    for name, uid in uids.items():
        assert volumes[uid] == pytest.approx(mask.of(name).sum() * grid.voxel_volume_ml, rel=1e-5)


def test_the_report_is_complete_unverified_and_preliminary(tmp_path: Path) -> None:
    _, report, _ = write(tmp_path)
    assert (report.CompletionFlag, report.VerificationFlag, report.PreliminaryFlag) == ("COMPLETE", "UNVERIFIED", "PRELIMINARY")
    assert report.ContentTemplateSequence[0].TemplateIdentifier == "1500"


def test_volumes_are_coded_in_cubic_centimetres(tmp_path: Path) -> None:
    _, report, _ = write(tmp_path)
    volumes = [i for i in items(report) if i.ValueType == "NUM" and i.ConceptNameCodeSequence[0].CodeValue == "118565006"]
    assert len(volumes) == 3
    assert {i.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue for i in volumes} == {"cm3"}


def test_segment_and_measurement_share_tracking_uid_and_reference(tmp_path: Path) -> None:
    seg, report, _ = write(tmp_path)
    for segment in seg.SegmentSequence:
        group = groups(report)[segment.SegmentLabel]
        assert str(segment.TrackingUID) in [str(i.UID) for i in group.ContentSequence if i.ValueType == "UIDREF"]
        image = next(i for i in group.ContentSequence if i.ValueType == "IMAGE").ReferencedSOPSequence[0]
        assert image.ReferencedSOPInstanceUID == seg.SOPInstanceUID
        assert image.ReferencedSegmentNumber == segment.SegmentNumber


def test_left_and_right_differ_by_laterality(tmp_path: Path) -> None:
    _, report, _ = write(tmp_path)
    sides = {}
    for name in ("kidney_left", "kidney_right"):
        coded = [i for i in items(groups(report)[name]) if i.ValueType == "CODE"]
        codes = [i for i in coded if i.ConceptNameCodeSequence[0].CodeValue == "272741003"]
        sides[name] = [i.ConceptCodeSequence[0].CodeValue for i in codes]
    assert sides == {"kidney_left": ["7771000"], "kidney_right": ["24028007"]}


def status_codes(report: pydicom.Dataset, name: str) -> list[str]:
    group = groups(report)[name]
    return [
        i.ConceptCodeSequence[0].CodeValue
        for i in group.ContentSequence
        if i.ValueType == "CODE" and i.ConceptNameCodeSequence[0].CodeValue == "organ_status"
    ]


def test_an_absent_organ_is_reported_absent_without_a_volume(tmp_path: Path) -> None:
    _, report, _ = write(tmp_path)
    assert status_codes(report, "pancreas") == ["2667000"]
    assert not [i for i in items(groups(report)["pancreas"]) if i.ValueType == "NUM"]
    assert status_codes(report, "liver") == ["52101004"]


def test_an_organ_cut_by_the_field_of_view_says_so(tmp_path: Path) -> None:
    mask = make_mask(make_series("oblique").grid)
    cut = tuple(
        Measurement(m.name, OrganStatus.CUT_OFF, m.volume_ml, m.voxels) if m.name == "liver" else m for m in measured(mask)
    )
    _, report, _ = write(tmp_path, cut)
    assert status_codes(report, "liver") == ["cut_off"]


def test_an_organ_that_the_weights_do_not_know_is_not_mentioned(tmp_path: Path) -> None:
    mask = make_mask(make_series("oblique").grid)
    _, report, _ = write(tmp_path, (*measured(mask), Measurement("spleen", OrganStatus.NOT_IN_WEIGHTS)))
    assert set(groups(report)) == {"liver", "kidney_left", "kidney_right", "pancreas"}


def test_a_report_that_does_not_read_back_never_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = sr.read_sr_volumes
    monkeypatch.setattr(sr, "read_sr_volumes", lambda path: {k: np.nextafter(v, 0) for k, v in real(path).items()})
    with pytest.raises(OutputError, match="read back"):
        write(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["seg.dcm"]


def test_reasons_to_look_twice_stand_in_the_report_and_make_it_another_one(tmp_path: Path) -> None:
    series = make_series("axial")
    mask = make_mask(series.grid)
    written = []
    for number, reasons in enumerate(((), ("uneven density (30 %)",), ("uneven density (30 %)",))):
        folder = tmp_path / str(number)
        folder.mkdir()
        found = tuple(replace(m, review=reasons if m.name == "liver" else ()) for m in measured(mask))
        objects = DicomObjects.of_headers(series.headers, mask, measurements=found, weights=WEIGHTS, parameters={})
        objects.write(OutputType.DICOM_SR, folder)
        written.append(pydicom.dcmread(folder / "sr.dcm"))
    plain, told, again = written
    texts = [item.TextValue for item in items(told) if item.ValueType == "TEXT"]
    assert "Look twice at the liver: uneven density (30 %)" in texts
    assert not [item for item in items(plain) if item.ValueType == "TEXT" and "Look twice" in item.TextValue]
    assert told.SOPInstanceUID == again.SOPInstanceUID != plain.SOPInstanceUID
    assert "unreviewed" in told.SeriesDescription
    assert WEIGHTS[0].id in told.SeriesDescription


def test_a_volume_has_six_digits() -> None:
    assert sensible(83.3425903320312) == 83.3426
    assert sensible(1411.55555) == 1411.56
