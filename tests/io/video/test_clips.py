"""Clips below folders: each file exactly once, under a name of its own."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from agseg.errors import Code, InputError, UsageError
from agseg.io.video.clips import find_clips, open_clip
from agseg.io.video.frames import every
from tests.ultrasound.scans import fan_frame, write_cine


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "in"
    (root / "stills").mkdir(parents=True)
    (root / "deep/er").mkdir(parents=True)
    for number in (1, 2, 10):
        Image.fromarray(np.full((64, 64, 3), number, np.uint8)).save(root / f"stills/frame{number}.png")
    (root / "clip.mp4").write_bytes(b"\0\0\0\x08ftyp")
    (root / "clip.avi").write_bytes(b"RIFF\x04\0\0\0AVI ")
    (root / "promise.mp4").write_bytes(b"broken promise")
    write_cine(root / "deep/er/cine.dcm", np.zeros((2, 40, 40, 3), np.uint8))
    write_cine(root / "deep/ct.dcm", np.zeros((2, 40, 40, 3), np.uint8), Modality="CT")
    (root / "notes.txt").write_text("nothing")
    (root / ".hidden.mp4").write_bytes(b"\0\0\0\x08ftyp")
    (root / "link.mp4").symlink_to(root / "clip.mp4")
    return root


def test_every_file_is_used_once_or_skipped_with_a_reason(folder):
    found = find_clips([folder])
    used = [path for clip in found.studies for path in clip.files]
    skipped = {skip.path.name: skip.reason for skip in found.skipped}
    assert sorted([*used, *(skip.path for skip in found.skipped)]) == sorted(p for p in folder.rglob("*") if not p.is_dir())
    assert skipped == {"ct.dcm": "E_MODALITY", "notes.txt": "not_an_image", ".hidden.mp4": "hidden", "link.mp4": "E_SYMLINK"}


def test_folders_deeper_than_pythons_stack_are_walked(tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"\0\0\0\x08ftyp")
    here = Path.cwd()
    try:
        os.chdir(tmp_path)
        for _ in range(1500):
            Path("d").mkdir()
            os.chdir("d")
        Path("deep.mp4").write_bytes(b"\0\0\0\x08ftyp")
    finally:
        os.chdir(here)
    names = [clip.id for clip in find_clips([tmp_path]).studies]
    assert names == ["clip", "d/" * 1500 + "deep"]
    subprocess.run(["rm", "-rf", str(tmp_path / "d")], check=True)  # Python's own gives up on it


def test_names_are_paths_below_the_input_without_suffix_and_unique(folder):
    names = [clip.id for clip in find_clips([folder]).studies]
    assert sorted(names) == ["clip_avi", "clip_mp4", "deep/er/cine", "promise", "stills"]
    twice = [clip.id for clip in find_clips([folder / "promise.mp4", folder / "promise.mp4"]).studies]
    assert len(set(twice)) == 2


def test_no_name_collides_with_the_record(tmp_path):
    (tmp_path / "run.json.mp4").write_bytes(b"x")
    (clip,) = find_clips([tmp_path / "run.json.mp4"]).studies
    assert clip.id != "run.json"


def test_images_come_in_natural_order(folder):
    (clip,) = find_clips([folder / "stills"]).studies
    source = open_clip(clip)
    assert [int(frame.pixels[0, 0, 0]) for frame in source.frames(every(1))] == [1, 2, 10]
    assert not source.moving
    assert all(frame.time_s is None for frame in source.frames(every(1)))


def test_a_broken_image_costs_its_own_frame_and_a_warning(folder):
    (folder / "stills/frame3.png").write_bytes((folder / "stills/frame1.png").read_bytes()[:40])
    (clip,) = find_clips([folder / "stills"]).studies
    source = open_clip(clip)
    assert [frame.index for frame in source.frames(every(1))] == [0, 1, 3]
    assert [warned.code for warned in source.warnings] == [Code.FRAMES_LOST]


def test_grey_palette_and_transparent_images_become_rgb_and_sixteen_bits_are_refused(tmp_path):
    grey = Image.fromarray(fan_frame((96, 64), box=(20, 8, 80, 60), text=False)[..., 0])
    for mode in ("L", "P", "RGBA", "LA"):
        path = tmp_path / f"{mode}.png"
        grey.convert(mode).save(path)
        (frame,) = open_clip(find_clips([path]).studies[0]).frames(every(1))
        assert np.array_equal(frame.pixels[..., 0], np.asarray(grey))
    deep = tmp_path / "deep.png"
    Image.fromarray(np.full((64, 64), 40_000, np.uint16)).save(deep)
    with pytest.raises(InputError) as caught:
        list(open_clip(find_clips([deep]).studies[0]).frames(every(1)))
    assert caught.value.code is Code.DTYPE


def test_an_input_that_is_not_there_is_a_mistake(tmp_path):
    with pytest.raises(UsageError):
        find_clips([tmp_path / "nothing.mp4"])
