"""One training sample, and the random numbers that it is drawn with: a pure function of seed and number."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_STEP_PRIME = 1_000_003
"""Keeps the generators of neighbouring seeds and steps apart."""


@dataclass(frozen=True, eq=False)
class Sample:
    """What one row of a batch is made of.

    Parameters
    ----------
    image
        Network input, float32 ``[C, *tile]``.
    labels
        Class per voxel or pixel, uint8 ``[*tile]``; the class of a frame, a scalar.
    known
        Classes that the labels tell apart, None for all (:mod:`agseg.training.partial_loss`).
    case_id
        What it was drawn from.
    """

    image: Tensor
    labels: Tensor
    known: tuple[int, ...] | None
    case_id: str


def step_generator(seed: int, step: int) -> torch.Generator:
    """The random numbers of one step: a resumed run sees exactly what an uninterrupted one would."""
    return torch.Generator().manual_seed(seed * _STEP_PRIME + step)
