"""mosaic.png: axial slices through each organ, cropped to it, from feet to head; what to look at twice comes first.

Radiological display, as in :mod:`agseg.io.preview`. An organ that is on the review list has a slice more, in a frame: the one
that shows most of what its kind does not hold (fat, air, densities far from its own), or else most of the organ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from agseg.grid import Grid
from agseg.io.drawing import FAINT, INK, PAPER, WARN, areas, as_ras, grey, outlined, save, window, write
from agseg.report import DISCLAIMER, Measurement
from agseg.volume import FAT_HU, OTHER_HU, LabelMask, Quantity, Volume

if TYPE_CHECKING:
    from PIL.Image import Image

MOSAIC_PNG = "mosaic.png"

MOST_ORGANS = 12
"""Rows of the picture; organs to look at twice come first, then those of the order of the report."""

SLICES = 6
"""Slices per organ, evenly from its lowest to its highest."""

_TILE_PX, _MARGIN_PX, _ROW_PX = 180, 8, 21
_MARGIN_MM = 15.0
_ENDS = 0.08
"""The outermost slices lie so far inside the organ, as a share of its height: at its very ends there is nothing to see."""

_WORDS_PX = 8
"""Width of a letter of the captions, for cutting long reasons off."""


@dataclass(frozen=True)
class _Row:
    """An organ's slices: RAS box across (x, y), slice numbers, and which of them shows the reason (None: there is none)."""

    title: str
    rgb: tuple[int, int, int]
    reasons: tuple[str, ...]
    box: tuple[slice, slice]
    slices: tuple[int, ...]
    shows_reason: int | None


def write_mosaic(path: Path, volume: Volume, mask: LabelMask, measurements: Sequence[Measurement]) -> None:
    """Write the picture; arguments as :func:`render_mosaic`.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    save(render_mosaic(volume, mask, measurements), path)


def render_mosaic(volume: Volume, mask: LabelMask, measurements: Sequence[Measurement]) -> Image:
    """The mosaic as an RGB picture.

    Parameters
    ----------
    volume, mask
        Image and labels (i, j, k) on the same grid, in any orientation.
    measurements
        Which organs, in which order, and the reasons to look twice.
    """
    import PIL.Image
    from PIL import ImageDraw

    image, grid = as_ras(volume.voxels, volume.grid)
    labels, _ = as_ras(mask.labels, mask.grid)
    present = [found for found in measurements if found.voxels and found.name in mask.label_set]
    present.sort(key=lambda found: not found.review)
    shown = areas(labels)
    rows = [_row(found, mask, image, labels, grid, shown, volume.quantity) for found in present[:MOST_ORGANS]]
    columns = max((len(row.slices) for row in rows), default=SLICES)
    limits = window(image, volume.quantity)
    colours = {label.index: label.rgb for label in mask.label_set}
    width = columns * (_TILE_PX + _MARGIN_PX) + _MARGIN_PX
    height = len(rows) * (_TILE_PX + _ROW_PX + _MARGIN_PX) + 2 * _ROW_PX + 2 * _MARGIN_PX
    sheet = PIL.Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, row in enumerate(rows):
        y = _MARGIN_PX + number * (_TILE_PX + _ROW_PX + _MARGIN_PX)
        write(draw, (_MARGIN_PX, y + _ROW_PX // 2), _caption(row, width), fill=WARN if row.reasons else INK)
        for column, k in enumerate(row.slices):
            corner = (_MARGIN_PX + column * (_TILE_PX + _MARGIN_PX), y + _ROW_PX)
            tile = _tile(image, labels, row, k, colours, limits, grid)
            sheet.paste(tile, (corner[0] + (_TILE_PX - tile.width) // 2, corner[1] + (_TILE_PX - tile.height) // 2))
            position_mm = float(grid.to_world([[0, 0, k]])[0][2])
            write(draw, (corner[0] + 3, corner[1] + _TILE_PX - 9), f"S {position_mm:+.0f} mm", fill=FAINT)
            if k == row.shows_reason and column == 0:
                draw.rectangle((*corner, corner[0] + _TILE_PX - 1, corner[1] + _TILE_PX - 1), outline=WARN, width=2)
    more = f" {len(present) - len(rows)} more organs are not shown." if len(present) > len(rows) else ""
    y = height - 2 * _ROW_PX - _MARGIN_PX // 2
    said = (
        f"Axial, the patient's right is on the left. Contours are made by a network.{more}" if rows else "No organ was found."
    )
    write(draw, (_MARGIN_PX, y + _ROW_PX // 2), said, fill=FAINT)
    write(draw, (_MARGIN_PX, y + _ROW_PX + _ROW_PX // 2), DISCLAIMER, fill=WARN)
    return sheet


def _row(
    found: Measurement,
    mask: LabelMask,
    image: NDArray[Any],
    labels: NDArray[Any],
    grid: Grid,
    shown: tuple[NDArray[np.int64], ...],
    quantity: Quantity,
) -> _Row:
    label = mask.label_set[found.name]
    along = [np.flatnonzero(area[label.index]) for area in shown]
    box = tuple(_side(along[axis], labels.shape[axis], grid.spacing_mm[axis]) for axis in (0, 1))
    low, high = int(along[2][0]), int(along[2][-1])
    inset = _ENDS * (high - low)
    slices = [round(place) for place in np.linspace(low + inset, high - inset, SLICES)]
    shows = None
    if found.review:
        shows = _odd_slice(image, labels, label.index, (box[0], box[1]), along[2], quantity)
        if shows is None:
            shows = int(np.argmax(shown[2][label.index]))
        slices = [shows, *slices]
    title = f"{label.title}: {found.volume_ml:.1f} ml{' (cut off)' if found.touches_border else ''}"
    unique = tuple(dict.fromkeys(slices))
    return _Row(title, label.rgb, found.review, (box[0], box[1]), unique, shows)


def _side(occupied: NDArray[np.intp], size: int, spacing_mm: float) -> slice:
    margin = round(_MARGIN_MM / spacing_mm)
    return slice(max(0, int(occupied[0]) - margin), min(size, int(occupied[-1]) + 1 + margin))


def _odd_slice(
    image: NDArray[Any],
    labels: NDArray[Any],
    index: int,
    box: tuple[slice, slice],
    occupied: NDArray[np.intp],
    quantity: Quantity,
) -> int | None:
    """The slice with the most voxels of an organ that are fat, air or far from its median; None if there are none."""
    if quantity is not Quantity.HU:
        return None
    inside = [image[(*box, int(k))][labels[(*box, int(k))] == index] for k in occupied]
    median = float(np.median(np.concatenate(inside)))
    odd = [int(((values < FAT_HU) | (np.abs(values - median) > OTHER_HU)).sum()) for values in inside]
    return int(occupied[int(np.argmax(odd))]) if max(odd) else None


def _tile(
    image: NDArray[Any],
    labels: NDArray[Any],
    row: _Row,
    k: int,
    colours: dict[int, tuple[int, int, int]],
    limits: tuple[float, float],
    grid: Grid,
) -> Image:
    """One slice of the organ's box at display size; rows run from front to back, columns from right to left."""
    plane = np.asarray(image[(*row.box, k)].T[::-1, ::-1], dtype=np.float32)
    marked = np.asarray(labels[(*row.box, k)].T[::-1, ::-1])
    height_mm, width_mm = plane.shape[0] * grid.spacing_mm[1], plane.shape[1] * grid.spacing_mm[0]
    per_mm = _TILE_PX / max(height_mm, width_mm)
    size_px = (max(1, round(height_mm * per_mm)), max(1, round(width_mm * per_mm)))
    return outlined(grey(plane, limits), marked, colours, size_px)


def _caption(row: _Row, width: int) -> str:
    said = f"{row.title}. Look twice: {'; '.join(row.reasons)}" if row.reasons else row.title
    most = width // _WORDS_PX
    return said if len(said) <= most else said[: most - 1] + "…"
