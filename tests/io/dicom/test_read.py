"""DICOM reading: the same phantom gives the same world values, and what is not a sound volume is refused by its code."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from agseg.errors import Code, InputError
from agseg.io.dicom import parallel
from agseg.io.dicom import read as dicom_read
from agseg.io.dicom.pixels import Rescale, decode_frame, value_table
from agseg.io.dicom.read import read_dicom, read_headers
from agseg.io.discover import discover
from agseg.io.read import read_volume
from agseg.volume import Volume
from tests import phantoms

SHAPE, SPACING = (14, 12, 6), (1.5, 2.0, 2.5)


def read(folder: Path) -> Volume:
    (study,) = discover([folder]).studies
    return read_volume(study)


def rejected(folder: Path) -> Code:
    (study,) = discover([folder]).studies
    with pytest.raises(InputError) as caught:
        read_volume(study)
    return caught.value.code


def linear(affine: np.ndarray, shape=SHAPE) -> np.ndarray:
    return phantoms.sampled(phantoms.linear_hu, shape, affine)


def assert_world_values(volume: Volume, tolerance: float = 0.51) -> None:
    """Every voxel holds what the phantom has at the place where the volume says that the voxel is."""
    expected = phantoms.linear_hu(phantoms.world(volume.voxels.shape, volume.grid.affine))
    assert np.abs(volume.voxels - expected).max() <= tolerance


@pytest.fixture
def axial():
    affine = phantoms.dicom_affine("axial", SHAPE, SPACING)
    return linear(affine), affine


class TestGeometry:
    @pytest.mark.parametrize("orientation", phantoms.DICOM_ORIENTATIONS)
    def test_same_world_values_in_every_orientation(self, tmp_path, orientation):
        affine = phantoms.dicom_affine(orientation, SHAPE, SPACING)
        phantoms.write_dicom(tmp_path, linear(affine), affine)
        volume = read(tmp_path)
        assert_world_values(volume)
        assert np.allclose(volume.grid.affine, affine, atol=1e-6)
        assert np.allclose(volume.grid.spacing_mm, SPACING, atol=1e-6)
        assert volume.voxels.dtype == np.int16
        assert volume.voxels.flags.f_contiguous

    @given(st.permutations(range(SHAPE[2])))
    def test_order_of_files_does_not_matter(self, tmp_path_factory, order):
        folder = tmp_path_factory.mktemp("ct")
        affine = phantoms.dicom_affine("sagittal", SHAPE, SPACING)
        phantoms.write_dicom(folder, linear(affine), affine, order=order)
        assert_world_values(read(folder))

    @pytest.mark.parametrize("order", [None, [3, 0, 5, 1, 4, 2]])
    def test_enhanced_multi_frame(self, tmp_path, order):
        affine = phantoms.dicom_affine("oblique", SHAPE, SPACING)
        phantoms.write_enhanced(tmp_path / "x.dcm", linear(affine), affine, order=order)
        volume = read(tmp_path)
        assert_world_values(volume)
        assert np.allclose(volume.grid.affine, affine, atol=1e-6)

    def test_gantry_tilt_keeps_its_shear(self, tmp_path):
        affine = phantoms.dicom_affine("axial", SHAPE, SPACING)
        affine[:3, 2] += [0, 0.5, 0]
        phantoms.write_dicom(tmp_path, linear(affine), affine)
        volume = read(tmp_path)
        assert Code.GANTRY_TILT_CORRECTED in {warned.code for warned in volume.warnings}
        assert not volume.grid.is_rectangular
        assert_world_values(volume)

    @pytest.mark.slow
    @pytest.mark.parametrize(("step", "decimals"), [(0.625, 2), (0.703, 2), (1.25, 1), (0.33, 2), (0.8125, 3), (0.6, 1)])
    def test_positions_may_be_printed_with_few_decimals(self, tmp_path, step, decimals):
        shape = (14, 12, 40)
        affine = phantoms.dicom_affine("axial", shape, (1.5, 2.0, step))

        def change(dataset, _k):
            dataset.ImagePositionPatient = [round(float(v), decimals) for v in dataset.ImagePositionPatient]

        phantoms.write_dicom(tmp_path, linear(affine, shape), affine, change=change)
        volume = read(tmp_path)
        assert volume.grid.spacing_mm[2] == pytest.approx(step, rel=5e-3)
        next(iter(sorted(tmp_path.iterdir())[17:18])).unlink()
        assert rejected(tmp_path) in (Code.MISSING_SLICES, Code.NONUNIFORM_SPACING)

    def test_slice_thickness_is_not_the_distance(self, tmp_path, axial):
        phantoms.write_dicom(tmp_path, *axial, change=lambda d, _k: setattr(d, "SliceThickness", 9))
        assert read(tmp_path).grid.spacing_mm[2] == pytest.approx(SPACING[2])


class TestPixels:
    @pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
    def test_compressed(self, tmp_path, syntax):
        pytest.importorskip("openjpeg")
        affine = phantoms.dicom_affine("coronal", (72, 66, 4), (2.5, 2.5, 2.5))
        hu = phantoms.sampled(phantoms.body_hu, (72, 66, 4), affine)
        phantoms.write_dicom(tmp_path, hu, affine, transfer_syntax=syntax)
        assert np.array_equal(read(tmp_path).voxels, hu)

    @pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
    def test_other_native_encodings(self, tmp_path, axial, syntax):
        for path in phantoms.write_dicom(tmp_path, *axial):
            dataset = pydicom.dcmread(path)
            dataset.file_meta.TransferSyntaxUID = syntax
            if syntax == ExplicitVRBigEndian:
                dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
            dataset["PixelData"].VR = "OW"
            pydicom.dcmwrite(
                path,
                dataset,
                implicit_vr=syntax == ImplicitVRLittleEndian,
                little_endian=syntax != ExplicitVRBigEndian,
                enforce_file_format=True,
            )
        assert np.array_equal(read(tmp_path).voxels, axial[0])

    @pytest.mark.parametrize("syntax", [None, RLELossless, JPEGLSLossless, JPEG2000Lossless])
    @pytest.mark.parametrize("bits", [12, 14, 16])
    def test_bits_where_the_standard_has_them_are_read(self, tmp_path, syntax, bits):
        pytest.importorskip("openjpeg")
        affine = phantoms.dicom_affine("axial", (72, 66, 3), (2.5, 2.5, 2.5))
        hu = phantoms.sampled(phantoms.body_hu, (72, 66, 3), affine)

        def change(dataset, _k):
            dataset.BitsStored, dataset.HighBit = bits, bits - 1

        phantoms.write_dicom(tmp_path, hu, affine, change=change, transfer_syntax=syntax)
        assert np.array_equal(read(tmp_path).voxels, hu)

    def test_without_high_bit_they_lie_where_the_standard_has_them(self, tmp_path, axial):
        def change(dataset, _k):
            dataset.BitsStored = 12
            del dataset.HighBit

        phantoms.write_dicom(tmp_path, *axial, change=change)
        assert np.array_equal(read(tmp_path).voxels, axial[0])

    @pytest.mark.parametrize("syntax", [None, ImplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless])
    def test_bits_that_lie_higher_in_their_words_are_refused(self, tmp_path, axial, syntax):
        native = "<u2" if syntax != ExplicitVRBigEndian else ">u2"
        for path in phantoms.write_dicom(tmp_path, *axial, transfer_syntax=syntax if syntax == RLELossless else None):
            dataset = pydicom.dcmread(path)
            dataset.BitsStored, dataset.HighBit = 12, 15
            if syntax != RLELossless:
                dataset.PixelData = (np.frombuffer(dataset.PixelData, "<u2") << 4).astype(native).tobytes()
                dataset["PixelData"].VR = "OW"
                dataset.file_meta.TransferSyntaxUID = syntax or dataset.file_meta.TransferSyntaxUID
            pydicom.dcmwrite(
                path,
                dataset,
                implicit_vr=syntax == ImplicitVRLittleEndian,
                little_endian=syntax != ExplicitVRBigEndian,
                enforce_file_format=True,
            )
        assert rejected(tmp_path) is Code.HEADER_INVALID

    def test_rescale_of_each_slice_counts(self, tmp_path, axial):
        def change(dataset, k):
            stored = np.frombuffer(dataset.PixelData, "<u2").astype(np.int32) - 2000
            dataset.RescaleIntercept = str(-1000 - 10 * k)
            dataset.PixelData = (stored + 1000 + 10 * k).astype("<u2").tobytes()

        phantoms.write_dicom(tmp_path, *axial, change=change)
        assert np.array_equal(read(tmp_path).voxels, axial[0])

    def test_fractional_rescale_is_float32(self, tmp_path, axial):
        def halved(dataset, _k):
            dataset.RescaleSlope, dataset.RescaleIntercept = "0.5", "-1000"

        phantoms.write_dicom(tmp_path, *axial, change=halved)
        volume = read(tmp_path)
        assert volume.voxels.dtype == np.float32
        assert np.allclose(volume.voxels, np.clip((axial[0] + 2000) * 0.5 - 1000, -1024, 3071))

    @given(
        bits=st.integers(8, 16),
        signed=st.booleans(),
        slope=st.sampled_from([1.0, 2.0, 0.5, -1.0]),
        intercept=st.integers(-2000, 100),
        padding=st.none() | st.integers(0, 65535),
    )
    def test_table_is_the_chain_of_the_standard(self, bits, signed, slope, intercept, padding):
        if padding is not None and signed and padding > 32767:
            padding -= 65536
        scale = Rescale(16, bits, signed, slope, float(intercept), padding, None)
        table = value_table(scale, whole=False)
        for pattern in [*range(0, 65536, 4099), 65535, 32768, 32767, (padding or 0) & 0xFFFF]:
            value = pattern % (1 << bits)
            if signed and value >= 1 << (bits - 1):
                value -= 1 << bits
            written = pattern - 65536 if signed and pattern > 32767 else pattern
            is_padding = padding is not None and padding in (written, value)
            expected = -1024 if is_padding else min(max(value * slope + intercept, -1024), 3071)
            assert table[pattern] == pytest.approx(expected)

    @pytest.mark.slow
    def test_worker_processes_give_the_same_as_this_one(self, tmp_path, monkeypatch):
        affine = phantoms.dicom_affine("coronal", (72, 66, 9), (2.5, 2.5, 2.5))
        hu = phantoms.sampled(phantoms.body_hu, (72, 66, 9), affine)
        paths = phantoms.write_dicom(tmp_path, hu, affine, transfer_syntax=RLELossless)
        monkeypatch.setattr(parallel, "FRAMES_PER_WORKER", 3)
        monkeypatch.setattr(parallel, "usable_cores", lambda: 3)
        # This process takes its time, so that the workers get their share.
        real, asked = parallel._ask, []
        monkeypatch.setattr(dicom_read, "decode_frame", lambda *a: (time.sleep(1), decode_frame(*a))[1])
        monkeypatch.setattr(parallel, "_ask", lambda worker, job: (asked.append(job[0]), real(worker, job))[1])
        assert np.array_equal(read(tmp_path).voxels, hu)
        assert asked
        content = paths[7].read_bytes()
        item = b"\xfe\xff\x00\xe0"
        start = content.index(item, content.index(item) + 8) + 8
        paths[7].write_bytes(content[:start] + b"\xff" * (len(content) - start - 8) + content[-8:])
        assert rejected(tmp_path) is Code.DECODE

    def test_a_decoder_that_crashes_costs_a_study_and_no_more(self, tmp_path, monkeypatch):
        hu = np.random.default_rng(1).integers(-100, 100, (80, 72, 6)).astype(np.int16)
        phantoms.write_dicom(tmp_path, hu, np.diag([1, 1, 1, 1.0]), transfer_syntax=RLELossless)
        monkeypatch.setattr(parallel, "FRAMES_PER_WORKER", 3)
        monkeypatch.setattr(parallel, "usable_cores", lambda: 2)
        monkeypatch.setattr(parallel, "_START", "import os, sys; sys.stdin.readline(); os.abort()")
        monkeypatch.setattr(dicom_read, "decode_frame", lambda *a: (time.sleep(0.5), decode_frame(*a))[1])
        assert rejected(tmp_path) is Code.DECODE

    def test_missing_codec_names_the_extra(self, tmp_path, axial, monkeypatch):
        phantoms.write_dicom(tmp_path, *axial, transfer_syntax=JPEGLSLossless)
        (study,) = discover([tmp_path]).studies
        from pydicom.pixels.decoders import JPEGLSLosslessDecoder

        monkeypatch.setattr(JPEGLSLosslessDecoder, "_available", {})
        with pytest.raises(InputError) as caught:
            read_dicom(study)
        assert caught.value.code is Code.TRANSFER_SYNTAX
        assert "agseg[codecs]" in caught.value.sentence()


def _set(keyword, value, *, only=None):
    def change(dataset, k):
        if only is None or k == only:
            setattr(dataset, keyword, value)

    return change


def _delete(keyword, *, only=None):
    def change(dataset, k):
        if only is None or k == only:
            delattr(dataset, keyword)

    return change


def _twin(dataset, k):
    if k == 3:
        dataset.ImagePositionPatient = [*dataset.ImagePositionPatient[:2], dataset.ImagePositionPatient[2] - SPACING[2]]


class TestRefusals:
    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("change", "code"),
        [
            (_delete("RescaleSlope"), Code.NO_RESCALE),
            (_set("RescaleType", "Z_EFF"), Code.NO_RESCALE),
            (_set("RescaleSlope", "0"), Code.HEADER_INVALID),
            (_delete("ImagePositionPatient", only=2), Code.NO_GEOMETRY),
            (_delete("ImageOrientationPatient"), Code.NO_GEOMETRY),
            (_delete("PixelSpacing"), Code.NO_GEOMETRY),
            (_set("PixelSpacing", [0, 1]), Code.HEADER_INVALID),
            (_set("PixelSpacing", [0.001, 0.001]), Code.IMPLAUSIBLE_SPACING),
            (_set("PixelSpacing", [2.0, 1.6], only=1), Code.MIXED_SERIES),
            (_set("ImageOrientationPatient", [1, 0, 0, 0.1, 1, 0]), Code.HEADER_INVALID),
            (_set("ImageOrientationPatient", [1, 0, 0, 0, 0, -1], only=4), Code.MIXED_SERIES),
            (_delete("Rows"), Code.NO_PIXELS),
            (_delete("PixelData"), Code.NO_PIXELS),
            (_set("Rows", 60000), Code.TOO_LARGE),
            (_set("Rows", 200), Code.HEADER_LIES),
            (_set("SamplesPerPixel", 3), Code.HEADER_LIES),
            (_set("HighBit", 11), Code.HEADER_INVALID),
            (_set("BitsStored", 12), Code.HEADER_INVALID),
            (_set("BitsAllocated", 32), Code.HEADER_LIES),
            (_set("NumberOfFrames", 7), Code.DIMENSIONS),
            (_set("Columns", 13), Code.HEADER_LIES),
            (_set("Rows", 6), Code.HEADER_LIES),
            (_set("PhotometricInterpretation", "PALETTE COLOR"), Code.DTYPE),
            (_set("PhotometricInterpretation", "RGB"), Code.DTYPE),
            (_set("RescaleIntercept", "0"), Code.NOT_HU),
            (_set("RescaleIntercept", "-976", only=3), Code.NOT_HU),
            (_set("RescaleIntercept", "-3024", only=3), Code.NOT_HU),
            (_set("RescaleIntercept", "-1900", only=2), Code.NOT_HU),
            (_twin, Code.MISSING_SLICES),
        ],
    )
    def test_header(self, tmp_path, axial, change, code):
        phantoms.write_dicom(tmp_path, *axial, change=change)
        assert rejected(tmp_path) is code

    @pytest.mark.parametrize("place", ["own", "one", "shared", "top"])
    @pytest.mark.parametrize(("rescale_type", "is_hu"), [("HU", True), ("US", True), ("MGML", False), ("Z_EFF", False)])
    def test_an_enhanced_map_of_something_else_than_hu(self, tmp_path, axial, place, rescale_type, is_hu):
        def change(dataset):
            frames = dataset.PerFrameFunctionalGroupsSequence
            for number, frame in enumerate(frames):
                macro = frame.PixelValueTransformationSequence
                if place == "own" or (place == "one" and number == 2):
                    macro[0].RescaleType = rescale_type
                elif place in ("shared", "top"):
                    del macro[0].RescaleType
                    del frame.PixelValueTransformationSequence
                if place == "shared":
                    macro[0].RescaleType = rescale_type
                    dataset.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence = macro
            if place == "top":
                dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = "1", "-2000", rescale_type

        phantoms.edit_dicom(phantoms.write_enhanced(tmp_path / "x.dcm", *axial), change)
        if is_hu:
            assert_world_values(read(tmp_path))
        else:
            assert rejected(tmp_path) is Code.NO_RESCALE

    def test_missing_slice(self, tmp_path, axial):
        phantoms.write_dicom(tmp_path, *axial)[3].unlink()
        assert rejected(tmp_path) is Code.MISSING_SLICES

    def test_too_few_slices(self, tmp_path, axial):
        for path in phantoms.write_dicom(tmp_path, *axial)[2:]:
            path.unlink()
        assert rejected(tmp_path) is Code.TOO_FEW_SLICES

    def test_truncated_pixels(self, tmp_path, axial):
        path = phantoms.write_dicom(tmp_path, *axial)[3]
        path.write_bytes(path.read_bytes()[:-100])
        assert rejected(tmp_path) is Code.TRUNCATED

    @pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
    @pytest.mark.parametrize("share", [0.3, 0.7, 0.95])
    def test_truncated_compressed_pixels(self, tmp_path, syntax, share):
        noise = np.random.default_rng(1).integers(-100, 100, (80, 72, 4)).astype(np.int16)
        path = phantoms.write_dicom(tmp_path, noise, np.diag([1, 1, 1, 1.0]), transfer_syntax=syntax)[1]
        content = path.read_bytes()
        start = content.index(b"\xe0\x7f\x10\x00")
        path.write_bytes(content[: start + int((len(content) - start) * share)])
        assert rejected(tmp_path) in (Code.TRUNCATED, Code.DECODE)

    @pytest.mark.parametrize(
        ("syntax", "start", "places"),
        [
            (JPEG2000Lossless, b"\xff\x4f\xff\x51", (8, 12, 24, 28)),
            (JPEGLSLossless, b"\xff\xf7", (5, 7)),
        ],
    )
    def test_a_codestream_that_lies_about_its_size_never_reaches_the_codec(self, tmp_path, monkeypatch, syntax, start, places):
        noise = np.random.default_rng(1).integers(-100, 100, (80, 72, 4)).astype(np.int16)
        path = phantoms.write_dicom(tmp_path, noise, np.diag([1, 1, 1, 1.0]), transfer_syntax=syntax)[1]
        content = bytearray(path.read_bytes())
        at = content.index(start)
        for place in places:
            width = 4 if syntax == JPEG2000Lossless else 2
            content[at + place : at + place + width] = (40000).to_bytes(width, "big")
        path.write_bytes(bytes(content))
        monkeypatch.setattr(dicom_read, "decode_frame", lambda *_: pytest.fail("the codec was asked"))
        assert rejected(tmp_path) is Code.HEADER_LIES

    def test_duplicate_positions(self, tmp_path, axial):
        hu, affine = axial
        phantoms.write_dicom(tmp_path, hu, affine)

        def other_uid(dataset, _k):
            dataset.SOPInstanceUID += ".7"

        single = affine.copy()
        single[:3, 3] = affine[:3, 3] + 2 * affine[:3, 2]
        phantoms.write_dicom(tmp_path, hu[:, :, 2:3], single, order=[90], change=other_uid)
        volume = read(tmp_path)
        assert Code.DUPLICATE_SLICES in {warned.code for warned in volume.warnings}
        assert np.array_equal(volume.voxels, hu)
        phantoms.write_dicom(tmp_path, hu[:, :, 4:5], single, order=[91], change=other_uid)
        assert rejected(tmp_path) is Code.DUPLICATE_POSITIONS

    def test_two_time_points(self, tmp_path, axial):
        hu, affine = axial
        phantoms.write_dicom(tmp_path, hu, affine)
        phantoms.write_dicom(tmp_path, hu + 5, affine, suffix=".t2")
        assert rejected(tmp_path) is Code.FOUR_D

    def test_constant_image(self, tmp_path, axial):
        phantoms.write_dicom(tmp_path, np.zeros(SHAPE, np.int16), axial[1])
        assert rejected(tmp_path) is Code.EMPTY_IMAGE

    def test_file_that_goes_after_it_was_found(self, tmp_path, axial):
        paths = phantoms.write_dicom(tmp_path, *axial)
        (study,) = discover([tmp_path]).studies
        paths[0].unlink()
        with pytest.raises(InputError) as caught:
            read_volume(study)
        assert caught.value.code in (Code.CHANGED, Code.UNREADABLE_FILE)


def test_headers_for_dicom_output_come_in_slice_order(tmp_path):
    affine = phantoms.dicom_affine("feet_first_prone", SHAPE, SPACING)
    phantoms.write_dicom(tmp_path, linear(affine), affine, order=[2, 5, 0, 1, 4, 3])
    (study,) = discover([tmp_path]).studies
    headers = read_headers(study)
    volume = read_volume(study)
    positions = np.array([header.ImagePositionPatient for header in headers], dtype=float) * (-1, -1, 1)
    expected = volume.grid.to_world([[0, 0, k] for k in range(SHAPE[2])])
    assert np.allclose(positions, expected, atol=1e-6)
    assert "PixelData" not in headers[0]
