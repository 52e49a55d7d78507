"""Significance tests for paired differences between two methods on the same cases.

The papers give p-values without naming the test; ours is the paired Wilcoxon signed-rank test per scan, with Holm's
correction over the family of comparisons, and bootstrap intervals of the mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

BOOTSTRAP_DRAWS = 10_000
"""Resamples of a bootstrap interval."""

CONFIDENCE = 0.95
"""Level of every interval in a table."""


@dataclass(frozen=True)
class Interval:
    """A confidence interval; NaN ends where fewer than two values are known."""

    low: float
    high: float


@dataclass(frozen=True)
class Summary:
    """Mean ± sample standard deviation over the known values of ``total`` cases, with its bootstrap interval.

    ``n`` is the number of values the mean rests on; ``total - n`` were NaN (nothing to compare).
    """

    mean: float
    sd: float
    n: int
    total: int
    interval: Interval


@dataclass(frozen=True)
class PairedTest:
    """A paired comparison of two methods over the ``n`` cases where both have a value.

    ``difference`` is the mean of first minus second; ``interval`` its bootstrap interval.
    """

    p: float
    n: int
    difference: float
    interval: Interval


def summarise(values: ArrayLike, *, seed: int = 0) -> Summary:
    """Mean, standard deviation (n - 1) and bootstrap interval of a list of per-case values; NaN are left out and counted."""
    every = np.asarray(values, dtype=np.float64)
    known = every[np.isfinite(every)]
    if known.size == 0:
        return Summary(math.nan, math.nan, 0, every.size, Interval(math.nan, math.nan))
    sd = float(known.std(ddof=1)) if known.size > 1 else math.nan
    return Summary(float(known.mean()), sd, known.size, every.size, bootstrap_interval(known, seed=seed))


def bootstrap_interval(values: ArrayLike, *, seed: int = 0, draws: int = BOOTSTRAP_DRAWS) -> Interval:
    """Percentile bootstrap interval of the mean at :data:`CONFIDENCE`, the same for the same seed."""
    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    if known.size < 2:
        return Interval(math.nan, math.nan)
    generator = np.random.default_rng(seed)
    means = known[generator.integers(0, known.size, size=(draws, known.size))].mean(axis=1)
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(means, (tail, 100 - tail))
    return Interval(float(low), float(high))


def paired_wilcoxon(first: ArrayLike, second: ArrayLike, *, seed: int = 0) -> PairedTest:
    """Two-sided Wilcoxon signed-rank test of first against second, case by case.

    Pairs with a NaN are left out. Zero differences are dropped (Wilcoxon's own rule); if all are zero, p is 1.

    Raises
    ------
    ValueError
        If the lists differ in length.
    """
    one, other = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if one.shape != other.shape or one.ndim != 1:
        raise ValueError(f"a paired test needs two lists of one length, not {one.shape} and {other.shape}")
    differences = one - other
    differences = differences[np.isfinite(differences)]
    if differences.size == 0:
        return PairedTest(math.nan, 0, math.nan, Interval(math.nan, math.nan))
    moved = differences[differences != 0]
    p = float(stats.wilcoxon(moved).pvalue) if moved.size else 1.0
    return PairedTest(p, differences.size, float(differences.mean()), bootstrap_interval(differences, seed=seed))


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Holm-Bonferroni adjusted p-values in the order given; NaN stay NaN and are not counted as tests.

    Source: Holm, Scand. J. Statist. 6 (1979): step down, (m - rank) p, made monotone, at most 1.
    """
    adjusted: NDArray[np.float64] = np.asarray(p_values, dtype=np.float64).copy()
    known = np.flatnonzero(~np.isnan(adjusted))
    order = known[np.argsort(adjusted[known], kind="stable")]
    running = 0.0
    for rank, position in enumerate(order):
        running = max(running, min(1.0, float((order.size - rank) * adjusted[position])))
        adjusted[position] = running
    return tuple(float(p) for p in adjusted)
