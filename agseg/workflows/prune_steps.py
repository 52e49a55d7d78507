"""What each further depth of a nested network gains in Dice, tested case by case."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agseg.measure.overlap import Overlap
from agseg.measure.significance import holm, paired_wilcoxon


@dataclass(frozen=True)
class DepthStep:
    """From one depth to the next: mean gain in a case's Dice (mean over its organs), with interval and paired tests.

    ``p`` is of a two-sided Wilcoxon signed-rank test over ``n`` cases, ``p_holm`` corrected over all steps of the curve.
    """

    shallower: int
    deeper: int
    gain: float
    low95: float
    high95: float
    p: float
    p_holm: float
    n: int


def steps_between(counts: Mapping[int, Mapping[str, Sequence[Overlap]]]) -> tuple[DepthStep, ...]:
    """The steps of a curve from its counts by depth, organ and case."""
    by_case = {depth: [_mean(one) for one in zip(*organs.values(), strict=True)] for depth, organs in counts.items()}
    pairs = [(depth, depth + 1) for depth in sorted(by_case) if depth + 1 in by_case]
    tests = [paired_wilcoxon(by_case[deeper], by_case[shallower]) for shallower, deeper in pairs]
    corrected = holm([test.p for test in tests])
    return tuple(
        DepthStep(*pair, test.difference, test.interval.low, test.interval.high, test.p, p, test.n)
        for pair, test, p in zip(pairs, tests, corrected, strict=True)
    )


def _mean(organs: Sequence[Overlap]) -> float:
    """Mean Dice of a case over the organs that prediction or truth has."""
    known = [found.dice for found in organs if not math.isnan(found.dice)]
    return sum(known) / len(known) if known else math.nan
