"""A recipe that lists its scans trains like any other: from a folder of scans to a weights file, and back from a stop."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from agseg.binding import bind
from agseg.errors import FieldError, RecipeError
from agseg.grid import Grid
from agseg.io.nifti_write import write_mask, write_scalar
from agseg.io.resources import resource_path
from agseg.models.load import load_strict
from agseg.models.registry import build
from agseg.training.checkpoint import LAST
from agseg.training.history import Progress
from agseg.training.leakage import stages_in
from agseg.training.listing import OpenCase
from agseg.training.open_cases import listed_split, phantom_cases, read_cases, scene_cases
from agseg.training.recipe import LossName, Recipe, find_recipe, packaged_names, to_yaml
from agseg.training.trained_model import open_run
from agseg.training.wrappers import favour
from agseg.workflows.export import export_run
from agseg.workflows.make_weights import NETWORK_FILE, in_order, make_weights
from agseg.workflows.resume import about_run
from agseg.workflows.train import RunPlace, run_training

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIG = {"classes": 3, "widths": [2, 4]}

RECIPE = """
name: tiny
title: two balls in a box
source: us
dataset: open-scans
split: listed
loss: partial-dice-cross-entropy
batch: 1
network:
  architecture: attention-unet
  config: {classes: 3, widths: [2, 4]}
input:
  modality: CT
  axis_codes: RAS
  spacing_mm: [4.0, 4.0, 4.0]
  window_hu: [-200, 300]
  normalisation: window_to_unit
  tile: [16, 16, 16]
  antialias: true
labels: {1: liver, 2: spleen}
structures:
  5: {tissue: liver, label: 1}
  1: {tissue: spleen, label: 2}
  201: {tissue: fat}
cases:
  - {id: one, image: one, labels: one_labels.nii.gz}
  - {id: two, image: two, labels: two_labels.nii.gz, known: [1], weight: 2.0}
  - {id: map, labels: one_labels.nii.gz}
scenes: {head: 0.1}
scenes_each: 1
patches: {shape: [16, 16, 16]}
loop: {steps: 4, optimiser: adam, learning_rate: 0.01, average_decay: 0.9, checkpoint_every: 2, log_every: 1}
"""


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    affine = np.diag([-2.0, 2.0, 3.0, 1.0])
    grid = Grid((40, 36, 24), affine)
    for number, name in enumerate(("one", "two")):
        rng = np.random.default_rng(number)
        image = np.full(grid.shape, -1000.0, dtype=np.float32)
        labels = np.zeros(grid.shape, dtype=np.uint8)
        image[4:36, 4:32, :] = -100.0
        labels[6:18, 8:28, 4:20], labels[22:34, 8:20, 6:18] = 5, 1
        image[labels > 0] = 50.0
        image += rng.normal(0, 8, grid.shape).astype(np.float32)
        (tmp_path / name).mkdir()
        write_scalar(tmp_path / name / "ct.nii.gz", image, grid)
        write_mask(tmp_path / f"{name}_labels.nii.gz", labels, grid)
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    return tmp_path


def recipe_of(scans: Path) -> Recipe:
    return find_recipe(scans / "tiny.yaml")


def made(recipe: Recipe, *, data: Path, build: Path, workers: int = 0) -> Path:
    file = make_weights(recipe, data=data, build=build, workers=workers)
    assert file is not None
    return file


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    return dict(load_strict(build("attention-unet", CONFIG), path).state_dict())


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[key], b[key]) for key in a)


def test_a_recipe_becomes_a_weights_file_that_fits_its_network(scans: Path) -> None:
    file = made(recipe_of(scans), data=scans, build=scans / "runs", workers=0)
    network = load_strict(build("attention-unet", CONFIG), file)
    assert file == scans / "runs" / "tiny" / NETWORK_FILE
    assert torch.isfinite(network(torch.rand(1, 1, 16, 16, 16))).all()


@pytest.mark.slow
def test_a_run_that_is_stopped_goes_on_to_the_same_weights(scans: Path) -> None:
    recipe = recipe_of(scans)
    whole = made(recipe, data=scans, build=scans / "whole", workers=0)
    assert run_training(recipe, RunPlace(scans, scans / "parts" / "tiny", stop_after=2)).step == 2
    parts = made(recipe, data=scans, build=scans / "parts", workers=1)  # which resumes
    assert same(weights_of(whole), weights_of(parts))
    again = made(recipe, data=scans, build=scans / "parts", workers=0)  # with nothing left to do
    assert same(weights_of(whole), weights_of(again))


@pytest.mark.slow
def test_training_goes_on_from_the_finished_file_of_another_recipe(scans: Path) -> None:
    runs, first = scans / "runs", recipe_of(scans)
    (scans / "second.yaml").write_text(RECIPE.replace("name: tiny", "name: second\nstart: {recipe: tiny}\nstop_after: 1"))
    second = find_recipe(scans / "second.yaml")
    with pytest.raises(RecipeError, match="starts from another"):
        run_training(second, RunPlace(scans, scans / "lonely"))
    began = weights_of(made(first, data=scans, build=runs, workers=0))
    after = weights_of(made(second, data=scans, build=runs, workers=0))
    assert not same(began, after)
    fresh = weights_of(made(replace(first, name="fresh", stop_after=1), data=scans, build=runs, workers=0))
    near, far = (sum(float((after[k].float() - w[k].float()).norm()) for k in after) for w in (began, fresh))
    assert near < far


@pytest.mark.slow
def test_an_interrupted_run_leaves_no_finished_file_and_goes_on(scans: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(news: Progress) -> None:
        if news.step == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    recipe, runs = recipe_of(scans), scans / "runs"
    with monkeypatch.context() as patch:
        patch.setattr("agseg.workflows.make_weights._log_progress", interrupt)
        assert make_weights(recipe, data=scans, build=runs, workers=0) is None
    assert not (runs / "tiny" / NETWORK_FILE).exists()
    assert (runs / "tiny" / LAST).exists()
    whole = made(recipe, data=scans, build=scans / "whole")
    assert same(weights_of(made(recipe, data=scans, build=runs)), weights_of(whole))


def test_the_run_tells_what_it_learned_from(scans: Path) -> None:
    recipe = replace(recipe_of(scans), left_out=(OpenCase("three", "one_labels.nii.gz", "three"),))
    run_training(recipe, RunPlace(scans, scans / "run", only=("one", "map")))
    about = about_run(scans / "run")
    (stage,) = stages_in(about) or ()
    assert set(stage.train) == {"one", "map"}
    assert (about["dataset"], about["cases"]) == ("open-scans", {"train": 2, "validation": 0, "test": 1})
    with pytest.raises(RecipeError, match="data or split"):
        run_training(recipe, RunPlace(scans, scans / "run", resume=True))  # with a case more
    with pytest.raises(RecipeError, match="training side"):
        run_training(recipe, RunPlace(scans, scans / "other", only=("three",)))
    with pytest.raises(RecipeError, match="one fold"):
        run_training(recipe, RunPlace(scans, scans / "other", fold=1))


def test_a_run_of_listed_scans_is_exported_like_any_other(scans: Path) -> None:
    run_training(replace(recipe_of(scans), wins_from={1: 0.25}), RunPlace(scans, scans / "run", only=("one", "map")))
    trained = open_run(scans / "run")
    report = export_run(trained, weights_id="two-boxes", output=scans / "weights")
    assert same(weights_of(report.weights), dict(trained.bare().state_dict()))
    card = report.card.read_text(encoding="utf-8")
    assert "open-scans, 2 of the cases that the recipe lists" in card
    plain = open_run(scans / "run")
    assert plain.recipe.wins_from == {1: 0.25}  # the recipe is written and read whole


def test_a_recipe_with_everything_is_written_and_read_back(scans: Path) -> None:
    for name in packaged_names():
        recipe = find_recipe(name)
        assert bind(to_yaml(recipe), Recipe) == recipe


def test_cases_are_read_on_the_model_grid_with_their_labels_in_place(scans: Path) -> None:
    recipe = recipe_of(scans)
    one, two, _ = read_cases(recipe, scans)
    assert tuple(one.image.shape) == (21, 19, 18)  # (n - 1) * old / 4 mm + 1
    assert one.image[one.labels == 1].mean() == pytest.approx(50, abs=12)
    assert one.image[one.labels == 0].mean() < -80
    # 2 mm voxels whose first axis grows to the left: the liver at small i lies at large x
    assert one.voxels_of(1)[:, 0].float().mean() > one.voxels_of(2)[:, 0].float().mean()
    assert two.known == (1,)


def test_a_scan_can_be_left_out(scans: Path) -> None:
    recipe = recipe_of(scans)
    assert [case.id for case in read_cases(recipe, scans, only=("two",))] == ["two"]
    with pytest.raises(RecipeError, match="no such case"):
        read_cases(recipe, scans, only=("three",))


def test_a_missing_scan_is_named(scans: Path) -> None:
    (scans / "two" / "ct.nii.gz").unlink()
    with pytest.raises(RecipeError, match="one study"):
        read_cases(recipe_of(scans), scans)
    (scans / "two_labels.nii.gz").unlink()
    with pytest.raises(RecipeError, match="no labels here"):
        run_training(recipe_of(scans), RunPlace(scans, scans / "run"))
    assert not (scans / "run").exists()


@pytest.mark.parametrize("name", packaged_names())
def test_what_a_packaged_recipe_names_exists(name: str) -> None:
    recipe = find_recipe(name)
    assert recipe.patches is not None
    assert recipe.start is None or recipe.start.recipe in packaged_names()
    assert listed_split(recipe).train == tuple(case.id for case in recipe.cases)
    for case in recipe.cases:
        inside = case.labels.removeprefix("train:")
        assert inside == case.labels or (resource_path("train") / inside).is_file()


def test_every_packaged_case_can_be_read(shared_data: Path) -> None:
    recipe = find_recipe("attention-unet-abdomen")
    for case in read_cases(recipe, shared_data, only=("totalseg_ct_full", "cptac_pda_C3L-00189")):
        assert {2, 3, 4, 5} <= set(case.present_classes())
        assert case.structures is not None


@pytest.mark.slow
def test_phantoms_come_with_every_organ_and_their_kidneys_on_the_right_sides() -> None:
    recipe = replace(
        find_recipe("attention-unet-abdomen"),
        phantoms={"ct150": 1.0, "ct82": 2.0},
        phantoms_each=1,
    )
    cases = phantom_cases(recipe)
    assert [case.weight for case in cases] == [1.0, 2.0]
    for case in cases:
        assert case.labels.shape == case.image.shape
        centre = {name: torch.nonzero(case.labels == index)[:, 0].float().mean() for index, name in recipe.labels.items()}
        assert centre["kidney_left"] < centre["pancreas"] < centre["kidney_right"] < centre["liver"] + 20
        assert centre["spleen"] < centre["liver"]
        assert case.image[case.labels == 1].median() > 40


@pytest.mark.parametrize("spacing_mm", [3.0, 6.0])
def test_a_made_up_patient_has_one_size_in_mm_on_every_model_grid(scans: Path, spacing_mm: float) -> None:
    recipe = recipe_of(scans)
    finer = replace(recipe, input=replace(recipe.input, spacing_mm=(spacing_mm,) * 3))
    for usual, other in zip(scene_cases(recipe), scene_cases(finer), strict=True):
        litres = [int((c.image > -500).sum()) * s**3 / 1e6 for c, s in ((usual, 4.0), (other, spacing_mm))]
        assert litres[1] == pytest.approx(litres[0], rel=0.1)


@pytest.mark.parametrize(("wins_from", "wins"), [(0.5, False), (0.35, False), (0.25, True)])
def test_a_favoured_class_wins_from_its_probability_on(wins_from, wins):
    network = build("attention-unet", CONFIG).eval()
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.bias.copy_(torch.tensor([0.7, 0.3, 0.0]).log().clamp_min(-20))
        favour(network, {1: wins_from})
        assert bool((network(torch.zeros(1, 1, 16, 16, 16)).argmax(1) == 1).all()) is wins


def test_only_labels_can_be_favoured_and_only_in_a_network_with_one_last_layer(scans: Path) -> None:
    recipe = recipe_of(scans)
    for wins_from in ({3: 0.25}, {1: 1.0}):
        with pytest.raises(FieldError, match="wins_from"):
            replace(recipe, wins_from=wins_from)
    with pytest.raises(RecipeError, match="last layer"):
        favour(torch.nn.Identity(), {1: 0.25})


def test_recipes_are_trained_after_those_they_start_from(scans: Path) -> None:
    recipes = []
    for name, before in (("a", "c"), ("b", None), ("c", "b")):
        text = RECIPE.replace("name: tiny", f"name: {name}" + (f"\nstart: {{recipe: {before}}}" if before else ""))
        recipes.append(bind(text, Recipe))
    assert [recipe.name for recipe in in_order(recipes)] == ["b", "c", "a"]
    with pytest.raises(RecipeError, match="not there"):
        in_order([recipe for recipe in recipes if recipe.name != "b"])
    assert {recipe.name for recipe in in_order([find_recipe(name) for name in packaged_names()])} == set(packaged_names())


def test_a_scan_cannot_be_trained_on_and_left_out_nor_two_cases_have_one_name(scans: Path) -> None:
    recipe = recipe_of(scans)
    with pytest.raises(FieldError, match="left out"):
        replace(recipe, left_out=(replace(recipe.cases[1], id="another"),))
    with pytest.raises(FieldError, match="one id"):
        replace(recipe, left_out=(OpenCase("one", "one_labels.nii.gz", "three"),))
    with pytest.raises(FieldError, match="dataset"):
        replace(recipe, dataset="ct82")
    with pytest.raises(FieldError, match="loss"):
        replace(recipe, loss=LossName.SOFT_DICE)
    with pytest.raises(FieldError, match="batch"):
        replace(recipe, batch=2)


def test_a_label_map_without_a_scan_is_a_case(scans: Path) -> None:
    recipe = recipe_of(scans)
    alone = replace(recipe, cases=(OpenCase("map", "one_labels.nii.gz"),))
    (case,) = read_cases(alone, scans)
    assert case.drawn
    assert case.present_classes() == (1, 2)
    assert case.structures is not None
    assert int((case.structures == 0).sum()) == 0


def test_a_recipe_may_leave_its_schedule_early(scans: Path) -> None:
    recipe = replace(recipe_of(scans), stop_after=2)
    report = run_training(recipe, RunPlace(scans, scans / "run"))
    assert (report.step, report.steps, report.interrupted) == (2, 4, False)  # as it was meant to
    assert run_training(recipe, RunPlace(scans, scans / "run", resume=True)).step == 2
