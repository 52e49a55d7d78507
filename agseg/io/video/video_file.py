"""Frames of an mp4, mov, avi or mkv file, through PyAV (FFmpeg's libraries)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from agseg.errors import Code, InputError, UsageError
from agseg.io.video.containers import FileKind, check_complete
from agseg.io.video.frames import Box, Frame, Wanted, check_size
from agseg.volume import Warned

__all__ = ["MAX_LOST_FRACTION", "VideoFile", "load_av"]

MAX_LOST_FRACTION = 0.1
"""Largest share of packets that may fail to decode; above it the video is refused, up to it there is a warning."""


def load_av() -> Any:
    """PyAV.

    Raises
    ------
    UsageError
        If the extra is not installed.
    """
    try:
        import av
    except ImportError:
        raise UsageError("reading and writing videos needs PyAV: pip install 'agseg[video]'") from None
    # FFmpeg logs what it finds in the file, metadata included.
    av.logging.set_level(av.logging.PANIC)
    return av


class VideoFile:
    """A video on disk; its audio, subtitles and metadata are never looked at.

    Parameters
    ----------
    path
        A regular file.
    kind
        Its container, from its first bytes; the only one that is tried.

    Raises
    ------
    InputError
        ``E_VIDEO`` with the reason: cut off, unreadable, no picture, a codec that is not known, too small.
    """

    moving = True
    region: Box | None = None

    def __init__(self, path: Path, kind: FileKind) -> None:
        self._path, self._kind = path, kind
        self._lost = 0
        check_complete(path, kind)
        with self._open() as container:
            stream = self._picture(container)
            codec = stream.codec_context
            self.size: tuple[int, int] = (codec.width, codec.height)
            self.frame_count: int | None = stream.frames or None
            rate = stream.average_rate or stream.guessed_rate
            self.frames_per_second: float | None = float(rate) if rate else None
            if self.frame_count is None and stream.duration and rate:
                self.frame_count = round(float(stream.duration * stream.time_base * rate))
        check_size(*self.size)

    @property
    def warnings(self) -> tuple[Warned, ...]:
        """One, if packets could not be decoded."""
        if not self._lost:
            return ()
        return (Warned(Code.FRAMES_LOST, f"{self._lost} packets of the video could not be decoded and were left out"),)

    def frames(self, wanted: Wanted) -> Iterator[Frame]:
        """The wanted frames in order of presentation; frames that are not wanted are decoded but not converted.

        Raises
        ------
        InputError
            ``E_VIDEO`` if nothing, or too little, can be decoded.
        """
        av = load_av()
        self._lost = packets = index = 0
        # One converter for all frames: building it anew costs as much as converting.
        convert = av.video.reformatter.VideoReformatter().reformat
        with self._open() as container:
            stream = self._picture(container)
            for packet in self._packets(container, stream):
                packets += 1
                try:
                    decoded = packet.decode()
                except av.FFmpegError:
                    self._lost += 1
                    continue
                for picture in decoded:
                    if wanted(index):
                        check_size(picture.width, picture.height)
                        yield Frame(
                            index, self._time_s(picture, index), np.asarray(convert(picture, format="rgb24").to_ndarray())
                        )
                    index += 1
        if index == 0:
            raise InputError("no frame of the video can be decoded", code=Code.VIDEO, path=self._path)
        if self._lost > MAX_LOST_FRACTION * packets:
            raise InputError(
                "too much of the video cannot be decoded",
                code=Code.VIDEO,
                path=self._path,
                value=f"{self._lost} of {packets} packets",
            )

    def _packets(self, container: Any, stream: Any) -> Iterator[Any]:
        av = load_av()
        try:
            yield from container.demux(stream)
        except av.FFmpegError:
            raise InputError("the video breaks off and cannot be read on", code=Code.VIDEO, path=self._path) from None

    def _time_s(self, picture: Any, index: int) -> float | None:
        """The time the file gives (so variable rates keep theirs), else the position over the mean rate."""
        if picture.time is not None:
            return float(picture.time)
        return index / self.frames_per_second if self.frames_per_second else None

    def _open(self) -> Any:
        av = load_av()
        try:
            return av.open(str(self._path), format=self._kind.value, options={"protocol_whitelist": "file"})
        except av.FFmpegError:
            raise InputError(
                "the video's container cannot be read", code=Code.VIDEO, path=self._path, expected=f"a sound {self._kind} file"
            ) from None

    def _picture(self, container: Any) -> Any:
        if not container.streams.video:
            has_audio = bool(container.streams.audio)
            raise InputError(
                "the file has sound but no picture" if has_audio else "the file has no video stream",
                code=Code.VIDEO,
                path=self._path,
            )
        stream = container.streams.video[0]
        if stream.codec_context is None:
            raise InputError(
                "the video's codec is not known to FFmpeg",
                code=Code.VIDEO,
                path=self._path,
                expected="for example H.264, HEVC, MPEG-4, MJPEG, VP9 or AV1",
            )
        return stream
