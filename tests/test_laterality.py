"""Left and right in names."""

import pytest

from agseg.errors import UsageError
from agseg.labels import known_structures
from agseg.laterality import fellow, left_right_pairs, sided

SPELLINGS = {
    "kidney_left": "kidney_right",
    "Kidney left": "Kidney right",
    "kidney-left": "kidney-right",
    "left_kidney": "right_kidney",
    "LeftKidney": "RightKidney",
    "kidneyLeft": "kidneyRight",
    "KIDNEY_LEFT": "KIDNEY_RIGHT",
    "leftkidney": "rightkidney",
    "kidney_l": "kidney_r",
    "kidney L": "kidney R",
    "l_kidney": "r_kidney",
    "LKidney": "RKidney",
    "KidneyL": "KidneyR",
    "lt.kidney": "rt.kidney",
    "lh-cortex": "rh-cortex",
    "rib_left_3": "rib_right_3",
    "Left1": "Right1",
    "L": "R",
    "rim_überlappt_l": "rim_überlappt_r",
}


@pytest.mark.parametrize(("name", "other"), SPELLINGS.items())
def test_the_fellow_has_the_same_spelling_and_its_fellow_is_the_name_itself(name: str, other: str) -> None:
    assert fellow(name) == other
    assert fellow(other) == name


@pytest.mark.parametrize(
    "name",
    ["liver", "vertebrae_L5", "L5", "cleft_lip", "BrightSpot", "upright", "tumour", "colon", "LV", "T1", "hör", "x3r", ""],
)
def test_other_names_have_no_side(name: str) -> None:
    assert fellow(name) is None


def test_every_structure_with_a_side_is_known_by_its_name() -> None:
    with_side = [name for name, structure in known_structures().items() if structure.laterality is not None]
    assert set(with_side) <= set(sided(known_structures()))
    assert all(fellow(name) in known_structures() for name in with_side if name not in _ALONE)


_ALONE = {"atrial_appendage_left"}
"""Structures that the table has on one side only."""


def test_pairs_are_found_whatever_the_spelling_and_labels_without_a_side_have_none() -> None:
    assert left_right_pairs({"liver": 1, "l_kidney": 4, "R_Kidney": 2, "AdrenalLeft": 3, "adrenalright": 5}) == ((2, 4), (3, 5))
    assert left_right_pairs({"liver": 1}) == ()


def test_a_label_without_its_fellow_is_named() -> None:
    with pytest.raises(UsageError, match="LeftKidney has no label for its other side"):
        left_right_pairs({"spleen": 1, "LeftKidney": 2})
