"""A plane classifier ready to run: frames in, probabilities and maps out.

What a network sees follows from its weights (docs/ultrasound.md, "What the network sees"): the view is resized as 8-bit RGB,
bilinear, to 224 rows by 288 columns with the patient upright, the channels are averaged, the frame is standardised to mean 0
and deviation 1; the original SonoNet wants that times 255, Sononet and AG-Sononet the central 208 x 272 of it. The public
PyTorch port of SonoNet hands (224, 288) to a function that takes width first and so feeds a squeezed frame; that slip is not
repeated here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from agseg.errors import UsageError
from agseg.io.video.frames import Box
from agseg.models.catalogue import config_of
from agseg.models.fold import fold_batch_norm
from agseg.models.load import load_strict
from agseg.models.registry import build
from agseg.ultrasound.localise import Map, resized
from agseg.weights.entry import WeightsEntry
from agseg.weights.input_spec import InputSpec

STORED_SHAPE = (224, 288)
"""Rows and columns to which every view is resized first."""

ORIGINAL_GAIN = 255.0
"""The original SonoNet was trained on standardised frames times 255; without it every frame is Background."""

LEAST_EVIDENCE = 6.0
"""Least evidence (log of the summed exponentials of SonoNet16's class scores) for a plane. See docs/ultrasound.md.

Softmax only says which plane a frame resembles *more*; whatever a network was not trained on may still get a high share of
little. The sum before the division says how much there is of any of them. Its scale is that of these weights alone.
"""

_ORIGINAL_FAMILY = "sononet-original"
_FAMILIES = (_ORIGINAL_FAMILY, "sononet", "ag-sononet")
_CALIBRATED = "sononet16"
_FLAT = 1e-3
"""Deviation (grey values) below which a frame is blank and not stretched."""


@runtime_checkable
class _Attends(Protocol):
    def attention(self, x: Tensor) -> dict[str, Tensor]:
        """Gate maps by name."""
        ...


class _Classifies(Protocol):
    def scores(self, x: Tensor) -> list[Tensor]:
        """Logits ``[B, classes]`` of every head."""
        ...

    def class_activation(self, x: Tensor) -> Tensor:
        """Evidence maps ``[B, classes, height / 16, width / 16]``."""
        ...


@dataclass(frozen=True)
class PlaneInput:
    """How a view becomes input.

    Parameters
    ----------
    shape
        Rows and columns of the input: the central part of :data:`STORED_SHAPE`.
    gain
        Factor after standardising.
    """

    shape: tuple[int, int] = STORED_SHAPE
    gain: float = 1.0

    @classmethod
    def of(cls, spec: InputSpec, *, family: str) -> PlaneInput:
        """From the weights' input and the network's family.

        Raises
        ------
        UsageError
            If the weights do not describe frames, or larger ones than are stored.
        """
        rows, columns = spec.tile[:2]
        if spec.modality != "US" or rows > STORED_SHAPE[0] or columns > STORED_SHAPE[1]:
            raise UsageError(
                "these weights are not for ultrasound frames", value=list(spec.tile), expected=f"US, {STORED_SHAPE}"
            )
        return cls((rows, columns), ORIGINAL_GAIN if family == _ORIGINAL_FAMILY else 1.0)

    def prepare(self, view: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Network input, float32 (1, row, column), from the view's pixels, uint8 (row, column, 3)."""
        size = (STORED_SHAPE[1], STORED_SHAPE[0])  # Pillow takes the width first.
        stored = np.asarray(Image.fromarray(view).resize(size, Image.Resampling.BILINEAR), dtype=np.float32).mean(axis=2)
        top, left = self._margin()
        part = stored[top : top + self.shape[0], left : left + self.shape[1]]
        deviation = float(part.std())
        scale = self.gain / deviation if deviation > _FLAT else 0.0
        return np.asarray((part - part.mean()) * scale, dtype=np.float32)[None]

    def seen(self, view: Box) -> Box:
        """The part of a view (source pixels) that the input shows."""
        top, left = self._margin()
        scale_x, scale_y = (view[2] - view[0]) / STORED_SHAPE[1], (view[3] - view[1]) / STORED_SHAPE[0]
        x0, y0 = view[0] + left * scale_x, view[1] + top * scale_y
        return round(x0), round(y0), round(x0 + self.shape[1] * scale_x), round(y0 + self.shape[0] * scale_y)

    def _margin(self) -> tuple[int, int]:
        return (STORED_SHAPE[0] - self.shape[0]) // 2, (STORED_SHAPE[1] - self.shape[1]) // 2


class PlaneNetwork:
    """A trained plane classifier on a device.

    Parameters
    ----------
    module
        A network of :mod:`agseg.models.sononet` or its relatives, with its weights; batch norms are folded here.
    classes
        Names of its outputs, in order.
    spec
        What it sees.
    device, dtype
        Where it runs, and in which number format; what comes out is float32.
    least_evidence
        See :data:`LEAST_EVIDENCE`; None where nothing is known of the scale of these weights.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        classes: tuple[str, ...],
        spec: PlaneInput,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        least_evidence: float | None = None,
    ) -> None:
        self.classes = classes
        self.least_evidence = least_evidence
        self.input = spec
        self.device, self.dtype = device, dtype
        placed = fold_batch_norm(module).to(device=device, dtype=dtype)
        self._module = placed.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def probabilities(self, batch: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """float32 (frame, class) from prepared frames; rows sum to 1."""
        result: Tensor = self._module(self._tensor(batch))
        return np.asarray(result.float().cpu().numpy(), dtype=np.float32)

    @torch.inference_mode()
    def classify(self, batch: Sequence[NDArray[np.float32]]) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """:meth:`probabilities`, and float32 (frame,) evidence where the scale of these weights is known."""
        if self.least_evidence is None:
            return self.probabilities(batch), None
        logits = cast(_Classifies, self._module).scores(self._tensor(batch))[0].float().cpu()
        return torch.softmax(logits, dim=1).numpy(), torch.logsumexp(logits, dim=1).numpy()

    @torch.inference_mode()
    def maps(self, frame: NDArray[np.float32], *, plane: str) -> tuple[Map, ...]:
        """Where it looked in one prepared frame: float32 (row, column) maps at the input's shape, each with maximum 1.

        The maps of the gates, where there are gates, then the class activation of ``plane``.
        """
        x = self._tensor([frame])
        column = self.classes.index(plane)
        found = list(self._module.attention(x).values()) if isinstance(self._module, _Attends) else []
        evidence = cast(_Classifies, self._module).class_activation(x)[:, column]
        grids = [*(gate[0, 0] for gate in found), evidence[0]]
        return tuple(resized(grid.float().cpu().numpy(), self.input.shape) for grid in grids)

    def _tensor(self, batch: Sequence[NDArray[np.float32]]) -> Tensor:
        stacked = torch.from_numpy(np.stack(batch))
        return stacked.to(device=self.device, dtype=self.dtype, memory_format=torch.channels_last)


def load_planes(
    entry: WeightsEntry, files: tuple[Path, ...], *, device: torch.device, dtype: torch.dtype = torch.float32
) -> PlaneNetwork:
    """The classifier of a weights entry from its verified safetensors file.

    Raises
    ------
    UsageError
        If the entry is no plane classifier.
    WeightsError
        If the file does not fit.
    """
    family, _ = config_of(entry.architecture, entry.config)
    if family not in _FAMILIES or not entry.classes or len(files) != 1:
        raise UsageError("these weights do not classify planes", value=entry.id, hint="List weights: agseg weights list")
    module = build(entry.architecture, entry.config)
    load_strict(module, files[0])
    spec = PlaneInput.of(entry.input, family=family)
    least = LEAST_EVIDENCE if entry.id == _CALIBRATED else None
    return PlaneNetwork(module, classes=entry.classes, spec=spec, device=device, dtype=dtype, least_evidence=least)
