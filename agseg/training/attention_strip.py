"""How attention grows while a network learns: one sheet of pictures per gate, a column per snapshot, a row per plane.

Source: Schlemper et al., Attention Gated Networks (2019), Figure 6, and Li et al., ANU-Net (2020), Figure 12: one image and
the coefficients of its gates in different training periods; Figure 6 shows sagittal and axial planes, here all three. Gates
start almost open everywhere and some move little, so each gate has a scale of its own: from the least to the greatest of its
coefficients in all snapshots, drawn as a bar with both numbers. Panels are kept as numbers and hang together by their step,
so a resumed run goes on with its sheets, and steps that it takes again replace their panels.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from agseg.errors import RecipeError
from agseg.inference.attention import gate_maps
from agseg.io.atomic import make_folder, replacing
from agseg.io.drawing import SOFT_TISSUE_HU
from agseg.training.trained_model import TrainedModel
from agseg.volume import LabelMask, Quantity, Volume

FOLDER = "attention"
"""Where the sheets go in a run's folder: ``<gate>.png``; ``panels/`` keeps each plane and snapshot, 65535 for 1."""

PANEL_PX = 160
"""Longer side of a panel."""

_CAPTION_PX = 16
_GAP_PX = 4
_INK = (235, 235, 235)
_TRUTH = (80, 255, 80)
_BAR_PX = 52
"""Width of the scale beside the panels, numbers included."""

_COLD, _HOT = (0, 0, 130), (255, 40, 0)
"""Colours of a gate's least and greatest coefficient; ANU-Net's Figure 12 goes from blue to red as well."""

_FULL = 65535
"""A coefficient of 1 in a kept panel."""

Gates = Callable[[nn.Module], Mapping[str, Mapping[str, NDArray[np.float32]]]]
"""A network -> per gate and plane its coefficients as a picture, float32 (row, column) in [0, 1]."""


@dataclass(frozen=True, eq=False)
class View:
    """One plane of the case that is watched.

    Parameters
    ----------
    image
        Float32 (row, column) in [0, 1]: the first panel.
    truth
        Its labelled pixels, bool (row, column), outlined on the second panel.
    pixel_mm
        Height and width of a pixel.
    """

    image: NDArray[np.float32]
    truth: NDArray[np.bool_]
    pixel_mm: tuple[float, float] = (1.0, 1.0)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of its panels."""
        height, width = self.image.shape[0] * self.pixel_mm[0], self.image.shape[1] * self.pixel_mm[1]
        scale = PANEL_PX / max(height, width)
        return max(1, round(width * scale)), max(1, round(height * scale))

    def head(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """The first two panels, RGB: the image, and the outline of its labels on it."""
        grey = np.repeat((np.clip(self.image, 0, 1) * 255).astype(np.uint8)[..., None], 3, axis=2)
        return grey, np.where(_edge(self.truth)[..., None], np.array(_TRUTH, dtype=np.uint8), grey)


class AttentionStrip:
    """Takes snapshots of a network in training.

    Parameters
    ----------
    folder
        For the sheets.
    views
        The planes that are shown, by name, in order.
    gates
        What is looked at.
    """

    def __init__(self, folder: Path, *, views: Mapping[str, View], gates: Gates) -> None:
        self.folder, self._views, self._gates = folder, dict(views), gates

    def resume(self, step: int) -> None:
        """Drop panels of steps that the run is going to take again."""
        for path in (self.folder / "panels").glob("*-step*.png"):
            if _step_of(path) > step:
                path.unlink()

    def __call__(self, step: int, network: nn.Module) -> None:
        """Take a snapshot after this step and draw the sheets anew."""
        for gate, planes in self._gates(network).items():
            for plane, alpha in planes.items():
                kept = np.rint(np.clip(alpha, 0, 1) * _FULL).astype(np.uint16)
                self._save(_picture(kept), self.folder / "panels" / f"{gate}-{plane}-step{step:08d}.png")
            self._draw(gate)

    def _kept(self, gate: str, plane: str) -> dict[int, NDArray[np.float32]]:
        """The coefficients of every snapshot, by step."""
        import PIL.Image

        found: dict[int, NDArray[np.float32]] = {}
        for path in sorted((self.folder / "panels").glob(f"{gate}-{plane}-step*.png")):
            with PIL.Image.open(path) as panel:
                found[_step_of(path)] = np.asarray(panel).astype(np.float32) / np.float32(_FULL)
        return found

    def _draw(self, gate: str) -> None:
        import PIL.Image
        from PIL import ImageDraw

        rows = {plane: self._kept(gate, plane) for plane in self._views}
        low, high = _scale([alpha for row in rows.values() for alpha in row.values()])
        columns = 2 + max(len(row) for row in rows.values())
        width = max(view.size[0] for view in self._views.values())
        height = sum(view.size[1] + _CAPTION_PX for view in self._views.values())
        sheet = PIL.Image.new("RGB", (columns * (width + _GAP_PX) + _BAR_PX, height))
        draw = ImageDraw.Draw(sheet)
        top = 0
        for plane, view in self._views.items():
            image, label = view.head()
            panels = [(plane, image), ("label", label)]
            panels += [(f"step {step}", _coloured(alpha, low, high)) for step, alpha in rows[plane].items()]
            for number, (caption, pixels) in enumerate(panels):
                left = number * (width + _GAP_PX) + (width - view.size[0]) // 2
                shown = _picture(pixels).resize(view.size, PIL.Image.Resampling.BILINEAR)
                sheet.paste(shown, (left, top + _CAPTION_PX))
                draw.text((left + view.size[0] // 2, top + _CAPTION_PX // 2), caption, fill=_INK, anchor="mm")
            top += view.size[1] + _CAPTION_PX
        _bar(sheet, draw, left=columns * (width + _GAP_PX), low=low, high=high)
        self._save(sheet, self.folder / f"{gate}.png")

    def _save(self, picture: Any, path: Path) -> None:
        make_folder(path.parent)
        with replacing(path) as temporary:
            picture.save(temporary, format="PNG")


def _bar(sheet: Any, draw: Any, *, left: int, low: float, high: float) -> None:
    """The scale of a gate, its greatest coefficient on top."""
    first, last = _CAPTION_PX, sheet.height - _CAPTION_PX
    shares = np.linspace(high, low, max(last - first, 1), dtype=np.float32)[:, None]
    sheet.paste(_picture(_coloured(np.repeat(shares, 12, axis=1), low, high)), (left, first))
    for value, at in ((high, first), (low, last)):
        draw.text((left + 16, at), f"{value:.3f}", fill=_INK, anchor="lm")


def volume_gates(
    folder: Path, trained: TrainedModel, volume: Volume, mask: LabelMask, *, described: Callable[[nn.Module], TrainedModel]
) -> AttentionStrip:
    """Sheets of the axial, coronal and sagittal slices of a scan that show most of its labels.

    Parameters
    ----------
    folder
        For the sheets.
    trained
        The network at the start, for its input.
    volume, mask
        A validation case.
    described
        Makes a network in training usable, as validation does.

    Raises
    ------
    RecipeError
        If the network has no attention gates.
    """
    if not hasattr(trained.network, "attention"):
        raise RecipeError("this network has no attention gates to look at", value=trained.recipe.network.architecture)
    grid, order, flips = volume.grid.reoriented("RAS")
    spacing = grid.spacing_mm

    def turned(values: NDArray[Any]) -> NDArray[Any]:
        ras = values.transpose(order)
        return ras[tuple(slice(None, None, -1 if flip else None) for flip in flips)]

    labelled = turned(mask.labels) > 0
    most = [int(np.argmax(np.count_nonzero(labelled, axis=tuple(a for a in range(3) if a != axis)))) for axis in range(3)]

    def planes(values: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Radiological display: the patient's right on the left, anterior or head up; sagittal planes look at the left side."""
        ras = turned(values)
        return {
            "axial": ras[:, :, most[2]].T[::-1, ::-1],
            "coronal": ras[:, most[1], :].T[::-1, ::-1],
            "sagittal": ras[most[0], :, :].T[::-1, ::-1],
        }

    def look(network: nn.Module) -> dict[str, dict[str, NDArray[np.float32]]]:
        now = replace(described(network), kept=None)  # gates know nothing of dropped logits
        maps = gate_maps(volume, now.ready(), now.inference_spec)
        return {gate.name: {plane: np.asarray(a, np.float32) for plane, a in planes(gate.alpha).items()} for gate in maps}

    pixels_mm = {"axial": (spacing[1], spacing[0]), "coronal": (spacing[2], spacing[0]), "sagittal": (spacing[2], spacing[1])}
    truth = planes(mask.labels)
    views = {}
    for plane, values in planes(volume.voxels).items():
        shown = values.astype(np.float32)
        low, high = SOFT_TISSUE_HU if volume.quantity is Quantity.HU else np.percentile(shown, (1, 99))
        image = np.clip((shown - low) / max(float(high - low), 1e-6), 0, 1).astype(np.float32)
        views[plane] = View(image, truth[plane] > 0, pixels_mm[plane])
    return AttentionStrip(folder, views=views, gates=look)


def _scale(maps: Sequence[NDArray[np.float32]]) -> tuple[float, float]:
    """Least and greatest coefficient; 0 and 1 where all are one."""
    low, high = min(float(a.min()) for a in maps), max(float(a.max()) for a in maps)
    return (low, high) if high > low else (0.0, 1.0)


def _picture(pixels: NDArray[Any]) -> Any:
    import PIL.Image

    return PIL.Image.fromarray(np.ascontiguousarray(pixels))


def _coloured(alpha: NDArray[np.float32], low: float, high: float) -> NDArray[np.uint8]:
    share = np.clip((alpha - low) / (high - low), 0, 1)[..., None]
    return np.asarray(np.rint((1 - share) * np.array(_COLD) + share * np.array(_HOT)), dtype=np.uint8)


def _edge(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels inside with a neighbour outside."""
    padded = np.pad(inside, 1)
    kept = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return inside & ~kept


def _step_of(path: Path) -> int:
    found = re.search(r"-step(\d+)\.png$", path.name)
    return int(found[1]) if found else 0
