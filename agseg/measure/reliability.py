"""How often voxels are right against how sure the network was: counted, summed up, and made into a calibration.

Patients count alike, whatever the size of their organ: a calibration is meant for the next patient, not for the next voxel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agseg.measure.calibration import AS_IT_IS, MOST_CERTAIN, Calibration, logit, sigmoid

BIN_ODDS = 0.1
"""Width of a bin of winning probability, in log odds."""

_EACH_SIDE = int(np.ceil(logit(np.array(1 - MOST_CERTAIN)) / BIN_ODDS))
EDGES: NDArray[np.float64] = np.append(np.arange(-_EACH_SIDE, _EACH_SIDE) * BIN_ODDS, np.inf)
EDGES.flags.writeable = False
"""Lower edges of the bins in log odds, and the end of the last."""

BINS = 10
"""Bins of equal width of a reliability diagram, as in Guo et al. (2017)."""

FEWEST_PATIENTS = 3
"""A calibration of fewer patients would be fitted to these."""

_LEAST_SCALE, _MOST_SCALE, _MOST_SHIFT = 0.05, 20.0, 20.0


@dataclass(frozen=True, eq=False)
class Tally:
    """Voxels that an organ won, by how sure the network was: int64 (bins,) right and wrong by the labels."""

    right: NDArray[np.int64]
    wrong: NDArray[np.int64]

    @classmethod
    def of(cls, probability: NDArray[np.floating], right: NDArray[np.bool_]) -> Tally:
        """Count voxels; winning probability and whether the labels agree, both (voxels,)."""
        at = np.clip(np.searchsorted(EDGES, logit(probability), side="right") - 1, 0, len(EDGES) - 2)
        counts = [np.bincount(at[which], minlength=len(EDGES) - 1) for which in (right, ~right)]
        return cls(counts[0].astype(np.int64), counts[1].astype(np.int64))

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.right + other.right, self.wrong + other.wrong)

    @property
    def total(self) -> int:
        """How many voxels."""
        return int(self.right.sum() + self.wrong.sum())

    @property
    def share_right(self) -> float:
        """The part that the labels agree with; NaN where there is no voxel."""
        return float(self.right.sum() / self.total) if self.total else float("nan")

    def mean(self, calibration: Calibration = AS_IT_IS) -> float:
        """Mean calibrated probability; NaN where there is no voxel."""
        return float((self.right + self.wrong) @ _calibrated(calibration) / self.total) if self.total else float("nan")


def _odds() -> NDArray[np.float64]:
    """The middle of each bin."""
    return EDGES[:-1] + BIN_ODDS / 2


def _calibrated(calibration: Calibration) -> NDArray[np.float64]:
    return sigmoid(calibration.scale * _odds() + calibration.shift)


Weighted = tuple[NDArray[np.float64], NDArray[np.float64]]


def _weighted(patients: Sequence[Tally]) -> Weighted:
    """Right and wrong over all bins; each patient's sum is one patient's share."""
    some = [tally for tally in patients if tally.total]
    right = sum((tally.right / tally.total for tally in some), np.zeros(len(EDGES) - 1))
    wrong = sum((tally.wrong / tally.total for tally in some), np.zeros(len(EDGES) - 1))
    return right / max(1, len(some)), wrong / max(1, len(some))


def loss(patients: Sequence[Tally], calibration: Calibration = AS_IT_IS) -> float:
    """Mean negative log likelihood of right and wrong, patients alike."""
    right, wrong = _weighted(patients)
    p = np.clip(_calibrated(calibration), MOST_CERTAIN, 1 - MOST_CERTAIN)
    return float(-(right @ np.log(p) + wrong @ np.log1p(-p)))


@dataclass(frozen=True, eq=False)
class Curve:
    """A reliability diagram, each float64 (:data:`BINS`,): share of all voxels, mean probability, part that is right."""

    share: NDArray[np.float64]
    sure: NDArray[np.float64]
    right: NDArray[np.float64]

    @property
    def error(self) -> float:
        """Expected calibration error: mean distance of probability and part that is right, over the bins' shares."""
        filled = self.share > 0
        return float((self.share * np.abs(self.sure - self.right))[filled].sum())


def curve(patients: Sequence[Tally], calibration: Calibration | Sequence[Calibration] = AS_IT_IS) -> Curve:
    """The reliability diagram, patients alike; NaN in bins without a voxel.

    Parameters
    ----------
    patients
        Their tallies.
    calibration
        One for all, or each patient's own.
    """
    each = [calibration] * len(patients) if isinstance(calibration, Calibration) else calibration
    share, sure, hit = np.zeros(BINS), np.zeros(BINS), np.zeros(BINS)
    for tally, own in zip(patients, each, strict=True):
        right, wrong = _weighted([tally])
        p = _calibrated(own)
        at = np.minimum((p * BINS).astype(int), BINS - 1)
        share += np.bincount(at, right + wrong, BINS)
        sure += np.bincount(at, (right + wrong) * p, BINS)
        hit += np.bincount(at, right, BINS)
    with np.errstate(invalid="ignore", divide="ignore"):
        return Curve(share / max(1.0, share.sum()), sure / share, hit / share)


def fitted(patients: Sequence[Tally], *, shifted: bool) -> Calibration | None:
    """The calibration of least loss, with a shift or without; None where certainty says nothing about being right.

    Newton's method for a logistic regression on the bins.
    """
    right, wrong = _weighted(patients)
    x = np.stack([_odds(), np.ones(len(right))])[: 2 if shifted else 1]
    weights = np.array([1.0, 0.0])[: len(x)]
    for _ in range(100):
        p = sigmoid(weights @ x)
        gradient = x @ ((right + wrong) * p - right)
        curvature = (x * ((right + wrong) * p * (1 - p))) @ x.T + 1e-9 * np.eye(len(x))
        step = np.linalg.solve(curvature, gradient)
        weights = weights - np.clip(step, -1.0, 1.0)
        if np.abs(step).max() < 1e-9:
            break
    scale, shift = float(weights[0]), float(weights[1]) if shifted else 0.0
    usable = _LEAST_SCALE <= scale <= _MOST_SCALE and abs(shift) <= _MOST_SHIFT
    return Calibration(scale, shift) if usable else None


@dataclass(frozen=True)
class Fit:
    """A chosen calibration, and how it and doing nothing did on patients that it was not fitted to (losses)."""

    calibration: Calibration
    before: float
    after: float


def chosen(patients: Mapping[str, Tally]) -> Fit | None:
    """By leaving out one patient after the other: nothing, a scale, or a scale and a shift, whichever has the least loss.

    The mean probability of an organ is what is read, so a calibration that brings it no nearer to the part that is right, on
    average over the patients left out, is not taken either.

    Parameters
    ----------
    patients
        The tally of each patient, all scans together.

    Returns
    -------
    Fit or None
        None for fewer than :data:`FEWEST_PATIENTS`, and where doing nothing is best.
    """
    some = {name: tally for name, tally in patients.items() if tally.total}
    if len(some) < FEWEST_PATIENTS:
        return None
    before = float(np.mean([loss([tally]) for tally in some.values()]))
    apart = _apart(some, dict.fromkeys(some, AS_IT_IS))
    best: Fit | None = None
    for shifted in (False, True):
        fits, whole = left_out(some, shifted=shifted), fitted([*some.values()], shifted=shifted)
        if fits is None or whole is None or _apart(some, fits) >= apart:
            continue
        after = float(np.mean([loss([some[name]], fit) for name, fit in fits.items()]))
        if after < (before if best is None else best.after):
            best = Fit(whole, before, after)
    return best


def _apart(patients: Mapping[str, Tally], fits: Mapping[str, Calibration]) -> float:
    """How far the mean probability is from the part that is right, mean over patients."""
    return float(np.mean([abs(tally.mean(fits[name]) - tally.share_right) for name, tally in patients.items()]))


def left_out(patients: Mapping[str, Tally], *, shifted: bool) -> dict[str, Calibration] | None:
    """Each patient's calibration by the others; None where one cannot be fitted."""
    found = {}
    for name in patients:
        fit = fitted([tally for other, tally in patients.items() if other != name], shifted=shifted)
        if fit is None:
            return None
        found[name] = fit
    return found
