"""HU or signal to network input: clipped to a window, then scaled by the rule of an InputSpec."""

from __future__ import annotations

import torch
from torch import Tensor

from agseg.errors import InferenceError
from agseg.weights.input_spec import InputSpec, Normalisation

SLAB = 32
"""Planes of the model grid that are normalised at a time: bounds the temporary arrays."""

LEAST_DEVIATION = 1e-8
"""A standard deviation below this counts as this (nnU-Net)."""


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
        case Normalisation.CT:
            if spec.mean_std is None:
                raise InferenceError("normalisation ct needs a mean and a standard deviation", value=spec.normalisation)
            mean, deviation = spec.mean_std
            return values.sub_(mean).div_(max(deviation, LEAST_DEVIATION))
        case Normalisation.ZSCORE:
            return values.sub_(values.mean()).div_(values.std(correction=0).clamp_min(1e-6))
        case Normalisation.ZSCORE_NONZERO_MINMAX:
            _zscore_nonzero(values)
            smallest, extent = values.min(), (values.max() - values.min()).clamp_min(1e-6)
            return values.sub_(smallest).div_(extent).mul_(2.0).sub_(1.0)
        case Normalisation.ZSCORE_MASKED:
            return _zscore_masked(values)
        case Normalisation.RESCALE_TO_UNIT:
            values.sub_(values.min())
            return values.div_(values.max().clamp_min(LEAST_DEVIATION))
        case Normalisation.NONE:
            return values


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


def _zscore_masked(values: Tensor) -> Tensor:
    """(x - mean) / standard deviation where values are not 0 and in the holes between them, in place; the rest stays."""
    from scipy.ndimage import binary_fill_holes

    mask = torch.from_numpy(binary_fill_holes((values != 0).cpu().numpy())).to(values.device)
    inside = values[mask]
    if inside.numel():
        values[mask] = (inside - inside.mean()) / inside.std(correction=0).clamp_min(LEAST_DEVIATION)
    return values
