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
from agseg.io.planes import VIEWS, around, pixel_mm, plane_of, size_px
from agseg.volume import LabelMask, Volume

if TYPE_CHECKING:
    from PIL.Image import Image

WIDTH_PX = 300
"""Longer side of a panel; pixels are square in millimetres."""

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
    """A block per case: the reference outlined, then each method's hits (green), misses (red) and inventions (blue).

    A block has the axial, coronal and sagittal plane that show most of the reference, as a radiologist sees them.
    """
    import PIL.Image
    from PIL import ImageDraw

    rows = [_block(shown, organ) for shown in cases]
    width = max(row.width for row in rows)
    sheet = PIL.Image.new("RGB", (width, sum(row.height + _LINE_PX for row in rows) + _LINE_PX))
    draw, top = ImageDraw.Draw(sheet), 0
    for shown, row in zip(cases, rows, strict=True):
        write(draw, (4, top + _LINE_PX / 2), shown.title)
        sheet.paste(row, (0, top + _LINE_PX))
        top += row.height + _LINE_PX
    write(draw, (4, top + _LINE_PX / 2), f"{organ}: green found, red missed, blue invented; white: the reference")
    return sheet


def _block(shown: Shown, organ: str) -> Image:
    """A row per plane, a column for the reference and each method."""
    import PIL.Image
    from PIL import ImageDraw

    image, grid = as_ras(shown.volume.voxels, shown.volume.grid)
    truth = as_ras(shown.truth.of(organ), shown.truth.grid)[0].astype(bool)
    found = {name: as_ras(mask.of(organ), mask.grid)[0].astype(bool) for name, mask in shown.masks.items()}
    limits = window(image, shown.volume.quantity)
    rows = []
    for view in VIEWS:
        at = int(np.argmax(np.count_nonzero(truth, axis=tuple(axis for axis in range(3) if axis != view.through))))
        true, *masks = (plane_of(mask, view, at) for mask in (truth, *found.values()))
        size_mm = pixel_mm(grid, view)
        part = around([true, *masks], size_mm, margin_mm=_MARGIN_MM)
        under = grey(plane_of(image, view, at)[part].astype(np.float32), limits)
        size = size_px(under.shape, size_mm, side_px=WIDTH_PX)
        panels = {f"reference, {view.name}": outlined(under, true[part].astype(np.uint8), {1: _TRUTH}, size)}
        panels |= {name: scaled(_painted(under, true[part], mask[part]), size) for name, mask in zip(found, masks, strict=True)}
        rows.append((size, panels))
    height = sum(size[0] + _GAP_PX for size, _ in rows) - _GAP_PX
    block = PIL.Image.new("RGB", ((1 + len(found)) * (WIDTH_PX + _GAP_PX) - _GAP_PX, height))
    draw, top = ImageDraw.Draw(block), 0
    for size, panels in rows:
        for number, (name, panel) in enumerate(panels.items()):
            left = number * (WIDTH_PX + _GAP_PX)
            block.paste(panel, (left + (WIDTH_PX - panel.width) // 2, top))
            write(draw, (left + 4, top + _LINE_PX / 2), name)
        top += size[0] + _GAP_PX
    return block


def _painted(under: NDArray[np.uint8], reference: NDArray[Any], prediction: NDArray[Any]) -> NDArray[np.uint8]:
    """RGB with hits, misses and inventions laid half over the image."""
    truth, found, painted = reference.astype(bool), prediction.astype(bool), under.astype(np.float32)
    for where, colour in ((truth & found, _HIT), (truth & ~found, _MISSED), (~truth & found, _INVENTED)):
        painted[where] = 0.4 * painted[where] + 0.6 * np.array(colour, np.float32)
    return np.asarray(np.rint(painted), dtype=np.uint8)
