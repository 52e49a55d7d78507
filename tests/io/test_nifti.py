"""NIfTI: the phantom in every orientation gives the same world values; headers and streams that lie are refused."""

from __future__ import annotations

import gzip
import io
import itertools
import tracemalloc
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from agseg.errors import Code, InputError, OutputError
from agseg.grid import Grid
from agseg.io import nifti, nifti_header, nifti_write
from agseg.io.discover import discover
from agseg.io.nifti import read_labels, read_nifti_header
from agseg.io.nifti_write import write_mask, write_scalar
from agseg.io.read import read_volume
from agseg.study import Study, StudyKind
from agseg.volume import Volume
from tests import phantoms

SHAPE, SPACING = (14, 12, 6), (3.0, 4.0, 5.0)
ORIENTATIONS = ["".join(codes) for axes in itertools.permutations(("RL", "AP", "SI")) for codes in itertools.product(*axes)]


def study_of(path: Path) -> Study:
    return Study("case", path.parent, (path,), StudyKind.NIFTI)


def read(path: Path) -> Volume:
    return read_volume(study_of(path))


def rejected(path: Path) -> Code:
    with pytest.raises(InputError) as caught:
        read(path)
    return caught.value.code


def codes(volume: Volume) -> set[Code]:
    return {warned.code for warned in volume.warnings}


@pytest.fixture
def ct():
    affine = phantoms.coded_affine("RAS", SHAPE, SPACING)
    return phantoms.sampled(phantoms.linear_hu, SHAPE, affine), affine


def edit_header(path: Path, offset: int, content: bytes) -> None:
    whole = bytearray(path.read_bytes())
    whole[offset : offset + len(content)] = content
    path.write_bytes(bytes(whole))


class TestReading:
    @pytest.mark.parametrize("orientation", ORIENTATIONS)
    def test_same_world_values_in_all_48_orientations(self, tmp_path, orientation):
        affine = phantoms.coded_affine(orientation, SHAPE, SPACING)
        hu = phantoms.sampled(phantoms.linear_hu, SHAPE, affine)
        volume = read(phantoms.write_nifti(tmp_path / "x.nii.gz", hu, affine))
        assert np.array_equal(volume.voxels, hu)
        assert volume.grid.axis_codes == orientation
        assert np.allclose(volume.grid.affine, affine)
        assert volume.voxels.flags.f_contiguous
        assert codes(volume) == {Code.MODALITY_ASSUMED}

    def test_dicom_and_nifti_of_the_same_phantom_give_the_same_volume(self, tmp_path):
        affine = phantoms.dicom_affine("oblique", SHAPE, SPACING)
        hu = phantoms.sampled(phantoms.linear_hu, SHAPE, affine)
        phantoms.write_dicom(tmp_path / "dicom", hu, affine)
        phantoms.write_nifti(tmp_path / "x.nii.gz", hu, affine)
        one, other = (read_volume(study) for study in discover([tmp_path]).studies)
        assert one.grid.matches(other.grid)
        assert np.array_equal(one.voxels, other.voxels)

    @pytest.mark.parametrize("dtype", ["i1", "<i2", ">i2", "u2", "i4", "f4", "f8", ">f4", "i8"])
    def test_types_and_byte_orders(self, tmp_path, dtype):
        affine = phantoms.coded_affine("LPS", SHAPE, SPACING)
        hu = np.clip(phantoms.sampled(phantoms.linear_hu, SHAPE, affine), -120, 120)
        stored = (hu + 200 if "u" in dtype else hu).astype(dtype)
        image = nibabel.Nifti1Image(
            stored, affine, header=nibabel.Nifti1Header(endianness=stored.dtype.str[0].replace("|", "<"))
        )
        image.set_data_dtype(stored.dtype)
        if "u" in dtype:
            image.header.set_slope_inter(1, -200)
            image = nibabel.Nifti1Image(stored, affine, image.header)
        nibabel.save(image, tmp_path / "x.nii")
        if "u" in dtype:
            edit_header(tmp_path / "x.nii", 112, np.array([1, -200], "<f4").tobytes())
        volume = read(tmp_path / "x.nii")
        assert volume.voxels.dtype == np.int16
        assert np.array_equal(volume.voxels, hu)

    def test_nifti2(self, tmp_path, ct):
        nibabel.save(nibabel.Nifti2Image(*ct), tmp_path / "x.nii.gz")
        assert np.array_equal(read(tmp_path / "x.nii.gz").voxels, ct[0])

    def test_fractions_stay_float32(self, tmp_path, ct):
        hu, affine = ct
        volume = read(phantoms.write_nifti(tmp_path / "x.nii", hu.astype(np.float32) + 0.25, affine))
        assert volume.voxels.dtype == np.float32
        assert np.allclose(volume.voxels, hu + 0.25)

    def test_a_fraction_in_the_last_slab_is_not_lost(self, tmp_path, ct, monkeypatch):
        from agseg.io import voxels

        monkeypatch.setattr(voxels, "SLAB_VOXELS", SHAPE[0] * SHAPE[1])
        hu, affine = ct
        values = hu.astype(np.float64)
        values[-1, -1, -1] += 0.5
        assert np.allclose(read(phantoms.write_nifti(tmp_path / "x.nii", values, affine)).voxels, values)

    def test_values_are_clipped_and_nonfinite_are_air_with_a_warning(self, tmp_path, ct):
        values = ct[0].astype(np.float32)
        values[0, 0, :4] = (np.nan, np.inf, -np.inf, 99999)
        volume = read(phantoms.write_nifti(tmp_path / "x.nii", values, ct[1]))
        assert volume.voxels[0, 0, :4].tolist() == [-1024, -1024, -1024, 3071]
        assert Code.NONFINITE in codes(volume)

    def test_trailing_dimension_of_one(self, tmp_path, ct):
        path = phantoms.write_nifti(tmp_path / "x.nii", ct[0][..., None], ct[1])
        assert read(path).voxels.shape == SHAPE

    def test_suffix_is_not_trusted(self, tmp_path, ct):
        packed = phantoms.write_nifti(tmp_path / "x.nii.gz", *ct).rename(tmp_path / "y.nii")
        assert np.array_equal(read(packed).voxels, ct[0])


class TestRefusals:
    def test_orientation_unknown(self, tmp_path, ct):
        assert rejected(phantoms.write_nifti(tmp_path / "x.nii", *ct, sform=0, qform=0)) is Code.NO_GEOMETRY

    @pytest.mark.parametrize("forms", [(1, 0), (0, 1)])
    def test_either_form_is_enough(self, tmp_path, ct, forms):
        volume = read(phantoms.write_nifti(tmp_path / "x.nii", *ct, sform=forms[0], qform=forms[1]))
        assert np.allclose(volume.grid.affine, ct[1])

    @pytest.mark.parametrize(("shift_mm", "conflict"), [(1e-4, False), (1.0, True)])
    def test_forms_that_disagree(self, tmp_path, ct, shift_mm, conflict):
        image = nibabel.Nifti1Image(*ct)
        moved = ct[1].copy()
        moved[0, 3] += shift_mm
        image.set_sform(ct[1], code=1)
        image.set_qform(moved, code=1)
        nibabel.save(image, tmp_path / "x.nii")
        if conflict:
            assert rejected(tmp_path / "x.nii") is Code.SFORM_QFORM_CONFLICT
        else:
            read(tmp_path / "x.nii")

    def test_shear(self, tmp_path, ct):
        affine = ct[1].copy()
        affine[1, 2] += 0.3
        assert rejected(phantoms.write_nifti(tmp_path / "x.nii", ct[0], affine, qform=0)) is Code.SHEARED
        assert rejected(phantoms.write_nifti(tmp_path / "x.nii", ct[0], affine, qform=1)) is Code.SHEARED

    def test_singular(self, tmp_path, ct):
        path = phantoms.write_nifti(tmp_path / "x.nii", *ct, qform=0)
        edit_header(path, 280, b"\0" * 48)
        assert rejected(path) is Code.SINGULAR_AFFINE

    @pytest.mark.parametrize("spacing", [(0.001, 1, 1), (1, 1, 30)])
    def test_implausible_spacing(self, tmp_path, ct, spacing):
        path = phantoms.write_nifti(tmp_path / "x.nii", ct[0], np.diag([*spacing, 1]))
        assert rejected(path) is Code.IMPLAUSIBLE_SPACING

    def test_not_millimetres(self, tmp_path, ct):
        path = phantoms.write_nifti(tmp_path / "x.nii", *ct)
        edit_header(path, 123, b"\x01")
        assert rejected(path) is Code.IMPLAUSIBLE_SPACING

    @pytest.mark.parametrize(("dtype", "code"), [(np.complex64, Code.DTYPE)])
    def test_types(self, tmp_path, ct, dtype, code):
        assert rejected(phantoms.write_nifti(tmp_path / "x.nii", ct[0].astype(dtype), ct[1])) is code

    @pytest.mark.parametrize(
        ("shape", "code"),
        [((14, 12, 6, 2), Code.FOUR_D), ((14, 12), Code.TOO_FEW_SLICES), ((14, 12, 2), Code.TOO_FEW_SLICES)],
    )
    def test_shapes(self, tmp_path, ct, shape, code):
        assert rejected(phantoms.write_nifti(tmp_path / "x.nii", np.zeros(shape, np.int16), ct[1])) is code

    @pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
    @pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.99])
    def test_truncated(self, tmp_path, ct, suffix, share):
        path = phantoms.write_nifti(tmp_path / f"x{suffix}", *ct)
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])
        assert rejected(path) in (Code.TRUNCATED, Code.DECODE, Code.NOT_NIFTI)

    @given(st.integers(0, 10_000), st.integers(0, 7))
    def test_one_flipped_bit_of_a_gzip_is_found(self, tmp_path_factory, place, bit):
        affine = phantoms.coded_affine("RAS", SHAPE, SPACING)
        hu = phantoms.sampled(phantoms.linear_hu, SHAPE, affine)
        path = phantoms.write_nifti(tmp_path_factory.mktemp("gz") / "x.nii.gz", hu, affine)
        content = bytearray(path.read_bytes())
        # The first ten bytes are gzip's own header (time, name), which no checksum covers; the name follows.
        start = 10 + content[10:].index(b"\0") + 1 if content[3] & 8 else 10
        at = start + place % (len(content) - start)
        content[at] ^= 1 << bit
        path.write_bytes(bytes(content))
        try:
            volume = read(path)
        except InputError:
            return
        assert np.array_equal(volume.voxels, hu)

    def test_header_that_lies_costs_nothing(self, tmp_path, ct):
        path = phantoms.write_nifti(tmp_path / "x.nii", *ct)
        edit_header(path, 42, np.array([1000, 1000, 1000], "<i2").tobytes())
        packed = tmp_path / "y.nii.gz"
        packed.write_bytes(gzip.compress(path.read_bytes()))
        tracemalloc.start()
        assert rejected(path) is Code.TRUNCATED
        assert rejected(packed) is Code.HEADER_LIES
        edit_header(path, 42, np.array([30000, 30000, 30000], "<i2").tobytes())
        assert rejected(path) is Code.TOO_LARGE
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 16 << 20  # the volume that the header states would take 2 GB

    def test_what_lies_behind_the_voxels_is_checked_but_not_kept(self, tmp_path, ct, monkeypatch):
        plain = phantoms.write_nifti(tmp_path / "x.nii", *ct).read_bytes()
        bomb = tmp_path / "bomb.nii.gz"
        bomb.write_bytes(gzip.compress(plain + b"\0" * 20_000_000))
        assert np.array_equal(read(bomb).voxels, ct[0])
        monkeypatch.setattr(nifti, "LONGEST_TRAILER_BYTES", 10_000_000)
        assert rejected(bomb) is Code.HEADER_LIES

    @pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
    @pytest.mark.parametrize("column", [7, 13])
    def test_sizes_that_leave_voxels_over_are_refused(self, tmp_path, ct, suffix, column):
        path = phantoms.write_nifti(tmp_path / f"x{suffix}", *ct)
        content = path.read_bytes()
        content = bytearray(gzip.decompress(content) if suffix == ".nii.gz" else content)
        content[42:44] = np.array(column, "<i2").tobytes()
        path.write_bytes(gzip.compress(content) if suffix == ".nii.gz" else content)
        assert rejected(path) is Code.HEADER_LIES

    @pytest.mark.parametrize("values", ["mr", "offset_ct", "constant"])
    def test_values_that_are_no_ct(self, tmp_path, ct, values):
        hu, affine = ct
        stored = {"mr": np.abs(hu) + 3, "offset_ct": hu + 1024, "constant": np.full(SHAPE, -7, np.int16)}[values]
        expected = Code.EMPTY_IMAGE if values == "constant" else Code.MODALITY
        assert rejected(phantoms.write_nifti(tmp_path / "x.nii", stored.astype(np.int16), affine)) is expected

    def test_pair_without_its_image(self, tmp_path, ct):
        nibabel.save(nibabel.Nifti1Pair(*ct), tmp_path / "x.img")
        assert np.array_equal(read(tmp_path / "x.hdr").voxels, ct[0])
        (tmp_path / "x.img").unlink()
        assert rejected(tmp_path / "x.hdr") is Code.NO_PIXELS


class TestWriting:
    @given(
        arrays.arrays(np.uint8, st.tuples(*[st.integers(1, 9)] * 3), elements=st.integers(0, 3)),
        st.sampled_from(ORIENTATIONS),
        st.sampled_from([".nii", ".nii.gz"]),
    )
    def test_a_mask_reads_back_with_its_affine_and_always_as_the_same_bytes(self, tmp_path_factory, labels, codes, suffix):
        folder = tmp_path_factory.mktemp("mask")
        grid = Grid(labels.shape, phantoms.coded_affine(codes, labels.shape, SPACING))
        write_mask(folder / f"a{suffix}", labels, grid)
        write_mask(folder / f"b{suffix}", np.asfortranarray(labels), grid)
        image = nibabel.load(folder / f"a{suffix}")
        assert np.array_equal(np.asarray(image.dataobj), labels)
        assert image.get_data_dtype() == np.uint8
        assert np.allclose(image.get_sform(), grid.affine)
        assert np.allclose(image.get_qform(), grid.affine, atol=1e-5)
        assert (folder / f"a{suffix}").read_bytes() == (folder / f"b{suffix}").read_bytes()

    def test_gzip_says_neither_time_nor_name(self, tmp_path):
        write_mask(tmp_path / "a.nii.gz", np.ones((3, 3, 3), np.uint8), Grid((3, 3, 3), np.eye(4)))
        content = (tmp_path / "a.nii.gz").read_bytes()
        assert content[3] == 0
        assert content[4:8] == b"\0\0\0\0"
        assert zlib.decompress(content, 31)[344:348] == b"n+1\0"

    def test_sheared_grid_has_a_sform_only(self, tmp_path):
        affine = np.diag([1.0, 1, 2, 1])
        affine[1, 2] = 0.5
        write_mask(tmp_path / "a.nii.gz", np.ones((3, 4, 5), np.uint8), Grid((3, 4, 5), affine))
        image = nibabel.load(tmp_path / "a.nii.gz")
        assert int(image.header["qform_code"]) == 0
        assert np.allclose(image.affine, affine)

    @given(
        tilt_deg=st.floats(-40, 40),
        degrees=st.tuples(*[st.floats(-180, 180)] * 3),
        slices=st.integers(3, 700),
        shift_mm=st.floats(-900, 900),
    )
    @example(tilt_deg=0.0458, degrees=(0, 0, 180), slices=300, shift_mm=0)
    @example(tilt_deg=0.03, degrees=(0, 0, 180), slices=600, shift_mm=0)
    @example(tilt_deg=0, degrees=(0.01, 0, 180), slices=600, shift_mm=300)
    def test_every_mask_of_ours_is_read_again_on_its_grid(self, tmp_path_factory, tilt_deg, degrees, slices, shift_mm):
        turn = phantoms.rotation(2, degrees[2]) @ phantoms.rotation(1, degrees[1]) @ phantoms.rotation(0, degrees[0])
        affine = np.eye(4)
        affine[:3, :3] = turn @ np.array([[0.7, 0, np.tan(np.radians(tilt_deg))], [0, 0.7, 0], [0, 0, 1]])
        affine[:3, 3] = shift_mm
        grid = Grid((9, 8, slices), affine)
        labels = np.zeros(grid.shape, np.uint8)
        labels[2, 3, 1] = 7
        path = tmp_path_factory.mktemp("mask") / "m.nii.gz"
        write_mask(path, labels, grid)
        header, found = read_labels(path)
        assert header.grid.matches(grid)
        assert np.array_equal(found, labels)
        image = nibabel.load(path)
        assert Grid(grid.shape, image.affine).matches(grid)
        if int(image.header["qform_code"]):
            assert Grid(grid.shape, image.get_qform()).matches(grid, 0.05)

    def test_the_mask_of_a_tilted_scan_is_a_label_map_and_the_scan_itself_is_refused(self, tmp_path, ct):
        affine = ct[1].copy()
        affine[1, 2] += 0.9
        write_mask(tmp_path / "mask.nii.gz", (ct[0] > 0).astype(np.uint8), Grid(SHAPE, affine))
        phantoms.write_nifti(tmp_path / "scan.nii.gz", ct[0], affine, qform=0)
        found = discover([tmp_path])
        assert [(study.id, study.rejected.code) for study in found.studies] == [("scan", Code.SHEARED)]
        assert found.skipped_reasons == {"label_map": 1}
        with pytest.raises(InputError):
            read_nifti_header(tmp_path / "mask.nii.gz")

    def test_scalars_are_float32(self, tmp_path, rng):
        values = rng.random((4, 5, 6)).astype(np.float32)
        write_scalar(tmp_path / "a.nii.gz", values, Grid((4, 5, 6), np.eye(4)))
        image = nibabel.load(tmp_path / "a.nii.gz")
        assert np.array_equal(np.asarray(image.dataobj), values)
        assert image.get_data_dtype() == np.float32

    def test_simpleitk_puts_the_mask_where_the_source_is(self, tmp_path, ct):
        import SimpleITK

        hu, affine = ct
        phantoms.write_nifti(tmp_path / "ct.nii.gz", hu, affine)
        write_mask(tmp_path / "mask.nii.gz", (hu > 0).astype(np.uint8), Grid(SHAPE, affine))
        image, mask = (SimpleITK.ReadImage(str(tmp_path / name)) for name in ("ct.nii.gz", "mask.nii.gz"))
        assert np.allclose(image.GetOrigin(), mask.GetOrigin())
        assert np.allclose(image.GetDirection(), mask.GetDirection())
        assert np.allclose(image.GetSpacing(), mask.GetSpacing())

    def test_nothing_is_left_where_writing_fails(self, tmp_path, monkeypatch):
        monkeypatch.setattr(nifti_write, "opened", lambda path: io.BytesIO(path.read_bytes()[:-1]))
        with pytest.raises(OutputError, match="did not read back"):
            write_mask(tmp_path / "a.nii.gz", np.ones((3, 3, 3), np.uint8), Grid((3, 3, 3), np.eye(4)))
        assert list(tmp_path.iterdir()) == []

    def test_shapes_must_agree(self, tmp_path):
        with pytest.raises(OutputError):
            write_mask(tmp_path / "a.nii.gz", np.ones((3, 3, 4), np.uint8), Grid((3, 3, 3), np.eye(4)))


@pytest.mark.parametrize("codes_set", [(1, 1), (0, 1)])
def test_a_qfac_of_0_means_1_as_the_format_has_it(tmp_path, ct, codes_set):
    sform, qform = codes_set
    path = tmp_path / "x.nii"
    phantoms.write_nifti(path, *ct)
    edit_header(path, 252, np.array([qform, sform], dtype="<i2").tobytes())
    expected = read(path)
    edit_header(path, 76, np.array([0], dtype="<f4").tobytes())
    volume = read(path)
    assert np.array_equal(volume.grid.affine, expected.grid.affine)
    assert np.array_equal(volume.voxels, expected.voxels)


def test_voxels_that_begin_far_behind_their_header_are_refused_unread(tmp_path, ct):
    path = tmp_path / "x.nii"
    phantoms.write_nifti(path, *ct)
    edit_header(path, 108, np.array([nifti_header.LARGEST_OFFSET_BYTES + 16], dtype="<f4").tobytes())
    assert rejected(path) is Code.HEADER_INVALID


def test_a_header_whose_name_leaves_no_room_for_its_image_is_refused(tmp_path, ct):
    phantoms.write_nifti(tmp_path / "x.nii", *ct)
    header = tmp_path / ("x" * 251 + ".hdr")
    header.write_bytes((tmp_path / "x.nii").read_bytes()[:344] + b"ni1\0")
    (study,) = discover([header]).studies
    assert study.rejected is not None
    assert study.rejected.code is Code.NO_PIXELS


def test_a_data_set_of_links_is_read_and_a_link_among_studies_is_not(tmp_path, ct):
    phantoms.write_nifti(tmp_path / "x.nii", *ct)
    (tmp_path / "link.nii").symlink_to(tmp_path / "x.nii")
    nifti.read_nifti_array(tmp_path / "link.nii")
    with pytest.raises(InputError) as caught:
        read(tmp_path / "link.nii")
    assert caught.value.code is Code.SYMLINK
