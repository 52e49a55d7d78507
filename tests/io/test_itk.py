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

SHAPE, SPACING = (14, 12, 6), (1.5, 2.0, 2.5)


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
