"""RT structure sets: one region per organ, as closed contours in the planes of the source's slices.

Points come from the affine of each source frame, so coronal, sagittal and oblique series have contours too. Holes are
keyholes, see ``contours``. Nobody has approved the set: ApprovalStatus is UNAPPROVED.
Source: DICOM PS3.3 A.19 (RT Structure Set IOD), C.8.8.5, C.8.8.6, C.8.8.8.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agseg.errors import OutputError
from agseg.io.dicom_out.codes import structure_items
from agseg.io.dicom_out.contours import Contour, fill_contours, trace_contours
from agseg.io.dicom_out.result import MANUFACTURER, MODEL_NAME, SHORT_DISCLAIMER, DicomResult, saved
from agseg.io.dicom_out.source import CARRIED, OPTIONAL, SourceFrame
from agseg.labels import Label
from agseg.report import DISCLAIMER

RT_STRUCTURE_SET_STORAGE = "1.2.840.10008.5.1.4.1.1.481.3"
DETACHED_STUDY_MANAGEMENT = "1.2.840.10008.3.1.2.3.1"
"""Retired, and still what ReferencedSOPClassUID of the referenced study must be (PS3.3 C.8.8.5)."""

DECIMALS_MM = 3
"""Digits of a contour point behind the point: a micrometre."""


def write_rtstruct(path: Path, result: DicomResult) -> Any:
    """Write the structure set, read back and compared before it appears; returns its data set.

    Raises
    ------
    OutputError
        If it cannot be built or its contours do not fill to the mask.
    """
    dataset = build_rtstruct(result)

    def check(temporary: Path) -> None:
        regions = read_rtstruct(temporary, result)
        for label in result.present:
            if not np.array_equal(regions[label.name], result.mask.of(label.name)):
                raise OutputError(f"the contours of {label.name} do not fill to its mask", path=path)

    saved(dataset, path, check=check)
    return dataset


def build_rtstruct(result: DicomResult) -> Any:
    """The structure set as a pydicom data set; regions are numbered in the order of ``result.present``."""
    from pydicom import Dataset

    if not result.present:
        raise OutputError("no organ is present: a structure set needs a region")
    with result.building("structure set"):
        dataset = Dataset()
        _add_patient_and_study(dataset, result)
        _add_equipment(dataset, result)
        dataset.StructureSetLabel = "agseg organs"
        dataset.StructureSetDescription = DISCLAIMER
        dataset.StructureSetDate = result.created.strftime("%Y%m%d")
        dataset.StructureSetTime = result.created.strftime("%H%M%S")
        dataset.FrameOfReferenceUID = result.source.frame_of_reference_uid
        dataset.PositionReferenceIndicator = str(result.source.first.get("PositionReferenceIndicator") or "")
        dataset.ApprovalStatus = "UNAPPROVED"
        dataset.ReferencedFrameOfReferenceSequence = [_frame_of_reference(result)]
        regions = list(enumerate(result.present, start=1))
        dataset.StructureSetROISequence = [_region(result, number, label) for number, label in regions]
        dataset.ROIContourSequence = [_region_contours(result, number, label) for number, label in regions]
        dataset.RTROIObservationsSequence = [_observation(number, label) for number, label in regions]
        dataset.file_meta = _file_meta(result)
        return dataset


def read_rtstruct(path: Path, result: DicomResult) -> dict[str, NDArray[np.bool_]]:
    """Boolean mask (i, j, k) of each region, filled from its contours on the frames they refer to."""
    import pydicom

    dataset = pydicom.dcmread(path)
    names = {int(roi.ROINumber): str(roi.ROIName) for roi in dataset.StructureSetROISequence}
    frames = {(frame.sop_instance_uid, frame.number): number for number, frame in enumerate(result.source.frames)}
    grid, frame_map = result.mask.grid, result.frame_map
    regions: dict[str, NDArray[np.bool_]] = {}
    for roi in dataset.ROIContourSequence:
        by_frame: dict[int, list[Contour]] = {}
        for item in roi.ContourSequence:
            image = item.ContourImageSequence[0]
            number = image.get("ReferencedFrameNumber")
            at = frames[(str(image.ReferencedSOPInstanceUID), None if number is None else int(number))]
            # The value as it lies in the file: pydicom would make an object of every number.
            text = item.get_item("ContourData").value
            points_mm = np.array(text.strip().split(b"\\"), dtype=np.float64).reshape(-1, 3)
            by_frame.setdefault(at, []).append(_pixels(points_mm, result.source.frames[at]))
        target = np.zeros(grid.shape, dtype=np.uint8, order="F")
        for at, contours in by_frame.items():
            plane = result.source.frames[at].plane
            filled = fill_contours(contours, (int(plane.rows or 0), int(plane.columns or 0)))
            frame_map.place(filled, at, target, 1)
        regions[names[int(roi.ReferencedROINumber)]] = target > 0
    return regions


def _steps(frame: SourceFrame) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Position of the first pixel, step to the next row, step to the next column (LPS mm)."""
    orientation = np.asarray(frame.plane.orientation, dtype=np.float64)
    spacing = frame.plane.pixel_spacing_mm
    assert spacing is not None
    return np.asarray(frame.plane.position_mm), orientation[3:] * spacing[0], orientation[:3] * spacing[1]


def _points_mm(contour: Contour, frame: SourceFrame) -> NDArray[np.float64]:
    """LPS points (n, 3) in mm of the vertices (row, column)."""
    origin, row_step, column_step = _steps(frame)
    return origin + contour[:, :1] * row_step + contour[:, 1:] * column_step


def _pixels(points_mm: NDArray[np.float64], frame: SourceFrame) -> Contour:
    """Vertices (row, column) of LPS points (n, 3), back on the half pixels they were rounded from."""
    origin, row_step, column_step = _steps(frame)
    offsets = points_mm - origin
    rows = offsets @ row_step / (row_step @ row_step)
    columns = offsets @ column_step / (column_step @ column_step)
    # Vertices are whole in one direction and half-way in the other; what a micrometre's rounding took away is put back.
    return np.round(2 * np.stack([rows, columns], axis=1)) / 2


def _region_contours(result: DicomResult, number: int, label: Label) -> Any:
    from pydicom import Dataset

    frames = result.frame_map.to_frames(result.mask.of(label.name).astype(np.uint8))
    item = Dataset()
    item.ReferencedROINumber = number
    item.ROIDisplayColor = list(label.rgb)
    item.ContourSequence = []
    for at in np.flatnonzero(frames.any(axis=(1, 2))):
        frame = result.source.frames[at]
        for contour in trace_contours(frames[at] > 0):
            contour_item = Dataset()
            contour_item.ContourImageSequence = [_image_reference(frame)]
            contour_item.ContourGeometricType = "CLOSED_PLANAR"
            contour_item.NumberOfContourPoints = len(contour)
            contour_item.ContourNumber = len(item.ContourSequence) + 1
            points = _points_mm(contour, frame).ravel()
            contour_item.ContourData = [f"{value:.{DECIMALS_MM}f}" for value in points]
            item.ContourSequence.append(contour_item)
    return item


def _add_patient_and_study(dataset: Any, result: DicomResult) -> None:
    source = result.source.first
    for keyword in (*CARRIED, *OPTIONAL):
        if keyword in source:
            dataset.add(source[keyword])


def _add_equipment(dataset: Any, result: DicomResult) -> None:
    dataset.SOPClassUID = RT_STRUCTURE_SET_STORAGE
    dataset.SOPInstanceUID = result.identity.uid("rtstruct")
    dataset.SeriesInstanceUID = result.identity.uid("rtstruct", "series")
    dataset.SeriesNumber = result.series_number("rtstruct")
    dataset.InstanceNumber = 1
    dataset.Modality = "RTSTRUCT"
    dataset.SeriesDescription = result.series_description("Organs")
    dataset.OperatorsName = ""
    dataset.Manufacturer = MANUFACTURER
    dataset.ManufacturerModelName = MODEL_NAME
    dataset.DeviceSerialNumber = result.device_serial_number
    dataset.SoftwareVersions = result.software_versions
    dataset.InstanceCreationDate = dataset.SeriesDate = result.created.strftime("%Y%m%d")
    dataset.InstanceCreationTime = dataset.SeriesTime = result.created.strftime("%H%M%S")


def _image_reference(frame: SourceFrame) -> Any:
    from pydicom import Dataset

    item = Dataset()
    item.ReferencedSOPClassUID = frame.sop_class_uid
    item.ReferencedSOPInstanceUID = frame.sop_instance_uid
    if frame.number is not None:
        item.ReferencedFrameNumber = frame.number
    return item


def _frame_of_reference(result: DicomResult) -> Any:
    from pydicom import Dataset

    series = Dataset()
    series.SeriesInstanceUID = result.source.series_uid
    series.ContourImageSequence = [_image_reference(frame) for frame in result.source.frames]
    study = Dataset()
    study.ReferencedSOPClassUID = DETACHED_STUDY_MANAGEMENT
    study.ReferencedSOPInstanceUID = str(result.source.first.StudyInstanceUID)
    study.RTReferencedSeriesSequence = [series]
    item = Dataset()
    item.FrameOfReferenceUID = result.source.frame_of_reference_uid
    item.RTReferencedStudySequence = [study]
    return item


def _region(result: DicomResult, number: int, label: Label) -> Any:
    from pydicom import Dataset

    item = Dataset()
    item.ROINumber = number
    item.ReferencedFrameOfReferenceUID = result.source.frame_of_reference_uid
    item.ROIName = label.name
    item.ROIDescription = SHORT_DISCLAIMER
    volume_ml = np.count_nonzero(result.mask.of(label.name)) * result.mask.grid.voxel_volume_ml
    item.ROIVolume = f"{volume_ml:.6g}"
    item.ROIGenerationAlgorithm = "AUTOMATIC"
    item.ROIGenerationDescription = f"agseg {result.version} {result.made_by(label.name).id}"[:64]
    return item


def _observation(number: int, label: Label) -> Any:
    from pydicom import Dataset

    structure = label.structure
    assert structure is not None  # result.present holds coded labels only
    item = Dataset()
    item.ObservationNumber = number
    item.ReferencedROINumber = number
    item.ROIObservationLabel = label.name[:16]
    item.RTROIIdentificationCodeSequence = structure_items(structure)
    item.RTROIInterpretedType = "ORGAN"
    item.ROIInterpreter = ""
    return item


def _file_meta(result: DicomResult) -> Any:
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import UID, ImplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(RT_STRUCTURE_SET_STORAGE)
    meta.MediaStorageSOPInstanceUID = UID(result.identity.uid("rtstruct"))
    # Explicit VR counts the bytes of a DS value in 16 bits; the contour of a large organ is longer.
    meta.TransferSyntaxUID = ImplicitVRLittleEndian
    return meta
