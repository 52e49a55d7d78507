"""A published row stands beside the run it belongs to, and beside no other."""

from __future__ import annotations

from dataclasses import replace

import pytest
from torch import nn

from agseg.training.beside import changed_keys, experiment_of, row_beside
from agseg.training.overrides import overridden
from agseg.training.recipe import find_recipe
from agseg.training.trained_model import SOURCE, TrainedModel

CT150 = {"recipe": "unet3d-ct150-120-30", "published": "ct150.120-30.unet3d", "synthetic": False}


def run(name, *, source=None, synthetic=False):
    recipe = find_recipe(name)
    return TrainedModel(nn.Identity(), recipe, recipe.label_set, about={"data": {"synthetic": synthetic}, SOURCE: source})


def beside(trained, cohort, protocol, split, *, synthetic=False):
    return row_beside(trained, cohort=cohort, protocol_name=protocol, split=split, synthetic=synthetic)


@pytest.mark.parametrize(
    ("name", "cohort", "protocol", "split", "key"),
    [
        ("unet3d-ct150-120-30", "ct150", "scr", "120-30", "ct150.120-30.unet3d"),
        ("unet3d-ct150-30-120", "ct150", "scr", "30-120", "ct150.30-120.unet3d"),
        ("unet3d-ct150-120-30", "ct82", "bft", "61-21", "ct82.bft.unet3d"),
        ("attention-unet3d-ct82-scr", "ct82", "scr", "61-21", "ct82.scr.attention-unet3d"),
        ("attention-unet3d-ct82-5-fold", "ct82", "scr", "5-fold", "ct82.5-fold.attention-unet3d"),
        ("anu-net-chaos-spleen", "chaos", "scr", "5-1", "chaos.spleen.anu-net"),
        ("focusnet-isic2017", "isic2017", "scr", "provider", "isic2017.focusnet"),
    ],
)
def test_a_run_of_a_papers_experiment_has_its_row(name, cohort, protocol, split, key):
    assert beside(run(name), cohort, protocol, split) == key


@pytest.mark.parametrize(
    ("name", "cohort", "protocol", "split"),
    [
        ("attention-unet3d-ct82-5-fold", "ct82", "scr", "61-21"),  # another split than the row's
        ("unet3d-6.44m-ct150-120-30", "ct82", "bft", "61-21"),  # Table 2 knows this network on CT-150 only
        ("unet3d-ct150-30-120", "ct82", "bft", "61-21"),  # the paper's source had learned from 120
        ("unet3d-ct150-120-30", "ct82", "bft", "5-fold"),
        ("unet3d-ct150-120-30", "my-tumours", "bft", "61-21"),  # data of one's own
        ("unet3d-ct150-120-30", "my-tumours", "scr", "120-30"),  # a copied recipe with the row's key left in
        ("unet3d-phantom-ct150", "ct150", "scr", "120-30"),  # a narrow network
        ("unet3d-ct82-aft", "ct82", "aft", "61-21"),  # of unknown origin
    ],
)
def test_no_row_stands_beside_what_it_does_not_belong_to(name, cohort, protocol, split):
    assert beside(run(name), cohort, protocol, split) is None


def test_a_fine_tuned_network_must_come_from_the_papers_source():
    def tuned(source):
        return beside(run("unet3d-ct82-aft", source=source), "ct82", "aft", "61-21")

    assert tuned(CT150) == "ct82.aft.unet3d"
    assert tuned({**CT150, "published": None}) is None
    assert tuned({**CT150, "published": "ct150.30-120.unet3d"}) is None
    assert tuned({**CT150, "synthetic": True}) is None


def test_a_network_that_began_with_anothers_weights_is_not_from_scratch():
    assert beside(run("unet3d-ct82-scr", source=CT150), "ct82", "scr", "61-21") is None
    assert beside(run("unet3d-ct82-scr", source={**CT150, "published": None}), "ct82", "scr", "61-21") is None


def test_synthetic_images_have_no_row_on_either_side():
    scr = run("unet3d-ct82-scr")
    assert beside(scr, "ct82", "scr", "61-21") is not None
    assert beside(scr, "ct82", "scr", "61-21", synthetic=True) is None
    assert beside(run("unet3d-ct82-scr", synthetic=True), "ct82", "scr", "61-21") is None
    own = replace(scr.recipe, published=None)
    assert beside(replace(scr, recipe=own), "ct82", "scr", "61-21") is None


@pytest.mark.parametrize(
    "setting",
    ["loop.steps=60", "network.config.widths=[8, 16, 32, 64]", "input.tile=[48, 48, 32]", "batch=4", "affine.flip=[]"],
)
def test_a_changed_recipe_has_no_row_and_gives_none_to_what_starts_from_it(setting):
    changed = overridden(find_recipe("unet3d-ct82-scr"), [setting])
    trained = TrainedModel(nn.Identity(), changed, changed.label_set, about={})
    assert beside(trained, "ct82", "scr", "61-21") is None
    assert changed_keys(changed) == (setting.partition("=")[0],)
    assert experiment_of(trained) is None


def test_a_network_that_was_narrowed_is_told_by_its_width_alone():
    assert changed_keys(overridden(find_recipe("anu-net-lits-liver"), ["network.config.widths=[4, 8]"])) == (
        "network.config.widths",
    )


def test_a_later_stage_must_come_from_the_papers_earlier_one():
    def staged(source):
        return beside(run("ag-sononet-8-fetal-us", source=source), "fetal-us", "scr", "papers")

    earlier = {"recipe": "sononet-8-fetal-us", "published": "fetal-us.sononet-8", "synthetic": False}
    assert staged(earlier) == "fetal-us.ag-sononet-8"
    assert staged(None) is None
    assert staged({**earlier, "published": None}) is None
    assert staged({**earlier, "recipe": "sononet-16-fetal-us"}) is None


@pytest.mark.parametrize("about", [{"steps_done": 26999}, {"narrowed": True}])
def test_a_run_that_did_not_do_all_of_it_has_no_row(about):
    whole = run("unet3d-ct82-scr")
    done = replace(whole, about={"steps_done": 27000, "narrowed": False})
    assert beside(done, "ct82", "scr", "61-21") == "ct82.scr.unet3d"
    assert beside(replace(whole, about={**done.about, **about}), "ct82", "scr", "61-21") is None


@pytest.mark.parametrize("settings", [["loop.seed=7", "loop.log_every=1"], ["batch=1", "loop.accumulate=2"], ["name=mine"]])
def test_how_a_recipe_is_run_does_not_change_the_experiment(settings):
    same = overridden(find_recipe("unet3d-ct82-scr"), settings)
    assert beside(TrainedModel(nn.Identity(), same, same.label_set, about={}), "ct82", "scr", "61-21") == "ct82.scr.unet3d"
