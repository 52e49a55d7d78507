"""Finds the ultrasound clips below the inputs: videos, DICOM objects and folders of images, each file exactly once.

A clip is a :class:`~agseg.study.Study` of the kind :data:`CLIP`. Its files are the video or DICOM file, or the images in
natural order; its id is its path below the input without suffix, made unique.

A file that is given by name is always an input, whatever it turns out to be. In a folder the first bytes decide; the images
that lie directly in one folder are one input together, and a file whose suffix promises a video is an input even if its
bytes do not keep the promise, so that it ends in the record with a reason.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from agseg.errors import Code, InputError, UsageError
from agseg.io.dicom.header import check_unpacked_size
from agseg.io.names import spelled_out
from agseg.io.video.cine import Cine, is_other_modality
from agseg.io.video.containers import FileKind, check_regular, sniff
from agseg.io.video.frames import FrameSource
from agseg.io.video.stills import Stills, natural_order
from agseg.io.video.video_file import VideoFile
from agseg.io.watch import Watch
from agseg.study import Discovery, Rejected, Skipped, Study

CLIP = "clip"
"""Kind of a study that is an ultrasound clip."""

MODALITY = "US"

_VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".wmv", ".mpg", ".mpeg")
_RESERVED_NAMES = ("run.json",)


_CLIPS = (FileKind.DICOM, *(kind for kind in FileKind if kind.is_video))

KindsOf = Callable[[Sequence[Path]], Sequence[str]]
"""Says what files are, as :func:`clip_kinds` does."""


def find_clips(inputs: Iterable[Path], *, kinds_of: KindsOf | None = None) -> Discovery:
    """The clips of files and folders, in a stable order; links are never followed.

    Parameters
    ----------
    inputs
        Folders (walked through, nothing is opened) and files.
    kinds_of
        Opens the files and says what each is; by default :func:`clip_kinds` in this process.

    Raises
    ------
    UsageError
        If an input does not exist.
    """
    listed = _Listed()
    for given in map(Path.absolute, inputs):
        if not os.path.lexists(given):
            raise UsageError("no such file or folder", path=given)
        if given.is_dir() and not given.is_symlink():
            _walk(given, listed)
        else:
            listed.places.append(_Place(given, given, [given], is_input=True))
    paths = [path for place in listed.places if not place.is_input for path in place.files]
    kinds = dict(zip(paths, (kinds_of or clip_kinds)(paths), strict=True))
    clips: list[Study] = []
    for place in listed.places:
        if place.is_input:
            clips.append(_clip(place.folder.stem.lstrip(".") or "clip", place.folder.parent, (place.folder,)))
        else:
            clips.extend(_clips_of(place, kinds, listed.skipped))
    return Discovery(_with_unique_names(clips), tuple(listed.skipped))


def _clip(name: str, root: Path, files: tuple[Path, ...]) -> Study:
    return Study(name, root, files, kind=CLIP, modality=MODALITY)


def _clips_of(place: _Place, kinds: Mapping[Path, str], skipped: list[Skipped]) -> Iterator[Study]:
    """The clips of one folder: its videos and DICOM files, then its images together."""
    root, folder = place.root, place.folder
    images = []
    for path in place.files:
        kind = kinds[path]
        if kind == FileKind.IMAGE:
            images.append(path)
        elif kind in _CLIPS or (not kind.startswith("E_") and path.suffix.lower() in _VIDEO_SUFFIXES):
            yield _clip(path.relative_to(root).with_suffix("").as_posix(), root, (path,))
        else:
            skipped.append(Skipped(path, kind if kind.startswith("E_") else "not_an_image"))
    if images:
        name = folder.relative_to(root).as_posix() if folder != root else folder.resolve().name or "images"
        yield _clip(name, root, tuple(images))


def clip_kinds(paths: Sequence[Path], *, watch: Watch | None = None) -> list[str]:
    """What each file is: a :class:`FileKind`, or the ``E_`` code of why it is no clip."""
    watch = watch or Watch()
    found = [watch.examine(number, partial(_kind, path)) for number, path in enumerate(paths)]
    return [str(kind.code) if isinstance(kind, Rejected) else kind for kind in found]


def _kind(path: Path) -> str:
    kind = sniff(path)
    return str(Code.MODALITY) if kind is FileKind.DICOM and is_other_modality(path) else str(kind)


def open_clip(clip: Study) -> FrameSource:
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
        check_unpacked_size(path)
        return Cine(path)
    if kind.is_video:
        return VideoFile(path, kind)
    raise InputError(
        "not a video: the first bytes are not those of a known format",
        code=Code.VIDEO,
        path=path,
        expected="mp4, mov, avi, mkv, DICOM, or PNG, JPEG, TIFF and BMP images",
    )


@dataclass(frozen=True)
class _Place:
    """A folder below an input and the files in it, or a file that was given by name."""

    root: Path
    folder: Path
    files: list[Path]
    is_input: bool = False


@dataclass(frozen=True)
class _Listed:
    """What is below the inputs, before a file is opened."""

    places: list[_Place] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)


def _walk(root: Path, listed: _Listed) -> None:
    # A list instead of recursion, and paths as text: folders may be nested deeper than Python's stack.
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            entries = sorted(folder.iterdir(), key=natural_order)
        except OSError as error:
            code = Code.PERMISSION if isinstance(error, PermissionError) else Code.UNREADABLE_FILE
            listed.skipped.append(Skipped(folder, str(code)))
            continue
        files: list[Path] = []
        inner: list[Path] = []
        for entry in entries:
            reason = _left_out(entry, inner, files)
            if reason:
                listed.skipped.append(Skipped(entry, reason))
        listed.places.append(_Place(root, folder, files))
        folders.extend(reversed(inner))


def _left_out(entry: Path, inner: list[Path], files: list[Path]) -> str:
    """Put a folder or file where it belongs, or say why it is left out."""
    try:
        mode = entry.lstat().st_mode
    except OSError:
        return str(Code.UNREADABLE_FILE)
    if entry.name.startswith("."):
        return "hidden"
    if stat.S_ISLNK(mode):
        return str(Code.SYMLINK)
    if stat.S_ISDIR(mode):
        inner.append(entry)
    elif stat.S_ISREG(mode):
        files.append(entry)
    else:
        return "not_a_regular_file"
    return ""


def _with_unique_names(clips: list[Study]) -> tuple[Study, ...]:
    """Names that several clips share get their suffix (``clip_mp4``), and a number where that does not help."""
    names = [clip.id.lower() for clip in clips]
    taken: set[str] = set(_RESERVED_NAMES)
    unique = []
    for clip in clips:
        name = spelled_out(clip.id)
        if names.count(name.lower()) > 1 and len(clip.files) == 1 and clip.files[0].suffix:
            name = f"{name}_{clip.files[0].suffix[1:]}"
        candidate, number = name, 2
        while candidate.lower() in taken:
            candidate, number = f"{name}-{number}", number + 1
        taken.add(candidate.lower())
        unique.append(replace(clip, id=candidate))
    return tuple(unique)
