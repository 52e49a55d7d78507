"""What a network's winning probability is worth: a curve per organ that says how often it is right where it says so."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agseg.errors import FieldError

MOST_CERTAIN = 1e-6
"""Probabilities nearer to 0 or 1 than this are taken for this: their log odds stay finite."""


@dataclass(frozen=True)
class Calibration:
    """``sigmoid(scale * logit(p) + shift)`` in place of a winning probability p. It changes no mask.

    Source: Platt, Probabilistic outputs for support vector machines (1999); without a shift it is the temperature 1 / scale of
    Guo et al., On calibration of modern neural networks (2017), for two classes.

    Parameters
    ----------
    scale
        Above 0, so that of two voxels the more certain one stays so; below 1 for a network that is too sure.
    shift
        In log odds.
    """

    scale: float
    shift: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise FieldError("scale", "no scale of log odds", value=self.scale, expected="a number above 0")
        if not math.isfinite(self.shift):
            raise FieldError("shift", "no shift of log odds", value=self.shift, expected="a number")

    def of(self, probability: NDArray[np.floating]) -> NDArray[np.float64]:
        """The same probabilities, calibrated; any shape."""
        return sigmoid(self.scale * logit(probability) + self.shift)


AS_IT_IS = Calibration(1.0)
"""Leaves probabilities as they are, but for :data:`MOST_CERTAIN`."""


def logit(probability: NDArray[np.floating]) -> NDArray[np.float64]:
    """Log odds; probabilities nearer to 0 or 1 than :data:`MOST_CERTAIN` are taken for that."""
    p = np.clip(np.asarray(probability, dtype=np.float64), MOST_CERTAIN, 1 - MOST_CERTAIN)
    return np.asarray(np.log(p) - np.log1p(-p))


def sigmoid(odds: NDArray[np.floating]) -> NDArray[np.float64]:
    """Probability of log odds."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.asarray(odds, dtype=np.float64))))
