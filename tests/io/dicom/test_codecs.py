"""Compressed pixels that contradict their header: whatever a codec makes of them, the study is refused with a reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from agseg.batch.outcome import failure_of
from agseg.errors import Code, InputError
from agseg.io.discover import discover
from agseg.io.read import read_volume
from tests import phantoms

SHAPE, SPACING = (40, 36, 5), (3.0, 3.0, 4.0)
AFFINE = phantoms.dicom_affine("axial", SHAPE, SPACING)


def outcome(folder: Path, syntax: str, **changed: object) -> Code | None:
    pytest.importorskip("openjpeg")
    hu = phantoms.sampled(phantoms.body_hu, SHAPE, AFFINE) + np.random.default_rng(0).integers(-12, 12, SHAPE)
    for path in phantoms.write_dicom(folder, hu, AFFINE, transfer_syntax=syntax):
        phantoms.edit_dicom(path, lambda dataset: [setattr(dataset, key, value) for key, value in changed.items()])
    (study,) = discover([folder]).studies
    try:
        read_volume(study)
    except InputError as error:
        return error.code
    return None


@pytest.mark.slow
@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
@pytest.mark.parametrize(
    "changed",
    [{"Columns": 39}, {"Columns": 41}, {"Rows": 35}, {"Rows": 37}, {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}],
)
def test_a_header_of_another_size_is_refused(tmp_path, syntax, changed):
    assert outcome(tmp_path, syntax, **changed) in (Code.DECODE, Code.HEADER_LIES)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_the_header_as_it_was_is_read(tmp_path, syntax):
    assert outcome(tmp_path, syntax) is None


def test_a_codec_in_rust_that_panics_is_no_bug_of_ours():
    panic = type("PanicException", (BaseException,), {})
    assert failure_of(panic(), None).code == Code.DECODE
    assert failure_of(type("Other", (BaseException,), {})(), None).code == Code.INTERNAL
