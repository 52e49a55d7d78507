"""Frames of an mp4, mov, avi or mkv file."""

from __future__ import annotations

from pathlib import Path

from agseg.io.video.containers import FileKind, check_complete
from agseg.io.video.video_stream import VideoStream


class VideoFile(VideoStream):
    """A video on disk.

    Parameters
    ----------
    path
        A regular file.
    kind
        Its container, from its first bytes; the only one that is tried.

    Raises
    ------
    InputError
        ``E_VIDEO`` with the reason: cut off, or as :class:`VideoStream`.
    """

    def __init__(self, path: Path, kind: FileKind) -> None:
        check_complete(path, kind)
        super().__init__(path, kind.value)
