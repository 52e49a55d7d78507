"""Frames of one video stream, through PyAV (FFmpeg's libraries): from a file, or from the fragments of a DICOM object."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from io import IOBase
from pathlib import Path
from typing import Any

import numpy as np

from agseg.errors import Code, InputError
from agseg.extras import require
from agseg.io.opening import open_regular
from agseg.io.video.clock import Clock
from agseg.io.video.frames import Box, Frame, Wanted, check_size
from agseg.io.video.turn import UPRIGHT, Turn
from agseg.volume import Warned

MAX_LOST_FRACTION = 0.1
"""Largest share of packets that may fail to decode; above it the video is refused, up to it there is a warning."""

_FORMATS_WITH_PRESENTATION_TIMES = ("mp4", "matroska", "mpegts", "mpeg")
"""Containers that say when a frame is shown; in the others times are those of packets, in order of decoding."""


def load_av() -> Any:
    """PyAV.

    Raises
    ------
    UsageError
        If the extra is not installed.
    """
    av = require("av", purpose="reading and writing videos")
    # FFmpeg logs what it finds in the file, metadata included.
    av.logging.set_level(av.logging.PANIC)
    return av


class VideoStream:
    """The first picture stream of a video; its audio, subtitles and metadata are never looked at.

    Parameters
    ----------
    path
        The file, for messages, and where no ``stream`` is given for its bytes.
    container
        FFmpeg's name of the container, found from the first bytes; the only one that is tried.
    stream
        Seekable bytes of the video where it is only a part of the file. FFmpeg is never given a name: what has taken the file's
        place by then would be followed.

    Raises
    ------
    InputError
        ``E_VIDEO`` with the reason: unreadable, no picture, a codec that is not known, too small.
    """

    moving = True
    region: Box | None = None

    def __init__(self, path: Path, container: str, stream: IOBase | None = None) -> None:
        self._path, self._format, self._bytes = path, container, stream
        self._lost = self._guessed = 0
        self._askew = False
        with self._open() as opened:
            picture = self._picture(opened)
            codec = picture.codec_context
            stored = (codec.width, codec.height)
            self.frame_count: int | None = picture.frames or None
            rate = picture.average_rate or picture.guessed_rate
            self.frames_per_second: float | None = float(rate) if rate else None
            if self.frame_count is None and picture.duration and rate:
                self.frame_count = round(float(picture.duration * picture.time_base * rate))
            first = self._first(opened, picture)
        # A bare stream tells its size with the first frame only.
        width, height = stored if 0 not in stored or first is None else (first.width, first.height)
        turn = UPRIGHT if first is None else Turn.of_frame(first) or UPRIGHT
        self.size: tuple[int, int] = turn.size(width, height)
        check_size(*self.size)

    @property
    def warnings(self) -> tuple[Warned, ...]:
        """What could not be decoded, timed or turned."""
        found = []
        if self._lost:
            text = f"{self._lost} packets of the video could not be decoded and were left out"
            found.append(Warned(Code.FRAMES_LOST, text))
        if self._guessed:
            found.append(Warned(Code.FRAME_TIMES, f"the video gives no usable time for {self._guessed} frames"))
        if self._askew:
            text = "the video asks for a turn that is not made of quarters: frames are as stored"
            found.append(Warned(Code.FRAME_TURN, text))
        return tuple(found)

    def frames(self, wanted: Wanted) -> Iterator[Frame]:
        """The wanted frames in order of presentation; frames that are not wanted are decoded but not converted.

        Raises
        ------
        InputError
            ``E_VIDEO`` if nothing, or too little, can be decoded.
        """
        av = load_av()
        self._lost = self._guessed = packets = index = 0
        # One converter for all frames: building it anew costs as much as converting.
        convert = av.video.reformatter.VideoReformatter().reformat
        with self._open() as container:
            stream = self._picture(container)
            clock = Clock(self.frames_per_second, trusted=self._format in _FORMATS_WITH_PRESENTATION_TIMES)
            for packet in self._packets(container, stream):
                packets += 1
                if packet.size:
                    clock.packet(self._packet_time_s(packet))
                try:
                    decoded = packet.decode()
                except av.FFmpegError:
                    self._lost += 1
                    continue
                for picture in decoded:
                    time_s = clock.frame(None if picture.time is None else float(picture.time))
                    self._guessed = clock.guessed
                    if wanted(index):
                        check_size(picture.width, picture.height)
                        pixels = np.asarray(convert(picture, format="rgb24").to_ndarray())
                        yield Frame(index, time_s, self._turn(picture).apply(pixels))
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

    def _packet_time_s(self, packet: Any) -> float | None:
        stamp = packet.pts if self._format in _FORMATS_WITH_PRESENTATION_TIMES else packet.dts
        return None if stamp is None or packet.time_base is None else float(stamp * packet.time_base)

    def _turn(self, picture: Any) -> Turn:
        turn = Turn.of_frame(picture)
        self._askew = self._askew or turn is None
        return turn or UPRIGHT

    def _first(self, container: Any, stream: Any) -> Any:
        """The first frame, for its size and turn; None where none can be decoded, which :meth:`frames` reports."""
        av = load_av()
        with suppress(av.FFmpegError):
            for packet in container.demux(stream):
                with suppress(av.FFmpegError):
                    for picture in packet.decode():
                        return picture
        return None

    def _packets(self, container: Any, stream: Any) -> Iterator[Any]:
        av = load_av()
        try:
            yield from container.demux(stream)
        except av.FFmpegError:
            raise InputError("the video breaks off and cannot be read on", code=Code.VIDEO, path=self._path) from None

    def _open(self) -> Any:
        av = load_av()
        self._bytes = self._bytes or open_regular(self._path)
        self._bytes.seek(0)
        try:
            return av.open(self._bytes, format=self._format, options={"protocol_whitelist": "file"}, metadata_errors="replace")
        except av.FFmpegError:
            raise InputError(
                "the video's container cannot be read",
                code=Code.VIDEO,
                path=self._path,
                expected=f"a sound {self._format} file",
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
