"""Laws of contours and of RT structure sets."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.measure import points_in_poly

from agseg.errors import OutputError
from agseg.io.dicom_out import rtstruct
from agseg.io.dicom_out.contours import fill_contours, trace_contours
from agseg.io.dicom_out.result import DicomResult
from agseg.io.dicom_out.rtstruct import read_rtstruct, write_rtstruct
from agseg.io.dicom_out.source import DicomSource
from agseg.volume import LabelMask
from tests.io.ct_series import LABELS, ORIENTATIONS, WEIGHTS, make_enhanced, make_mask, make_series

MASKS = arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 14)))


def filled_one_by_one(mask: np.ndarray) -> list[np.ndarray]:
    """Every contour filled on its own by another implementation."""
    centres = np.argwhere(np.ones_like(mask))
    return [points_in_poly(centres, contour).reshape(mask.shape) for contour in trace_contours(mask)]


@given(MASKS)
def test_contours_fill_to_the_mask(mask: np.ndarray) -> None:
    if mask.any():
        assert np.array_equal(fill_contours(trace_contours(mask), mask.shape), mask)
    else:
        assert trace_contours(mask) == []


@given(MASKS)
def test_readers_that_unite_contours_and_readers_that_xor_them_agree(mask: np.ndarray) -> None:
    fills = filled_one_by_one(mask)
    united, xored = np.zeros_like(mask), np.zeros_like(mask)
    for fill in fills:
        united |= fill
        xored ^= fill
    assert np.array_equal(united, mask)
    assert np.array_equal(xored, mask)


def test_a_ring_with_an_island_has_two_contours_and_its_hole() -> None:
    mask = np.zeros((15, 15), dtype=bool)
    mask[1:14, 1:14] = True
    mask[4:11, 4:11] = False
    mask[6:9, 6:9] = True
    contours = trace_contours(mask)
    assert len(contours) == 2
    assert np.array_equal(fill_contours(contours, mask.shape), mask)


def test_a_region_at_the_edge_of_the_image_is_closed() -> None:
    mask = np.ones((4, 5), dtype=bool)
    assert np.array_equal(fill_contours(trace_contours(mask), mask.shape), mask)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_structure_set_fills_to_the_mask_in_every_orientation(orientation: str, tmp_path: Path) -> None:
    series = make_series(orientation)
    mask = make_mask(series.grid)
    result = DicomResult(mask, DicomSource.of(series.headers), WEIGHTS, {})
    write_rtstruct(tmp_path / "rt.dcm", result)
    regions = read_rtstruct(tmp_path / "rt.dcm", result)
    assert list(regions) == ["liver", "kidney_left", "kidney_right"]
    for name, region in regions.items():
        assert np.array_equal(region, mask.of(name))


def test_contour_points_lie_where_the_affine_puts_them(tmp_path: Path) -> None:
    series = make_series("oblique")
    labels = np.zeros(series.grid.shape, np.uint8)
    labels[4:7, 3:6, 3] = 1
    result = DicomResult(LabelMask(labels, series.grid, LABELS), DicomSource.of(series.headers), WEIGHTS, {})
    dataset = write_rtstruct(tmp_path / "rt.dcm", result)
    contour = dataset.ROIContourSequence[0].ContourSequence[0]
    assert contour.ContourGeometricType == "CLOSED_PLANAR"
    assert contour.ContourImageSequence[0].ReferencedSOPInstanceUID == series.headers[3].SOPInstanceUID
    points_ras = np.array([float(v) for v in contour.ContourData]).reshape(-1, 3) * [-1, -1, 1]
    index = series.grid.to_index(points_ras)
    assert np.allclose(index[:, 2], 3, atol=1e-3)
    assert np.allclose(index.min(axis=0)[:2], [3.5, 2.5], atol=2e-3)
    assert np.allclose(index.max(axis=0)[:2], [6.5, 5.5], atol=2e-3)


def test_a_multi_frame_source_is_referred_to_by_frame(tmp_path: Path) -> None:
    series = make_series("sagittal")
    mask = make_mask(series.grid)
    result = DicomResult(mask, DicomSource.of([make_enhanced(series)]), WEIGHTS, {})
    dataset = write_rtstruct(tmp_path / "rt.dcm", result)
    regions = read_rtstruct(tmp_path / "rt.dcm", result)
    assert all(np.array_equal(region, mask.of(name)) for name, region in regions.items())
    assert dataset.ROIContourSequence[0].ContourSequence[0].ContourImageSequence[0].ReferencedFrameNumber >= 1


def test_left_and_right_differ_by_modifier(tmp_path: Path) -> None:
    series = make_series()
    dataset = write_rtstruct(
        tmp_path / "rt.dcm", DicomResult(make_mask(series.grid), DicomSource.of(series.headers), WEIGHTS, {})
    )
    codes = {o.ROIObservationLabel: o.RTROIIdentificationCodeSequence[0] for o in dataset.RTROIObservationsSequence}
    assert codes["kidney_left"].CodeValue == codes["kidney_right"].CodeValue == "64033007"
    sides = [codes[f"kidney_{side}"].SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning for side in ("left", "right")]
    assert sides == ["Left", "Right"]


def test_a_series_says_when_it_was_made_so_that_a_newer_one_is_told_from_it(tmp_path: Path) -> None:
    series = make_series()
    made = datetime(2026, 1, 2, 3, 4, 5)
    result = DicomResult(make_mask(series.grid), DicomSource.of(series.headers), WEIGHTS, {}, created=made)
    dataset = write_rtstruct(tmp_path / "rt.dcm", result)
    assert (dataset.SeriesDate, dataset.SeriesTime) == ("20260102", "030405")
    assert (dataset.StructureSetDate, dataset.StudyDate) == ("20260102", series.headers[0].StudyDate)


@pytest.mark.slow
def test_long_contours_survive_their_encoding(tmp_path: Path) -> None:
    series = make_series()
    rows = columns = 160
    for header in series.headers:
        header.Rows, header.Columns = rows, columns
    grid = type(series.grid)((columns, rows, len(series.headers)), series.grid.affine)
    labels = np.zeros(grid.shape, np.uint8)
    # A comb: one region whose outline takes more than the 64 KiB that explicit VR can count.
    labels[::2, :, 1] = 1
    labels[:, 0, 1] = 1
    result = DicomResult(LabelMask(labels, grid, LABELS), DicomSource.of(series.headers), WEIGHTS, {})
    labels[1::2, ::2, 1] = 1
    dataset = write_rtstruct(tmp_path / "rt.dcm", result)
    data = dataset.ROIContourSequence[0].ContourSequence[0].ContourData
    assert sum(len(str(v)) + 1 for v in data) > 65536
    pydicom.dcmread(tmp_path / "rt.dcm")


def test_contours_that_do_not_fill_never_appear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    series = make_series()
    monkeypatch.setattr(rtstruct, "trace_contours", lambda mask: trace_contours(np.roll(mask, 1, axis=0)))
    with pytest.raises(OutputError, match="fill"):
        write_rtstruct(tmp_path / "rt.dcm", DicomResult(make_mask(series.grid), DicomSource.of(series.headers), WEIGHTS, {}))
    assert list(tmp_path.iterdir()) == []
