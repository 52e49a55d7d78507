"""A synthetic CT: a body in air, a table, lungs, a spine, ribs, organ-like blobs and correlated noise.

    python benchmarks/synthetic_ct.py OUT.nii.gz [--shape 512 512 200] [--spacing .8 .8 2.5] [--labels L.nii.gz] [--dicom DIR]

HU are int16 (-1024 to 3071); blobs are labelled 1 (liver) to 5 (bladder).
"""

from __future__ import annotations

import argparse
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

GZIP_WINDOW_BITS = 31
GZIP_LEVEL = 6
NOISE_HU = 14


class Phantom:
    """Voxels and labels being painted; x and y in mm from the centre, z from 0 (feet) to 1 (head)."""

    def __init__(self, shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> None:
        self.extent_mm = np.array(shape) * spacing_mm
        self.x, self.y = (
            (np.arange(shape[a], dtype=np.float32) * spacing_mm[a] - self.extent_mm[a] / 2).reshape(
                [-1 if b == a else 1 for b in range(3)]
            )
            for a in (0, 1)
        )
        self.z = (np.arange(shape[2], dtype=np.float32) * spacing_mm[2] / self.extent_mm[2])[None, None, :]
        self.voxels = np.full(shape, -1000, np.float32)
        self.labels = np.zeros(shape, np.uint8)
        x, y, z = self.x, self.y, self.z
        wobble = 1 + 0.04 * np.sin(6.3 * z + 0.5) + 0.03 * np.sin(2 * np.arctan2(y, x + 1e-3) + 4 * z)
        self.radius = np.sqrt((x / 165) ** 2 + (y / 115) ** 2) / wobble

    def body(self) -> None:
        x, y, z = self.x, self.y, self.z
        self.voxels[self.radius < 1] = -90
        self.voxels[self.radius < 0.9] = 55
        self.voxels[(np.abs(y - 140) < 3) & (np.abs(x) < 190) & (z >= 0)] = -250
        for side, phase in ((-75, 0.0), (75, 1.0)):
            self.blob((side, -5, 0.86), (55, 75, 0.22), -840, phase=phase)
        self.voxels[(np.sqrt(x**2 + (y - 75) ** 2) < 17 + 3 * np.sin(90 * z)) & (z >= 0)] = 320
        shell = np.abs(np.sqrt((x / 150) ** 2 + (y / 102) ** 2) - 0.95) < 0.035
        for side in (-1, 1):
            for rib in range(9):
                self.voxels[shell & (np.abs(z - 0.55 - 0.045 * rib) < 0.012) & (side * x > 20)] = 380

    def organs(self) -> None:
        self.blob((-70, -10, 0.55), (70, 80, 0.16), 118, label=1, phase=0.3)
        self.blob((95, 30, 0.58), (32, 45, 0.09), 135, label=2, phase=0.7)
        self.blob((-65, 50, 0.42), (28, 27, 0.1), 195, label=3, phase=1.1)
        self.blob((65, 50, 0.43), (28, 27, 0.1), 195, label=3, phase=1.4)
        self.blob((10, 0, 0.47), (60, 15, 0.05), 92, label=4, phase=2.0)
        self.blob((0, -20, 0.1), (40, 35, 0.07), 12, label=5, phase=2.5)

    def blob(
        self, centre: tuple[float, ...], radii: tuple[float, ...], hu: float, *, label: int = 0, phase: float = 0.0
    ) -> None:
        axes = (self.x, self.y, self.z)
        distance = sum(((axis - c) / r) ** 2 for axis, c, r in zip(axes, centre, radii, strict=True))
        x, y, z = axes
        distance = distance * (1 + 0.12 * np.sin(x / 23 + phase) * np.cos(y / 19 + phase) * np.sin(25 * z + phase))
        inside = (distance < 1) & (self.radius < 0.93)
        self.voxels[inside] = hu
        if label:
            self.labels[inside] = label

    def finished(self, generator: np.random.Generator) -> NDArray[np.int16]:
        """With in-plane correlated noise and the scanner's circular field of view."""
        noise = generator.standard_normal(self.voxels.shape, dtype=np.float32)
        ndimage.gaussian_filter(noise, (0.7, 0.7, 0), output=noise)
        self.voxels += noise * (NOISE_HU / noise.std())
        self.voxels[np.broadcast_to((self.x**2 + self.y**2) > (self.extent_mm[0] / 2) ** 2, self.voxels.shape)] = -1024
        return np.rint(np.clip(self.voxels, -1024, 3071)).astype(np.int16)


def make(
    shape: tuple[int, int, int], spacing_mm: tuple[float, float, float], *, seed: int = 0
) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    phantom = Phantom(shape, spacing_mm)
    phantom.body()
    phantom.organs()
    return phantom.finished(np.random.default_rng(seed)), phantom.labels


def affine(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> NDArray[np.float64]:
    """A scanner's axes (left, posterior, superior) seen in NIfTI's RAS+ mm."""
    matrix = np.diag([-spacing_mm[0], -spacing_mm[1], spacing_mm[2], 1.0])
    matrix[:3, 3] = [shape[0] * spacing_mm[0] / 2, shape[1] * spacing_mm[1] / 2, -300]
    return matrix


def save(path: Path, voxels: NDArray[np.generic], matrix: NDArray[np.float64]) -> None:
    image = nib.Nifti1Image(voxels, matrix)
    image.header.set_xyzt_units("mm")
    packer = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, GZIP_WINDOW_BITS)
    path.write_bytes(packer.compress(image.to_bytes()) + packer.flush())


def write_dicom(folder: Path, voxels: NDArray[np.int16], spacing_mm: tuple[float, float, float]) -> None:
    """One axial CT series, explicit little endian, one file per slice."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    folder.mkdir(parents=True, exist_ok=True)
    study, series, frame_of_reference = generate_uid(), generate_uid(), generate_uid()
    columns, rows, slices = voxels.shape
    for k in range(slices):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        data = Dataset()
        data.file_meta = meta
        data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = study, series, frame_of_reference
        data.PatientName, data.PatientID, data.Modality = "Synthetic^CT", "SYNTHETIC", "CT"
        data.StudyDate, data.StudyTime, data.SeriesNumber, data.InstanceNumber = "20200101", "120000", 1, k + 1
        data.ImageType, data.SeriesDescription = ["ORIGINAL", "PRIMARY", "AXIAL"], "synthetic"
        data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        data.ImagePositionPatient = [-columns * spacing_mm[0] / 2, -rows * spacing_mm[1] / 2, -300 + k * spacing_mm[2]]
        data.PixelSpacing, data.SliceThickness = [spacing_mm[1], spacing_mm[0]], spacing_mm[2]
        data.Rows, data.Columns, data.SamplesPerPixel, data.PhotometricInterpretation = rows, columns, 1, "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
        data.RescaleIntercept, data.RescaleSlope = 0, 1
        data.PixelData = np.ascontiguousarray(voxels[:, :, k].T).tobytes()
        data.save_as(folder / f"IM{k:05d}.dcm", enforce_file_format=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a synthetic CT.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--shape", type=int, nargs=3, default=(512, 512, 200))
    parser.add_argument("--spacing", type=float, nargs=3, default=(0.8, 0.8, 2.5), help="mm")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--dicom", type=Path)
    chosen = parser.parse_args()
    shape, spacing_mm = tuple(chosen.shape), tuple(chosen.spacing)
    voxels, labels = make(shape, spacing_mm, seed=chosen.seed)
    save(chosen.out, voxels, affine(shape, spacing_mm))
    if chosen.labels:
        save(chosen.labels, labels, affine(shape, spacing_mm))
    if chosen.dicom:
        write_dicom(chosen.dicom, voxels, spacing_mm)
    print("labels", np.bincount(labels.ravel()).tolist(), "body fraction", round(float((voxels > -500).mean()), 3))


if __name__ == "__main__":
    main()
