"""What a gate lets through: the image, the gate's coefficients, and its features before and after, in three planes.

Source: Schlemper et al., Attention Gated Networks (2019), Figure 1. Features are the mean magnitude over channels; after gating
they are that times the coefficients, per gate, before any further layer. Coefficients have a scale of their gate's own, from
the least to the greatest in these planes, features one from 0 to their greatest before gating; the numbers stand below.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from agseg.grid import Grid
from agseg.io.drawing import FAINT, PAPER, as_ras, scaled, write
from agseg.io.planes import VIEWS, pixel_mm, plane_of, size_px

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE_PX = 220
_GAP_PX, _LINE_PX = 6, 20
_COLD, _HOT = np.array((0, 0, 130)), np.array((255, 40, 0))

Planes = tuple[NDArray[np.float32], ...]
"""The axial, coronal and sagittal plane of an array, float32 (row, column) in display orientation."""


def middle_of(labels: NDArray[Any]) -> tuple[int, int, int]:
    """Per axis of a label array (i, j, k) the plane that shows most of what is labelled; the middle where nothing is."""
    found = [np.count_nonzero(labels, axis=tuple(a for a in range(3) if a != axis)) for axis in range(3)]
    most = [int(np.argmax(counts)) if counts.any() else len(counts) // 2 for counts in found]
    return most[0], most[1], most[2]


def planes_of(values: NDArray[Any], grid: Grid, at: tuple[int, int, int]) -> Planes:
    """Three planes of an array (i, j, k) through a voxel."""
    marked = np.zeros(values.shape, dtype=bool)
    marked[at] = True
    ras = as_ras(values, grid)[0]
    place = np.argwhere(as_ras(marked, grid)[0])[0]
    return tuple(np.asarray(plane_of(ras, view, int(place[view.through])), dtype=np.float32) for view in VIEWS)


def draw_gating(image: Planes, before: Planes, gates: Mapping[str, Planes], *, grid: Grid) -> Image:
    """A sheet with a row per plane: image, then coefficients of every gate, features before, and after each gate.

    Parameters
    ----------
    image, before
        The scan, and what enters the gates of one skip connection.
    gates
        Coefficients by the gate's name.
    grid
        Of the scan, in any orientation.
    """
    import PIL.Image
    from PIL import ImageDraw

    ras = grid.reoriented("RAS")[0]
    scales = {
        name: (min(float(p.min()) for p in planes), max(float(p.max()) for p in planes)) for name, planes in gates.items()
    }
    most = max(float(plane.max()) for plane in before)
    grey = [float(v) for v in np.percentile(np.concatenate([plane.ravel() for plane in image]), (1, 99))]
    columns = 2 + 2 * len(gates)
    rows = []
    for number, view in enumerate(VIEWS):
        panels = {view.name: _shades(image[number], grey[0], grey[1])}
        panels |= {name: _heat(planes[number], *scales[name]) for name, planes in gates.items()}
        panels["before"] = _shades(before[number], 0.0, most)
        panels |= {f"after {name}": _shades(before[number] * planes[number], 0.0, most) for name, planes in gates.items()}
        rows.append((size_px(image[number].shape, pixel_mm(ras, view), side_px=SIDE_PX), panels))
    height = sum(size[0] + _LINE_PX for size, _ in rows) + _LINE_PX
    sheet = PIL.Image.new("RGB", (columns * (SIDE_PX + _GAP_PX) - _GAP_PX, height), PAPER)
    draw, top = ImageDraw.Draw(sheet), 0
    for size, panels in rows:
        for number, (name, panel) in enumerate(panels.items()):
            left = number * (SIDE_PX + _GAP_PX)
            write(draw, (left + SIDE_PX // 2, top + _LINE_PX // 2), name, anchor="mm")
            sheet.paste(scaled(panel, size), (left + (SIDE_PX - size[1]) // 2, top + _LINE_PX))
        top += size[0] + _LINE_PX
    ranges = ", ".join(f"{name} from {low:.3f} to {high:.3f}" for name, (low, high) in scales.items())
    said = f"coefficients, blue to red: {ranges}; features, black to white: 0 to {most:.3g}"
    write(draw, (4, top + _LINE_PX // 2), said, fill=FAINT)
    return sheet


def _shades(plane: NDArray[np.float32], low: float, high: float) -> NDArray[np.uint8]:
    unit = np.clip((plane - low) / max(high - low, 1e-12), 0, 1)
    return np.asarray(np.repeat(np.rint(unit * 255).astype(np.uint8)[..., None], 3, axis=2))


def _heat(plane: NDArray[np.float32], low: float, high: float) -> NDArray[np.uint8]:
    share = np.clip((plane - low) / max(high - low, 1e-12), 0, 1)[..., None]
    return np.asarray(np.rint((1 - share) * _COLD + share * _HOT), dtype=np.uint8)
