import pytest

from agseg.errors import RecipeError
from agseg.training.datasets import Layout, Task, dataset, dataset_names
from agseg.training.phantom import SITES
from agseg.ultrasound.timeline import PLANES


def test_every_data_set_of_the_papers_is_described():
    assert set(dataset_names()) == {"ct150", "ct82", "lits", "chaos", "isic2017", "lung", "fetal-us"}
    for name in dataset_names():
        facts = dataset(name)
        assert facts.licence
        assert facts.obtain
        assert facts.citation


def test_phantoms_carry_the_labels_of_what_they_imitate():
    for name, site in SITES.items():
        assert dataset(name).label_set == site.label_set
    assert tuple(dataset("fetal-us").labels.values()) == PLANES


def test_the_two_duplicates_of_pancreas_ct_are_pinned():
    facts = dataset("ct82")
    assert set(facts.excluded) == {"PANCREAS_0025", "PANCREAS_0070"}
    assert facts.cases == 82 - len(facts.excluded)
    assert (facts.layout, facts.task) == (Layout.TCIA_PANCREAS, Task.VOLUME)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(RecipeError, match="ct82"):
        dataset("ct99")
