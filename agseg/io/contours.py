"""Reference and prediction over the image, where they differ most: three planes of a scan, or a picture.

The two can be told apart without colours: the reference is a solid line, the prediction a dashed one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from agseg.io.drawing import FAINT, PAPER, as_ras, dashed, grey, outlined, window, write
from agseg.io.planes import VIEWS, around, pixel_mm, plane_of, size_px
from agseg.volume import Volume

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE_PX = 360
_ROW_PX = 21
_GAP_PX = 8
MARGIN_MM, MARGIN_PX = 20.0, 20.0
"""What is shown around both masks."""

TRUE, FOUND = (255, 214, 10), (90, 200, 255)
"""Colours of reference (yellow) and prediction (light blue): light on any grey, different for colour-blind eyes."""

Mask = NDArray[np.bool_]


def draw_contours(volume: Volume, prediction: Mask, truth: Mask) -> Image:
    """Axial, coronal and sagittal plane through the most voxels on which prediction and reference differ.

    Parameters
    ----------
    volume
        The image; of a quantity without any values (all equal) it is plain grey.
    prediction, truth
        Bool (i, j, k) on its grid.
    """
    import PIL.Image
    from PIL import ImageDraw

    image, grid = as_ras(volume.voxels, volume.grid)
    found, true = (as_ras(mask, volume.grid)[0].astype(bool) for mask in (prediction, truth))
    limits = window(image, volume.quantity)
    counted = found ^ true if (found ^ true).any() else found | true
    at = [int(np.argmax(np.count_nonzero(counted, axis=tuple(a for a in range(3) if a != axis)))) for axis in range(3)]
    sheet = PIL.Image.new("RGB", (len(VIEWS) * (SIDE_PX + _GAP_PX) - _GAP_PX, SIDE_PX + _ROW_PX), PAPER)
    draw = ImageDraw.Draw(sheet)
    position_mm = grid.to_world([at])[0]
    for number, view in enumerate(VIEWS):
        size_mm = pixel_mm(grid, view)
        planes = [plane_of(mask, view, at[view.through]) for mask in (true, found)]
        part = around(planes, size_mm, margin_mm=MARGIN_MM)
        shown = plane_of(image, view, at[view.through])[part].astype(np.float32)
        panel = _both(grey(shown, limits), planes[0][part], planes[1][part], size_px(shown.shape, size_mm, side_px=SIDE_PX))
        left = number * (SIDE_PX + _GAP_PX)
        sheet.paste(panel, (left + (SIDE_PX - panel.width) // 2, (SIDE_PX - panel.height) // 2))
        write(draw, (left + 4, SIDE_PX // 2), view.letters[0])
        write(draw, (left + SIDE_PX - 4, SIDE_PX // 2), view.letters[1], anchor="rm")
        said = f"{view.name}, {'RAS'[view.through]} {float(position_mm[view.through]):+.0f} mm"
        write(draw, (left + SIDE_PX // 2, SIDE_PX + _ROW_PX // 2), said, anchor="mm", fill=FAINT)
    return sheet


def draw_picture_contours(picture: NDArray[np.float32], prediction: Mask, truth: Mask) -> Image:
    """A picture (channel, row, column; 0 to 255, or any one channel) with both contours, bool (row, column)."""
    pixels = np.moveaxis(picture[:3] if len(picture) >= 3 else picture[:1].repeat(3, axis=0), 0, 2)
    low, high = (0.0, 255.0) if len(picture) >= 3 else (float(pixels.min()), max(float(pixels.max()), float(pixels.min()) + 1))
    shown = np.clip((pixels - low) / (high - low) * 255, 0, 255).astype(np.uint8)
    part = around([prediction, truth], (1.0, 1.0), margin_mm=MARGIN_PX)
    size = size_px(prediction[part].shape, (1.0, 1.0), side_px=SIDE_PX)
    return _both(shown[part], truth[part], prediction[part], size)


def _both(under: NDArray[np.uint8], true: Mask, found: Mask, size: tuple[int, int]) -> Image:
    image = outlined(under, true.astype(np.uint8), {1: TRUE}, size)
    return dashed(image, found, FOUND)
