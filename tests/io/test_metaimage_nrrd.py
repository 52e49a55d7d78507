"""MetaImage and NRRD: geometry as SimpleITK has it, no file from outside the study, no header that lies."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from agseg.errors import Code, InputError
from agseg.grid import LPS_TO_RAS
from agseg.io import voxels
from agseg.io.discover import discover
from agseg.io.metaimage import read_metaimage_header
from agseg.io.nrrd import read_nrrd_header
from agseg.io.read import read_volume
from agseg.io.voxel_file import VoxelFile
from tests import phantoms

SHAPE, SPACING = (14, 12, 6), (3.0, 4.0, 5.0)


def write(path: Path, orientation: str = "oblique", *, compress: bool = False) -> np.ndarray:
    affine = phantoms.dicom_affine(orientation, SHAPE, SPACING)
    hu = phantoms.sampled(phantoms.linear_hu, SHAPE, affine)
    lps = phantoms.FLIP @ affine
    image = SimpleITK.GetImageFromArray(hu.transpose(2, 1, 0))
    image.SetSpacing(SPACING)
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / SPACING).ravel().tolist())
    SimpleITK.WriteImage(image, str(path), useCompression=compress)
    return affine


def rejected(path: Path) -> Code:
    studies = discover([path]).studies
    with pytest.raises(InputError) as caught:
        read_volume(studies[0])
    return caught.value.code


@pytest.mark.parametrize("orientation", phantoms.DICOM_ORIENTATIONS)
@pytest.mark.parametrize("name", ["x.mha", "x.mhd", "x.nrrd", "x.nhdr"])
@pytest.mark.parametrize("compress", [False, True])
def test_same_world_values(tmp_path, orientation, name, compress):
    affine = write(tmp_path / name, orientation, compress=compress)
    (study,) = discover([tmp_path]).studies
    volume = read_volume(study)
    assert np.allclose(volume.grid.affine, affine, atol=1e-5)
    expected = phantoms.linear_hu(phantoms.world(SHAPE, volume.grid.affine))
    assert np.abs(volume.voxels - expected).max() <= 0.51
    assert volume.voxels.flags.f_contiguous
    assert {warned.code for warned in volume.warnings} == {Code.MODALITY_ASSUMED}


@pytest.mark.parametrize("name", ["x.mhd", "x.nhdr"])
@pytest.mark.parametrize("outside", ["/etc/passwd", "../secret.raw", "sub/../../secret.raw", "..\\secret.raw"])
def test_voxels_outside_the_study_are_refused(tmp_path, name, outside):
    (tmp_path / "secret.raw").write_bytes(b"\0" * 100_000)
    folder = tmp_path / "study"
    folder.mkdir()
    write(folder / name)
    text = (folder / name).read_text()
    (folder / name).write_text(text.replace("x.raw", outside))
    assert rejected(folder / name) is Code.PATH_ESCAPE


@pytest.mark.parametrize("name", ["x.mhd", "x.nhdr"])
def test_a_link_to_the_voxels_is_refused(tmp_path, name):
    write(tmp_path / name)
    (tmp_path / "x.raw").rename(tmp_path / "real")
    (tmp_path / "x.raw").symlink_to(tmp_path / "real")
    assert rejected(tmp_path / name) is Code.PATH_ESCAPE


@pytest.mark.parametrize("name", ["x.mha", "x.nrrd"])
@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("missing", [1, 500])
def test_truncated(tmp_path, name, compress, missing):
    write(tmp_path / name, compress=compress)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[:-missing])
    assert rejected(tmp_path / name) in (Code.TRUNCATED, Code.DECODE, Code.HEADER_LIES)


@pytest.mark.parametrize(("name", "key"), [("x.mha", "DimSize ="), ("x.nrrd", "sizes:")])
@pytest.mark.parametrize(
    ("sizes", "code"),
    [("30000 30000 30000", Code.TOO_LARGE), ("900 900 900", Code.TRUNCATED), ("14 12", Code.TOO_FEW_SLICES), ("x", None)],
)
def test_headers_that_lie(tmp_path, name, key, sizes, code):
    write(tmp_path / name)
    content = (tmp_path / name).read_bytes()
    old = f"{key} 14 12 6".encode()
    assert old in content
    (tmp_path / name).write_bytes(content.replace(old, f"{key} {sizes}".encode()))
    assert rejected(tmp_path / name) is (code or Code.HEADER_INVALID)


def test_no_orientation_is_not_guessed(tmp_path):
    write(tmp_path / "x.mha")
    content = (tmp_path / "x.mha").read_bytes()
    at = content.index(b"TransformMatrix")
    (tmp_path / "x.mha").write_bytes(content[:at] + content[content.index(b"\n", at) + 1 :])
    assert rejected(tmp_path / "x.mha") is Code.NO_GEOMETRY


def test_colour_is_refused(tmp_path):
    SimpleITK.WriteImage(SimpleITK.Image([8, 8, 8], SimpleITK.sitkVectorUInt8, 3), str(tmp_path / "x.mha"))
    with pytest.raises(InputError) as caught:
        read_metaimage_header(tmp_path / "x.mha")
    assert caught.value.code is Code.DTYPE


NRRD_SIDES = {
    "left-posterior-superior": (-1, -1),
    "LPS": (-1, -1),
    "right-anterior-superior": (1, 1),
    "RAS": (1, 1),
    "left-anterior-superior": (-1, 1),
    "las": (-1, 1),
}
"""Sign of the first two coordinates against RAS."""


def write_nrrd(path: Path, *lines: str, space: str = "LPS", orientation: str = "oblique") -> np.ndarray:
    """The phantom in a NRRD file that is written word for word, without SimpleITK; returns its RAS affine."""
    affine = phantoms.dicom_affine(orientation, SHAPE, SPACING)
    told = np.diag([*NRRD_SIDES.get(space, (-1, -1)), 1, 1]) @ affine
    vectors = ["(" + ",".join(f"{value:.12f}" for value in told[:3, axis]) + ")" for axis in (0, 1, 2, 3)]
    header = [
        "NRRD0005",
        "type: short",
        "dimension: 3",
        f"sizes: {SHAPE[0]} {SHAPE[1]} {SHAPE[2]}",
        "encoding: raw",
        "endian: little",
        f"space: {space}",
        "space directions: " + " ".join(vectors[:3]),
        f"space origin: {vectors[3]}",
        *lines,
    ]
    hu = phantoms.sampled(phantoms.linear_hu, SHAPE, affine)
    path.write_bytes(("\n".join(header) + "\n\n").encode() + hu.transpose(2, 1, 0).astype("<i2").tobytes())
    return affine


@pytest.mark.parametrize("orientation", phantoms.DICOM_ORIENTATIONS)
@pytest.mark.parametrize("space", NRRD_SIDES)
def test_every_anatomical_space_of_nrrd_has_the_phantom_on_its_sides(tmp_path, space, orientation):
    affine = write_nrrd(tmp_path / "x.nrrd", space=space, orientation=orientation)
    (study,) = discover([tmp_path]).studies
    volume = read_volume(study)
    assert np.allclose(volume.grid.affine, affine, atol=1e-5)
    expected = phantoms.linear_hu(phantoms.world(SHAPE, volume.grid.affine))
    assert np.abs(volume.voxels - expected).max() <= 0.51


@pytest.mark.parametrize(
    "space",
    ["3D-right-handed", "3D-left-handed", "scanner-xyz", "scanner-xyz-time", "right-anterior-superior-time", "RAST", "Jones"],
)
def test_a_space_that_tells_no_sides_is_refused_by_its_name(tmp_path, space):
    write_nrrd(tmp_path / "x.nrrd", space=space)
    (study,) = discover([tmp_path]).studies
    assert study.rejected is not None
    assert study.rejected.code is Code.NO_GEOMETRY
    # A word that the format does not know may be anything that somebody typed.
    assert (space in study.rejected.message) is (space != "Jones")


@pytest.mark.parametrize(("units", "is_mm"), [("mm", True), ("", True), ("cm", False), ("um", False), ("m", False)])
def test_nrrd_units_are_millimetres_or_refused(tmp_path, units, is_mm):
    write_nrrd(tmp_path / "x.nrrd", f'space units: "mm" "mm" "{units}"')
    if is_mm:
        read_volume(discover([tmp_path]).studies[0])
    else:
        assert rejected(tmp_path / "x.nrrd") is Code.IMPLAUSIBLE_SPACING


def edit_metaimage(path: Path, line: str) -> None:
    content = path.read_bytes()
    at = content.index(b"ElementType")
    path.write_bytes(content[:at] + line.encode() + b"\n" + content[at:])


@pytest.mark.parametrize(("units", "is_mm"), [("mm", True), ("?", True), ("cm", False), ("um", False)])
def test_metaimage_units_are_millimetres_or_refused(tmp_path, units, is_mm):
    write(tmp_path / "x.mha")
    edit_metaimage(tmp_path / "x.mha", f"DistanceUnits = {units}")
    if is_mm:
        read_volume(discover([tmp_path]).studies[0])
    else:
        assert rejected(tmp_path / "x.mha") is Code.IMPLAUSIBLE_SPACING


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("ElementToIntensityFunctionSlope = 1", None),
        ("ElementToIntensityFunctionOffset = 0", None),
        ("ElementToIntensityFunctionSlope = 2", Code.NO_RESCALE),
        ("ElementToIntensityFunctionOffset = -1024", Code.NO_RESCALE),
        ("ElementToIntensityFunctionSlope = nan", Code.NO_RESCALE),
        ("ElementToIntensityFunctionSlope = x", Code.HEADER_INVALID),
    ],
)
def test_a_metaimage_whose_numbers_are_not_its_values_is_refused(tmp_path, line, code):
    write(tmp_path / "x.mha")
    edit_metaimage(tmp_path / "x.mha", line)
    if code is None:
        read_volume(discover([tmp_path]).studies[0])
    else:
        assert rejected(tmp_path / "x.mha") is code


# -- headers word for word: what is refused, and what is not ----------------------------------------------------------------


def meta_text(**changed: str | None) -> bytes:
    fields: dict[str, str | None] = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "TransformMatrix": "1 0 0 0 1 0 0 0 1",
        "Offset": "-20 -20 -15",
        "ElementSpacing": "3 4 5",
        "DimSize": "14 12 6",
        "ElementType": "MET_SHORT",
        "ElementDataFile": "LOCAL",
    }
    for key, value in changed.items():
        fields = {**fields, key: value} if key in fields else {"ObjectType": "Image", key: value, **fields}
    return "".join(f"{key} = {value}\n" for key, value in fields.items() if value is not None).encode("latin-1")


VOXELS = np.arange(-504, 504, dtype="<i2").tobytes()


def nrrd_text(*extra: str, **changed: str | None) -> bytes:
    fields: dict[str, str | None] = {
        "type": "short",
        "dimension": "3",
        "sizes": "14 12 6",
        "encoding": "raw",
        "endian": "little",
        "space": "LPS",
        "space directions": "(3,0,0) (0,4,0) (0,0,5)",
        "space origin": "(-20,-20,-15)",
    }
    fields.update({key.replace("_", " "): value for key, value in changed.items()})
    lines = [f"{key}: {value}" for key, value in fields.items() if value is not None]
    return "\n".join(["NRRD0004", *lines, *extra, "", ""]).encode("latin-1")


def outcome(path: Path, content: bytes) -> Code | None:
    """The reason why the file makes no volume, found by discovery; None if it is taken, and then it is read too."""
    path.write_bytes(content)
    (study,) = discover([path]).studies
    if study.rejected is not None:
        return study.rejected.code
    volume = read_volume(study)
    assert volume.grid.spacing_mm == pytest.approx(SPACING)
    assert volume.grid.affine[:3, 3] == pytest.approx((20, 20, -15))
    return None


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({}, None),
        ({"Offset": None}, Code.NO_GEOMETRY),
        ({"ElementSpacing": None}, Code.NO_GEOMETRY),
        ({"TransformMatrix": None}, Code.NO_GEOMETRY),
        ({"Offset": None, "Position": "-20 -20 -15"}, None),
        ({"ElementSpacing": None, "ElementSize": "3 4 5"}, None),
        ({"Position": "-20 -20 -15"}, Code.HEADER_INVALID),
        ({"Offset": "nan nan nan"}, Code.HEADER_INVALID),
        ({"Offset": "10 20"}, Code.HEADER_INVALID),
        ({"Offset": "1e999 0 0"}, Code.HEADER_INVALID),
        ({"Offset": "1_0 0 0"}, Code.HEADER_INVALID),
        ({"ElementSpacing": "3 4"}, Code.HEADER_INVALID),
        ({"ElementSpacing": "3 4 five"}, Code.HEADER_INVALID),
        ({"ElementSpacing": "3 4 -5"}, Code.HEADER_INVALID),
        ({"ElementSpacing": "3 4 0"}, Code.HEADER_INVALID),
        ({"TransformMatrix": "1 0 0 0 1 0 0 0"}, Code.HEADER_INVALID),
        ({"TransformMatrix": "2 0 0 0 2 0 0 0 2"}, Code.HEADER_INVALID),
        ({"TransformMatrix": "1 0 0 0 1 0 0.6 0 0.8"}, Code.SHEARED),
        ({"elementspacing": "5 5 5"}, Code.HEADER_INVALID),
        ({"ElementSpacing": None, "elementspacing": "5 5 5"}, Code.HEADER_INVALID),
        ({"ELEMENTDATAFILE": "inner.raw"}, Code.HEADER_INVALID),
        ({"ElementDataFile": None, "elementdatafile": "LOCAL"}, Code.HEADER_INVALID),
        ({"Modality": "MET_MOD_CT"}, None),
        ({"Modality": "MET_MOD_MR"}, Code.MODALITY),
        ({"NDims": "2"}, Code.TOO_FEW_SLICES),
        ({"NDims": "5"}, Code.DIMENSIONS),
        ({"NDims": "4095"}, Code.DIMENSIONS),
        ({"NDims": "-1"}, Code.DIMENSIONS),
        ({"NDims": "9" * 400}, Code.HEADER_INVALID),
        ({"NDims": "3 3"}, Code.HEADER_INVALID),
        ({"DimSize": "14 12 6 1"}, Code.HEADER_INVALID),
        ({"DimSize": "-14 12 -6"}, Code.DIMENSIONS),
        ({"HeaderSize": "-2"}, Code.UNSUPPORTED_INPUT),
        ({"BinaryData": "False"}, Code.UNSUPPORTED_INPUT),
        ({"BinaryData": "perhaps"}, Code.HEADER_INVALID),
        ({"ObjectType": "Tube"}, Code.UNSUPPORTED_INPUT),
        ({"ElementByteOrderMSB": "True"}, Code.HEADER_INVALID),
        ({"Anything": "else"}, None),
        ({"Comment": "a\x0bElementDataFile = inner.raw"}, Code.HEADER_INVALID),
        ({"Comment": "a\x0cElementDataFile = inner.raw"}, Code.HEADER_INVALID),
        ({"Comment": "a\rElementDataFile = inner.raw"}, Code.HEADER_INVALID),
        ({"Comment": "a\x85ElementDataFile = inner.raw"}, None),
        ({"Comment": "no end" * 400_000}, Code.HEADER_INVALID),
    ],
)
def test_promise_47_a_metaimage_header_is_taken_as_the_format_has_it_or_refused(tmp_path, changed, code):
    assert outcome(tmp_path / "x.mha", meta_text(**changed) + VOXELS) is code


@pytest.mark.parametrize("key", ["ElementSpacing", "Offset", "TransformMatrix", "DimSize", "NDims", "ElementType"])
def test_a_second_metaimage_key_is_refused_even_if_it_says_the_same(tmp_path, key):
    text = meta_text()
    line = next(line for line in text.split(b"\n") if line.startswith(key.encode()))
    assert outcome(tmp_path / "x.mha", line + b"\n" + text + VOXELS) is Code.HEADER_INVALID


def test_four_dimensions_with_one_volume_are_a_volume(tmp_path):
    four = {"NDims": "4", "DimSize": "14 12 6 1", "ElementSpacing": "3 4 5 1", "Offset": "-20 -20 -15 0"}
    matrix = "1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1"
    assert outcome(tmp_path / "x.mha", meta_text(**four, TransformMatrix=matrix) + VOXELS) is None
    two = {**four, "DimSize": "14 12 3 2"}
    assert outcome(tmp_path / "x.mha", meta_text(**two, TransformMatrix=matrix) + VOXELS) is Code.FOUR_D
    mixed = "1 0 0 0 0 1 0 0 0 0 1 0.5 0 0 0 1"
    assert outcome(tmp_path / "x.mha", meta_text(**four, TransformMatrix=mixed) + VOXELS) is Code.HEADER_INVALID
    axes = {"dimension": "4", "sizes": "14 12 6 1", "space_directions": "(3,0,0) (0,4,0) (0,0,5) none"}
    assert outcome(tmp_path / "x.nrrd", nrrd_text(**axes) + VOXELS) is None
    axes = {"dimension": "4", "sizes": "1 14 12 6", "space_directions": "none (3,0,0) (0,4,0) (0,0,5)"}
    assert outcome(tmp_path / "x.nrrd", nrrd_text(**axes) + VOXELS) is None
    axes = {"dimension": "4", "sizes": "14 12 3 2", "space_directions": "(3,0,0) (0,4,0) (0,0,5) none"}
    assert outcome(tmp_path / "x.nrrd", nrrd_text(**axes) + VOXELS) is Code.FOUR_D


@pytest.mark.parametrize(
    ("extra", "changed", "code"),
    [
        ([], {}, None),
        ([], {"space_origin": None}, Code.NO_GEOMETRY),
        ([], {"space_directions": None}, Code.NO_GEOMETRY),
        ([], {"space": None}, Code.NO_GEOMETRY),
        ([], {"space_directions": "(3,0,0) (0,4,0) none"}, Code.NO_GEOMETRY),
        ([], {"space_directions": "(3,0,0) (0,4,0)"}, Code.HEADER_INVALID),
        ([], {"space_directions": "(3,0,0) (0,4,0) (0,0,nan)"}, Code.HEADER_INVALID),
        ([], {"space_directions": "(3,0,0) (0,4,0) (0,0)"}, Code.HEADER_INVALID),
        ([], {"space_directions": "(3,0,0) (0,4,0) (0,0,0)"}, Code.SINGULAR_AFFINE),
        ([], {"space_origin": "(nan,0,0)"}, Code.HEADER_INVALID),
        ([], {"space_origin": "none"}, Code.HEADER_INVALID),
        ([], {"space_origin": "(0,0)"}, Code.HEADER_INVALID),
        ([], {"endian": None}, Code.HEADER_INVALID),
        ([], {"endian": "middle"}, Code.HEADER_INVALID),
        ([], {"dimension": "2"}, Code.TOO_FEW_SLICES),
        ([], {"dimension": "255"}, Code.DIMENSIONS),
        ([], {"dimension": "x"}, Code.HEADER_INVALID),
        ([], {"encoding": "bzip2"}, Code.UNSUPPORTED_INPUT),
        ([], {"encoding": "hex"}, Code.UNSUPPORTED_INPUT),
        ([], {"encoding": None}, Code.UNSUPPORTED_INPUT),
        (["labels: " + '"a" ' * 255], {}, None),
        (["Space Origin: (0,0,0)"], {}, Code.HEADER_INVALID),
        (["SIZES: 14 12 6"], {}, Code.HEADER_INVALID),
        (["spacings: 1 1 1"], {}, Code.HEADER_INVALID),
        (["spacings: nan nan nan"], {}, None),
        (["space dimension: 3"], {}, Code.HEADER_INVALID),
        (["a field that there is not: 1"], {}, Code.HEADER_INVALID),
        (["a line"], {}, Code.HEADER_INVALID),
        (["key:=value: with a colon", "key:=again"], {}, None),
        (["# c\x0bdata file: inner.raw"], {}, Code.HEADER_INVALID),
        (["# c\x1cdata file: inner.raw"], {}, Code.HEADER_INVALID),
        (["# c\rdata file: inner.raw"], {}, Code.HEADER_INVALID),
        (["# c\x85data file: inner.raw"], {}, None),
        (["data file: ../outside.raw"], {}, Code.HEADER_INVALID),
        (["kinds: domain space ???"], {}, None),
        (["kinds: domain domain list"], {}, Code.HEADER_INVALID),
        (["kinds: RGB-color domain domain"], {}, Code.HEADER_INVALID),
        (["kinds: domain domain"], {}, Code.HEADER_INVALID),
        (['space units: "mm" "mm" "mm"'], {}, None),
        (['space units: "mm" "mm"'], {}, Code.HEADER_INVALID),
        (["space units: mm mm mm"], {}, Code.HEADER_INVALID),
        (["byte skip: 4"], {}, Code.TRUNCATED),
        (["byte skip: -3"], {}, Code.HEADER_INVALID),
        (["byte skip: -1"], {}, None),
        (["#" + "x" * 1000] * 1200, {}, Code.HEADER_INVALID),
    ],
)
def test_promise_47_a_nrrd_header_is_taken_as_the_format_has_it_or_refused(tmp_path, extra, changed, code):
    assert outcome(tmp_path / "x.nrrd", nrrd_text(*extra, **changed) + VOXELS) is code


def test_nrrd_fields_count_in_any_case_as_the_format_has_it(tmp_path):
    text = nrrd_text().replace(b"space origin", b"Space Origin").replace(b"sizes", b"SIZES")
    assert outcome(tmp_path / "x.nrrd", text + VOXELS) is None


def test_lines_that_end_as_on_windows_are_lines(tmp_path):
    assert outcome(tmp_path / "x.nrrd", nrrd_text().replace(b"\n", b"\r\n") + VOXELS) is None
    assert outcome(tmp_path / "x.mha", meta_text().replace(b"\n", b"\r\n") + VOXELS) is None


@pytest.mark.parametrize("named", ["inner.raw", "./inner.raw", "././inner.raw"])
def test_a_file_beside_the_header_is_inside_the_study(tmp_path, named):
    (tmp_path / "inner.raw").write_bytes(VOXELS)
    assert outcome(tmp_path / "x.mhd", meta_text(ElementDataFile=named)) is None
    assert outcome(tmp_path / "x.nhdr", nrrd_text(f"data file: {named}")) is None
    (tmp_path / "inner.raw").write_bytes(b"two\nlines\n" + VOXELS)
    assert outcome(tmp_path / "x.nhdr", nrrd_text(f"data file: {named}", "line skip: 2")) is None
    assert outcome(tmp_path / "x.nhdr", nrrd_text(f"data file: {named}", "line skip: 1", "byte skip: 6")) is None
    assert outcome(tmp_path / "x.mhd", meta_text(ElementDataFile=named, HeaderSize="10")) is None
    assert outcome(tmp_path / "x.mhd", meta_text(ElementDataFile=named, HeaderSize="-1")) is None


@pytest.mark.parametrize("named", ["A" * 300, "..", ".", "/", "x.mhd", "sub/inner.raw", ""])
def test_a_name_that_no_file_beside_the_header_can_have_is_refused(tmp_path, named):
    assert outcome(tmp_path / "x.mhd", meta_text(ElementDataFile=named)) is not None
    assert outcome(tmp_path / "y.nhdr", nrrd_text(f"data file: {named}")) is not None


def packed(kind: str, stream: bytes) -> bytes:
    if kind == "x.mha":
        return meta_text(CompressedData="True") + stream
    return nrrd_text(encoding="gzip") + stream


@pytest.mark.parametrize(("kind", "pack"), [("x.mha", zlib.compress), ("x.nrrd", gzip.compress)])
def test_a_stream_gives_exactly_the_promised_voxels_with_a_right_checksum(tmp_path, kind, pack):
    path, whole = tmp_path / kind, pack(VOXELS)
    assert outcome(path, packed(kind, whole)) is None
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0x10
    wrong_sum = bytearray(whole)
    wrong_sum[-6 if kind == "x.nrrd" else -1] ^= 1
    streams = {
        "cut": whole[: len(whole) * 2 // 3],
        "without its end": whole[:-1],
        "flipped": bytes(flipped),
        "wrong checksum": bytes(wrong_sum),
        "shorter": pack(VOXELS[:-2]),
        "longer": pack(VOXELS + b"\0\0"),
        "twice": pack(VOXELS * 2),
        "trailing": whole + b"x",
        "empty": b"",
    }
    for name, stream in streams.items():
        path.write_bytes(packed(kind, stream))
        assert rejected(path) in (Code.TRUNCATED, Code.DECODE, Code.HEADER_LIES), name
    if kind == "x.nrrd":
        assert outcome(path, packed(kind, gzip.compress(VOXELS[:900]) + gzip.compress(VOXELS[900:]))) is None


def test_a_compressed_size_must_be_the_streams(tmp_path):
    stream = zlib.compress(VOXELS)
    for size, code in ((len(stream), None), (len(stream) + 1, Code.TRUNCATED), (len(stream) - 1, Code.HEADER_LIES)):
        assert outcome(tmp_path / "x.mha", meta_text(CompressedData="True", CompressedDataSize=str(size)) + stream) is code


@pytest.mark.parametrize("more", [-1, 1])
def test_voxels_have_exactly_their_length(tmp_path, more):
    content = VOXELS[:more] if more < 0 else VOXELS + b"x"
    code = Code.TRUNCATED if more < 0 else Code.HEADER_LIES
    assert outcome(tmp_path / "x.mha", meta_text() + content) is code
    assert outcome(tmp_path / "x.nrrd", nrrd_text() + content) is code


def test_the_value_is_named_and_a_word_that_may_be_a_name_is_not(tmp_path):
    (tmp_path / "x.mha").write_bytes(meta_text(Offset="1 2 nan") + VOXELS)
    (study,) = discover([tmp_path / "x.mha"]).studies
    assert study.rejected is not None
    assert "1 2 nan" in study.rejected.message
    (tmp_path / "x.mha").write_bytes(meta_text(Offset="Jones^Tom") + VOXELS)
    (study,) = discover([tmp_path / "x.mha"]).studies
    assert study.rejected is not None
    assert "Jones" not in study.rejected.message


@pytest.mark.parametrize("suffix", ["mha", "nrrd"])
def test_the_numbers_are_those_of_simpleitk_to_the_last_bit(tmp_path, suffix):
    random = np.random.default_rng(0)
    path = tmp_path / f"x.{suffix}"
    for dtype in (np.int8, np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64):
        image = SimpleITK.GetImageFromArray(random.integers(0, 100, (5, 6, 7)).astype(dtype))
        image.SetSpacing(random.uniform(0.3, 5, 3).tolist())
        image.SetOrigin(random.normal(size=3).tolist())
        image.SetDirection(np.linalg.qr(random.normal(size=(3, 3)))[0].ravel().tolist())
        SimpleITK.WriteImage(image, str(path), useCompression=bool(random.integers(2)))
        found = read_metaimage_header(path) if suffix == "mha" else read_nrrd_header(path)
        theirs = SimpleITK.ReadImage(str(path))
        affine = np.eye(4)
        affine[:3, :3] = np.array(theirs.GetDirection()).reshape(3, 3) * np.array(theirs.GetSpacing())
        affine[:3, 3] = theirs.GetOrigin()
        assert np.array_equal(found.grid.affine, LPS_TO_RAS @ affine)
        assert np.array_equal(found.read(), SimpleITK.GetArrayFromImage(theirs).transpose(2, 1, 0))


@pytest.mark.parametrize("name", ["x.mha", "x.nrrd", "x.nii.gz"])
def test_a_stream_of_nothing_is_refused_before_it_is_unpacked(tmp_path, name, monkeypatch):
    """700 million zeros in two megabytes; a label map as sparse as that is one all the same."""
    monkeypatch.setattr(voxels, "SMALLEST_HOLLOW_BYTES", 100_000)
    zeros = np.zeros((64, 64, 64), dtype="<i2")
    image = SimpleITK.GetImageFromArray(zeros)
    SimpleITK.WriteImage(image, str(tmp_path / name), useCompression=True)
    (study,) = discover([tmp_path]).studies
    monkeypatch.setattr(VoxelFile, "read", None)
    with pytest.raises(InputError) as caught:
        read_volume(study)
    assert caught.value.code is Code.EMPTY_IMAGE
    assert "to 1" in caught.value.sentence()
    zeros[5, 5, 5] = 3
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(zeros), str(tmp_path / name), useCompression=True)
    assert discover([tmp_path]).skipped_reasons == {"label_map": 1}
