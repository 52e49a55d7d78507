"""Makes the studies in this folder: synthetic scans (`agseg phantom`), no person's data.

    python examples/make_examples.py

studies/abdomen_dicom      a CT series of one synthetic abdomen, as a scanner would send it
studies/abdomen_nifti.nii.gz   another one, as a researcher would have it
rejected/missing_slice     the first one with a slice lost on the way: agseg must refuse it
"""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from agseg.io.atomic import make_folder
from agseg.training.phantom import make_case
from agseg.volume import Volume

HERE = Path(__file__).resolve().parent
LOST_SLICE = 6


def write_series(folder: Path, volume: Volume, *, name: str) -> None:
    """One axial CT series, explicit little endian, one file per slice."""
    grid, permutation, flips = volume.grid.reoriented("LPS")
    voxels = volume.voxels.transpose(permutation)[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]
    to_lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ grid.affine
    study, series, frame = (generate_uid(entropy_srcs=[name, kind]) for kind in ("study", "series", "frame"))
    make_folder(folder)
    for k in range(grid.shape[2]):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[name, str(k)])
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds = Dataset()
        ds.file_meta = meta
        ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = study, series, frame
        ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "PHANTOM", name.upper(), "", "O"
        ds.StudyDate, ds.StudyTime, ds.AccessionNumber, ds.ReferringPhysicianName = "20200101", "120000", "", ""
        ds.StudyID, ds.Manufacturer, ds.SeriesNumber, ds.InstanceNumber = "1", "agseg phantom", 1, k + 1
        ds.Modality, ds.ImageType, ds.BodyPartExamined = "CT", ["DERIVED", "PRIMARY", "AXIAL"], "ABDOMEN"
        ds.PositionReferenceIndicator, ds.PatientPosition = "", "HFS"
        ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        ds.ImagePositionPatient = [f"{x:.6f}" for x in (to_lps @ [0, 0, k, 1])[:3]]
        ds.PixelSpacing = [f"{grid.spacing_mm[1]:.6f}", f"{grid.spacing_mm[0]:.6f}"]
        ds.SliceThickness = f"{grid.spacing_mm[2]:.6f}"
        ds.Rows, ds.Columns = grid.shape[1], grid.shape[0]
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
        ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = 1, 0, "HU"
        ds.PixelData = np.ascontiguousarray(voxels[:, :, k].T).astype("<i2").tobytes()
        ds.save_as(folder / f"IM{k + 1:04d}.dcm", enforce_file_format=True)


def main() -> None:
    """Make everything anew; the same bytes every time."""
    for folder in ("studies", "rejected"):
        shutil.rmtree(HERE / folder, ignore_errors=True)
    first = make_case("ct150", index=2, seed=2024, coarsen=1.2)
    write_series(HERE / "studies" / "abdomen_dicom", first.volume, name="abdomen_dicom")
    second = make_case("ct82", index=3, seed=2024, coarsen=1.25)
    image = nib.Nifti1Image(second.volume.voxels, second.volume.grid.affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, HERE / "studies" / "abdomen_nifti.nii.gz")
    small = make_case("ct150", index=4, seed=2024, coarsen=4.0)
    refused = HERE / "rejected" / "missing_slice"
    write_series(refused, small.volume, name="missing_slice")
    (refused / f"IM{LOST_SLICE:04d}.dcm").unlink()


if __name__ == "__main__":
    main()
