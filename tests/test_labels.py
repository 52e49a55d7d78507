"""Labels: names, codes and laterality."""

import pytest

from agseg.errors import UsageError
from agseg.labels import KNOWN_STRUCTURES, LabelSet


def test_left_and_right_share_a_concept_and_differ_by_modifier():
    left, right = KNOWN_STRUCTURES["kidney_left"], KNOWN_STRUCTURES["kidney_right"]
    assert left.code == right.code
    assert left.laterality is not None
    assert right.laterality is not None
    assert left.laterality.value != right.laterality.value


def test_a_label_set_is_ordered_and_refuses_duplicates():
    labels = LabelSet.from_mapping({0: "background", 3: "liver", 1: "spleen"})
    assert labels.names == ("spleen", "liver")
    assert labels.class_count == 4
    assert labels["liver"].index == 3
    with pytest.raises(ValueError, match="unique"):
        LabelSet.from_mapping({1: "liver", 2: "liver"})
    with pytest.raises(ValueError, match="1 to 255"):
        LabelSet.from_mapping({256: "liver"})


def test_an_unknown_organ_lists_the_known_ones():
    labels = LabelSet.from_mapping({1: "spleen", 2: "liver"})
    with pytest.raises(UsageError, match="spleen, liver"):
        labels.only(["pancreas"])


@pytest.mark.parametrize(
    ("written", "meant"), [("pancras", "pancreas"), ("Spleen", "spleen"), ("kidny left", "kidney_left"), ("livre", "liver")]
)
def test_a_misspelt_organ_is_answered_with_the_name_that_was_meant(written, meant):
    labels = LabelSet.from_mapping({1: "spleen", 2: "liver", 3: "pancreas", 4: "kidney_left", 5: "kidney_right"})
    with pytest.raises(UsageError) as caught:
        labels.only([written])
    assert caught.value.hint is not None
    assert meant in caught.value.hint


def test_titles_read_as_people_write_them():
    assert LabelSet.from_mapping({1: "kidney_left"})["kidney_left"].title == "left kidney"
