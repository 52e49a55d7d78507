import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agseg.measure.significance import bootstrap_interval, holm, paired_wilcoxon, summarise


def test_wilcoxon_hand_worked():
    # Six differences, all of one sign and none tied: exact two-sided p = 2 / 2^6.
    first = [0.80, 0.82, 0.84, 0.86, 0.88, 0.90]
    second = [a - d for a, d in zip(first, (0.01, 0.02, 0.03, 0.04, 0.05, 0.06), strict=True)]
    found = paired_wilcoxon(first, second)
    assert found.p == pytest.approx(2 / 64)
    assert found.n == 6
    assert found.difference == pytest.approx(0.035)
    assert found.interval.low > 0
    assert paired_wilcoxon(second, first).p == pytest.approx(found.p)
    assert paired_wilcoxon(second, first).difference == pytest.approx(-found.difference)


def test_equal_lists_differ_in_nothing():
    same = paired_wilcoxon([0.5, 0.6, 0.7], [0.5, 0.6, 0.7])
    assert (same.p, same.n, same.difference) == (1.0, 3, 0.0)


def test_pairs_with_nan_are_left_out_and_counted():
    found = paired_wilcoxon([0.9, math.nan, 0.8, 0.7], [0.1, 0.5, math.nan, 0.2])
    assert found.n == 2
    assert math.isnan(paired_wilcoxon([math.nan], [0.1]).p)
    with pytest.raises(ValueError, match="one length"):
        paired_wilcoxon([1.0], [1.0, 2.0])


def test_summary_counts_what_it_rests_on():
    found = summarise([1.0, 3.0, math.nan])
    assert (found.mean, found.n, found.total) == (2.0, 2, 3)
    assert found.sd == pytest.approx(math.sqrt(2))
    assert summarise([math.nan]).n == 0
    assert math.isnan(summarise([0.5]).sd)


def test_bootstrap_is_the_same_for_the_same_seed_and_holds_the_mean():
    values = np.random.default_rng(0).normal(0.8, 0.1, 40)
    interval = bootstrap_interval(values, seed=3)
    assert interval == bootstrap_interval(values, seed=3)
    assert interval.low < values.mean() < interval.high
    half = 1.96 * values.std(ddof=1) / math.sqrt(40)
    assert interval.high - interval.low == pytest.approx(2 * half, rel=0.1)
    assert math.isnan(bootstrap_interval([0.4]).low)


def test_holm_hand_worked():
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1 = 0.02, 0.03, 0.06, 0.04 -> the last is lifted to 0.06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert holm([]) == ()
    adjusted = holm([0.01, math.nan, 0.6])
    assert adjusted[0] == pytest.approx(0.02)
    assert math.isnan(adjusted[1])
    assert adjusted[2] == pytest.approx(0.6)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_the_p_value_and_bonferroni(p_values):
    adjusted = holm(p_values)
    for p, a in zip(p_values, adjusted, strict=True):
        assert p <= a <= min(1.0, len(p_values) * p) + 1e-12 or a == pytest.approx(max(adjusted))
        assert a >= p
    order = np.argsort(p_values, kind="stable")
    assert all(adjusted[i] <= adjusted[j] for i, j in itertools.pairwise(order))
