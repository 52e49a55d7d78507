"""Ultrasound DICOM: the same pixels in every encoding, times from the header, names in no message."""

import numpy as np
import pydicom
import pytest

from agseg.errors import Code, InputError
from agseg.io.video.cine import Cine, is_other_modality
from agseg.io.video.frames import every
from tests.ultrasound.scans import PATIENT, fan_frame, write_cine

RLE = "1.2.840.10008.1.2.5"


@pytest.fixture
def pixels():
    return np.stack([fan_frame((96, 64), box=(20, 8, 80, 60), seed=i, text=False) for i in range(4)])


def read(path):
    return np.stack([frame.pixels for frame in Cine(path).frames(every(1))])


def test_rgb_plain_and_rle_give_the_same_pixels(tmp_path, pixels):
    assert np.array_equal(read(write_cine(tmp_path / "plain.dcm", pixels)), pixels)
    assert np.array_equal(read(write_cine(tmp_path / "rle.dcm", pixels, transfer_syntax=RLE)), pixels)


def test_grey_and_inverted_grey_become_rgb(tmp_path, pixels):
    grey = np.ascontiguousarray(pixels[..., 0])
    assert np.array_equal(read(write_cine(tmp_path / "a.dcm", grey, photometric="MONOCHROME2")), pixels)
    assert np.array_equal(read(write_cine(tmp_path / "b.dcm", 255 - grey, photometric="MONOCHROME1")), pixels)


def test_a_palette_is_looked_up(tmp_path, pixels):
    index = np.ascontiguousarray(pixels[..., 0])
    ramp = np.arange(256, dtype=np.uint16) * 257
    tables = {}
    for colour, table in (("Red", ramp), ("Green", ramp[::-1]), ("Blue", ramp)):
        tables[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        tables[f"{colour}PaletteColorLookupTableData"] = np.ascontiguousarray(table).tobytes()
    found = read(write_cine(tmp_path / "p.dcm", index, photometric="PALETTE COLOR", **tables))
    assert np.array_equal(found[..., 0], index)
    assert np.array_equal(found[..., 1], 255 - index)


def test_ybr_becomes_rgb(tmp_path):
    ybr = np.empty((2, 64, 96, 3), np.uint8)
    ybr[...] = (76, 85, 255)  # pure red, PS3.3 C.7.6.3.1.2
    found = read(write_cine(tmp_path / "y.dcm", ybr, photometric="YBR_FULL"))
    assert np.allclose(found[0, 0, 0], (254, 0, 0), atol=3)


@pytest.mark.parametrize("photometric", ["YBR_FULL_422", "YBR_PARTIAL_422"])
@pytest.mark.parametrize("full", [False, True])
def test_subsampled_ybr_becomes_rgb(tmp_path, photometric, full):
    colours = np.zeros((3, 40, 48, 3), np.uint8)
    colours[:, :, :24], colours[:, :, 24:] = (200, 120, 40), (30, 180, 220)
    y, b, r = (np.tensordot(colours.astype(float), row, axes=1) for row in (
        (0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312)))  # fmt: skip
    if photometric == "YBR_PARTIAL_422":
        y, b, r = 16 + y * 219 / 255, b * 224 / 255, r * 224 / 255
    ybr = np.rint(np.stack([y, b + 128, r + 128], axis=-1)).astype(np.uint8)
    pairs = np.stack([ybr[:, :, ::2, 0], ybr[:, :, 1::2, 0], ybr[:, :, ::2, 1], ybr[:, :, ::2, 2]], axis=-1)
    path = write_cine(tmp_path / "y.dcm", ybr, photometric=photometric, PixelData=(ybr if full else pairs).tobytes())
    assert np.abs(read(path).astype(int) - colours).max() <= 3


@pytest.mark.parametrize("extra", [2, 1000])
def test_more_bytes_than_the_header_says_are_refused(tmp_path, pixels, extra):
    path = write_cine(tmp_path / "a.dcm", pixels, PixelData=pixels.tobytes() + b"\0" * extra)
    with pytest.raises(InputError) as caught:
        Cine(path)
    assert caught.value.code is Code.HEADER_LIES


def test_times_come_from_the_vector_then_the_frame_time_then_the_rate(tmp_path, pixels):
    def times(name, **tags):
        return [frame.time_s for frame in Cine(write_cine(tmp_path / name, pixels, **tags)).frames(every(1))]

    assert times("v.dcm", FrameTimeVector=[0, 40, 100, 20], FrameTime=10) == pytest.approx([0, 0.04, 0.14, 0.16])
    assert times("t.dcm", FrameTime=50) == pytest.approx([0, 0.05, 0.1, 0.15])
    assert times("r.dcm", CineRate=20) == pytest.approx([0, 0.05, 0.1, 0.15])
    silent = Cine(write_cine(tmp_path / "n.dcm", pixels))
    assert [frame.time_s for frame in silent.frames(every(1))] == [None] * 4
    assert [warned.code for warned in silent.warnings] == [Code.FRAME_TIMES]


def test_only_wanted_frames_are_decoded_and_they_are_the_right_ones(tmp_path, pixels):
    cine = Cine(write_cine(tmp_path / "a.dcm", pixels, FrameTime=40))
    frames = list(cine.frames(every(2)))
    assert [frame.index for frame in frames] == [0, 2]
    assert np.array_equal(frames[1].pixels, pixels[2])
    assert frames[1].time_s == pytest.approx(0.08)


def test_another_modality_a_header_that_lies_and_a_cut_file_are_refused_without_the_name(tmp_path, pixels):
    other = write_cine(tmp_path / "ct.dcm", pixels, Modality="CT")
    assert is_other_modality(other)
    cases = [(other, Code.MODALITY)]
    lying = write_cine(tmp_path / "lies.dcm", pixels, NumberOfFrames=400)
    cases.append((lying, None))
    cut = tmp_path / "cut.dcm"
    cut.write_bytes(write_cine(tmp_path / "a.dcm", pixels).read_bytes()[:-20_000])
    cases.append((cut, None))
    for path, code in cases:
        with pytest.raises(InputError) as caught:
            list(Cine(path).frames(every(1)))
        assert code in (None, caught.value.code)
        assert PATIENT.split("^")[0] not in str(caught.value)


def test_the_ultrasound_region_is_read(tmp_path, pixels):
    from pydicom.dataset import Dataset

    item = Dataset()
    item.RegionSpatialFormat = 1
    item.RegionLocationMinX0, item.RegionLocationMinY0, item.RegionLocationMaxX1, item.RegionLocationMaxY1 = 10, 5, 79, 59
    assert Cine(write_cine(tmp_path / "a.dcm", pixels, SequenceOfUltrasoundRegions=[item])).region == (10, 5, 80, 60)
    item.RegionLocationMaxX1 = 4000
    assert Cine(write_cine(tmp_path / "b.dcm", pixels, SequenceOfUltrasoundRegions=[item])).region is None


@pytest.mark.shared
def test_real_encodings_decode(shared_data):
    for name, count in (
        ("pydicom/examples_ybr_color.dcm", 30),
        ("pydicom_data/OBXXXX1A_rle_2frame.dcm", 2),
        ("pydicom/ExplVR_BigEnd.dcm", 1),
    ):
        frames = read(shared_data / "dicom_variety" / name)
        assert len(frames) == count
        assert frames.std() > 10


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"])
def test_deflated_and_big_endian_objects_have_their_frames_and_long_lists_of_times(tmp_path, syntax):
    frames = np.random.default_rng(0).integers(0, 255, (1500, 32, 40, 3)).astype(np.uint8)
    steps = [0, *range(10, 1509)]  # a vector of more than 4096 bytes
    plain = write_cine(tmp_path / "plain.dcm", frames, FrameTimeVector=steps)
    dataset = pydicom.dcmread(plain)
    dataset.file_meta.TransferSyntaxUID = syntax
    path = tmp_path / "other.dcm"
    little = syntax.endswith(".99")
    pydicom.dcmwrite(path, dataset, little_endian=little, implicit_vr=False, enforce_file_format=False)
    wanted = list(Cine(plain).frames(every(100)))
    found = list(Cine(path).frames(every(100)))
    assert [(f.index, f.time_s) for f in found] == [(f.index, f.time_s) for f in wanted]
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(found, wanted, strict=True))


def test_an_object_without_pixels_says_so(tmp_path, pixels):
    dataset = pydicom.dcmread(write_cine(tmp_path / "a.dcm", pixels))
    del dataset.PixelData
    dataset.save_as(tmp_path / "b.dcm")
    with pytest.raises(InputError) as caught:
        Cine(tmp_path / "b.dcm")
    assert caught.value.code is Code.NO_PIXELS
