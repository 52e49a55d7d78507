"""preview.png: three planes through the organs, as a radiologist holds them, with contours, volumes and the disclaimer.

Radiological display: the patient's right is on the left of axial and coronal pictures, anterior is up in axial, superior is up
in coronal and sagittal pictures, and anterior is on the left of the sagittal one. Pixels are square in millimetres.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from agseg.grid import Grid
from agseg.io.atomic import replacing
from agseg.report import DISCLAIMER, Measurement, OrganStatus
from agseg.slabs import memory_order, slabs
from agseg.volume import LabelMask, Quantity, Volume

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

__all__ = ["SOFT_TISSUE_HU", "Plane", "render_overlay", "render_preview", "write_overlay", "write_preview"]

SOFT_TISSUE_HU = (-160.0, 240.0)
"""Display window (HU): level 40, width 400, the usual abdominal one."""

_SIDE_PX = 360
_MARGIN_PX = 10
_FONT_PX = 15
_ROW_PX = 21
_LEGEND_COLUMNS = 3
_INK = (235, 235, 235)
_FAINT = (170, 170, 170)
_PAPER = (0, 0, 0)
_WARN = (255, 205, 90)
_OUTLINE_PX = 2
_SWATCH_PX = 12
_VALUES = 256
_AREA_VOXELS = 1 << 16


@dataclass(frozen=True)
class _View:
    """How one plane of a RAS volume is laid out as a picture.

    Parameters
    ----------
    name
        For the caption.
    through
        RAS axis that is cut.
    across, down
        RAS axes along the picture's columns and rows; both run against the axis in radiological display.
    letters
        What lies left, right, top, bottom.
    """

    name: str
    through: int
    across: int
    down: int
    letters: tuple[str, str, str, str]


_VIEWS = (
    _View("axial", 2, 0, 1, ("R", "L", "A", "P")),
    _View("coronal", 1, 0, 2, ("R", "L", "S", "I")),
    _View("sagittal", 0, 1, 2, ("A", "P", "S", "I")),
)

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
    _save(render_preview(volume, mask, measurements), path)


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
    _save(render_overlay(volume, values, title=title), path)


def render_preview(volume: Volume, mask: LabelMask, measurements: tuple[Measurement, ...]) -> Image:
    """The preview as an RGB picture; parameters as in :func:`write_preview`."""
    image, grid = _as_ras(volume.voxels, volume.grid)
    labels, _ = _as_ras(mask.labels, mask.grid)
    colours = {label.index: label.rgb for label in mask.label_set}
    centre = _centre(labels)
    window = _window(image, volume.quantity)
    pictures = []
    for view in _VIEWS:
        plane, marked, size_mm = _cut(image, labels, grid, view, centre)
        picture = _grey(plane, window)
        pictures.append(_framed(_outlined(picture, marked, colours, size_mm), view, centre, grid))
    return _sheet(pictures, _legend(mask, measurements), note="Contours are made by a network.")


def render_overlay(volume: Volume, values: NDArray[np.floating], *, title: str = "") -> Image:
    """The overlay as an RGB picture; parameters as in :func:`write_overlay`."""
    image, grid = _as_ras(volume.voxels, volume.grid)
    heat, _ = _as_ras(values, volume.grid)
    peak = np.unravel_index(int(np.argmax(heat)), heat.shape)
    centre = (int(peak[0]), int(peak[1]), int(peak[2]))
    window = _window(image, volume.quantity)
    pictures = []
    for view in _VIEWS:
        plane, warmth, size_mm = _cut(image, heat, grid, view, centre)
        picture = _tinted(_grey(plane, window), np.asarray(warmth, dtype=np.float32))
        pictures.append(_framed(_scaled(picture, size_mm), view, centre, grid))
    caption = f"{title}: coefficients from {float(heat.min()):.2f} (clear) to {float(heat.max()):.2f} (red)".lstrip(": ")
    return _sheet(pictures, [], note=caption)


# -- planes ---------------------------------------------------------------------------------------------------------------


def _as_ras(voxels: NDArray[np.generic], grid: Grid) -> tuple[NDArray[np.generic], Grid]:
    """A view of the voxels whose axes grow towards Right, Anterior, Superior, and its grid."""
    ras, permutation, flips = grid.reoriented("RAS")
    turned = voxels.transpose(permutation)
    return turned[tuple(slice(None, None, -1 if flip else None) for flip in flips)], ras


def _centre(labels: NDArray[np.generic]) -> tuple[int, int, int]:
    """Per axis the plane that shows most organ: the one with the most organs in it, and among those the largest area."""
    areas = _areas(labels)
    best = [0, 0, 0]
    for axis, area in enumerate(areas):
        organs = area[area.any(axis=1)].astype(np.float64)
        if not len(organs):
            return labels.shape[0] // 2, labels.shape[1] // 2, labels.shape[2] // 2
        shares = np.zeros(labels.shape[axis])
        for organ in organs:
            # Each organ counts alike: the liver alone must not choose the planes.
            shares += organ / organ.max()
        best[axis] = int(np.argmax(shares))
    return best[0], best[1], best[2]


def _areas(labels: NDArray[np.generic]) -> tuple[NDArray[np.int64], ...]:
    """Per axis the voxels of each label value but 0 in each plane across it, (256, planes)."""
    areas = tuple(np.zeros((_VALUES, size), dtype=np.int64) for size in labels.shape)
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
                areas[axis][:] += np.bincount(values * planes + here, minlength=_VALUES * planes).reshape(_VALUES, planes)
        begin += len(marked)
    # Slabs follow memory: an axis that runs backwards there is counted from its other end.
    return tuple(area[:, ::-1] if labels.strides[axis] < 0 else area for axis, area in enumerate(areas))


def _cut(image: NDArray[np.generic], labels: NDArray[Any], grid: Grid, view: _View, centre: tuple[int, int, int]) -> Plane:
    """One plane of image and labels in display orientation."""
    index = (slice(None),) * view.through + (centre[view.through],)
    # The two other axes stay in RAS order (across, down); rows must run down: superior or anterior first.
    plane, marked = image[index].T[::-1, ::-1], labels[index].T[::-1, ::-1]
    spacing = grid.spacing_mm
    return plane.astype(np.float32), marked, (spacing[view.down], spacing[view.across])


def _window(image: NDArray[np.generic], quantity: Quantity) -> tuple[float, float]:
    if quantity is Quantity.HU:
        return SOFT_TISSUE_HU
    low, high = (float(value) for value in np.percentile(np.asarray(image[::2, ::2, ::2]), (1, 99)))
    return low, max(high, low + 1.0)


def _grey(plane: NDArray[np.float32], window: tuple[float, float]) -> NDArray[np.uint8]:
    """RGB uint8 (rows, columns, 3) of a plane."""
    unit = np.clip((plane - window[0]) / (window[1] - window[0]), 0, 1)
    return np.asarray(np.repeat((unit * 255).astype(np.uint8)[..., None], 3, axis=2))


def _tinted(picture: NDArray[np.uint8], warmth: NDArray[np.float32]) -> NDArray[np.uint8]:
    alpha = np.clip(warmth, 0, 1)[..., None] * 0.6
    return np.asarray(picture * (1 - alpha) + np.array([255, 40, 0]) * alpha, dtype=np.uint8)


# -- pictures -------------------------------------------------------------------------------------------------------------


def _scale(shape: tuple[int, ...], size_mm: tuple[float, float]) -> tuple[float, int, int]:
    """Pixels per mm, and the picture's height and width in pixels."""
    height_mm, width_mm = shape[0] * size_mm[0], shape[1] * size_mm[1]
    per_mm = _SIDE_PX / max(height_mm, width_mm)
    return per_mm, max(1, round(height_mm * per_mm)), max(1, round(width_mm * per_mm))


def _scaled(picture: NDArray[np.uint8], size_mm: tuple[float, float]) -> Image:
    import PIL.Image

    _, height, width = _scale(picture.shape, size_mm)
    return PIL.Image.fromarray(np.ascontiguousarray(picture)).resize((width, height), PIL.Image.Resampling.BILINEAR)


def _outlined(
    picture: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    colours: dict[int, tuple[int, int, int]],
    size_mm: tuple[float, float],
) -> Image:
    """The picture at display size with each organ's contour at voxel edges."""
    from PIL import ImageDraw
    from skimage.measure import find_contours

    image = _scaled(picture, size_mm)
    draw = ImageDraw.Draw(image)
    per_row, per_column = image.height / labels.shape[0], image.width / labels.shape[1]
    for value in np.unique(labels):
        if value == 0:
            continue
        inside = np.pad(labels == value, 1).astype(np.float32)
        for line in find_contours(inside, 0.5):  # type: ignore[no-untyped-call]
            # find_contours counts voxel centres of the padded plane; a centre lies half a voxel inside its pixel.
            points = [(float((c - 0.5) * per_column), float((r - 0.5) * per_row)) for r, c in line]
            draw.line(points, fill=colours.get(int(value), _INK), width=_OUTLINE_PX, joint="curve")
    return image


def _font(size: int = _FONT_PX) -> object:
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _framed(image: Image, view: _View, centre: tuple[int, int, int], grid: Grid) -> Image:
    """The picture in the middle of a square, with its orientation letters and position."""
    import PIL.Image
    from PIL import ImageDraw

    side = _SIDE_PX
    square = PIL.Image.new("RGB", (side, side + _ROW_PX), _PAPER)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    draw = ImageDraw.Draw(square)
    left, right, top, bottom = view.letters
    for text, place, anchor in (
        (left, (4, side // 2), "lm"),
        (right, (side - 4, side // 2), "rm"),
        (top, (side // 2, 3), "mt"),
        (bottom, (side // 2, side - 3), "mb"),
    ):
        _write(draw, place, text, anchor=anchor)
    position_mm = float(grid.to_world([list(centre)])[0][view.through])
    axis = "RAS"[view.through]
    _write(draw, (side // 2, side + _ROW_PX // 2), f"{view.name}, {axis} {position_mm:+.0f} mm", anchor="mm", fill=_FAINT)
    return square


def _write(
    draw: ImageDraw,
    place: tuple[float, float],
    text: str,
    *,
    anchor: str = "lm",
    fill: tuple[int, int, int] = _INK,
) -> None:
    """Text with a black edge, readable on any grey."""
    draw.text(place, text, fill=fill, font=_font(), anchor=anchor, stroke_width=1, stroke_fill=_PAPER)  # type: ignore[arg-type]


def _legend(mask: LabelMask, measurements: tuple[Measurement, ...]) -> list[tuple[tuple[int, int, int] | None, str, bool]]:
    """Colour, text and whether it is a warning, per organ."""
    titles = {label.name: (label.title, label.rgb) for label in mask.label_set}
    rows: list[tuple[tuple[int, int, int] | None, str, bool]] = []
    for found in measurements:
        title, rgb = titles.get(found.name, (found.name.replace("_", " "), _FAINT))
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
    sheet = PIL.Image.new("RGB", (width, height), _PAPER)
    for number, picture in enumerate(pictures):
        sheet.paste(picture, (_MARGIN_PX + number * (_SIDE_PX + _MARGIN_PX), _MARGIN_PX))
    draw = ImageDraw.Draw(sheet)
    for number, (rgb, text, warns) in enumerate(legend):
        x = _MARGIN_PX + (number % _LEGEND_COLUMNS) * (_SIDE_PX + _MARGIN_PX)
        y = top + (number // _LEGEND_COLUMNS) * _ROW_PX + _ROW_PX // 2
        if rgb is not None:
            draw.rectangle((x, y - _SWATCH_PX // 2, x + _SWATCH_PX, y + _SWATCH_PX // 2), fill=rgb)
        mark = " - look twice" if warns else ""
        _write(draw, (x + _SWATCH_PX + 8, y), text + mark, fill=_WARN if warns else _INK)
    y = top + rows * _ROW_PX + _ROW_PX // 2
    _write(draw, (_MARGIN_PX, y), f"Radiological display: the patient's right is on the left. {note}", fill=_FAINT)
    _write(draw, (_MARGIN_PX, y + _ROW_PX), DISCLAIMER, fill=_WARN)
    return sheet


def _save(picture: Image, path: Path) -> None:
    import PIL.Image

    def loads(written: Path) -> None:
        with PIL.Image.open(written) as again:
            again.load()

    with replacing(path, check=loads) as temporary:
        picture.save(temporary, format="PNG")
