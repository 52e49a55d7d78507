"""preview.png: three planes through the organs, as a radiologist holds them, with contours, volumes and the disclaimer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from agseg.grid import Grid
from agseg.io.drawing import FAINT, INK, PAPER, WARN, areas, as_ras, grey, outlined, save, scaled, window, write
from agseg.io.planes import VIEWS, View, pixel_mm, plane_of, size_px
from agseg.report import DISCLAIMER, Measurement, OrganStatus
from agseg.volume import LabelMask, Volume

if TYPE_CHECKING:
    from PIL.Image import Image

PREVIEW_PNG = "preview.png"

_SIDE_PX = 360
_MARGIN_PX = 10
_ROW_PX = 21
_LEGEND_COLUMNS = 3
_SWATCH_PX = 12


Plane = tuple[NDArray[np.float32], NDArray[np.uint8], tuple[float, float]]
"""Image (rows, columns), labels (rows, columns) and pixel size (row, column) in mm, in display orientation."""


def write_preview(path: Path, volume: Volume, mask: LabelMask, measurements: tuple[Measurement, ...]) -> None:
    """Write the preview of one study.

    Parameters
    ----------
    path
        ``preview.png``.
    volume, mask
        Image and labels (i, j, k) on the same grid, in any orientation.
    measurements
        For the legend.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    save(render_preview(volume, mask, measurements), path)


def write_overlay(path: Path, volume: Volume, values: NDArray[np.floating], *, title: str = "") -> None:
    """Write three planes with a map of coefficients over them, through the map's maximum.

    Parameters
    ----------
    path
        PNG to write.
    volume
        The image (i, j, k).
    values
        Coefficients 0 to 1 (i, j, k) on the volume's grid.
    title
        For the caption.
    """
    save(render_overlay(volume, values, title=title), path)


def render_preview(volume: Volume, mask: LabelMask, measurements: tuple[Measurement, ...]) -> Image:
    """The preview as an RGB picture; parameters as in :func:`write_preview`."""
    image, grid = as_ras(volume.voxels, volume.grid)
    labels, _ = as_ras(mask.labels, mask.grid)
    colours = {label.index: label.rgb for label in mask.label_set}
    centre = _centre(labels)
    limits = window(image, volume.quantity)
    pictures = []
    for view in VIEWS:
        plane, marked, size_mm = _cut(image, labels, grid, view, centre)
        picture = grey(plane, limits)
        pictures.append(
            _framed(outlined(picture, marked, colours, size_px(marked.shape, size_mm, side_px=_SIDE_PX)), view, centre, grid)
        )
    return _sheet(pictures, _legend(mask, measurements), note="Contours are made by a network.")


def render_overlay(volume: Volume, values: NDArray[np.floating], *, title: str = "") -> Image:
    """The overlay as an RGB picture; parameters as in :func:`write_overlay`."""
    image, grid = as_ras(volume.voxels, volume.grid)
    heat, _ = as_ras(values, volume.grid)
    peak = np.unravel_index(int(np.argmax(heat)), heat.shape)
    centre = (int(peak[0]), int(peak[1]), int(peak[2]))
    limits = window(image, volume.quantity)
    pictures = []
    for view in VIEWS:
        plane, warmth, size_mm = _cut(image, heat, grid, view, centre)
        picture = _tinted(grey(plane, limits), np.asarray(warmth, dtype=np.float32))
        pictures.append(_framed(scaled(picture, size_px(picture.shape, size_mm, side_px=_SIDE_PX)), view, centre, grid))
    caption = f"{title}: coefficients from {float(heat.min()):.2f} (clear) to {float(heat.max()):.2f} (red)".lstrip(": ")
    return _sheet(pictures, [], note=caption)


# -- planes ---------------------------------------------------------------------------------------------------------------


def _centre(labels: NDArray[np.generic]) -> tuple[int, int, int]:
    """Per axis the plane that shows most organ: the one with the most organs in it, and among those the largest area."""
    shown = areas(labels)
    best = [0, 0, 0]
    for axis, area in enumerate(shown):
        organs = area[area.any(axis=1)].astype(np.float64)
        if not len(organs):
            return labels.shape[0] // 2, labels.shape[1] // 2, labels.shape[2] // 2
        shares = np.zeros(labels.shape[axis])
        for organ in organs:
            # Each organ counts alike: the liver alone must not choose the planes.
            shares += organ / organ.max()
        best[axis] = int(np.argmax(shares))
    return best[0], best[1], best[2]


def _cut(image: NDArray[np.generic], labels: NDArray[Any], grid: Grid, view: View, centre: tuple[int, int, int]) -> Plane:
    """One plane of image and labels in display orientation."""
    plane, marked = (plane_of(values, view, centre[view.through]) for values in (image, labels))
    return plane.astype(np.float32), marked, pixel_mm(grid, view)


def _tinted(picture: NDArray[np.uint8], warmth: NDArray[np.float32]) -> NDArray[np.uint8]:
    alpha = np.clip(warmth, 0, 1)[..., None] * 0.6
    return np.asarray(picture * (1 - alpha) + np.array([255, 40, 0]) * alpha, dtype=np.uint8)


# -- pictures -------------------------------------------------------------------------------------------------------------


def _framed(image: Image, view: View, centre: tuple[int, int, int], grid: Grid) -> Image:
    """The picture in the middle of a square, with its orientation letters and position."""
    import PIL.Image
    from PIL import ImageDraw

    side = _SIDE_PX
    square = PIL.Image.new("RGB", (side, side + _ROW_PX), PAPER)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    draw = ImageDraw.Draw(square)
    left, right, top, bottom = view.letters
    for text, place, anchor in (
        (left, (4, side // 2), "lm"),
        (right, (side - 4, side // 2), "rm"),
        (top, (side // 2, 3), "mt"),
        (bottom, (side // 2, side - 3), "mb"),
    ):
        write(draw, place, text, anchor=anchor)
    position_mm = float(grid.to_world([list(centre)])[0][view.through])
    axis = "RAS"[view.through]
    write(draw, (side // 2, side + _ROW_PX // 2), f"{view.name}, {axis} {position_mm:+.0f} mm", anchor="mm", fill=FAINT)
    return square


def _legend(mask: LabelMask, measurements: tuple[Measurement, ...]) -> list[tuple[tuple[int, int, int] | None, str, bool]]:
    """Colour, text and whether it is a warning, per organ."""
    titles = {label.name: (label.title, label.rgb) for label in mask.label_set}
    rows: list[tuple[tuple[int, int, int] | None, str, bool]] = []
    for found in measurements:
        title, rgb = titles.get(found.name, (found.name.replace("_", " "), FAINT))
        if found.volume_ml is None:
            word = "not found" if found.status is OrganStatus.ABSENT else "not in these weights"
            rows.append((None, f"{title}: {word}", False))
        else:
            cut = " (cut off)" if found.status is OrganStatus.CUT_OFF else ""
            rows.append((rgb, f"{title}: {found.volume_ml:.1f} ml{cut}", bool(found.review)))
    return rows


def _sheet(pictures: list[Image], legend: list[tuple[tuple[int, int, int] | None, str, bool]], *, note: str) -> Image:
    """The three pictures side by side, the legend below, the disclaimer last."""
    import PIL.Image
    from PIL import ImageDraw

    width = len(pictures) * _SIDE_PX + (len(pictures) + 1) * _MARGIN_PX
    rows = -(-len(legend) // _LEGEND_COLUMNS)
    top = _SIDE_PX + _ROW_PX + 2 * _MARGIN_PX
    height = top + rows * _ROW_PX + 2 * _ROW_PX + _MARGIN_PX
    sheet = PIL.Image.new("RGB", (width, height), PAPER)
    for number, picture in enumerate(pictures):
        sheet.paste(picture, (_MARGIN_PX + number * (_SIDE_PX + _MARGIN_PX), _MARGIN_PX))
    draw = ImageDraw.Draw(sheet)
    for number, (rgb, text, warns) in enumerate(legend):
        x = _MARGIN_PX + (number % _LEGEND_COLUMNS) * (_SIDE_PX + _MARGIN_PX)
        y = top + (number // _LEGEND_COLUMNS) * _ROW_PX + _ROW_PX // 2
        if rgb is not None:
            draw.rectangle((x, y - _SWATCH_PX // 2, x + _SWATCH_PX, y + _SWATCH_PX // 2), fill=rgb)
        mark = " - look twice" if warns else ""
        write(draw, (x + _SWATCH_PX + 8, y), text + mark, fill=WARN if warns else INK)
    y = top + rows * _ROW_PX + _ROW_PX // 2
    write(draw, (_MARGIN_PX, y), f"Radiological display: the patient's right is on the left. {note}", fill=FAINT)
    write(draw, (_MARGIN_PX, y + _ROW_PX), DISCLAIMER, fill=WARN)
    return sheet
