"""Eight studies as a night meets them: CT of two patients, MR, US, a broken one, one filed under the wrong patient."""

from __future__ import annotations

import copy
from datetime import datetime
from io import BytesIO

import numpy as np
from pydicom import Dataset

from tests.io.ct_series import make_series

SIDE, DEPTH, SPACING_MM = 48, 16, 7.0
ROOT_UID = "1.2.826.0.1.3680043.8.498.90"
WRONG, RIGHT = "pat-wrong", "pat-two"
GOOD, BROKEN, REFILED = 4, 10, 11


def make_study(
    number: int, patient_id: str, *, modality: str = "CT", lose: int | None = None, depth: int = DEPTH
) -> list[Dataset]:
    """One series: a soft-tissue ellipsoid in air with two brighter ones inside, for the two organs of tests.tiny_weights."""
    rng = np.random.default_rng(number)
    template = make_series().headers[0]
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in (SIDE, SIDE, depth)), indexing="ij")
    hu = np.where(x**2 / 0.8 + y**2 / 0.5 < 1, 40.0, -1000.0) + 60 * ((x + 0.4) ** 2 + (y + 0.1) ** 2 + z**2 / 0.5 < 0.1)
    hu += 200 * ((x - 0.4) ** 2 + (y + 0.1) ** 2 + z**2 / 0.5 < 0.05)
    hu += rng.normal(0, 10, hu.shape)
    datasets = []
    for k in range(depth):
        if k == lose:
            continue
        ds = copy.deepcopy(template)
        ds.PatientID, ds.PatientName = patient_id, f"Name^{patient_id}"
        ds.StudyInstanceUID, ds.SeriesInstanceUID = f"{ROOT_UID}.{number}", f"{ROOT_UID}.{number}.1"
        ds.FrameOfReferenceUID = f"{ROOT_UID}.{number}.2"
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"{ROOT_UID}.{number}.1.{k + 1}"
        ds.StudyDate = f"{datetime.now():%Y%m%d}"
        ds.Modality, ds.InstanceNumber = modality, k + 1
        if modality != "CT":
            ds.SOPClassUID = {"MR": "1.2.840.10008.5.1.4.1.1.4", "US": "1.2.840.10008.5.1.4.1.1.6.1"}[modality]
            ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
        ds.Rows = ds.Columns = SIDE
        ds.ImageOrientationPatient, ds.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [-168.0, -168.0, k * SPACING_MM]
        ds.PixelSpacing, ds.SliceThickness = [SPACING_MM, SPACING_MM], SPACING_MM
        ds.BitsStored, ds.HighBit = 16, 15
        ds.PixelData = np.clip(hu[:, :, k].T + 1024, 0, 4000).astype(np.uint16).tobytes()
        datasets.append(ds)
    return datasets


def night_studies() -> list[list[Dataset]]:
    """All eight, by number: 0 to 3 good CT of two patients, 8 MR, 9 US, 10 broken, 11 filed under the wrong patient."""
    good = [make_study(number, "pat-one" if number < 2 else "pat-two") for number in range(GOOD)]
    others = [make_study(8, "pat-one", modality="MR", depth=4), make_study(9, "pat-two", modality="US", depth=1)]
    return [*good, *others, make_study(BROKEN, "pat-one", lose=DEPTH // 2), make_study(REFILED, WRONG)]


def as_file(dataset: Dataset) -> bytes:
    stream = BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()
