"""Two methods beside the reference on one scan: what each found, missed and invented.

Source: Schlemper et al., Attention Gated Networks (2019), Figure 5: the reference, U-Net's prediction and Attention U-Net's,
with what U-Net missed pointed out. Three cases are shown, so that the picture cannot choose the best one: where the second
method gains most over the first in Dice, where it gains as much as in the middle, and where it loses most or gains least.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from agseg.io.drawing import as_ras, grey, outlined, scaled, window, write
from agseg.volume import LabelMask, Volume

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Shown", "chosen_cases", "draw_side_by_side"]

WIDTH_PX = 300
"""Width of a panel; pixels are square in millimetres."""

_MARGIN_MM = 30.0
"""What is shown around reference and predictions."""

_GAP_PX = 6
_LINE_PX = 20
_TRUTH = (255, 255, 255)
_HIT, _MISSED, _INVENTED = (60, 200, 90), (235, 50, 40), (70, 120, 255)


@dataclass(frozen=True, eq=False)
class Shown:
    """One case of the picture.

    Parameters
    ----------
    title
        What is said above its row.
    volume, truth
        The scan and its reference.
    masks
        Method to its mask, on the scan's grid.
    """

    title: str
    volume: Volume
    truth: LabelMask
    masks: Mapping[str, LabelMask]


def chosen_cases(first: Mapping[str, float], second: Mapping[str, float]) -> tuple[tuple[str, float], ...]:
    """Case and difference (second minus first): the greatest, the middle and the least, each case once.

    Cases without a value on either side are left out.
    """
    gains = {case: second[case] - first[case] for case in first if case in second}
    order = sorted((case for case in gains if not math.isnan(gains[case])), key=lambda case: (-gains[case], case))
    places = (0, len(order) // 2, len(order) - 1) if order else ()
    return tuple((order[place], gains[order[place]]) for place in dict.fromkeys(places))


def draw_side_by_side(cases: Sequence[Shown], *, organ: str) -> Image:
    """A row per case: the reference outlined, then each method's hits (green), misses (red) and inventions (blue).

    The slice is the axial one that shows most of the reference, as a radiologist sees it: the patient's right on the left.
    """
    import PIL.Image
    from PIL import ImageDraw

    rows = [_row(shown, organ) for shown in cases]
    width = max(row.width for row in rows)
    sheet = PIL.Image.new("RGB", (width, sum(row.height + _LINE_PX for row in rows) + _LINE_PX))
    draw, top = ImageDraw.Draw(sheet), 0
    for shown, row in zip(cases, rows, strict=True):
        write(draw, (4, top + _LINE_PX / 2), shown.title)
        sheet.paste(row, (0, top + _LINE_PX))
        top += row.height + _LINE_PX
    write(draw, (4, top + _LINE_PX / 2), f"{organ}: green found, red missed, blue invented; white: the reference")
    return sheet


def _row(shown: Shown, organ: str) -> Image:
    import PIL.Image
    from PIL import ImageDraw

    image, grid = as_ras(shown.volume.voxels, shown.volume.grid)
    truth = as_ras(shown.truth.of(organ), shown.truth.grid)[0].astype(bool)
    found = {name: as_ras(mask.of(organ), mask.grid)[0].astype(bool) for name, mask in shown.masks.items()}
    k = int(np.argmax(np.count_nonzero(truth, axis=(0, 1))))
    x, y = _around([truth[..., k], *(mask[..., k] for mask in found.values())], grid.spacing_mm)

    def plane(values: NDArray[np.generic]) -> NDArray[np.generic]:
        return values[x, y, k].T[::-1, ::-1]

    under = grey(plane(image).astype(np.float32), window(image, shown.volume.quantity))
    height_mm, width_mm = under.shape[0] * grid.spacing_mm[1], under.shape[1] * grid.spacing_mm[0]
    size = (max(1, round(WIDTH_PX * height_mm / width_mm)), WIDTH_PX)
    outline = plane(truth).astype(np.uint8)
    panels = {"reference": outlined(under, outline, {1: _TRUTH}, size)}
    panels |= {name: scaled(_painted(under, plane(truth), plane(mask)), size) for name, mask in found.items()}
    row = PIL.Image.new("RGB", (len(panels) * (WIDTH_PX + _GAP_PX) - _GAP_PX, size[0]))
    draw = ImageDraw.Draw(row)
    for number, (name, panel) in enumerate(panels.items()):
        row.paste(panel, (number * (WIDTH_PX + _GAP_PX), 0))
        write(draw, (number * (WIDTH_PX + _GAP_PX) + 4, _LINE_PX / 2), name)
    return row


def _around(planes: Sequence[NDArray[np.bool_]], spacing_mm: Sequence[float]) -> tuple[slice, slice]:
    """The part of a slice that holds every mask, with a margin; all of it where none is there."""
    together = np.any(planes, axis=0)
    parts = []
    for axis in range(2):
        there = np.flatnonzero(together.any(axis=1 - axis))
        margin = math.ceil(_MARGIN_MM / spacing_mm[axis])
        first, last = (there[0], there[-1]) if there.size else (0, together.shape[axis] - 1)
        parts.append(slice(max(0, int(first) - margin), int(last) + margin + 1))
    return parts[0], parts[1]


def _painted(under: NDArray[np.uint8], reference: NDArray[Any], prediction: NDArray[Any]) -> NDArray[np.uint8]:
    """RGB with hits, misses and inventions laid half over the image."""
    truth, found, painted = reference.astype(bool), prediction.astype(bool), under.astype(np.float32)
    for where, colour in ((truth & found, _HIT), (truth & ~found, _MISSED), (~truth & found, _INVENTED)):
        painted[where] = 0.4 * painted[where] + 0.6 * np.array(colour, np.float32)
    return np.asarray(np.rint(painted), dtype=np.uint8)
