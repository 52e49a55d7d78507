"""One CT image on its way into a series: its file, its header, and where its frames lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agseg.errors import InputError
from agseg.io.dicom.read import Frame, frames_of
from agseg.io.dicom.slice_header import SliceHeader
from agseg.io.dicom.stack import Stack, stack_planes
from agseg.io.walk import FoundFile


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """A file with its header; ``frames`` is empty where it has none that can be told from its header."""

    file: FoundFile
    header: SliceHeader
    frames: tuple[Frame, ...] = ()

    @classmethod
    def of(cls, file: FoundFile, header: SliceHeader) -> Image:
        """The image of a file, whatever its header lacks."""
        try:
            return cls(file, header, tuple(frames_of(header)))
        except InputError:
            return cls(file, header)


@dataclass(frozen=True, slots=True, eq=False)
class Span:
    """Images that fill a part of space evenly: first and last position along their normal, and the step between them (mm)."""

    first_mm: float
    last_mm: float
    step_mm: float
    positions: int
    has_duplicates: bool

    def overlaps(self, other: Span) -> bool:
        """Whether both lie in the same places by more than half of the shorter one."""
        shared = min(self.last_mm, other.last_mm) - max(self.first_mm, other.first_mm)
        return shared > 0.5 * min(self.last_mm - self.first_mm, other.last_mm - other.first_mm)

    def meets(self, other: Span) -> bool:
        """Whether both have been at one place at least."""
        shared = min(self.last_mm, other.last_mm) - max(self.first_mm, other.first_mm)
        return shared > -0.25 * min(self.step_mm, other.step_mm)

    def holds(self, position_mm: float) -> bool:
        """Whether a position lies within, or at one of the ends."""
        return self.first_mm - 0.5 * self.step_mm < position_mm < self.last_mm + 0.5 * self.step_mm

    def continues_at(self, position_mm: float) -> bool:
        """Whether a position lies where the next slice at one of the ends would."""
        return (
            not self.holds(position_mm) and self.first_mm - 1.5 * self.step_mm < position_mm < self.last_mm + 1.5 * self.step_mm
        )


def stack_of(images: Sequence[Image]) -> Stack:
    """The stack of the images' frames; raises as :func:`stack_planes`."""
    return stack_planes([frame.plane for image in images for frame in image.frames])


def span_of(images: Sequence[Image], normal: NDArray[np.float64]) -> Span | None:
    """Where the images lie along ``normal``; None where they do not fill their part of space evenly."""
    try:
        stack = stack_of(images)
    except InputError:
        return None
    first = float(stack.affine_lps[:3, 3] @ normal)
    step = float(stack.affine_lps[:3, 2] @ normal)
    last = first + step * (stack.shape[2] - 1)
    return Span(min(first, last), max(first, last), abs(step), stack.shape[2], stack.has_duplicates)
