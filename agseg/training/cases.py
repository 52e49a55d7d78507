"""Training cases: HU and labels on the model grid, and which labels can be trusted."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agseg.inference.model_grid import ModelGrid
from agseg.inference.normalise import normalise
from agseg.inference.prepare import channels_of, prepare, sample
from agseg.training.anatomy import complete
from agseg.volume import HU_MIN, LabelMask, Volume
from agseg.weights.input_spec import GridRule, InputSpec

AIR_HU = float(HU_MIN)
"""What lies outside a scan (HU)."""

IGNORE = 255
"""Label of voxels that must not be learned from: the label is missing or known to be wrong there."""


@dataclass(frozen=True, eq=False)
class Case:
    """One labelled scan on the model grid.

    Parameters
    ----------
    id
        Name of the case in data set and split files.
    image
        float32 (x, y, z), HU, not yet normalised: augmentation speaks HU.
    labels
        uint8 (x, y, z): class per voxel, 0 is background, :data:`IGNORE` is "do not learn here".
    known
        Classes the labels tell apart. Where a scan was labelled for some organs only, every other class of the network is
        part of its background (see :mod:`agseg.training.partial_loss`). ``None`` means all.
    structures
        uint8 (x, y, z): a finer anatomical map for :mod:`agseg.training.synthesis`, or None.
    weight
        How often the case is drawn, relative to the others.
    drawn
        Whether there is no scan: the image is drawn from ``structures`` afresh for every patch
        (:mod:`agseg.training.drawing`), and ``image`` only tells where the body is.
    more
        Further channels, like ``image``.
    normalised
        Whether ``image`` and ``more`` are network input already: some networks normalise before they resample.
    """

    id: str
    image: Tensor
    labels: Tensor
    known: tuple[int, ...] | None = None
    structures: Tensor | None = None
    weight: float = 1.0
    drawn: bool = False
    more: tuple[Tensor, ...] = ()
    normalised: bool = False
    _found: dict[object, Tensor] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.drawn and self.structures is None:
            raise ValueError(f"case {self.id} is to be drawn but has no structures to draw from")
        shapes = {tuple(t.shape) for t in (self.image, self.labels, self.structures, *self.more) if t is not None}
        if len(shapes) != 1:
            raise ValueError(f"image, labels and structures of a case must have one shape, not {sorted(shapes)}")

    def stacked(self) -> Tensor:
        """All channels, ``[C, x, y, z]``; a copy only where there are several that do not lie in one block already."""
        if "stacked" in self._found:
            return self._found["stacked"]
        return torch.stack([self.image, *self.more]) if self.more else self.image[None]

    def as_input(self, spec: InputSpec) -> Case:
        """The same case as network input: every channel normalised over the whole scan."""
        if self.normalised:
            return self
        channels = enumerate((self.image, *self.more))
        image, *more = (normalise(channel.clone(), spec.of_channel(number)) for number, channel in channels)
        return replace(self, image=image, more=tuple(more), normalised=True, _found={})

    def present_classes(self) -> tuple[int, ...]:
        """The organs that occur, background and ignored voxels left out."""
        if "classes" not in self._found:
            counts = torch.bincount(self.labels.flatten().long(), minlength=256)
            counts[[0, IGNORE]] = 0
            self._found["classes"] = counts.nonzero().flatten()
        return tuple(int(c) for c in self._found["classes"])

    def voxels_of(self, label: int) -> Tensor:
        """Indices (n, 3) of a class's voxels."""
        if label not in self._found:
            self._found[label] = (self.labels == label).nonzero()
        return self._found[label]

    def body_voxels(self, threshold_hu: float) -> Tensor:
        """Indices (n, 3) of voxels denser than a threshold, every eighth of them."""
        if "body" not in self._found:
            self._found["body"] = (self.image > threshold_hu).nonzero()[::8]
        return self._found["body"]


def prepare_case(
    case_id: str,
    volume: Volume,
    mask: LabelMask,
    spec: InputSpec,
    *,
    structures: NDArray[np.uint8] | None = None,
) -> Case:
    """A case from a scan and its mask (on the scan's own grid), resampled exactly as inference resamples.

    Labels take the value of the nearest source voxel. ``structures`` (i, j, k) are numbers of a finer anatomical map on that
    grid, which is completed by density.
    """
    if spec.spacing_mm is None:
        raise ValueError("cases are prepared at a spacing")
    if len(volume.more) != len(spec.channels):
        raise ValueError(f"the volume has {len(volume.more) + 1} channels, the network sees {len(spec.channels) + 1}")
    ready = spec.grid is not GridRule.FIRST_VOXEL
    if ready:
        made = prepare(volume, spec)
        model_grid = made.model_grid
        image, *more = made.tensor if spec.channels else [made.tensor]
    else:
        model_grid = ModelGrid.at_spacing(volume.grid, axis_codes=spec.axis_codes, spacing_mm=spec.spacing_mm)
        image, *more = (sample(channel, model_grid, antialias=spec.antialias) for channel in channels_of(volume, spec))
    labels = _nearest(mask.labels, model_grid)
    whole = None if structures is None else torch.from_numpy(complete(image.numpy(), _nearest(structures, model_grid).numpy()))
    return Case(case_id, image, labels, structures=whole, more=tuple(more), normalised=ready)


def _nearest(labels: NDArray[np.uint8], model_grid: ModelGrid) -> Tensor:
    """Labels (i, j, k) of a scan's own grid at the voxels of the model grid that are nearest."""
    on_axes = torch.from_numpy(labels.copy()).permute([link.source_axis for link in model_grid.links])
    for a, link in enumerate(model_grid.links):
        nearest = torch.arange(model_grid.shape[a], dtype=torch.float64) * link.scale + link.offset
        on_axes = on_axes.index_select(a, nearest.round().long().clamp(0, on_axes.shape[a] - 1))
    return on_axes.contiguous()
