"""DICOM headers: the walk says what pydicom says, and no damage costs more than the file or tells what stood in it."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from agseg.errors import InputError
from agseg.io.dicom.header import _via_pydicom, read_header
from agseg.io.dicom.slice_header import SliceHeader
from agseg.io.discover import discover
from agseg.io.read import read_volume
from tests import phantoms

SHAPE, SPACING = (14, 12, 6), (1.5, 2.0, 2.5)


@pytest.fixture
def axial():
    return noise()


def noise():
    """Voxels that no two slices share, and their affine."""
    return np.random.default_rng(7).integers(-900, 900, SHAPE).astype(np.int16), phantoms.dicom_affine("axial", SHAPE, SPACING)


def test_walk_and_pydicom_agree(tmp_path, axial):
    path = phantoms.write_dicom(tmp_path, *axial)[0]
    ours, theirs = read_header(path), _via_pydicom(path, path.stat().st_size)
    for name in SliceHeader.__dataclass_fields__:
        if name != "pixels":
            assert getattr(ours, name) == getattr(theirs, name), name


def test_walk_and_pydicom_agree_on_real_files(shared_data):
    compared = 0
    for path in sorted((shared_data / "dicom_variety").rglob("*")):
        if not path.is_file() or path.read_bytes()[128:132] != b"DICM":
            continue
        ours = read_header(path)
        theirs = _via_pydicom(path, path.stat().st_size)
        for name in SliceHeader.__dataclass_fields__:
            if name not in ("pixels", "image_type", "patient_id", "patient_name"):
                assert getattr(ours, name) == getattr(theirs, name), (path.name, name)
        compared += 1
    assert compared > 60


def test_what_stands_inside_a_sequence_is_not_the_files_own(tmp_path, axial):
    def change(dataset, _k):
        item = Dataset()
        item.is_undefined_length_sequence_item = True
        item.Modality, item.SOPInstanceUID = "MR", "1.2.3"
        dataset.ReferencedImageSequence = Sequence([item])
        dataset["ReferencedImageSequence"].is_undefined_length = True

    path = phantoms.write_dicom(tmp_path, *axial, change=change)[0]
    assert b"MR" in path.read_bytes()
    assert read_header(path).modality == "CT"
    assert read_header(path).sop_uid != "1.2.3"


def test_deep_nesting_costs_neither_time_nor_a_crash(tmp_path, axial):
    def nest(dataset, _k):
        inner = Dataset()
        inner.ReferencedSOPInstanceUID = "1.2"
        dataset.ReferencedImageSequence = Sequence([inner])

    paths = phantoms.write_dicom(tmp_path, *axial, change=nest)
    for path in paths:
        content = path.read_bytes()
        tag = b"\x08\x00\x40\x11SQ\0\0"
        start = content.index(tag)
        end = start + 12 + int.from_bytes(content[start + 8 : start + 12], "little")
        deep = 3000
        opening = (tag + b"\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff") * deep
        closing = (b"\xfe\xff\x0d\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0") * deep
        path.write_bytes(content[:start] + opening + closing + content[end:])
    before = time.process_time()
    (study,) = discover([tmp_path]).studies
    assert np.array_equal(read_volume(study).voxels, axial[0])
    assert time.process_time() - before < 10


@pytest.mark.slow
@given(st.data())
def test_damage_is_an_input_error_and_tells_nothing(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("ct")
    path = phantoms.write_dicom(folder, *noise())[2]
    content = bytearray(path.read_bytes())
    header = content.index(b"\xe0\x7f\x10\x00")
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(128, header + 12))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content[: data.draw(st.integers(140, len(content)))]))
    said = []
    for study in discover([folder]).studies:
        try:
            read_volume(study)
        except InputError as error:
            said.append(str(error))
    assert not any(canary in text for canary in phantoms.CANARIES for text in said)
