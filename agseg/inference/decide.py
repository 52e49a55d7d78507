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

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agseg.inference.axis import Interpolation
from agseg.inference.device import to_host
from agseg.inference.score_checks import logits_are_finite, probabilities_are_finite

Coordinates = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
"""Model coordinates of source voxels along three axes; their product is a box. Each ascends or descends."""


class Rule(Protocol):
    """How scores become labels.

    What the host must know of a block is a tensor on the scores' device, so that whoever asks can fetch all of it at once.
    """

    def are_finite(self, scores: Tensor) -> Tensor:
        """Whether all scores are finite numbers: one bool."""
        ...

    def foreground(self, scores: Tensor) -> Tensor:
        """Where on the model grid (classes, *grid) background does not win, bool (*grid)."""
        ...

    def survey(self, scores: Tensor) -> Tensor:
        """What :meth:`decide` must know of these scores on the host, float32 (n,)."""
        ...

    def decide(self, scores: Tensor, coordinates: Coordinates, known: NDArray[np.float32]) -> tuple[Tensor, Tensor]:
        """Label (uint8) and how probable it is (float32) at the product of three coordinate lists.

        ``scores`` are (classes, slow, middle, fast), contiguous or not, and ``known`` is their :meth:`survey`. Waits for
        nothing. On a tie the lower class wins.
        """
        ...


@dataclass(frozen=True)
class ByProbability:
    """The largest interpolated probability wins."""

    def are_finite(self, scores: Tensor) -> Tensor:
        """See :class:`Rule`."""
        return probabilities_are_finite(scores)

    def foreground(self, scores: Tensor) -> Tensor:
        """See :class:`Rule`."""
        return scores[1:].amax(dim=0) >= scores[0]

    def survey(self, scores: Tensor) -> Tensor:
        """See :class:`Rule`: the largest probability of each class."""
        return scores.flatten(1).amax(dim=1) if scores.is_contiguous() else scores.amax(dim=(1, 2, 3))

    def decide(self, scores: Tensor, coordinates: Coordinates, known: NDArray[np.float32]) -> tuple[Tensor, Tensor]:
        """See :class:`Rule`."""
        interpolated = Interpolation(coordinates, like=scores)
        best = interpolated(scores[0].contiguous())
        label = torch.zeros(interpolated.shape, dtype=torch.uint8, device=scores.device)
        for index in range(1, scores.shape[0]):
            if known[index] < 1.0 / scores.shape[0]:
                continue
            value = interpolated(scores[index].contiguous())
            _paint(label, value > best, index)
            torch.maximum(value, best, out=best)
        return label, best


@dataclass(frozen=True)
class ByLogit:
    """The largest interpolated logit wins; its probability is the softmax of the model voxels, interpolated.

    Parameters
    ----------
    compared_in
        Number format that interpolated logits are rounded to before they are compared. Rounding keeps order, so that what
        cannot win still cannot.
    """

    compared_in: torch.dtype = torch.float32

    def are_finite(self, scores: Tensor) -> Tensor:
        """See :class:`Rule`."""
        return logits_are_finite(scores)

    def foreground(self, scores: Tensor) -> Tensor:
        """See :class:`Rule`."""
        return scores[1:].amax(dim=0) >= scores[0]

    def survey(self, scores: Tensor) -> Tensor:
        """See :class:`Rule`: per class the lines along each axis that hold a voxel where it is above background."""
        return torch.cat([line for score in scores[1:] for line in lines_with(score > scores[0])]).float()

    def decide(self, scores: Tensor, coordinates: Coordinates, known: NDArray[np.float32]) -> tuple[Tensor, Tensor]:
        """See :class:`Rule`."""
        whole = Interpolation(coordinates, like=scores)
        best = whole(scores[0].contiguous()).to(self.compared_in)
        label = torch.zeros(best.shape, dtype=torch.uint8, device=scores.device)
        for index, above in enumerate(known.reshape(-1, sum(scores.shape[1:])), start=1):
            around = _around(above, scores.shape[1:], coordinates)
            if around is None:
                continue
            part = scores[index][around.model].contiguous()
            value = Interpolation(around.coordinates, like=part)(part).to(self.compared_in)
            best_here = best[around.source]
            _paint(label[around.source], value > best_here, index)
            torch.maximum(value, best_here, out=best_here)
        return label, whole(_certainty(scores))


@dataclass(frozen=True)
class ByRegion:
    """Each head paints its label where its logit is above 0, in order; a later one overwrites. Rounding changes no sign.

    Parameters
    ----------
    order
        The label of each head.
    """

    order: tuple[int, ...]

    def are_finite(self, scores: Tensor) -> Tensor:
        """See :class:`Rule`."""
        return logits_are_finite(scores)

    def foreground(self, scores: Tensor) -> Tensor:
        """See :class:`Rule`."""
        return scores.amax(dim=0) > 0

    def survey(self, scores: Tensor) -> Tensor:
        """See :class:`Rule`: per head the lines along each axis that hold a voxel above 0."""
        return torch.cat([line for score in scores for line in lines_with(score > 0)]).float()

    def decide(self, scores: Tensor, coordinates: Coordinates, known: NDArray[np.float32]) -> tuple[Tensor, Tensor]:
        """See :class:`Rule`."""
        shape = tuple(len(c) for c in coordinates)
        label = torch.zeros(shape, dtype=torch.uint8, device=scores.device)
        lines = known.reshape(-1, sum(scores.shape[1:]))
        for index, (painted, above) in enumerate(zip(self.order, lines, strict=True)):
            around = _around(above, scores.shape[1:], coordinates)
            if around is not None:
                part = scores[index][around.model].contiguous()
                value = Interpolation(around.coordinates, like=part)(part)
                _paint(label[around.source], value > 0, painted)
        return label, Interpolation(coordinates, like=scores)(torch.sigmoid(scores.amax(dim=0)).contiguous())


def lines_with(hit: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Along each of three axes the lines that hold any voxel of ``hit`` (bool), each bool (n,)."""
    rows = hit.any(dim=2)
    return rows.any(dim=1), rows.any(dim=0), hit.view(torch.uint8).amax(dim=(0, 1)).bool()


def _paint(label: Tensor, where: Tensor, index: int) -> None:
    """Set ``label`` (uint8) to ``index`` at ``where`` (bool), in place.

    By arithmetic: choosing by a mask (``where``, ``masked_fill_``) goes voxel by voxel in PyTorch, which takes far longer.
    """
    label.mul_(where.logical_not()).add_(where.view(torch.uint8) * index)


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


def _around(above: NDArray[np.float32], shape: Sequence[int], coordinates: Coordinates) -> _Around | None:
    """The source voxels that any of certain model voxels has a part in; None where there are none.

    ``above`` says of each line along three axes of ``shape``, one axis after the other, whether it holds such a voxel.
    """
    model, source, local = [], [], []
    for axis, line in enumerate(np.split(above, np.cumsum(shape)[:-1])):
        hit = np.flatnonzero(line)
        if not hit.size:
            return None
        low, high = max(0, int(hit[0]) - 1), min(shape[axis] - 1, int(hit[-1]) + 1)
        picked = np.flatnonzero((coordinates[axis] > int(hit[0]) - 1) & (coordinates[axis] < int(hit[-1]) + 1))
        if picked.size == 0:
            return None
        model.append(slice(low, high + 1))
        source.append(slice(int(picked[0]), int(picked[-1]) + 1))
        local.append(coordinates[axis][source[-1]] - low)
    return _Around((model[0], model[1], model[2]), (source[0], source[1], source[2]), (local[0], local[1], local[2]))


def winner(scores: Tensor, coordinates: Coordinates) -> tuple[Tensor, Tensor]:
    """Index (uint8) and value (float32) of the largest interpolated probability at the product of three coordinate lists.

    ``scores`` are probabilities (classes, slow, middle, fast), contiguous or not. On a tie the lower class wins.
    """
    rule = ByProbability()
    return rule.decide(scores, coordinates, to_host(rule.survey(scores)))
