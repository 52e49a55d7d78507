"""Which label a source voxel gets, from the scores of the model voxels around it: one rule per kind of score.

All classes at the source's resolution would be gigabytes; only a running maximum is kept, and what cannot win is never
interpolated. Each rule leaves exactly the labels that the whole map would give, because interpolation weights are
non-negative, sum to 1 and are the same for every class:

* Where background beats every class at all surrounding model voxels, it does so between them.
* Probabilities sum to 1: a class that nowhere reaches 1 / classes cannot win.
* Logits sum to nothing, but a class that is nowhere above background cannot win against it; so it is interpolated only in the
  box around the model voxels where it is above.
* A head of its own (a region) paints where its logit is above 0: only around such voxels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agseg.inference.axis import Interpolation

__all__ = ["ByLogit", "ByProbability", "ByRegion", "Coordinates", "Rule", "winner"]

Coordinates = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
"""Model coordinates of source voxels along three axes; their product is a box. Each ascends or descends."""


class Rule(Protocol):
    """How scores become labels."""

    def foreground(self, scores: Tensor) -> Tensor:
        """Where on the model grid (classes, *grid) background does not win, bool (*grid)."""
        ...

    def decide(self, scores: Tensor, coordinates: Coordinates) -> tuple[Tensor, Tensor]:
        """Label (uint8) and how probable it is (float32) at the product of three coordinate lists.

        ``scores`` are (classes, slow, middle, fast), contiguous or not. On a tie the lower class wins.
        """
        ...


@dataclass(frozen=True)
class ByProbability:
    """The largest interpolated probability wins."""

    def foreground(self, scores: Tensor) -> Tensor:
        """See :class:`Rule`."""
        return scores[1:].amax(dim=0) >= scores[0]

    def decide(self, scores: Tensor, coordinates: Coordinates) -> tuple[Tensor, Tensor]:
        """See :class:`Rule`."""
        return winner(scores, coordinates)


@dataclass(frozen=True)
class ByLogit:
    """The largest interpolated logit wins; its probability is the softmax of the model voxels, interpolated."""

    def foreground(self, scores: Tensor) -> Tensor:
        """See :class:`Rule`."""
        return scores[1:].amax(dim=0) >= scores[0]

    def decide(self, scores: Tensor, coordinates: Coordinates) -> tuple[Tensor, Tensor]:
        """See :class:`Rule`."""
        whole = Interpolation(coordinates, like=scores)
        best = whole(scores[0].contiguous())
        label = torch.zeros(best.shape, dtype=torch.uint8, device=scores.device)
        for index in range(1, scores.shape[0]):
            around = _around(scores[index] > scores[0], coordinates)
            if around is None:
                continue
            part = scores[index][around.model].contiguous()
            value = Interpolation(around.coordinates, like=part)(part)
            best_here = best[around.source]
            better = value > best_here
            torch.where(better, value, best_here, out=best_here)
            label[around.source].masked_fill_(better, index)
        return label, whole(_certainty(scores))


@dataclass(frozen=True)
class ByRegion:
    """Each head paints its label where its logit is above 0, in order; a later one overwrites.

    Parameters
    ----------
    order
        The label of each head.
    """

    order: tuple[int, ...]

    def foreground(self, scores: Tensor) -> Tensor:
        """See :class:`Rule`."""
        return scores.amax(dim=0) > 0

    def decide(self, scores: Tensor, coordinates: Coordinates) -> tuple[Tensor, Tensor]:
        """See :class:`Rule`."""
        shape = tuple(len(c) for c in coordinates)
        label = torch.zeros(shape, dtype=torch.uint8, device=scores.device)
        for index, painted in enumerate(self.order):
            around = _around(scores[index] > 0, coordinates)
            if around is not None:
                part = scores[index][around.model].contiguous()
                value = Interpolation(around.coordinates, like=part)(part)
                label[around.source].masked_fill_(value > 0, painted)
        return label, Interpolation(coordinates, like=scores)(torch.sigmoid(scores.amax(dim=0)).contiguous())


def _certainty(logits: Tensor) -> Tensor:
    """The largest softmax of each model voxel, class by class: all of them at once would be as large as the logits."""
    largest = logits.amax(dim=0)
    total = torch.zeros_like(largest)
    for logit in logits:
        total += (logit - largest).exp_()
    return total.reciprocal_().contiguous()


@dataclass(frozen=True)
class _Around:
    """A box of model voxels, the box of source voxels that lie between them, and these voxels' coordinates in it."""

    model: tuple[slice, slice, slice]
    source: tuple[slice, slice, slice]
    coordinates: Coordinates


def _around(hit: Tensor, coordinates: Coordinates) -> _Around | None:
    """The source voxels that any of the model voxels ``hit`` (bool, three axes) has a part in; None where there are none."""
    model, source, local = [], [], []
    for axis in range(3):
        others = [other for other in range(3) if other != axis]
        line = torch.nonzero(hit.any(dim=others[1]).any(dim=others[0])).flatten()
        if line.numel() == 0:
            return None
        low, high = max(0, int(line[0]) - 1), min(hit.shape[axis] - 1, int(line[-1]) + 1)
        picked = np.flatnonzero((coordinates[axis] > int(line[0]) - 1) & (coordinates[axis] < int(line[-1]) + 1))
        if picked.size == 0:
            return None
        model.append(slice(low, high + 1))
        source.append(slice(int(picked[0]), int(picked[-1]) + 1))
        local.append(coordinates[axis][source[-1]] - low)
    return _Around((model[0], model[1], model[2]), (source[0], source[1], source[2]), (local[0], local[1], local[2]))


def winner(scores: Tensor, coordinates: Coordinates) -> tuple[Tensor, Tensor]:
    """Index (uint8) and value (float32) of the largest interpolated score at the product of three coordinate lists.

    ``scores`` are probabilities (classes, slow, middle, fast), contiguous or not. On a tie the lower class wins.
    """
    classes = scores.shape[0]
    interpolated = Interpolation(coordinates, like=scores)
    best = interpolated(scores[0].contiguous())
    label = torch.zeros(interpolated.shape, dtype=torch.uint8, device=scores.device)
    peaks = scores.flatten(1).amax(dim=1).tolist() if scores.is_contiguous() else scores.amax(dim=(1, 2, 3)).tolist()
    for index in range(1, classes):
        if peaks[index] < 1.0 / classes:
            continue
        value = interpolated(scores[index].contiguous())
        better = value > best
        torch.where(better, value, best, out=best)
        label.masked_fill_(better, index)
    return label, best
