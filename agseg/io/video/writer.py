"""Writes an annotated video: H.264 in an mp4 without any metadata of the source."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agseg.errors import OutputError
from agseg.io.video.video_stream import load_av

TIME_BASE = Fraction(1, 90_000)
"""Resolution of presentation times; fine enough for every rate, so that variable rates keep their times."""

_CODECS = ("libx264", "mpeg4")
"""Tried in this order; some builds of FFmpeg come without x264."""


class VideoWriter:
    """An mp4 that is written frame by frame; use it as a context.

    Parameters
    ----------
    path
        Where to write; a temporary name that the caller moves into place.
    size
        Width and height of the frames; an odd last column or row is repeated, because H.264 wants even sides.
    frames_per_second
        Nominal rate.

    Raises
    ------
    OutputError
        If the video cannot be encoded.
    """

    def __init__(self, path: Path, *, size: tuple[int, int], frames_per_second: float) -> None:
        av = load_av()
        self._av, self._size = av, size
        self._even = (size[0] + size[0] % 2, size[1] + size[1] % 2)
        # Bitexact leaves out the encoder's own name and time; nothing is copied from the source.
        self._container = av.open(str(path), "w", format="mp4", options={"fflags": "+bitexact", "movflags": "+faststart"})
        codec = next(name for name in _CODECS if name in av.codecs_available)
        self._stream = self._container.add_stream(codec, rate=Fraction(frames_per_second).limit_denominator(1001))
        self._stream.width, self._stream.height = self._even
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = TIME_BASE
        self._stream.codec_context.thread_count = 1
        if codec == "libx264":
            self._stream.options = {"preset": "veryfast", "crf": "20", "x264-params": "info=0"}
        self._last_pts = -1

    def write(self, pixels: NDArray[np.uint8], *, time_s: float) -> None:
        """Append a frame, uint8 (row, column, 3), at a time; times must grow."""
        extra_x, extra_y = self._even[0] - pixels.shape[1], self._even[1] - pixels.shape[0]
        padded = np.pad(pixels, ((0, extra_y), (0, extra_x), (0, 0)), mode="edge") if extra_x or extra_y else pixels
        picture = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(padded), format="rgb24")
        picture.pts = self._last_pts = max(round(time_s / TIME_BASE), self._last_pts + 1)
        picture.time_base = TIME_BASE
        self._mux(picture)

    def _mux(self, picture: Any) -> None:
        try:
            for packet in self._stream.encode(picture):
                self._container.mux(packet)
        except self._av.FFmpegError as error:
            raise OutputError(f"the annotated video could not be written ({type(error).__name__})") from None

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None and self._last_pts >= 0:
            self._mux(None)
        self._container.close()
