import pytest

from agseg.errors import RecipeError
from agseg.labels import LabelSet
from agseg.training.protocol import Logits, Protocol, Start, kept_classes, protocol, protocols

SOURCE = LabelSet.from_mapping({1: "spleen", 2: "pancreas", 3: "kidney"})


def test_the_three_protocols_of_the_papers():
    assert [found.name for found in protocols()] == ["bft", "aft", "scr"]
    bft, aft, scr = protocols()
    assert (bft.start, bft.trains, bft.logits) == (Start.SOURCE, False, Logits.ALL)
    assert (aft.start, aft.trains, aft.logits) == (Start.SOURCE, True, Logits.TARGET)
    assert (scr.start, scr.trains, scr.logits) == (Start.NOTHING, True, Logits.ALL)
    assert protocol("AFT") == aft


def test_kept_classes_are_found_by_name():
    assert kept_classes(SOURCE, LabelSet.from_mapping({1: "pancreas"})) == (0, 2)
    assert kept_classes(SOURCE, LabelSet.from_mapping({1: "kidney", 2: "spleen"})) == (0, 3, 1)
    with pytest.raises(RecipeError, match="does not know"):
        kept_classes(SOURCE, LabelSet.from_mapping({1: "liver"}))


def test_what_makes_no_sense_is_refused():
    with pytest.raises(RecipeError, match="bft, aft, scr"):
        protocol("xyz")
    with pytest.raises(ValueError, match="must train"):
        Protocol("x", "x", Start.NOTHING, trains=False, logits=Logits.ALL)
