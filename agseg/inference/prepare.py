"""From a Volume to what a network was trained to see (its InputSpec)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from agseg.errors import Code, InferenceError
from agseg.inference.axis import resample
from agseg.inference.frame import Frame
from agseg.slabs import memory_order
from agseg.volume import Volume
from agseg.weights.entry import InputSpec, Normalisation

__all__ = ["MODEL_GRID_LIMIT_VOXELS", "ModelInput", "normalise", "prepare", "sample"]

MODEL_GRID_LIMIT_VOXELS = 400_000_000
"""A model grid larger than this (voxels) is refused before anything is allocated: 1.6 GB of float32."""

SLAB = 32
"""Planes of the model grid that are normalised at a time: bounds the temporary arrays."""


@dataclass(frozen=True, eq=False)
class ModelInput:
    """A prepared image.

    Parameters
    ----------
    tensor
        float32, shape ``frame.shape`` (model axis order), normalised.
    frame
        How it lies on the source.
    """

    tensor: Tensor
    frame: Frame


def prepare(volume: Volume, spec: InputSpec, *, device: torch.device | str = "cpu", frame: Frame | None = None) -> ModelInput:
    """Resample a volume to the grid of ``spec`` and normalise it.

    The volume's grid must be rectangular and nearly along the patient's axes; :mod:`agseg.inference.straighten` sees to
    that. Interpolation is trilinear between voxel centres.

    Raises
    ------
    InferenceError
        If the model grid would be unreasonably large.
    """
    if frame is None:
        if spec.spacing_mm is None:
            raise InferenceError("these weights need a box, not a spacing", expected="a frame")
        frame = Frame.at_spacing(volume.grid, axis_codes=spec.axis_codes, spacing_mm=spec.spacing_mm)
    if int(np.prod(frame.shape)) > MODEL_GRID_LIMIT_VOXELS:
        raise InferenceError(
            "the scan is too large for the network's grid", code=Code.TOO_LARGE, value=frame.shape, expected=spec.spacing_mm
        )
    return ModelInput(normalise(sample(volume, frame, antialias=spec.antialias, device=device), spec), frame)


def sample(volume: Volume, frame: Frame, *, antialias: bool, device: torch.device | str = "cpu") -> Tensor:
    """The volume's values (float32) on the model grid of ``frame``, in model axis order."""
    order = memory_order(volume.voxels.strides)
    box = tuple(slice(a, b) for a, b in zip(frame.start, frame.stop, strict=True))
    array = torch.from_numpy(np.ascontiguousarray(volume.voxels[box].transpose(order))).to(device)
    values = resample(array, frame.sampling(order), antialias=antialias)
    model_axes = frame.model_order(order)
    return values.permute([model_axes.index(a) for a in range(3)]).contiguous()


def normalise(values: Tensor, spec: InputSpec) -> Tensor:
    """HU or signal to network input, in place: clip to the window, then the rule of ``spec.normalisation``."""
    if spec.window_hu is not None:
        values.clamp_(*spec.window_hu)
    match spec.normalisation:
        case Normalisation.WINDOW_TO_UNIT | Normalisation.WINDOW_TO_SYMMETRIC:
            if spec.window_hu is None:
                raise InferenceError("a window normalisation needs a window", value=spec.normalisation)
            low, high = spec.window_hu
            unit = values.sub_(low).div_(high - low)
            return unit if spec.normalisation is Normalisation.WINDOW_TO_UNIT else unit.mul_(2.0).sub_(1.0)
        case Normalisation.HU_OVER_1024:
            return values.div_(1024.0).add_(1.0)
        case Normalisation.ZSCORE:
            return values.sub_(values.mean()).div_(values.std(correction=0).clamp_min(1e-6))
        case Normalisation.ZSCORE_NONZERO_MINMAX:
            _zscore_nonzero(values)
            smallest, extent = values.min(), (values.max() - values.min()).clamp_min(1e-6)
            return values.sub_(smallest).div_(extent).mul_(2.0).sub_(1.0)


def _zscore_nonzero(values: Tensor) -> None:
    """(x - mean) / standard deviation over the voxels that are not 0, in place, slab by slab; zeros stay zero."""
    count = int(torch.count_nonzero(values))
    if count == 0:
        return
    slabs = torch.split(values, SLAB)
    mean = float(sum(slab.sum(dtype=torch.float64) for slab in slabs) / count)
    square = sum(((slab.double() - mean).square() * (slab != 0)).sum() for slab in slabs)
    deviation = max(float(square / count) ** 0.5, 1e-6)
    for slab in slabs:
        zero = slab == 0
        slab.sub_(mean).div_(deviation).masked_fill_(zero, 0.0)
