"""How far two masks agree, against counting by hand."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest

from agseg.grid import Grid
from agseg.labels import LabelSet
from agseg.measure.agreement import agreement
from agseg.volume import LabelMask

GRID = Grid((6, 5, 4), np.diag([2.0, 3.0, 4.0, 1.0]))
VOXEL_ML = 0.024


def mask(names: dict[int, str], places: dict[int, tuple[slice, slice, slice]], order: Literal["C", "F"] = "C") -> LabelMask:
    labels = np.zeros(GRID.shape, dtype=np.uint8, order=order)
    for value, place in places.items():
        labels[place] = value
    return LabelMask(labels, GRID, LabelSet.from_mapping(names))


ALL = slice(None)


@pytest.mark.parametrize("order", ["C", "F"])
def test_dice_and_ml_are_those_of_counting_whatever_the_values_and_the_order_in_memory(order: Literal["C", "F"]) -> None:
    one = mask({1: "liver", 2: "spleen", 3: "pancreas"}, {1: (slice(0, 3), ALL, ALL), 2: (slice(4, 6), ALL, ALL)})
    two = mask({7: "liver", 1: "spleen", 9: "aorta"}, {7: (slice(1, 4), ALL, ALL)}, order)
    found = agreement(one, two)
    assert set(found) == {"liver", "spleen"}
    assert found["liver"].dice == pytest.approx(2 * 40 / 120)
    assert (found["liver"].volume_ml, found["liver"].other_ml) == pytest.approx((60 * VOXEL_ML, 60 * VOXEL_ML))
    assert (found["spleen"].dice, found["spleen"].other_ml) == (0, 0)


def test_where_neither_has_a_voxel_there_is_no_dice_and_other_shapes_are_refused() -> None:
    empty = mask({1: "liver"}, {})
    assert agreement(empty, empty)["liver"].dice is None
    small = Grid((2, 2, 2), np.eye(4))
    with pytest.raises(ValueError, match="differ in shape"):
        agreement(empty, LabelMask(np.zeros((2, 2, 2), dtype=np.uint8), small, LabelSet.from_mapping({1: "liver"})))
