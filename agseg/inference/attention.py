"""Attention-gate coefficients, resampled to the source grid.

Source: Attention Gated Networks (2019), equation 2: the coefficients alpha in [0, 1] of each gate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from agseg.inference.axis import Interpolation
from agseg.inference.network import ReadyNetwork
from agseg.inference.predict import SPATIAL, cut_tiles
from agseg.inference.predictor import GatedPredictor
from agseg.inference.prepare import prepare
from agseg.inference.straighten import needs_straightening, straighten
from agseg.inference.tiling import TilePlan, plan, sweep
from agseg.slabs import memory_order
from agseg.volume import Volume
from agseg.weights.input_spec import InputSpec, Padding


@dataclass(frozen=True, eq=False)
class GateMap:
    """One gate's coefficients.

    Parameters
    ----------
    name
        The gate's name in its network, with ``-1``, ``-2`` for parallel gates.
    alpha
        float32 (i, j, k) on the source grid, in [0, 1].
    """

    name: str
    alpha: NDArray[np.float32]


def gate_maps(volume: Volume, network: GatedPredictor, spec: InputSpec) -> Iterator[GateMap]:
    """Coefficients of every gate on the volume's own grid, one after the other (each is as large as the scan).

    Tiles are blended as scores are; gates live on coarser grids and are interpolated linearly.

    Raises
    ------
    UsageError
        If the network has no attention gates.
    """
    for name, alpha in _maps(volume, network, spec, network.gates):
        yield GateMap(name, np.clip(alpha, 0.0, 1.0, out=alpha))


def skip_maps(volume: Volume, network: ReadyNetwork, spec: InputSpec) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """What enters each gate on the volume's own grid: the gate's name, and the mean magnitude of its features."""
    yield from _maps(volume, network, spec, network.skips)


def _maps(
    volume: Volume, network: GatedPredictor, spec: InputSpec, look: Callable[[Tensor], dict[str, Tensor]]
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    subject = volume
    if needs_straightening(volume.grid):
        subject = straighten(volume, finest_mm=min(spec.spacing_mm) if spec.spacing_mm else None)
    prepared = prepare(subject, spec, device=network.device)
    tiles = plan(prepared.model_grid.shape, tile=spec.tile, overlap=spec.overlap)
    names: list[str] = []
    whole: Tensor | None = None
    for block in sweep(tiles, _looked_at(look, prepared.tensor, tiles, spec.padding, names)):
        if whole is None:
            whole = torch.empty((block.scores.shape[0], *prepared.model_grid.shape))
        where = tuple(slice(s, s + n) for s, n in zip(block.start, block.scores.shape[1:], strict=True))
        whole[(slice(None), *where)] = block.scores.cpu()
    if whole is None:
        return
    order = memory_order(subject.voxels.strides)
    coordinates = tuple(prepared.model_grid.model_coordinates(axis) for axis in order)
    back = np.argsort(order)
    for name, alpha in zip(names, whole, strict=True):
        arranged = alpha.permute(prepared.model_grid.model_order(order)).contiguous()
        on_subject = Interpolation(coordinates, like=arranged)(arranged).clamp_(min=0.0).numpy().transpose(back)
        yield name, on_subject if subject is volume else _on_source(on_subject, volume, subject)


def _looked_at(
    look: Callable[[Tensor], dict[str, Tensor]], tensor: Tensor, tiles: TilePlan, padding: Padding, names: list[str]
) -> Iterator[Tensor]:
    """All gates of each tile as channels (gates, *tile); their names are appended to ``names`` once."""
    image = tensor if tensor.ndim == SPATIAL + 1 else tensor[None]
    for tile in cut_tiles(image, tiles, padding=padding):
        gates = look(tile[None])
        channels = []
        for name, alpha in gates.items():
            grown = F.interpolate(alpha.float(), size=tiles.tile, mode="trilinear", align_corners=False)[0]
            channels.append(grown)
            if len(names) < sum(len(c) for c in channels):
                names += [name] if len(grown) == 1 else [f"{name}-{m + 1}" for m in range(len(grown))]
        yield torch.cat(channels)


def _on_source(alpha: NDArray[np.float32], volume: Volume, subject: Volume) -> NDArray[np.float32]:
    from scipy import ndimage

    to_subject = np.linalg.inv(subject.grid.affine) @ volume.grid.affine
    return np.asarray(
        ndimage.affine_transform(
            alpha,
            to_subject[:3, :3],
            to_subject[:3, 3],
            output_shape=volume.grid.shape,
            output=np.float32,
            order=1,
            # The subject's grid covers the source; a coordinate beyond its edge is rounding.
            mode="nearest",
        )
    )
