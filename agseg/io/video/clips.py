"""Finds the ultrasound clips below the inputs: videos, DICOM objects and folders of images, each file exactly once.

A file that is given by name is always an input, whatever it turns out to be. In a folder the first bytes decide; the images
that lie directly in one folder are one input together, and a file whose suffix promises a video is an input even if its
bytes do not keep the promise, so that it ends in the record with a reason.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from agseg.errors import Code, InputError, UsageError
from agseg.io.video.cine import Cine, is_other_modality
from agseg.io.video.containers import FileKind, check_regular, sniff
from agseg.io.video.frames import FrameSource
from agseg.io.video.stills import Stills, natural_order
from agseg.io.video.video_file import VideoFile
from agseg.study import Skipped

__all__ = ["Clip", "ClipDiscovery", "find_clips", "open_clip"]

_VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".wmv", ".mpg", ".mpeg")
_RESERVED_NAMES = ("run.json",)


@dataclass(frozen=True)
class Clip:
    """One input that becomes one result.

    Parameters
    ----------
    name
        ``/``-separated name of the output folder: path below the input without suffix, made unique.
    files
        The video or DICOM file, or the images in natural order.
    """

    name: str
    files: tuple[Path, ...]


@dataclass(frozen=True)
class ClipDiscovery:
    """All clips, and every other file with the reason it was left out."""

    clips: tuple[Clip, ...]
    skipped: tuple[Skipped, ...]


def find_clips(inputs: Iterable[Path]) -> ClipDiscovery:
    """The clips of files and folders, in a stable order; links are never followed.

    Raises
    ------
    UsageError
        If an input does not exist.
    """
    clips: list[Clip] = []
    skipped: list[Skipped] = []
    for given in inputs:
        if not os.path.lexists(given):
            raise UsageError("no such file or folder", path=given)
        if given.is_dir() and not given.is_symlink():
            _walk(given, clips, skipped)
        else:
            clips.append(Clip(given.stem.lstrip(".") or "clip", (given,)))
    return ClipDiscovery(_with_unique_names(clips), tuple(skipped))


def open_clip(clip: Clip) -> FrameSource:
    """The frames of a clip.

    Raises
    ------
    InputError
        With the reason why it cannot be read.
    """
    for path in clip.files:
        check_regular(path)
    kinds = {sniff(path) for path in clip.files}
    if kinds == {FileKind.IMAGE}:
        return Stills(clip.files)
    (path,) = clip.files
    (kind,) = kinds
    if kind is FileKind.EMPTY:
        raise InputError("the file is empty", code=Code.VIDEO, path=path, value="0 bytes")
    if kind is FileKind.DICOM:
        return Cine(path)
    if kind.is_video:
        return VideoFile(path, kind)
    raise InputError(
        "not a video: the first bytes are not those of a known format",
        code=Code.VIDEO,
        path=path,
        expected="mp4, mov, avi, mkv, DICOM, or PNG, JPEG, TIFF and BMP images",
    )


def _walk(root: Path, clips: list[Clip], skipped: list[Skipped]) -> None:
    # A list instead of recursion, and paths as text: folders may be nested deeper than Python's stack.
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            entries = sorted(folder.iterdir(), key=natural_order)
        except OSError as error:
            code = Code.PERMISSION if isinstance(error, PermissionError) else Code.UNREADABLE_FILE
            skipped.append(Skipped(folder, str(code)))
            continue
        images: list[Path] = []
        inner: list[Path] = []
        for entry in entries:
            _look_at(root, entry, inner, images, clips, skipped)
        if images:
            name = folder.relative_to(root).as_posix() if folder != root else folder.resolve().name or "images"
            clips.append(Clip(name, tuple(images)))
        folders.extend(reversed(inner))


def _look_at(root: Path, entry: Path, inner: list[Path], images: list[Path], clips: list[Clip], skipped: list[Skipped]) -> None:
    try:
        mode = entry.lstat().st_mode
    except OSError:
        skipped.append(Skipped(entry, str(Code.UNREADABLE_FILE)))
        return
    if entry.name.startswith("."):
        skipped.append(Skipped(entry, "hidden"))
    elif stat.S_ISLNK(mode):
        skipped.append(Skipped(entry, str(Code.SYMLINK)))
    elif stat.S_ISDIR(mode):
        inner.append(entry)
    elif not stat.S_ISREG(mode):
        skipped.append(Skipped(entry, "not_a_regular_file"))
    else:
        _sort_in(root, entry, images, clips, skipped)


def _sort_in(root: Path, path: Path, images: list[Path], clips: list[Clip], skipped: list[Skipped]) -> None:
    try:
        kind = sniff(path)
    except InputError as error:
        skipped.append(Skipped(path, str(error.code)))
        return
    if kind is FileKind.IMAGE:
        images.append(path)
    elif kind is FileKind.DICOM and is_other_modality(path):
        skipped.append(Skipped(path, str(Code.MODALITY)))
    elif kind is FileKind.DICOM or kind.is_video or path.suffix.lower() in _VIDEO_SUFFIXES:
        clips.append(Clip(path.relative_to(root).with_suffix("").as_posix(), (path,)))
    else:
        skipped.append(Skipped(path, "not_an_image"))


def _with_unique_names(clips: list[Clip]) -> tuple[Clip, ...]:
    """Names that several clips share get their suffix (``clip_mp4``), and a number where that does not help."""
    names = [clip.name.lower() for clip in clips]
    taken: set[str] = set(_RESERVED_NAMES)
    unique = []
    for clip in clips:
        name = clip.name
        if names.count(name.lower()) > 1 and len(clip.files) == 1 and clip.files[0].suffix:
            name = f"{name}_{clip.files[0].suffix[1:]}"
        candidate, number = name, 2
        while candidate.lower() in taken:
            candidate, number = f"{name}-{number}", number + 1
        taken.add(candidate.lower())
        unique.append(Clip(candidate, clip.files))
    return tuple(unique)
