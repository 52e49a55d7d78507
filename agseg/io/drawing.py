"""What pictures of studies are drawn with: display orientation, window, contours, text; and PNG files that are whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from agseg.grid import Grid
from agseg.io.atomic import replacing
from agseg.slabs import memory_order, slabs
from agseg.volume import Quantity

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

SOFT_TISSUE_HU = (-160.0, 240.0)
"""Display window (HU): level 40, width 400, the usual abdominal one."""

FONT_PX = 15
INK, FAINT, PAPER, WARN = (235, 235, 235), (170, 170, 170), (0, 0, 0), (255, 205, 90)
_OUTLINE_PX = 2
_DASH_PX = 7
_VALUES = 256
_AREA_VOXELS = 1 << 16


def as_ras(voxels: NDArray[np.generic], grid: Grid) -> tuple[NDArray[np.generic], Grid]:
    """A view of the voxels whose axes grow towards Right, Anterior, Superior, and its grid."""
    ras, permutation, flips = grid.reoriented("RAS")
    turned = voxels.transpose(permutation)
    return turned[tuple(slice(None, None, -1 if flip else None) for flip in flips)], ras


def areas(labels: NDArray[np.generic]) -> tuple[NDArray[np.int64], ...]:
    """Per axis the voxels of each label value but 0 in each plane across it, (256, planes)."""
    found = tuple(np.zeros((_VALUES, size), dtype=np.int64) for size in labels.shape)
    order = memory_order(labels.strides)
    begin = 0
    for (marked,) in slabs(labels, voxels=_AREA_VOXELS):
        flat = marked.reshape(-1)
        inside = np.flatnonzero(flat != 0)
        if inside.size:
            values = flat[inside].astype(np.int64)
            for axis, places in zip(order, np.unravel_index(inside, marked.shape), strict=True):
                planes = labels.shape[axis]
                here = places + begin if axis == order[0] else places
                found[axis][:] += np.bincount(values * planes + here, minlength=_VALUES * planes).reshape(_VALUES, planes)
        begin += len(marked)
    # Slabs follow memory: an axis that runs backwards there is counted from its other end.
    return tuple(area[:, ::-1] if labels.strides[axis] < 0 else area for axis, area in enumerate(found))


def window(image: NDArray[np.generic], quantity: Quantity) -> tuple[float, float]:
    """Values that are drawn black and white: soft tissue for HU, else nearly all that there are."""
    if quantity is Quantity.HU:
        return SOFT_TISSUE_HU
    low, high = (float(value) for value in np.percentile(np.asarray(image[::2, ::2, ::2]), (1, 99)))
    return low, max(high, low + 1.0)


def grey(plane: NDArray[np.float32], limits: tuple[float, float]) -> NDArray[np.uint8]:
    """RGB uint8 (rows, columns, 3) of a plane."""
    unit = np.clip((plane - limits[0]) / (limits[1] - limits[0]), 0, 1)
    return np.asarray(np.repeat((unit * 255).astype(np.uint8)[..., None], 3, axis=2))


def scaled(picture: NDArray[np.uint8], size_px: tuple[int, int]) -> Image:
    """The picture at a display size (height, width)."""
    import PIL.Image

    height, width = size_px
    return PIL.Image.fromarray(np.ascontiguousarray(picture)).resize((width, height), PIL.Image.Resampling.BILINEAR)


def outlined(
    picture: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    colours: dict[int, tuple[int, int, int]],
    size_px: tuple[int, int],
) -> Image:
    """The picture at a display size (height, width) with each organ's contour at voxel edges.

    Parameters
    ----------
    picture
        RGB uint8 (rows, columns, 3).
    labels
        uint8 (rows, columns).
    colours
        RGB by label value.
    """
    from PIL import ImageDraw

    image = scaled(picture, size_px)
    draw = ImageDraw.Draw(image)
    for value in np.unique(labels):
        if value == 0:
            continue
        for points in _contours(labels == value, image):
            draw.line(points, fill=colours.get(int(value), INK), width=_OUTLINE_PX, joint="curve")
    return image


def dashed(image: Image, inside: NDArray[np.bool_], colour: tuple[int, int, int]) -> Image:
    """The same picture with a dashed contour, at voxel edges, of a mask (rows, columns) that it shows."""
    from PIL import ImageDraw

    draw = ImageDraw.Draw(image)
    for points in _contours(inside, image):
        line = np.asarray(points)
        length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
        for begin in np.arange(0.0, length[-1], 2 * _DASH_PX):
            at = np.linspace(begin, min(begin + _DASH_PX, length[-1]), _DASH_PX)
            dash = [(float(np.interp(t, length, line[:, 0])), float(np.interp(t, length, line[:, 1]))) for t in at]
            draw.line(dash, fill=colour, width=_OUTLINE_PX, joint="curve")
    return image


def _contours(inside: NDArray[np.bool_], image: Image) -> Iterator[list[tuple[float, float]]]:
    """The outlines of a mask (rows, columns) as points (x, y) of a picture of it."""
    from skimage.measure import find_contours

    per_row, per_column = image.height / inside.shape[0], image.width / inside.shape[1]
    for line in find_contours(np.pad(inside, 1).astype(np.float32), 0.5):  # type: ignore[no-untyped-call]
        # find_contours counts voxel centres of the padded plane; a centre lies half a voxel inside its pixel.
        yield [(float((c - 0.5) * per_column), float((r - 0.5) * per_row)) for r, c in line]


def font(size: int = FONT_PX) -> object:
    """The font of labels, at a size in pixels."""
    from PIL import ImageFont

    return ImageFont.load_default(size)


def write(
    draw: ImageDraw,
    place: tuple[float, float],
    text: str,
    *,
    anchor: str = "lm",
    fill: tuple[int, int, int] = INK,
) -> None:
    """Text with a black edge, readable on any grey."""
    draw.text(place, text, fill=fill, font=font(), anchor=anchor, stroke_width=1, stroke_fill=PAPER)  # type: ignore[arg-type]


PNG_COMPRESSION = 3
"""zlib's level. Its own default, 6, takes 2.4 times as long, and a mosaic is 2 % smaller."""


def save(picture: Image, path: Path) -> None:
    """Write a PNG, read back before it appears; raises OutputError if it cannot be written."""
    import PIL.Image

    def loads(written: Path) -> None:
        with PIL.Image.open(written) as again:
            again.load()

    with replacing(path, check=loads) as temporary:
        picture.save(temporary, format="PNG", compress_level=PNG_COMPRESSION)
