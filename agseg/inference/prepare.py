"""Preprocessing: a Volume resampled and normalised to a network's InputSpec.

The first way resamples and then normalises. nnU-Net's normalises first, over the box of voxels that are not 0, resamples with
cubic splines and clips what they overshoot; thick slices are never blended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agseg.errors import Code, InferenceError, InputError
from agseg.inference.axis import AxisMap, Kernel, resample
from agseg.inference.model_grid import ModelGrid
from agseg.inference.normalise import normalise
from agseg.slabs import memory_order
from agseg.volume import HU_MAX, HU_MIN, Quantity, Volume
from agseg.weights.input_spec import InputSpec, Interpolation, Normalisation, Placement

MODEL_GRID_LIMIT_VOXELS = 400_000_000
"""A model grid larger than this (voxels) is refused before anything is allocated: 1.6 GB of float32."""


@dataclass(frozen=True, eq=False)
class ModelInput:
    """A prepared image.

    Parameters
    ----------
    tensor
        float32, shape ``model_grid.shape`` (model axis order), normalised; several channels come before:
        (channels, *model_grid.shape).
    model_grid
        How it lies on the source.
    """

    tensor: Tensor
    model_grid: ModelGrid


def prepare(
    volume: Volume, spec: InputSpec, *, device: torch.device | str = "cpu", model_grid: ModelGrid | None = None
) -> ModelInput:
    """Resample a volume to the grid of ``spec`` and normalise it.

    The volume's grid must be rectangular and, unless ``spec`` takes scans as stored, nearly along the patient's axes;
    :mod:`agseg.inference.straighten` sees to that.

    Raises
    ------
    InferenceError
        If the model grid would be unreasonably large.
    InputError
        If the volume does not have the channels of ``spec``.
    """
    if len(volume.more) != len(spec.channels):
        wanted = ", ".join([spec.modality, *(channel.name for channel in spec.channels)])
        raise InputError(
            "the network sees other channels",
            code=Code.UNSUPPORTED_INPUT,
            value=len(volume.more) + 1,
            expected=f"{len(spec.channels) + 1}: {wanted}",
        )
    model_grid = model_grid_of(volume, spec) if model_grid is None else model_grid
    if int(np.prod(model_grid.shape)) > MODEL_GRID_LIMIT_VOXELS:
        raise InferenceError(
            "the scan is too large for the network's grid",
            code=Code.TOO_LARGE,
            value=model_grid.shape,
            expected=spec.spacing_mm,
        )
    if not spec.channels:
        return ModelInput(_prepared(volume, model_grid, spec, device=device), model_grid)
    channels = enumerate(channels_of(volume, spec))
    tensors = [_prepared(channel, model_grid, spec.of_channel(number), device=device) for number, channel in channels]
    return ModelInput(torch.stack(tensors), model_grid)


def channels_of(volume: Volume, spec: InputSpec) -> Iterator[Volume]:
    """Each channel as a volume of its own; those that hold CT within its range."""
    yield replace(volume, more=())
    for values, channel in zip(volume.more, spec.channels, strict=True):
        is_ct = channel.modality == "CT"
        held = np.clip(values, HU_MIN, HU_MAX) if is_ct else values
        quantity = Quantity.HU if is_ct else Quantity.SIGNAL
        yield replace(volume, voxels=held, quantity=quantity, modality=channel.modality, more=())


def _prepared(volume: Volume, model_grid: ModelGrid, spec: InputSpec, *, device: torch.device | str) -> Tensor:
    if spec.normalise_first:
        return _normalised_sample(volume, model_grid, spec, device=device)
    values = _sample(volume, model_grid, spec, device=device)
    return normalise(values.trunc_() if spec.truncate else values, spec)


class PreparedOnce:
    """Prepares a volume once for several networks that see the same; the last image is kept."""

    def __init__(self) -> None:
        self._key: object = None
        self._volume: Volume | None = None
        self._made: ModelInput | None = None

    def of(
        self, volume: Volume, spec: InputSpec, *, device: torch.device | str = "cpu", model_grid: ModelGrid | None = None
    ) -> ModelInput:
        """As :func:`prepare`; not to be written to."""
        seen = replace(
            spec,
            tile=(1, 1, 1) if spec.tile[0] == 1 else (2, 2, 2),
            overlap=0.5,
            tiles=Placement.STEPS,
            regions=(),
            mirror_axes=(),
        )
        key = (
            seen,
            str(device),
            None if model_grid is None else (model_grid.links, model_grid.shape, model_grid.start, model_grid.stop),
        )
        if self._made is None or key != self._key or volume is not self._volume:
            self._made = None  # not two of them at a time
            self._made = prepare(volume, spec, device=device, model_grid=model_grid)
            self._key, self._volume = key, volume
        return self._made


def model_grid_of(volume: Volume, spec: InputSpec) -> ModelGrid:
    """The model grid of ``spec`` over the volume, or over the box of its voxels that are not 0.

    Raises
    ------
    InferenceError
        If the weights need a box of fixed size instead.
    """
    if spec.spacing_mm is None:
        raise InferenceError("these weights need a box, not a spacing", expected="a model grid")
    start, stop = (0, 0, 0), volume.grid.shape
    if spec.crop_nonzero:
        boxes = [_nonzero_box(values) for values in (volume.voxels, *volume.more)]
        start, stop = _outer([low for low, _ in boxes], min), _outer([high for _, high in boxes], max)
    return ModelGrid.of(volume.grid, spec, start=start, stop=stop)


def sample(
    volume: Volume,
    model_grid: ModelGrid,
    *,
    antialias: bool,
    interpolation: Interpolation = Interpolation.LINEAR,
    device: torch.device | str = "cpu",
    prepared: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """The volume's values (float32) on ``model_grid``, in model axis order.

    Parameters
    ----------
    antialias
        Whether linear interpolation averages over the new voxel's extent.
    interpolation
        How to interpolate, along all axes but those that take the nearest voxel.
    prepared
        What is done to the values first, slab by slab.
    """
    is_cubic = interpolation is Interpolation.CUBIC
    kernel = Kernel.CUBIC if is_cubic else Kernel.TRIANGLE if antialias else Kernel.LINEAR
    order = memory_order(volume.voxels.strides)
    model_axes = model_grid.model_order(order)
    maps = model_grid.sampling(order)
    nearest = [axis in model_grid.nearest_in for axis in model_axes]
    kernels = [Kernel.NEAREST if near else kernel for near in nearest]
    limits = _Limits(nearest.index(True) if any(nearest) else None, maps) if is_cubic else None

    def first(slab: Tensor) -> Tensor:
        slab = slab if prepared is None else prepared(slab)
        if limits is not None:
            limits.see(slab)
        return slab

    box = tuple(slice(a, b) for a, b in zip(model_grid.start, model_grid.stop, strict=True))
    array = np.ascontiguousarray(volume.voxels[box].transpose(order))
    values = resample(array, maps, (kernels[0], kernels[1], kernels[2]), device=device, prepared=first)
    if limits is not None:
        limits.clip(values)
    return values.permute([model_axes.index(a) for a in range(3)]).contiguous()


def _sample(
    volume: Volume,
    model_grid: ModelGrid,
    spec: InputSpec,
    *,
    device: torch.device | str,
    prepared: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    return sample(
        volume, model_grid, antialias=spec.antialias, interpolation=spec.interpolation, device=device, prepared=prepared
    )


class _Limits:
    """The range of the values before a spline, which may overshoot: per slice where slices are not blended, else over all.

    Parameters
    ----------
    axis
        The axis of slices among the three in memory order, or None.
    maps
        From the input to the output axes, in the same order.
    """

    def __init__(self, axis: int | None, maps: tuple[AxisMap, AxisMap, AxisMap]) -> None:
        self._axis, self._maps = axis, maps
        self._low: list[Tensor] = []
        self._high: list[Tensor] = []

    def see(self, slab: Tensor) -> None:
        """Take the next slab along the first axis into account."""
        others = [axis for axis in range(3) if axis != self._axis]
        self._low.append(slab.amin(dim=others))
        self._high.append(slab.amax(dim=others))

    def clip(self, values: Tensor) -> None:
        """Clip resampled values in place."""
        if self._axis is None:
            values.clamp_(torch.stack(self._low).min(), torch.stack(self._high).max())
            return
        if self._axis == 0:
            low, high = torch.cat(self._low), torch.cat(self._high)
        else:
            low, high = torch.stack(self._low).amin(dim=0), torch.stack(self._high).amax(dim=0)
        picked = torch.from_numpy(self._maps[self._axis].nearest).to(values.device)
        shape = [1, 1, 1]
        shape[self._axis] = -1
        torch.clamp(values, low[picked].reshape(shape), high[picked].reshape(shape), out=values)


def _normalised_sample(volume: Volume, model_grid: ModelGrid, spec: InputSpec, *, device: torch.device | str) -> Tensor:
    """Values normalised on the source grid, then resampled."""
    if spec.normalisation in (Normalisation.CT, Normalisation.NONE):
        # What one voxel becomes depends on no other: slab by slab.
        return _sample(volume, model_grid, spec, device=device, prepared=lambda slab: normalise(slab, spec))
    box = tuple(slice(a, b) for a, b in zip(model_grid.start, model_grid.stop, strict=True))
    whole = np.zeros(volume.voxels.shape, dtype=np.float32, order="F")
    inside = np.array(volume.voxels[box], dtype=np.float32)
    whole[box] = normalise(torch.from_numpy(inside), spec).numpy()
    return _sample(replace(volume, voxels=whole), model_grid, spec, device=device)


def _outer(corners: Sequence[tuple[int, int, int]], choose: Callable[..., int]) -> tuple[int, int, int]:
    return choose(c[0] for c in corners), choose(c[1] for c in corners), choose(c[2] for c in corners)


def _nonzero_box(voxels: NDArray[Any]) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """First and one-past-last index of the voxels that are not 0, per axis; everything where there are none."""
    start, stop = [0, 0, 0], list(voxels.shape)
    for axis in range(3):
        planes = np.moveaxis(voxels, axis, 0)
        while stop[axis] > start[axis] and not planes[stop[axis] - 1].any():
            stop[axis] -= 1
        if stop[axis] == start[axis]:
            return (0, 0, 0), (voxels.shape[0], voxels.shape[1], voxels.shape[2])
        while not planes[start[axis]].any():
            start[axis] += 1
    return (start[0], start[1], start[2]), (stop[0], stop[1], stop[2])
