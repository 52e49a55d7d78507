"""How attention grows while a network learns: one strip of pictures per gate, a panel per snapshot.

Source: Schlemper et al., Attention Gated Networks (2019), Figure 6, and Li et al., ANU-Net (2020), Figure 12: one image and
the coefficients of its gates in different training periods. Panels hang together by their step, so a resumed run goes on
with its strips, and steps that it takes again replace their panels.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from agseg.errors import RecipeError
from agseg.inference.attention import gate_maps
from agseg.io.atomic import make_folder, replacing
from agseg.io.drawing import SOFT_TISSUE_HU
from agseg.training.trained import Trained
from agseg.volume import LabelMask, Quantity, Volume

__all__ = ["FOLDER", "AttentionStrip", "volume_gates"]

FOLDER = "attention"
"""Where the strips go in a run's folder: ``<gate>.png``; ``panels/`` keeps the single pictures."""

PANEL_PX = 160
"""Longer side of a panel."""

_CAPTION_PX = 16
_GAP_PX = 4
_INK = (235, 235, 235)
_TRUTH = (80, 255, 80)
_COLD, _HOT = (0, 0, 130), (255, 40, 0)
"""Colours of coefficients 0 and 1; ANU-Net's Figure 12 goes from blue to red as well."""

Gates = Callable[[nn.Module], Mapping[str, NDArray[np.float32]]]
"""A network -> per gate its coefficients as a picture, float32 (row, column) in [0, 1]."""


class AttentionStrip:
    """Takes snapshots of a network in training.

    Parameters
    ----------
    folder
        For the strips.
    image
        The case's picture, float32 (row, column) in [0, 1]: the strip's first panel.
    truth
        Its labelled pixels, bool (row, column), outlined on the second panel.
    gates
        What is looked at.
    pixel_mm
        Height and width of a pixel.
    """

    def __init__(
        self,
        folder: Path,
        *,
        image: NDArray[np.float32],
        truth: NDArray[np.bool_],
        gates: Gates,
        pixel_mm: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        self.folder, self._gates = folder, gates
        height, width = image.shape[0] * pixel_mm[0], image.shape[1] * pixel_mm[1]
        scale = PANEL_PX / max(height, width)
        self._size = (max(1, round(width * scale)), max(1, round(height * scale)))
        grey = np.repeat((np.clip(image, 0, 1) * 255).astype(np.uint8)[..., None], 3, axis=2)
        outlined = np.where(_edge(truth)[..., None], np.array(_TRUTH, dtype=np.uint8), grey)
        self._head = (("image", grey), ("label", outlined))

    def resume(self, step: int) -> None:
        """Drop panels of steps that the run is going to take again."""
        for path in self._panels("*"):
            if _step_of(path) > step:
                path.unlink()

    def __call__(self, step: int, network: nn.Module) -> None:
        """Take a snapshot after this step and draw the strips anew."""
        for name, alpha in self._gates(network).items():
            self._save(self._scaled(_coloured(alpha)), self.folder / "panels" / f"{name}-step{step:08d}.png")
            self._draw(name)

    def _panels(self, name: str) -> list[Path]:
        return sorted((self.folder / "panels").glob(f"{name}-step*.png"))

    def _draw(self, name: str) -> None:
        import PIL.Image
        from PIL import ImageDraw

        panels: list[tuple[str, Any]] = [(caption, self._scaled(pixels)) for caption, pixels in self._head]
        for path in self._panels(name):
            with PIL.Image.open(path) as panel:
                panels.append((f"step {_step_of(path)}", panel.convert("RGB")))
        width, height = self._size
        strip = PIL.Image.new("RGB", (len(panels) * (width + _GAP_PX) - _GAP_PX, height + _CAPTION_PX))
        draw = ImageDraw.Draw(strip)
        for number, (caption, panel) in enumerate(panels):
            left = number * (width + _GAP_PX)
            strip.paste(panel, (left, _CAPTION_PX))
            draw.text((left + width // 2, _CAPTION_PX // 2), caption, fill=_INK, anchor="mm")
        self._save(strip, self.folder / f"{name}.png")

    def _scaled(self, pixels: NDArray[np.uint8]) -> Any:
        import PIL.Image

        return PIL.Image.fromarray(pixels).resize(self._size, PIL.Image.Resampling.BILINEAR)

    def _save(self, picture: Any, path: Path) -> None:
        make_folder(path.parent)
        with replacing(path) as temporary:
            picture.save(temporary, format="PNG")


def volume_gates(
    folder: Path, trained: Trained, volume: Volume, mask: LabelMask, *, described: Callable[[nn.Module], Trained]
) -> AttentionStrip:
    """Strips of the axial slice of a scan that shows most of its labels.

    Parameters
    ----------
    folder
        For the strips.
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
    k = int(np.argmax(np.count_nonzero(labelled, axis=(0, 1))))

    def axial(values: NDArray[Any]) -> NDArray[Any]:
        """Radiological display: the patient's right on the left, anterior up."""
        return turned(values)[:, :, k].T[::-1, ::-1]

    def look(network: nn.Module) -> dict[str, NDArray[np.float32]]:
        now = replace(described(network), kept=None)  # gates know nothing of dropped logits
        maps = gate_maps(volume, now.ready(), now.inference_spec)
        return {gate.name: np.asarray(axial(gate.alpha), dtype=np.float32) for gate in maps}

    shown = axial(volume.voxels).astype(np.float32)
    low, high = SOFT_TISSUE_HU if volume.quantity is Quantity.HU else np.percentile(shown, (1, 99))
    image = np.clip((shown - low) / max(float(high - low), 1e-6), 0, 1).astype(np.float32)
    truth = axial(mask.labels) > 0
    return AttentionStrip(folder, image=image, truth=truth, gates=look, pixel_mm=(spacing[1], spacing[0]))


def _coloured(alpha: NDArray[np.float32]) -> NDArray[np.uint8]:
    share = np.clip(alpha, 0, 1)[..., None]
    return np.asarray(np.rint((1 - share) * np.array(_COLD) + share * np.array(_HOT)), dtype=np.uint8)


def _edge(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels inside with a neighbour outside."""
    padded = np.pad(inside, 1)
    kept = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return inside & ~kept


def _step_of(path: Path) -> int:
    found = re.search(r"-step(\d+)\.png$", path.name)
    return int(found[1]) if found else 0
