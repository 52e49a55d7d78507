"""Lossy JPEG: a picture that ends early under a sound end marker is refused, and one that is whole is read."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit

from agseg.errors import Code, InputError
from agseg.io.discover import discover
from agseg.io.read import read_volume
from tests import phantoms

SHAPE, SPACING = (44, 37, 6), (3.0, 3.0, 4.0)
AFFINE = phantoms.dicom_affine("axial", SHAPE, SPACING)
SLOPE = 8


def write(folder: Path, *, keep: float = 1.0, **options: object) -> None:
    """The trunk in 8 bits; of one slice's codestream a part is kept, and closed."""
    noise = np.random.default_rng(0).normal(0, 12, SHAPE)
    hu = (phantoms.sampled(phantoms.body_hu, SHAPE, AFFINE) + noise).astype(np.int16)
    for k, path in enumerate(phantoms.write_dicom(folder, hu, AFFINE)):
        dataset = pydicom.dcmread(path)
        stored = np.clip((hu[:, :, k].T + 1000) / SLOPE, 0, 255).astype(np.uint8)
        stream = io.BytesIO()
        Image.fromarray(stored).save(stream, "JPEG", quality=95, **options)
        coded = stream.getvalue()
        if k == 3 and keep < 1:
            coded = coded[: int(len(coded) * keep)] + b"\xff\xd9"
        dataset.BitsAllocated = dataset.BitsStored = 8
        dataset.HighBit, dataset.RescaleSlope, dataset.RescaleIntercept = 7, SLOPE, -1000
        dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
        dataset.PixelData = encapsulate([coded])
        dataset["PixelData"].is_undefined_length = True
        dataset.save_as(path)


def outcome(folder: Path) -> Code | None:
    (study,) = discover([folder]).studies
    if study.rejected is not None:
        return study.rejected.code
    try:
        read_volume(study)
    except InputError as error:
        return error.code
    return None


@pytest.mark.parametrize("options", [{}, {"restart_marker_rows": 1}])
@pytest.mark.parametrize(("keep", "code"), [(1.0, None), (0.5, Code.TRUNCATED), (0.8, Code.TRUNCATED), (0.97, Code.TRUNCATED)])
def test_a_picture_that_ends_early_is_refused(tmp_path, options, keep, code):
    pytest.importorskip("gdcm")
    write(tmp_path, keep=keep, **options)
    assert outcome(tmp_path) is code


@pytest.mark.parametrize("keep", [1.0, 0.7])
def test_a_progressive_picture_is_named(tmp_path, keep):
    write(tmp_path, keep=keep, progressive=True)
    assert outcome(tmp_path) is Code.TRANSFER_SYNTAX
