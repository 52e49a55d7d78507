"""Weakly supervised localisation: maps of one frame, and the box around what they agree on. No back-propagation.

Source: Attention Gated Networks (2019), appendix on weakly supervised localisation. The paper gives
the steps (blur, suppress, components, the one that overlaps over the scales, its box) but neither widths nor thresholds;
those are the constants below.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from agseg.io.video.frames import Box

BLUR_SIGMA = 8.0
"""Width (pixels at an input of :data:`REFERENCE_WIDTH` columns) of the Gaussian that smooths a map."""

REFERENCE_WIDTH = 272
"""Columns of AG-Sononet's input, to which :data:`BLUR_SIGMA` refers; other inputs scale it."""

THRESHOLD = 0.5
"""Share of a map's own maximum below which it is suppressed."""

Map = NDArray[np.float32]


def resized(grid: Map, shape: tuple[int, int]) -> Map:
    """A map on its own grid, carried bilinearly to the input's shape (row, column) and divided by its maximum.

    A map without a positive value becomes all zero: it says nothing.
    """
    peak = float(grid.max(initial=0.0))
    if not np.isfinite(peak) or peak <= 0:
        return np.zeros(shape, dtype=np.float32)
    image = Image.fromarray(np.maximum(grid, 0).astype(np.float32))
    big = np.asarray(image.resize((shape[1], shape[0]), Image.Resampling.BILINEAR), dtype=np.float32)
    return np.asarray(big / np.float32(big.max()), dtype=np.float32)


def combine(maps: Sequence[Map]) -> Map:
    """AG-all: the mean of maps that :func:`resized` brought to one shape."""
    return np.asarray(np.stack(maps).mean(axis=0), dtype=np.float32)


def find_box(maps: Sequence[Map]) -> Box | None:
    """The box around the part of the mean map that the maps of all scales support most.

    Parameters
    ----------
    maps
        float32 (row, column), one per scale, at the input's shape.

    Returns
    -------
    Box or None
        x0, y0, x1, y1 in input pixels; None if no map says anything.
    """
    masks = [_active(one) for one in maps]
    joint = masks[0] if len(masks) == 1 else _active(combine(maps))
    labels, count = ndimage.label(joint, structure=np.ones((3, 3)))
    if count == 0:
        return None
    # The component with the largest summed overlap with the masks of the single scales.
    support = ndimage.sum_labels(np.sum(masks, axis=0), labels, np.arange(1, count + 1))
    chosen = ndimage.find_objects(labels)[int(np.argmax(support))]
    rows, columns = chosen
    return int(columns.start), int(rows.start), int(columns.stop), int(rows.stop)


def box_in_source(box: Box, *, shape: tuple[int, int], view: Box, size: tuple[int, int]) -> Box:
    """A box in input pixels, carried back to the source frame and cut to it.

    Parameters
    ----------
    box
        In pixels of the input.
    shape
        The input's rows and columns.
    view
        The part of the source that the input shows; may reach beyond the frame.
    size
        Width and height of the source frame.
    """
    scale_x, scale_y = (view[2] - view[0]) / shape[1], (view[3] - view[1]) / shape[0]
    x0, x1 = (round(view[0] + x * scale_x) for x in (box[0], box[2]))
    y0, y1 = (round(view[1] + y * scale_y) for y in (box[1], box[3]))
    x0, y0 = min(max(x0, 0), size[0] - 1), min(max(y0, 0), size[1] - 1)
    return x0, y0, max(min(x1, size[0]), x0 + 1), max(min(y1, size[1]), y0 + 1)


def _active(one: Map) -> NDArray[np.bool_]:
    blurred = ndimage.gaussian_filter(one, BLUR_SIGMA * one.shape[1] / REFERENCE_WIDTH)
    peak = float(blurred.max())
    return np.asarray(blurred >= THRESHOLD * peak) if peak > 0 else np.zeros(one.shape, dtype=bool)
