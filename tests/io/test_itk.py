"""MetaImage and NRRD: geometry as SimpleITK has it, no file from outside the study, no header that lies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from agseg.errors import Code, InputError
from agseg.io.discover import discover
from agseg.io.itk import read_itk_header
from agseg.io.read import read_volume
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
        read_itk_header(tmp_path / "x.mha")
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
