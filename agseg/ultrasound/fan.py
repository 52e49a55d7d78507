"""Detection of the ultrasound image within a frame, so that only it is looked at and shown.

Around the image stand the scanner's panels, scales and, often, the patient's name. The fan is found from brightness alone,
as the convex hull of the large bright area that is left once thin strokes (letters, ticks) are gone; what lies outside it
is black for the network and in every picture that is written. Three ways lead to a view, in this order: the box that the
user gives, the layout for which SonoNet was trained, the fan that is found.

Coordinates are pixels of the source frame: x grows to the right, y downwards; boxes are x0, y0, x1, y1 with x1 and y1 one
past the end.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from agseg.errors import Code, InputError
from agseg.io.video.frames import Box

SONONET_SIZE = (975, 735)
"""Width and height of the scanner's screen from which SonoNet's training frames were taken, by its public code."""

SONONET_CROP: Box = (81, 115, 874, 734)
"""The part of that screen which SonoNet was trained on: columns 81:874, rows 115:734."""

SIZE_TOLERANCE = 2
"""Pixels by which a recognised screen may differ in size: video codecs want even sides."""

INPUT_ASPECT = 288 / 224
"""Width over height of the network's input; found fans are widened with black to it, never squeezed."""

_HEADER_ROWS = slice(15, 73)
_TOP_ROWS = slice(0, 12)
_DARK = 8.0
"""Grey value (0 to 255) up to which a pixel counts as black; lossy video raises black by a few."""

_WORK_WIDTH = 384
_STROKE = 7
"""Side (pixels at the working width) of the smallest bright square that is image and not a stroke of a letter."""

_MAX_LEVEL = 0.75
"""Share of pixels that equal their neighbour in the row exactly above which an area was drawn, not scanned."""

_JOIN = 9
_MIN_PART = 0.12
"""Bright areas smaller than this share of the largest one are panels or marks, not image."""

_MIN_FAN = 0.04
"""A fan smaller than this share of the frame is no fan; the whole frame is used instead."""


class ViewKind(StrEnum):
    """How a view came about."""

    GIVEN = "given"
    SONONET_LAYOUT = "sononet_layout"
    FAN = "fan"
    REGION = "region"
    WHOLE = "whole"


@dataclass(frozen=True)
class View:
    """The part of a frame that holds the ultrasound image.

    Parameters
    ----------
    kind
        How it was found.
    box
        The part the network sees. May reach beyond the frame where black is added to keep the aspect.
    outline
        Convex polygon ((x, y), ...) outside of which pixels are black; empty: the box itself is the outline.
    """

    kind: ViewKind
    box: Box
    outline: tuple[tuple[float, float], ...] = field(default=())

    def mask(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        """Boolean (row, column) of a frame of ``size`` (width, height): true where the ultrasound image lies."""
        image = Image.new("1", size)
        draw = ImageDraw.Draw(image)
        if self.outline:
            draw.polygon(list(self.outline), fill=1, outline=1)
        else:
            x0, y0, x1, y1 = self.box
            draw.rectangle((x0, y0, x1 - 1, y1 - 1), fill=1)
        return np.asarray(image)


def find_view(grey: NDArray[np.uint8], *, region: Box | None = None) -> View:
    """The view of a frame, or of the brightest of several frames of one recording.

    Parameters
    ----------
    grey
        uint8 (row, column).
    region
        Where the file itself says that the ultrasound image lies; nothing outside of it is taken for image.
    """
    if region is not None:
        x0, y0, x1, y1 = region
        inner = np.zeros_like(grey)
        inner[y0:y1, x0:x1] = grey[y0:y1, x0:x1]
        found = find_view(inner)
        return found if found.kind is ViewKind.FAN else View(ViewKind.REGION, _to_aspect(region), _corners(region))
    if _has_sononet_layout(grey):
        return View(ViewKind.SONONET_LAYOUT, SONONET_CROP)
    outline = _find_fan(grey)
    if outline is None:
        return whole_view((grey.shape[1], grey.shape[0]))
    points = np.asarray(outline)
    x0, y0 = np.floor(points.min(axis=0)).astype(int)
    x1, y1 = np.ceil(points.max(axis=0)).astype(int) + 1
    return View(ViewKind.FAN, _to_aspect((int(x0), int(y0), int(x1), int(y1))), outline)


def whole_view(size: tuple[int, int]) -> View:
    """Everything in a frame of ``size`` (width, height)."""
    return View(ViewKind.WHOLE, _to_aspect((0, 0, *size)), _corners((0, 0, *size)))


def cropped_view(box: Box, size: tuple[int, int]) -> View:
    """The box that the user gave, cut to a frame of ``size`` (width, height).

    Raises
    ------
    InputError
        If the box lies outside of the frame.
    """
    x0, y0, x1, y1 = box
    inside = (max(x0, 0), max(y0, 0), min(x1, size[0]), min(y1, size[1]))
    if inside[0] >= inside[2] or inside[1] >= inside[3]:
        raise InputError(
            "the crop lies outside of the frame",
            code=Code.DIMENSIONS,
            value=",".join(map(str, box)),
            expected=f"x0,y0,x1,y1 within {size[0]} x {size[1]} pixels",
        )
    return View(ViewKind.GIVEN, inside)


def view_pixels(pixels: NDArray[np.uint8], view: View) -> NDArray[np.uint8]:
    """What the network is shown: the view's box, uint8 (row, column, 3), black outside of the frame and of the outline."""
    cropped = np.asarray(Image.fromarray(pixels).crop(view.box))
    if not view.outline:
        return cropped
    return cropped * _mask_of_box(view, (pixels.shape[1], pixels.shape[0]))


def masked(pixels: NDArray[np.uint8], view: View) -> NDArray[np.uint8]:
    """The whole frame, uint8 (row, column, 3), black outside of the ultrasound image: what may be shown."""
    return pixels * _mask_of_frame(view, (pixels.shape[1], pixels.shape[0]))


@lru_cache(maxsize=4)
def _mask_of_frame(view: View, size: tuple[int, int]) -> NDArray[np.uint8]:
    """uint8 (row, column, 3) of a whole frame: 1 where the ultrasound image lies.

    Three equal channels: multiplying by one channel that is stretched to three takes ten times as long.
    """
    return np.repeat(view.mask(size).astype(np.uint8)[..., None], 3, axis=2)


@lru_cache(maxsize=4)
def _mask_of_box(view: View, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The same of the view's box; 0 where the box reaches beyond the frame."""
    return np.asarray(Image.fromarray(_mask_of_frame(view, size)).crop(view.box))


def box_iou(one: Box, other: Box) -> float:
    """Intersection over union of two boxes; 0 where they do not meet."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return both / (areas - both)


def _has_sononet_layout(grey: NDArray[np.uint8]) -> bool:
    """Whether size and the black edge above the scanner's panel are those of SonoNet's training frames."""
    height, width = grey.shape
    if abs(width - SONONET_SIZE[0]) > SIZE_TOLERANCE or abs(height - SONONET_SIZE[1]) > SIZE_TOLERANCE:
        return False
    return bool(grey[_TOP_ROWS].mean() < _DARK / 2 and grey[_HEADER_ROWS].mean() > _DARK)


def _find_fan(grey: NDArray[np.uint8]) -> tuple[tuple[float, float], ...] | None:
    """The convex outline of the ultrasound image, in source pixels, or None if there is none."""
    height, width = grey.shape
    scale = max(1.0, width / _WORK_WIDTH)
    small_size = (max(1, round(width / scale)), max(1, round(height / scale)))
    small = _reduced(grey, small_size)
    # Letters cover less than half of the area they stand on, speckle more: the median keeps only the latter.
    solid = ndimage.median_filter(small, size=_STROKE) > _DARK
    # A scanner's panels are drawn, row by row in one colour; speckle never is.
    level = (np.abs(np.diff(grey.astype(np.int16), axis=1, prepend=0)) == 0).astype(np.uint8) * 255
    solid &= ndimage.uniform_filter(_reduced(level, small_size), size=_STROKE) < _MAX_LEVEL * 255
    solid = ndimage.binary_opening(solid, np.ones((_STROKE, _STROKE)))
    joined = ndimage.binary_closing(np.pad(solid, _JOIN), np.ones((_JOIN, _JOIN)))[_JOIN:-_JOIN, _JOIN:-_JOIN]
    labels, count = ndimage.label(joined)
    if count == 0:
        return None
    areas = np.bincount(labels.ravel())[1:]
    if areas.max() < _MIN_FAN * labels.size:
        return None
    kept = np.isin(labels, 1 + np.flatnonzero(areas >= _MIN_PART * areas.max()))
    return _hull(kept, width / small_size[0], height / small_size[1])


def _reduced(grey: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Mean over each new pixel's area; ``size`` is width and height."""
    return np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.BOX))


def _hull(kept: NDArray[np.bool_], scale_x: float, scale_y: float) -> tuple[tuple[float, float], ...]:
    """Convex hull of the kept pixels' corners, in source pixels."""
    from scipy.spatial import ConvexHull

    rows, columns = np.nonzero(kept & ~ndimage.binary_erosion(kept))
    corners = np.concatenate(
        [np.stack([columns + dx, rows + dy], axis=1) for dx in (0, 1) for dy in (0, 1)], axis=0, dtype=np.float64
    )
    hull = corners[ConvexHull(corners).vertices]
    limit = np.array([kept.shape[1] * scale_x - 1, kept.shape[0] * scale_y - 1])
    return tuple((float(x), float(y)) for x, y in np.minimum(hull * (scale_x, scale_y), limit))


def _to_aspect(box: Box) -> Box:
    """The box widened on both sides to :data:`INPUT_ASPECT`; what it gains lies outside the fan and is black."""
    x0, y0, x1, y1 = box
    width, height = x1 - x0, y1 - y0
    extra_x = max(0, round(height * INPUT_ASPECT) - width)
    extra_y = max(0, round(width / INPUT_ASPECT) - height)
    return (x0 - extra_x // 2, y0 - extra_y // 2, x1 + extra_x - extra_x // 2, y1 + extra_y - extra_y // 2)


def _corners(box: Box) -> tuple[tuple[float, float], ...]:
    x0, y0, x1, y1 = box
    return ((x0, y0), (x1 - 1, y0), (x1 - 1, y1 - 1), (x0, y1 - 1))
