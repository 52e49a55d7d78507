"""Frames of ultrasound, wherever they come from: the common shape of videos, cine DICOM and image folders.

Frames are read one after the other and never held together, so that an hour of video costs no more memory than a second.
Nothing of a header or of a container's metadata is kept: a frame is pixels, a position and a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from agseg.errors import Code, InputError
from agseg.volume import Warned

MIN_SIDE = 32
"""Shortest side of a frame (pixels) that can show anatomy; anything smaller is refused."""

MAX_SIDE = 8192
"""Longest side of a frame (pixels) that is decoded; headers may claim more."""

Box = tuple[int, int, int, int]
"""x0, y0, x1, y1 in source pixels; x1 and y1 are one past the last column and row."""

Wanted = Callable[[int], bool]
"""Says by its index whether a frame is to be converted and handed out."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a source.

    Parameters
    ----------
    index
        Position in the source, counted from 0 over every frame, wanted or not.
    time_s
        Presentation time in seconds, or None for still images.
    pixels
        uint8, shape (row, column, 3), red, green, blue.
    """

    index: int
    time_s: float | None
    pixels: NDArray[np.uint8]


class FrameSource(Protocol):
    """What can be asked of any source of frames."""

    @property
    def moving(self) -> bool:
        """Whether neighbouring frames show nearly the same (a recording), so that smoothing in time means something."""
        ...

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the first frame (pixels)."""
        ...

    @property
    def frame_count(self) -> int | None:
        """Number of frames as the source states it, or None; only good for progress."""
        ...

    @property
    def frames_per_second(self) -> float | None:
        """Mean frame rate, or None for still images."""
        ...

    @property
    def region(self) -> Box | None:
        """Where the file itself says that the ultrasound image lies, or None."""
        ...

    @property
    def warnings(self) -> tuple[Warned, ...]:
        """What had to be noted while reading; complete once the frames have been read."""
        ...

    def frames(self, wanted: Wanted) -> Iterator[Frame]:
        """The wanted frames in order; each call starts again at the first."""
        ...


def every(step: int) -> Wanted:
    """Wants the first frame and every ``step``-th after it; may be sent to another process."""
    return partial(_is_multiple, step)


def _is_multiple(step: int, index: int) -> bool:
    return index % step == 0


def check_size(width: int, height: int) -> None:
    """Refuse frames that are too small to show anything or too large to be decoded.

    Raises
    ------
    InputError
        ``E_VIDEO`` or ``E_TOO_LARGE``.
    """
    if min(width, height) < MIN_SIDE:
        raise InputError(
            "the frames are too small to show anatomy",
            code=Code.VIDEO,
            value=f"{width} x {height} pixels",
            expected=f"at least {MIN_SIDE} x {MIN_SIDE}",
        )
    if max(width, height) > MAX_SIDE:
        raise InputError(
            "the frames are too large",
            code=Code.TOO_LARGE,
            value=f"{width} x {height} pixels",
            expected=f"at most {MAX_SIDE} on a side",
        )
