"""No file of an input is opened by its name alone: whatever takes its place is not followed, and hangs nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image

from agseg.errors import Code, InputError
from agseg.io.discover import discover
from agseg.io.opening import open_regular
from agseg.io.read import read_volume
from agseg.io.video.clips import find_clips, open_clip
from agseg.io.video.frames import every
from tests import mutations, phantoms
from tests.ultrasound import scans

RLE = "1.2.840.10008.1.2.5"
CAREFUL = os.O_NOFOLLOW | os.O_NONBLOCK

_openings: list[tuple[Path, int]] = []
_roots: list[Path] = []


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if _roots and event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
        path = Path(os.fsdecode(arguments[0]))
        if path.is_relative_to(_roots[0]) and not path.is_dir():
            _openings.append((path, arguments[2]))


sys.addaudithook(_note)


@contextmanager
def watched(root: Path) -> Iterator[list[tuple[Path, int]]]:
    """The files below the root that Python code opens meanwhile, with the flags."""
    _openings.clear()
    _roots.append(root)
    try:
        yield _openings
    finally:
        _roots.clear()


def a_series(folder: Path) -> None:
    phantoms.write_dicom(folder, mutations.voxels(), phantoms.dicom_affine("axial", mutations.SHAPE, mutations.SPACING))


def a_compressed_series(folder: Path) -> None:
    a_series(folder)
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        dataset.compress(RLE, generate_instance_uid=False)
        dataset.save_as(path)


def an_enhanced_file(folder: Path) -> None:
    affine = phantoms.dicom_affine("axial", mutations.SHAPE, mutations.SPACING)
    phantoms.write_enhanced(folder / "x.dcm", mutations.voxels(), affine)


def a_nifti_file(folder: Path) -> None:
    affine = phantoms.coded_affine("RAS", mutations.SHAPE, mutations.SPACING)
    phantoms.write_nifti(folder / "x.nii.gz", mutations.voxels(), affine)


def a_metaimage_pair(folder: Path) -> None:
    header, body = mutations.metaimage()
    (folder / "x.mhd").write_bytes(header.replace(b"LOCAL", b"x.raw"))
    (folder / "x.raw").write_bytes(body)


def an_nrrd_file(folder: Path) -> None:
    (folder / "x.nrrd").write_bytes(b"".join(mutations.nrrd()))


@pytest.mark.parametrize(
    "make", [a_series, a_compressed_series, an_enhanced_file, a_nifti_file, a_metaimage_pair, an_nrrd_file]
)
def test_every_opening_of_a_study_is_a_careful_one(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path)
    with watched(tmp_path) as openings:
        (study,) = discover([tmp_path]).studies
        read_volume(study)
    assert {path for path, _ in openings} == {path for path in tmp_path.iterdir() if path.is_file()}
    assert not [path for path, flags in openings if flags & CAREFUL != CAREFUL]


FRAMES = np.random.default_rng(0).integers(0, 255, (3, 48, 64, 3)).astype(np.uint8)


def a_cine(folder: Path) -> None:
    scans.write_cine(folder / "x.dcm", FRAMES)


def a_compressed_cine(folder: Path) -> None:
    scans.write_cine(folder / "x.dcm", FRAMES, transfer_syntax=RLE)


def a_subsampled_cine(folder: Path) -> None:
    scans.write_cine(folder / "x.dcm", FRAMES, photometric="YBR_FULL_422", PixelData=FRAMES[..., :2].tobytes())


def a_still(folder: Path) -> None:
    Image.fromarray(FRAMES[0]).save(folder / "x.png")


def a_video(folder: Path) -> None:
    scans.write_video(folder / "x.mp4", list(FRAMES))


@pytest.mark.parametrize("make", [a_cine, a_compressed_cine, a_subsampled_cine, a_still, a_video])
def test_every_opening_of_a_clip_is_a_careful_one(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path)
    with watched(tmp_path) as openings:
        (clip,) = find_clips([tmp_path]).studies
        assert len(list(open_clip(clip).frames(every(1)))) in (1, 3)
    assert openings
    assert not [path for path, flags in openings if flags & CAREFUL != CAREFUL]


@pytest.mark.parametrize("make", [a_cine, a_still, a_video])
def test_a_link_that_takes_a_clips_place_is_not_followed(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path)
    (clip,) = find_clips([tmp_path]).studies
    (path,) = clip.files
    secret = tmp_path / ".secret"
    path.rename(secret)
    path.symlink_to(secret)
    with pytest.raises(InputError):
        list(open_clip(clip).frames(every(1)))


@pytest.mark.parametrize(("make", "code"), [(os.mkfifo, Code.UNREADABLE_FILE), (Path.mkdir, Code.UNREADABLE_FILE)])
def test_a_pipe_or_folder_in_a_files_place_is_refused_at_once(tmp_path: Path, make: Callable[[Path], None], code: Code) -> None:
    make(tmp_path / "x")
    with pytest.raises(InputError) as caught:
        open_regular(tmp_path / "x")
    assert caught.value.code is code
