"""Analytic phantoms, sampled on any grid and written as DICOM or NIfTI in any orientation.

A phantom is a function of world points (RAS+ mm), so what a file must hold at a point is known without any reader:

* :func:`linear_hu` is linear, hence exact under trilinear interpolation between any voxels;
* :func:`body_hu` is a small trunk: air, an elliptic body, and organs as ellipsoids at different places on left and right.

Everything is written with pydicom and nibabel from textbook definitions, not with agseg's own code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, MRImageStorage

Field = Callable[[np.ndarray], np.ndarray]

UID_ROOT = "1.2.826.0.1.3680043.8.498.9"

CANARIES = ("ZZNAME", "ZZPATIENTID", "19010203", "ZZACCESSION", "ZZHOSPITAL")
"""Identifying values that the writers put into every header; none may ever be printed or written by agseg."""

FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])


# -- fields ---------------------------------------------------------------------------------------------------------------


def linear_hu(ras_mm: np.ndarray) -> np.ndarray:
    """HU = 50 + 4x - 2y + 3z of points (..., 3): different along every axis and in every direction."""
    x, y, z = np.moveaxis(np.asarray(ras_mm, dtype=np.float64), -1, 0)
    return 50 + 4 * x - 2 * y + 3 * z


@dataclass(frozen=True)
class Ellipsoid:
    """Centre and half axes in RAS mm, and the HU inside."""

    name: str
    centre_mm: tuple[float, float, float]
    half_axes_mm: tuple[float, float, float]
    hu: float

    @property
    def volume_ml(self) -> float:
        a, b, c = self.half_axes_mm
        return 4 / 3 * np.pi * a * b * c / 1000

    def contains(self, ras_mm: np.ndarray) -> np.ndarray:
        away = (np.asarray(ras_mm) - self.centre_mm) / self.half_axes_mm
        return (away**2).sum(axis=-1) <= 1


BODY = Ellipsoid("body", (0, 0, 0), (60, 45, 200), 40)
ORGANS = (
    Ellipsoid("liver", (28, 8, 8), (24, 24, 22), 110),
    Ellipsoid("spleen", (-38, -8, 12), (14, 16, 18), 130),
    Ellipsoid("pancreas", (-2, 8, -2), (18, 8, 8), 90),
    Ellipsoid("kidney_right", (26, -24, -14), (10, 10, 14), 180),
    Ellipsoid("kidney_left", (-26, -24, -6), (10, 10, 14), 200),
)


def body_hu(ras_mm: np.ndarray) -> np.ndarray:
    """HU of the small trunk at points (..., 3)."""
    hu = np.full(np.asarray(ras_mm).shape[:-1], -1000.0)
    for part in (BODY, *ORGANS):
        hu[part.contains(ras_mm)] = part.hu
    return hu


# -- grids ----------------------------------------------------------------------------------------------------------------


def world(shape: Sequence[int], affine_ras: np.ndarray) -> np.ndarray:
    """RAS points (i, j, k, 3) of all voxel centres."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)
    return index @ affine_ras[:3, :3].T + affine_ras[:3, 3]


def sampled(field: Field, shape: Sequence[int], affine_ras: np.ndarray) -> np.ndarray:
    """The field at the voxel centres, int16 (i, j, k)."""
    return np.rint(field(world(shape, affine_ras))).astype(np.int16)


def centred(directions: np.ndarray, shape: Sequence[int], spacing_mm: Sequence[float]) -> np.ndarray:
    """The affine with these directions (columns) and spacing whose middle lies at the origin."""
    affine = np.eye(4)
    affine[:3, :3] = np.asarray(directions, dtype=np.float64) * np.asarray(spacing_mm)
    affine[:3, 3] = -affine[:3, :3] @ ((np.asarray(shape) - 1) / 2)
    return affine


_VECTORS = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}


def coded_affine(codes: str, shape: Sequence[int], spacing_mm: Sequence[float]) -> np.ndarray:
    """RAS affine of a grid whose axes grow towards ``codes``, centred at the origin."""
    return centred(np.array([_VECTORS[code] for code in codes]).T, shape, spacing_mm)


def rotation(axis: int, degrees: float) -> np.ndarray:
    a = np.radians(degrees)
    b, c = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[b, b], matrix[b, c], matrix[c, b], matrix[c, c] = np.cos(a), -np.sin(a), np.sin(a), np.cos(a)
    return matrix


DICOM_ORIENTATIONS = ("axial", "coronal", "sagittal", "oblique", "feet_first_prone")


def dicom_affine(orientation: str, shape: Sequence[int], spacing_mm: Sequence[float]) -> np.ndarray:
    """RAS affine (i = column, j = row, k = slice) of a right-handed DICOM stack, centred at the origin."""
    row_column = {
        "axial": ("L", "P"),
        "coronal": ("L", "I"),
        "sagittal": ("P", "I"),
        "feet_first_prone": ("R", "A"),
        "oblique": ("L", "P"),
    }[orientation]
    row, column = (np.array(_VECTORS[code], dtype=np.float64) for code in row_column)
    directions = np.stack([row, column, np.cross(row, column)], axis=1)
    if orientation == "oblique":
        directions = rotation(0, 14) @ rotation(2, 9) @ directions
    return centred(directions, shape, spacing_mm)


# -- DICOM ----------------------------------------------------------------------------------------------------------------


def _uid(*parts: int) -> str:
    return ".".join([UID_ROOT, *(str(part) for part in parts)])


def _dataset(path: Path, sop_class: str, sop_uid: str, *, series: int, modality: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = sop_uid
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID_ROOT
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = sop_uid
    dataset.Modality = modality
    dataset.PatientName = f"{CANARIES[0]}^TEST"
    dataset.PatientID = CANARIES[1]
    dataset.PatientBirthDate = CANARIES[2]
    dataset.PatientSex = "O"
    dataset.AccessionNumber = CANARIES[3]
    dataset.InstitutionName = CANARIES[4]
    dataset.ReferringPhysicianName = ""
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID = "20260101", "120000", "1"
    dataset.StudyInstanceUID = _uid(1)
    dataset.SeriesInstanceUID = _uid(1, series)
    dataset.FrameOfReferenceUID = _uid(1, 9)
    dataset.PositionReferenceIndicator = ""
    dataset.Manufacturer = "agseg tests"
    dataset.SeriesNumber = series
    dataset.BodyPartExamined = "ABDOMEN"
    dataset.PatientPosition = "HFS"
    return dataset


def _pixels(dataset: Dataset, rows: int, columns: int) -> None:
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = rows, columns
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = 0


def _orientation(affine_ras: np.ndarray) -> tuple[list[float], np.ndarray]:
    """ImageOrientationPatient and the LPS affine."""
    lps = FLIP @ affine_ras
    row, column = (lps[:3, axis] / np.linalg.norm(lps[:3, axis]) for axis in (0, 1))
    return [round(float(value), 12) for value in (*row, *column)], lps


def write_dicom(
    folder: Path,
    hu: np.ndarray,
    affine_ras: np.ndarray,
    *,
    order: Sequence[int] | None = None,
    suffix: str = ".dcm",
    series: int = 2,
    modality: str = "CT",
    change: Callable[[FileDataset, int], None] | None = None,
    transfer_syntax: str | None = None,
) -> list[Path]:
    """Write (i, j, k) HU as one file per slice; returns the paths in order of position.

    Parameters
    ----------
    order
        File number and InstanceNumber of each slice; shuffles both.
    change
        Called with each data set and its slice number before it is saved.
    transfer_syntax
        A compressed syntax that pydicom can encode.
    """
    folder.mkdir(parents=True, exist_ok=True)
    orientation, lps = _orientation(affine_ras)
    spacing = np.linalg.norm(affine_ras[:3, :3], axis=0)
    paths = []
    for k in range(hu.shape[2]):
        number = k if order is None else order[k]
        path = folder / f"IM{number:04d}{suffix}"
        sop_class = CTImageStorage if modality == "CT" else MRImageStorage
        dataset = _dataset(path, sop_class, _uid(1, series, k + 1), series=series, modality=modality)
        _pixels(dataset, hu.shape[1], hu.shape[0])
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        dataset.InstanceNumber = number + 1
        dataset.ImageOrientationPatient = orientation
        dataset.ImagePositionPatient = [round(float(v), 9) for v in lps[:3, 3] + k * lps[:3, 2]]
        dataset.PixelSpacing = [float(spacing[1]), float(spacing[0])]
        dataset.SliceThickness = float(spacing[2])
        dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = "1", "-2000", "HU"
        dataset.PixelData = (hu[:, :, k].T.astype(np.int32) + 2000).astype("<u2").tobytes()
        if change is not None:
            change(dataset, k)
        if transfer_syntax is not None:
            dataset.compress(transfer_syntax, generate_instance_uid=False)
        dataset.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def write_enhanced(path: Path, hu: np.ndarray, affine_ras: np.ndarray, *, order: Sequence[int] | None = None) -> Path:
    """Write (i, j, k) HU as one enhanced multi-frame file; ``order[n]`` is the slice that frame n holds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    orientation, lps = _orientation(affine_ras)
    spacing = np.linalg.norm(affine_ras[:3, :3], axis=0)
    order = list(range(hu.shape[2])) if order is None else list(order)
    dataset = _dataset(path, EnhancedCTImageStorage, _uid(1, 7, 1), series=7, modality="CT")
    _pixels(dataset, hu.shape[1], hu.shape[0])
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    dataset.NumberOfFrames = len(order)
    shared = Dataset()
    shared.PlaneOrientationSequence = _item(ImageOrientationPatient=orientation)
    shared.PixelMeasuresSequence = _item(PixelSpacing=[float(spacing[1]), float(spacing[0])], SliceThickness=float(spacing[2]))
    dataset.SharedFunctionalGroupsSequence = DicomSequence([shared])
    frames = []
    for k in order:
        frame = Dataset()
        frame.PlanePositionSequence = _item(ImagePositionPatient=[round(float(v), 9) for v in lps[:3, 3] + k * lps[:3, 2]])
        frame.PixelValueTransformationSequence = _item(RescaleIntercept="-2000", RescaleSlope="1", RescaleType="HU")
        frames.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = DicomSequence(frames)
    stack = np.stack([hu[:, :, k].T for k in order])
    dataset.PixelData = (stack.astype(np.int32) + 2000).astype("<u2").tobytes()
    dataset.save_as(path, enforce_file_format=True)
    return path


def _item(**values: object) -> DicomSequence:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return DicomSequence([item])


def edit_dicom(path: Path, change: Callable[[FileDataset], object]) -> None:
    """Change a written file in place."""
    dataset = pydicom.dcmread(path)
    change(dataset)
    dataset.save_as(path)


# -- NIfTI ----------------------------------------------------------------------------------------------------------------


def write_nifti(path: Path, values: np.ndarray, affine_ras: np.ndarray, *, sform: int = 1, qform: int = 1) -> Path:
    """Write (i, j, k) values in their own dtype."""
    import nibabel

    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(values, affine_ras, dtype=values.dtype)
    image.set_sform(affine_ras if sform else None, code=sform)
    image.set_qform(affine_ras if qform else None, code=qform)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)
    return path
