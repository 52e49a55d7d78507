"""Small CT series for the tests of DICOM output, in every orientation; headers, grid and pixels made here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

from agseg.grid import Grid
from agseg.labels import LabelSet
from agseg.report import Measurement, OrganStatus, WeightsRef
from agseg.volume import LabelMask

WEIGHTS = (WeightsRef("attention-unet-test", "5e" * 32, "attention-unet", "Apache-2.0"),)
LABELS = LabelSet.from_mapping({1: "liver", 3: "kidney_left", 4: "kidney_right", 7: "pancreas"})
COLUMNS, ROWS, SLICES = 11, 9, 6
SPACING_MM = (0.8, 1.1, 2.5)
"""Between columns, between rows, between slices."""

_TURN = np.radians(17.0)
# Row direction and column direction in DICOM's LPS, and the step between slices relative to their normal.
ORIENTATIONS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "axial": ((1, 0, 0), (0, 1, 0)),
    "coronal": ((1, 0, 0), (0, 0, -1)),
    "sagittal": ((0, 1, 0), (0, 0, -1)),
    "oblique": ((np.cos(_TURN), np.sin(_TURN), 0), (0, 0, -1)),
    "feet_first_prone": ((1, 0, 0), (0, -1, 0)),
}


@dataclass(frozen=True)
class Series:
    """Headers in order of position (with pixels), and the grid (i = column, j = row, k = slice) in RAS mm."""

    headers: list[Dataset]
    grid: Grid

    def write(self, folder: Path) -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"{number:03d}.dcm" for number in range(len(self.headers))]
        for header, path in zip(self.headers, paths, strict=True):
            header.save_as(path, enforce_file_format=True)
        return paths


def make_series(orientation: str = "axial", *, tilt_mm: float = 0.0, seed: int = 1) -> Series:
    """A series with all its UIDs; ``tilt_mm`` shifts each slice along its columns, as a tilted gantry does."""
    row, column = (np.array(v, dtype=float) for v in ORIENTATIONS[orientation])
    step = np.cross(row, column) * SPACING_MM[2] + column * tilt_mm
    origin = np.array([-31.5, 12.25, 140.0])
    rng = np.random.default_rng(seed)
    headers = [_header(k, origin + k * step, row, column, rng) for k in range(SLICES)]
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = row * SPACING_MM[0], column * SPACING_MM[1], step
    affine[:3, 3] = origin
    return Series(headers, Grid((COLUMNS, ROWS, SLICES), np.diag([-1.0, -1, 1, 1]) @ affine))


def _header(k: int, position: np.ndarray, row: np.ndarray, column: np.ndarray, rng: np.random.Generator) -> Dataset:
    ds = Dataset()
    ds.SOPClassUID = CTImageStorage
    ds.SOPInstanceUID = UID(f"1.2.826.0.1.3680043.8.498.77.1.{k + 1}")
    ds.StudyInstanceUID = UID("1.2.826.0.1.3680043.8.498.77.2")
    ds.SeriesInstanceUID = UID("1.2.826.0.1.3680043.8.498.77.3")
    ds.FrameOfReferenceUID = UID("1.2.826.0.1.3680043.8.498.77.4")
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.PatientName, ds.PatientID, ds.PatientSex, ds.PatientBirthDate = "Phantom^Größe", "ph-1", "O", "19700101"
    ds.StudyDate, ds.StudyTime, ds.StudyID, ds.AccessionNumber = "20260102", "101112", "7", "acc-5"
    ds.SeriesDate, ds.SeriesTime, ds.ContentDate, ds.ContentTime = "20260102", "101112", "20260102", "101112"
    ds.ReferringPhysicianName, ds.StudyDescription = "", "phantom"
    ds.Manufacturer, ds.Modality, ds.ImageType = "maker", "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SeriesNumber, ds.AcquisitionNumber, ds.InstanceNumber = 2, 1, 40 - k
    ds.PatientPosition, ds.PositionReferenceIndicator, ds.KVP = "HFS", "", 120
    ds.ImagePositionPatient = [f"{x:.6f}" for x in position]
    ds.ImageOrientationPatient = [f"{x:.8f}" for x in (*row, *column)]
    ds.PixelSpacing, ds.SliceThickness = [SPACING_MM[1], SPACING_MM[0]], 3
    ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = ROWS, COLUMNS, 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = -1024, 1, "HU"
    ds.PixelData = rng.integers(0, 2000, (ROWS, COLUMNS), dtype=np.uint16).tobytes()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return ds


def make_enhanced(series: Series) -> Dataset:
    """The same planes as one enhanced multi-frame header; its frames lie in the file in another order than in space."""
    first = series.headers[0]
    ds = Dataset()
    for element in first:
        if element.keyword not in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
            ds.add(element)
    ds.SOPClassUID = UID("1.2.840.10008.5.1.4.1.1.2.1")
    ds.SOPInstanceUID = UID("1.2.826.0.1.3680043.8.498.77.9")
    ds.NumberOfFrames = len(series.headers)
    orientation, measures = Dataset(), Dataset()
    orientation.ImageOrientationPatient = first.ImageOrientationPatient
    measures.PixelSpacing, measures.SliceThickness = first.PixelSpacing, first.SliceThickness
    shared = Dataset()
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    ds.SharedFunctionalGroupsSequence = [shared]
    ds.PerFrameFunctionalGroupsSequence = []
    for k in np.roll(np.arange(len(series.headers)), 2):
        position, content, frame = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = series.headers[k].ImagePositionPatient
        content.StackID, content.InStackPositionNumber, content.DimensionIndexValues = "1", int(k) + 1, [1, int(k) + 1]
        frame.PlanePositionSequence, frame.FrameContentSequence = [position], [content]
        ds.PerFrameFunctionalGroupsSequence.append(frame)
    ds.file_meta = FileMetaDataset()
    return ds


def make_mask(grid: Grid, *, seed: int = 3) -> LabelMask:
    """Random blobs of liver and both kidneys, nothing symmetric; the pancreas is absent and one slice is empty."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(np.array([0, 0, 1, 3, 4], dtype=np.uint8), size=grid.shape)
    labels[:, :, 2] = 0
    labels[:3, :, :] = 0
    return LabelMask(labels, grid, LABELS)


def measured(mask: LabelMask) -> tuple[Measurement, ...]:
    """What ``measure`` would say, without an image."""
    found = []
    for label in mask.label_set:
        voxels = int(mask.of(label.name).sum())
        if voxels:
            found.append(Measurement(label.name, OrganStatus.PRESENT, voxels * mask.grid.voxel_volume_ml, voxels, mean_hu=41.5))
        else:
            found.append(Measurement(label.name, OrganStatus.ABSENT, voxels=0))
    return tuple(found)
