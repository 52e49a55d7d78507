"""What a network has learned from is known by content, and no such case is in its test."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from torch import nn

from agseg.errors import FieldError, UsageError
from agseg.labels import LabelSet
from agseg.training.datasets import Task
from agseg.training.frames import open_frames
from agseg.training.leakage import (
    LEARNED,
    Content,
    Stage,
    case_contents,
    learned_by,
    refuse_known,
    refuse_learned,
    stage_of,
    stages_in,
    stages_of,
    unrecorded,
)
from agseg.training.recipe import find_recipe
from agseg.training.splits import read_split
from agseg.training.trained_model import TrainedModel
from agseg.weights.entry import Learned
from agseg.workflows.phantom import make_phantom

RECIPE = find_recipe("attention-unet3d-phantom-ct82-scr")
FRAMES = find_recipe("sononet-8-fetal-us")
ONE, TWO, THREE = (Content(name, name.upper()) for name in ("one", "two", "three"))
STAGE = Stage("ct82", {"a": ONE, "b": TWO}, {"c": THREE})


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "ct82"
    make_phantom("ct82", cases=6, output=root, coarsen=6.0)
    return root


def network(about, recipe=RECIPE) -> TrainedModel:
    return TrainedModel(nn.Identity(), recipe, LabelSet.from_mapping({1: "pancreas"}), about=about)


def of_run(root: Path, recipe=RECIPE, *earlier: Stage) -> TrainedModel:
    stage = stage_of(recipe, root, read_split(root, recipe.split))
    about = {"split": recipe.split, "fold": 0, LEARNED: [found.to_dict() for found in (stage, *earlier)]}
    return network(json.loads(json.dumps(about)), recipe)


def test_a_stage_comes_back_from_the_file_it_was_written_to():
    assert stages_in({LEARNED: json.loads(json.dumps([STAGE.to_dict()]))}) == (STAGE,)
    assert stages_in({"fold": 0}) is None
    assert stages_in(None) is None


def test_whatever_changes_what_is_learned_changes_the_digest():
    other = [
        replace(STAGE, train={"a": ONE, "b": THREE}),
        replace(STAGE, train={"a": ONE, "b": replace(TWO, labels="corrected")}),
        replace(STAGE, train={"a": ONE}),
        replace(STAGE, train={"a": ONE, "c": THREE}, validation={"b": TWO}),
    ]
    digests = [STAGE.digest("tu"), STAGE.digest("t"), *(stage.digest("tu") for stage in other)]
    assert len(set(digests)) == len(digests)
    assert [stage.differing(STAGE) for stage in other] == [("b",), ("b",), ("b",), ("b", "c")]
    same = replace(STAGE, train={"b": TWO, "a": ONE})
    assert same.digest("ut") == STAGE.digest("tu")
    assert same.differing(STAGE) == ()


def test_a_stage_holds_the_sides_that_are_learned_from_and_no_other(root):
    split = read_split(root, RECIPE.split)
    stage = stage_of(RECIPE, root, split)
    assert (tuple(stage.train), tuple(stage.validation)) == (split.train, split.validation)
    assert len({content.image for content in stage.cases.values()}) == len(stage.cases)


def test_known_cases_are_refused_and_named(root):
    trained, split = of_run(root), read_split(root, RECIPE.split)
    refuse_known(trained, root, split.test)
    for side in (split.train, split.validation):
        with pytest.raises(UsageError, match=rf"{side[0]} \(1 of {len(split.test) + 1}\)") as caught:
            refuse_known(trained, root, [*split.test, side[0]])
        assert "fold 0" in (caught.value.hint or "")


def test_a_copy_under_another_name_is_known(root, tmp_path):
    split, copied = read_split(root, RECIPE.split), tmp_path / "copied"
    shutil.copytree(root, copied)
    for folder, ending in (("imagesTr", "_0000.nii.gz"), ("labelsTr", ".nii.gz")):
        (copied / folder / f"{split.train[0]}{ending}").rename(copied / folder / f"another{ending}")
    with pytest.raises(UsageError, match="another"):
        refuse_known(of_run(root), copied, ["another"])


def test_another_patient_of_the_same_name_is_not_known(root, tmp_path):
    split = read_split(root, RECIPE.split)
    make_phantom("ct82", cases=6, output=tmp_path / "other", coarsen=6.0, seed=9)
    refuse_known(of_run(root), tmp_path / "other", split.train)


def test_what_the_source_had_learned_from_stays_known(root):
    split = read_split(root, RECIPE.split)
    source = Stage("ct150", case_contents(root, split.test[:1], task=Task.VOLUME), {})
    with pytest.raises(UsageError, match=split.test[0]):
        refuse_known(of_run(root, RECIPE, source), root, split.test)


def test_a_run_that_lists_no_cases_is_held_against_its_split(root):
    split = read_split(root, RECIPE.split)
    old = network({"split": RECIPE.split, "fold": 0})
    refuse_known(old, root, split.test)
    with pytest.raises(UsageError):
        refuse_known(old, root, [*split.test, split.train[0]])
    refuse_known(network(None), root, split.train)  # no run: nothing is known of its cases


@pytest.mark.slow
def test_frames_are_known_by_their_pixels(tmp_path):
    make_phantom("us", cases=3, output=tmp_path)
    split = read_split(tmp_path, FRAMES.split)
    trained = of_run(tmp_path, FRAMES)
    refuse_known(trained, tmp_path, split.test)
    with pytest.raises(UsageError):
        refuse_known(trained, tmp_path, split.train[:1])


@pytest.fixture
def frozen(tmp_path):
    """Frames of three subjects; one of the test side's holds the image of one of the training side's. With the two ids."""
    make_phantom("us", cases=3, output=tmp_path / "us")
    split, rows = read_split(tmp_path / "us", FRAMES.split), open_frames(tmp_path / "us").rows
    shutil.copyfile(tmp_path / "us" / rows[split.train[0]].file, tmp_path / "us" / rows[split.test[0]].file)
    return tmp_path / "us", split.test[0], split.train[0]


@pytest.mark.slow
def test_an_equal_image_on_the_runs_own_test_side_is_told_of(frozen, caplog):
    root, tested, learned = frozen
    split = read_split(root, FRAMES.split)
    again = stage_of(FRAMES, root, split)  # a source that learned from the same sides
    for trained in (of_run(root, FRAMES), of_run(root, FRAMES, again)):
        caplog.clear()
        assert refuse_known(trained, root, split.test, split=split) == {tested: learned}
        assert f"{tested} = {learned}" in caplog.text
        assert f"1 of {len(split.test)}" in caplog.text
    caplog.clear()
    assert refuse_known(of_run(root, FRAMES), root, split.test[1:], split=split) == {}
    assert caplog.text == ""


@pytest.mark.slow
def test_an_equal_image_on_another_test_side_is_refused_with_a_way_out(frozen):
    root, tested, learned = frozen
    split = read_split(root, FRAMES.split)
    other = replace(split, train=split.train[1:])
    with pytest.raises(UsageError, match=rf"{tested} \(the image of {learned}\) \(1 of") as caught:
        refuse_known(of_run(root, FRAMES), root, split.test, split=other)
    assert "Leave out --split and --fold" in caught.value.hint
    refuse_known(of_run(root, FRAMES), root, split.test, split=split)  # which helps


@pytest.mark.slow
def test_what_a_source_learned_elsewhere_is_refused_on_the_runs_own_test_side(frozen):
    root, tested, _ = frozen
    split = read_split(root, FRAMES.split)
    elsewhere = Stage("another", {"x": case_contents(root, [tested], task=Task.FRAME)[tested]}, {})
    with pytest.raises(UsageError, match=rf"{tested} \(the image of x\)") as caught:
        refuse_known(of_run(root, FRAMES, elsewhere), root, split.test, split=split)
    assert "--split" not in caught.value.hint
    assert "splits.json" in caught.value.hint


@pytest.mark.slow
def test_a_cohort_that_was_numbered_anew_is_refused(tmp_path):
    make_phantom("us", cases=3, output=tmp_path)
    split, rows = read_split(tmp_path, FRAMES.split), open_frames(tmp_path).rows
    trained = of_run(tmp_path, FRAMES)
    learned, tested = (tmp_path / rows[side[0]].file for side in (split.train, split.test))
    images = learned.read_bytes(), tested.read_bytes()
    tested.write_bytes(images[0])
    learned.write_bytes(images[1])
    with pytest.raises(UsageError, match=split.test[0]):
        refuse_known(trained, tmp_path, split.test, split=split)


def of_entry(*learned: Learned) -> TrainedModel:
    return replace(network(None), learned=learned)


def test_an_entry_tells_images_by_their_digests_and_no_names(root, tmp_path):
    """Whoever has an image can ask whether it was learned from; a case's name is not there to be guessed."""
    split = read_split(root, RECIPE.split)
    (learned,) = learned_by([of_run(root)])
    assert learned.dataset == "ct82"
    assert len(learned.images.split()) == len({*split.train, *split.validation})
    weights = of_entry(learned)
    assert refuse_known(weights, root, split.test, split=split) == {}
    refuse_learned([learned], root, split.test)
    with pytest.raises(UsageError, match=f"{split.train[0]} .1 of 1"):
        refuse_known(weights, root, split.train[:1], split=split)
    # Under another name, and in a data set of another name.
    shutil.copytree(root, tmp_path / "again")
    case = split.train[0]
    for path in (tmp_path / "again").rglob(f"{case}*"):
        path.rename(path.with_name(path.name.replace(case, "new")))
    content = json.loads((tmp_path / "again/dataset.json").read_text())
    (tmp_path / "again/dataset.json").write_text(json.dumps({**content, "name": "other"}))
    for refused in (
        lambda: refuse_known(weights, tmp_path / "again", ["new"]),
        lambda: refuse_learned([learned], tmp_path / "again", ["new"]),
    ):
        with pytest.raises(UsageError, match="has learned from cases of this test set: found new"):
            refused()


def test_what_a_start_learned_from_goes_on_to_what_is_made_of_it(root):
    start = Learned("ct150", "0123456789abcdef fedcba9876543210")
    stages = stages_of(of_entry(start))
    assert stages == (Stage("ct150", {}, {}, ("0123456789abcdef", "fedcba9876543210")),)
    again = stages_in({LEARNED: json.loads(json.dumps([stage.to_dict() for stage in stages]))})
    assert again == stages
    own, earlier = learned_by([of_run(root, RECIPE, *stages)])
    assert (own.dataset, earlier) == ("ct82", start)


def test_what_nobody_recorded_is_named_and_never_taken_for_nothing(root):
    assert unrecorded(network(None)) == RECIPE.name
    assert learned_by([network(None)]) is None
    assert unrecorded(of_run(root)) is None
    of_unknown = of_run(root, RECIPE, Stage("attention-unet-3mm", {}, {}))
    assert unrecorded(of_unknown) == "attention-unet-3mm"
    told = learned_by([of_unknown])
    assert Learned("attention-unet-3mm") in told
    assert unrecorded(of_entry(*told)) == "attention-unet-3mm"
    with pytest.raises(FieldError):
        Learned("x", "patient_name")
