"""Several networks' masks become one without moving a voxel of any of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agseg.errors import Code
from agseg.grid import Grid
from agseg.inference.combine import combine
from agseg.inference.segment import Segmentation
from agseg.labels import LabelSet
from agseg.volume import LabelMask

SHAPE = (5, 4, 3)
GRID = Grid(SHAPE, np.eye(4))
NAMES = ("liver", "spleen", "pancreas", "aorta", "colon", "stomach")


def result(names: dict[int, str], seed: int) -> Segmentation:
    rng = np.random.default_rng(seed)
    labels = rng.choice(np.array([0, *names], dtype=np.uint8), SHAPE)
    facts = dict.fromkeys(names.values(), 0.5)
    return Segmentation(LabelMask(labels, GRID, LabelSet.from_mapping(names)), facts, {}, {"predict": 1.0})


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6, unique=True), st.integers(1, 5), st.integers(0, 99))
def test_every_organ_is_where_its_network_saw_it_unless_an_earlier_one_claims_the_voxel(
    indices: list[int], split: int, seed: int
) -> None:
    halves = [indices[:split], indices[split:]]
    # Both count from their own 1, or have gaps: indices mean nothing across networks.
    parts = [dict(zip(half, NAMES[number * split :], strict=False)) for number, half in enumerate(halves) if half]
    results = [result(part, seed + number) for number, part in enumerate(parts)]
    before = [one.mask.labels.copy() for one in results]
    joined = combine(results)
    assert joined.mask.label_set.names
    assert set(joined.mask.label_set.names) == {n for p in parts for n in p.values()}
    claimed = np.zeros(SHAPE, dtype=bool)
    clashes = 0
    for one in results:
        for name in one.mask.label_set.names:
            assert np.array_equal(joined.mask.of(name), one.mask.of(name) & ~claimed)
        clashes += int(np.count_nonzero((one.mask.labels > 0) & claimed))
        claimed |= one.mask.labels > 0
    assert [warned.code for warned in joined.warnings] == ([Code.OVERLAP] if clashes else [])
    assert joined.seconds == {"predict": float(len(results))}
    assert all(np.array_equal(one.mask.labels, kept) for one, kept in zip(results, before, strict=True))


def test_one_network_is_left_as_it_is() -> None:
    alone = result({7: "liver", 200: "spleen"}, 0)
    assert combine([alone]) is alone


def test_an_organ_of_two_networks_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="unique"):
        combine([result({1: "liver"}, 0), result({1: "liver"}, 1)])
