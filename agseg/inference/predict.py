"""Run a network over a prepared image, tile by tile, in the order in which :func:`tiling.sweep` wants the scores."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from agseg.errors import WeightsError
from agseg.inference.predictor import Predictor, Scores
from agseg.inference.tiling import Block, TilePlan
from agseg.weights.input_spec import Padding

SPATIAL = 3
"""Axes of a grid; an image may have channels before them."""


def tile_scores(
    network: Predictor,
    tensor: Tensor,
    tiles: TilePlan,
    *,
    padding: Padding = Padding.ZERO,
    batch: int = 1,
    mirror: tuple[int, ...] = (),
    swap: tuple[tuple[int, int], ...] = (),
) -> Iterator[Tensor]:
    """Score maps (classes, *tile) of every tile, in the order of ``tiles.corners()``.

    Parameters
    ----------
    network
        What to run.
    tensor
        The model grid, float32 (channels, *grid), or (*grid) of one channel; moved to the network's device tile by tile.
    tiles
        The plan for this grid.
    padding
        What surrounds a grid smaller than a tile.
    batch
        Tiles per forward pass.
    mirror, swap
        Test-time mirroring: spatial axes to flip, and the class pairs (left, right) that change places with the first of
        them if that is the left-right axis.

    Raises
    ------
    WeightsError
        If the network takes another number of channels than the grid has.
    """
    image = tensor if tensor.ndim == SPATIAL + 1 else tensor[None]
    if network.in_channels != len(image):
        raise WeightsError("the network takes another number of channels", value=len(image), expected=network.in_channels)
    cut = cut_tiles(image, tiles, padding=padding)
    while chunk := list(islice(cut, batch)):
        stack = torch.stack(chunk)
        if not mirror:
            scores = network(stack)
        elif network.scores is Scores.RAW_LOGITS:
            scores = mirrored_logits(network, stack, axes=mirror)
        else:
            scores = mirrored(network, stack, axes=mirror, swap=swap)
        if len(chunk) > 1:
            yield from scores
            continue
        # Nothing here may keep a tile's scores alive while they are carried back: with many classes they are large.
        only = [scores[0]]
        del scores
        yield only.pop()


def fold_scores(folds: Sequence[Predictor], tensor: Tensor, tiles: TilePlan, **how: Any) -> Iterator[Tensor]:
    """:func:`tile_scores` of several networks: for each tile one after the other, so that each can be blended by itself."""
    streams = [tile_scores(fold, tensor, tiles, **how) for fold in folds]
    for _ in range(tiles.count):
        for stream in streams:
            yield next(stream)


def cut_tiles(tensor: Tensor, tiles: TilePlan, *, padding: Padding) -> Iterator[Tensor]:
    """Views (channels, *tile) of the padded model grid (channels, *grid), one per tile, in the order of ``tiles.corners()``."""
    padded = _padded(tensor, tiles, padding)
    for corner in tiles.corners():
        yield padded[(slice(None), *(slice(c, c + t) for c, t in zip(corner, tiles.tile, strict=True)))]


def mirrored(network: Predictor, batch: Tensor, *, axes: tuple[int, ...], swap: tuple[tuple[int, int], ...]) -> Tensor:
    """Mean probability over the image and its mirror image along each axis.

    Mirroring left to right makes a left kidney look like a right one, so those classes change places on the way back.
    """
    total = probabilities(network(batch), network)
    for axis in axes:
        flipped = probabilities(network(batch.flip(axis + 2)), network).flip(axis + 2)
        if axis == axes[0] and swap:
            order = list(range(flipped.shape[1]))
            for left, right in swap:
                order[left], order[right] = order[right], order[left]
            flipped = flipped[:, order]
        total = total + flipped
    mean = total / (len(axes) + 1)
    # One network's outputs are taken for logits later on: softmax(log p) = p.
    return mean if network.scores is Scores.PROBABILITIES else mean.clamp_min(1e-12).log()


def probabilities(scores: Tensor, network: Predictor | None = None, *, dim: int = 1) -> Tensor:
    """Scores to probabilities (float32): softmax over the classes; a single channel is a sigmoid against background."""
    if network is not None and network.scores is Scores.PROBABILITIES:
        return scores.float()
    if scores.shape[dim] == 1:
        positive = torch.sigmoid(scores.float())
        return torch.cat((1.0 - positive, positive), dim=dim)
    return torch.softmax(scores.float(), dim=dim)


def as_probabilities(block: Block, network: Predictor) -> Block:
    """A block with its scores turned into probabilities, in its own memory: with many classes a copy would be large."""
    if network.scores is Scores.PROBABILITIES:
        return block
    if block.scores.shape[0] == 1:
        room = torch.cat((1.0 - torch.sigmoid(block.room), torch.sigmoid(block.room)))
        return replace(block, scores=room[:, 1:, 1:, 1:], room=room)
    scores = block.scores
    scores.sub_(scores.amax(dim=0, keepdim=True)).exp_()
    scores.div_(scores.sum(dim=0, keepdim=True))
    return block


@torch.inference_mode()
def mirrored_logits(network: Predictor, batch: Tensor, *, axes: tuple[int, ...]) -> Tensor:
    """Mean logits (float32) over the image and its mirror images along every combination of axes (nnU-Net).

    Such a network was trained with mirror images under the same labels: no class changes its name.
    """
    total = network(batch).float()
    combinations = [subset for size in range(1, len(axes) + 1) for subset in itertools.combinations(axes, size)]
    for subset in combinations:
        flips = [axis + 2 for axis in subset]
        total += network(batch.flip(flips)).flip(flips)
    return total.div_(len(combinations) + 1)


def _padded(tensor: Tensor, tiles: TilePlan, padding: Padding) -> Tensor:
    widths: list[int] = []
    for axis in (2, 1, 0):
        before = tiles.pad_before[axis]
        widths += [before, tiles.shape[axis] - tiles.real_shape[axis] - before]
    if not any(widths):
        return tensor
    if padding is Padding.EDGE:
        return F.pad(tensor[None], widths, mode="replicate")[0]
    return F.pad(tensor, widths)
