"""JPEG Lossless: a codestream that ends early is refused, wherever it is cut and however it was coded."""

from __future__ import annotations

import struct

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGLosslessSV1

from agseg.errors import Code, InputError
from agseg.io.dicom.jpeg_lossless import check_all_coded
from agseg.io.discover import discover
from agseg.io.read import read_volume
from tests import phantoms


def encode(picture: np.ndarray, *, bits=12, predictor=1, restart_rows=0, shift=0) -> bytes:
    """A codestream by the text of T.81, sample by sample; every category has a code of five bits."""
    value = picture.astype(int) >> shift
    rows, columns = value.shape
    coded, text = b"", ""

    def flushed(text):
        text += "1" * (-len(text) % 8)
        return bytes(int(text[k : k + 8], 2) for k in range(0, len(text), 8)).replace(b"\xff", b"\xff\0")

    for y in range(rows):
        first = y == 0 or (restart_rows and y % restart_rows == 0)
        if first and y:
            coded, text = coded + flushed(text) + bytes([0xFF, 0xD0 + (y // restart_rows - 1) % 8]), ""
        for x in range(columns):
            a, b, c = value[y, x - 1], value[y - 1, x], value[y - 1, x - 1]
            if x == 0:
                guess = 1 << (bits - shift - 1) if first else b
            elif first:
                guess = a
            else:
                guess = (a, b, c, a + b - c, a + ((b - c) >> 1), b + ((a - c) >> 1), (a + b) >> 1)[predictor - 1]
            difference = int(value[y, x] - guess + 0x7FFF) % 0x10000 - 0x7FFF
            size = abs(difference).bit_length()
            text += f"{size:05b}"
            if 0 < size < 16:
                text += f"{difference if difference > 0 else difference + (1 << size) - 1:0{size}b}"
    coded += flushed(text)
    table = bytes([0]) + bytes(17 if k == 5 else 0 for k in range(1, 17)) + bytes(range(17))
    restart = struct.pack(">BBHH", 0xFF, 0xDD, 4, restart_rows * columns) if restart_rows else b""
    return (
        b"\xff\xd8" + restart + struct.pack(">BBHBHHB3B", 0xFF, 0xC3, 11, bits, rows, columns, 1, 1, 0x11, 0)
        + struct.pack(">BBH", 0xFF, 0xC4, len(table) + 2) + table
        + struct.pack(">BBHBBBBBB", 0xFF, 0xDA, 8, 1, 1, 0, predictor, 0, shift) + coded + b"\xff\xd9"
    )  # fmt: skip


@given(
    st.integers(1, 9), st.integers(1, 9), st.integers(1, 7), st.sampled_from([0, 1, 2, 3]), st.sampled_from([8, 12, 16]),
    st.integers(0, 2), st.integers(0, 10**6),
)  # fmt: skip
@settings(max_examples=60)
def test_what_was_coded_is_all_there_and_a_cut_shows(rows, columns, predictor, restart, bits, shift, seed):
    picture = np.random.default_rng(seed).integers(0, 1 << bits, (rows, columns)).astype(np.uint16)
    picture = picture >> shift << shift
    code = encode(picture, bits=bits, predictor=predictor, restart_rows=restart, shift=shift)
    check_all_coded(code, picture)
    head = code.index(b"\xff\xda") + 10
    cut = code[: head + (len(code) - 2 - head) // 2].rstrip(b"\xff") + b"\xff\xd9"
    with pytest.raises(InputError) as caught:
        check_all_coded(cut, picture)
    assert caught.value.code is Code.TRUNCATED


@pytest.mark.parametrize("part", [0.2, 0.5, 0.9, 0.99])
def test_a_series_with_one_cut_slice_is_refused(tmp_path, part):
    pytest.importorskip("gdcm")
    affine = phantoms.dicom_affine("axial", (40, 36, 4), (4.0, 4.0, 2.5))
    hu = phantoms.sampled(phantoms.body_hu, (40, 36, 4), affine)
    hu = hu + np.random.default_rng(1).integers(-9, 9, hu.shape).astype(np.int16)
    paths = phantoms.write_dicom(tmp_path, hu, affine)

    def put(path, change):
        dataset = pydicom.dcmread(path)
        code = change(encode(np.frombuffer(dataset.PixelData, "<u2").reshape(36, 40), bits=16))
        dataset.PixelData = encapsulate([code + b"\0" * (len(code) % 2)])
        dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
        dataset.file_meta.TransferSyntaxUID = JPEGLosslessSV1
        dataset.save_as(path)

    whole = [path.read_bytes() for path in paths]
    for path in paths:
        put(path, lambda code: code)
    (study,) = discover([tmp_path]).studies
    assert np.array_equal(read_volume(study).voxels, hu)
    for cut in (lambda code: code[: int(len(code) * part)] + b"\xff\xd9", lambda code: code[: int(len(code) * part)]):
        paths[2].write_bytes(whole[2])
        put(paths[2], cut)
        (study,) = discover([tmp_path]).studies
        with pytest.raises(InputError) as caught:
            read_volume(study)
        assert caught.value.code in (Code.TRUNCATED, Code.DECODE)
