"""From a recipe and a folder of scans to a weights file that loads, and back from a stop."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from agseg.binding import load
from agseg.errors import RecipeError
from agseg.grid import Grid
from agseg.io.nifti_write import write_mask, write_scalar
from agseg.io.resources import resource_path
from agseg.models.load import load_strict
from agseg.models.registry import build
from agseg.training.open_cases import OpenCase, PretrainRecipe, phantom_cases, read_cases, scene_cases
from agseg.workflows.pretrain import favour, in_order, pretrain

CONFIG = {"classes": 3, "widths": [2, 4]}

RECIPE = """
name: tiny
title: two balls in a box
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


def test_a_recipe_becomes_a_weights_file_that_fits_its_network(scans: Path) -> None:
    done = pretrain(scans / "tiny.yaml", data=scans, folder=scans / "run", workers=0)
    content = done.path.read_bytes()
    assert (done.sha256, done.size_bytes, done.step) == (hashlib.sha256(content).hexdigest(), len(content), 4)
    network = load_strict(build("attention-unet", CONFIG), done.path)
    assert torch.isfinite(network(torch.rand(1, 1, 16, 16, 16))).all()


def test_training_goes_on_from_given_weights(scans: Path) -> None:
    first = pretrain(scans / "tiny.yaml", data=scans, folder=scans / "a", workers=0)
    second = pretrain(scans / "tiny.yaml", data=scans, folder=scans / "b", start_from=first.path, workers=0)
    fresh = pretrain(scans / "tiny.yaml", data=scans, folder=scans / "c", workers=0)
    assert fresh.sha256 == first.sha256  # the same seed repeats the same training
    assert second.sha256 != first.sha256


def test_cases_are_read_on_the_model_grid_with_their_labels_in_place(scans: Path) -> None:
    recipe = load(scans / "tiny.yaml", PretrainRecipe)
    one, two = read_cases(recipe, scans)
    assert tuple(one.image.shape) == (21, 19, 18)  # (n - 1) * old / 4 mm + 1
    assert one.image[one.labels == 1].mean() == pytest.approx(50, abs=12)
    assert one.image[one.labels == 0].mean() < -80
    # 2 mm voxels whose first axis grows to the left: the liver at small i lies at large x
    assert one.voxels_of(1)[:, 0].float().mean() > one.voxels_of(2)[:, 0].float().mean()
    assert two.known == (1,)


def test_a_scan_can_be_left_out(scans: Path) -> None:
    recipe = load(scans / "tiny.yaml", PretrainRecipe)
    assert [case.id for case in read_cases(recipe, scans, only=("two",))] == ["two"]
    with pytest.raises(RecipeError, match="no such case"):
        read_cases(recipe, scans, only=("three",))


def test_a_missing_scan_is_named(scans: Path) -> None:
    (scans / "two" / "ct.nii.gz").unlink()
    with pytest.raises(RecipeError, match="one study"):
        read_cases(load(scans / "tiny.yaml", PretrainRecipe), scans)


@pytest.mark.parametrize("path", sorted(resource_path("train/packaged").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_packaged_recipe_holds_together(path: Path) -> None:
    recipe = load(path, PretrainRecipe)
    assert recipe.name == path.stem
    classes = {structure.label for structure in recipe.structures.values()} | {0}
    assert classes == {0, *recipe.labels}
    assert recipe.network.config["classes"] == len(classes)
    network = build(recipe.network.architecture, recipe.network.config)
    assert all(side % network.size_multiple == 0 for side in (*recipe.patches.shape, *recipe.input.tile))
    for case in recipe.cases:
        inside = case.labels.removeprefix("train:")
        assert inside == case.labels or (resource_path("train") / inside).is_file()


def test_every_packaged_case_can_be_read(shared_data: Path) -> None:
    recipe = load(resource_path("train/packaged") / "attention-unet-abdomen.yaml", PretrainRecipe)
    for case in read_cases(recipe, shared_data, only=("totalseg_ct_full", "cptac_pda_C3L-00189")):
        assert {2, 3, 4, 5} <= set(case.present_classes())
        assert case.structures is not None


def test_phantoms_come_with_every_organ_and_their_kidneys_on_the_right_sides() -> None:
    recipe = replace(
        load(resource_path("train/packaged/attention-unet-abdomen.yaml"), PretrainRecipe),
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
    recipe = load(scans / "tiny.yaml", PretrainRecipe)
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


def test_only_labels_can_be_favoured_and_only_in_a_network_with_one_last_layer(scans):
    recipe = load(scans / "tiny.yaml", PretrainRecipe)
    with pytest.raises(RecipeError, match="wins_from"):
        replace(recipe, wins_from={3: 0.25})
    with pytest.raises(RecipeError, match="wins_from"):
        replace(recipe, wins_from={1: 1.0})
    with pytest.raises(RecipeError, match="last layer"):
        favour(torch.nn.Identity(), {1: 0.25})


def test_recipes_are_trained_after_those_they_go_on_from(tmp_path: Path) -> None:
    for name, before in (("a", "c"), ("b", None), ("c", "b")):
        text = RECIPE.replace("name: tiny", f"name: {name}" + (f"\nstart_from: {before}" if before else ""))
        (tmp_path / f"{name}.yaml").write_text(text)
    assert [path.stem for path in in_order(tmp_path)] == ["b", "c", "a"]
    (tmp_path / "b.yaml").unlink()
    with pytest.raises(RecipeError, match="not there"):
        in_order(tmp_path)


def test_a_scan_cannot_be_trained_on_and_left_out(scans: Path) -> None:
    recipe = load(scans / "tiny.yaml", PretrainRecipe)
    with pytest.raises(RecipeError, match="left out"):
        replace(recipe, left_out=(recipe.cases[1],))


def test_a_label_map_without_a_scan_is_a_case(scans: Path) -> None:
    recipe = load(scans / "tiny.yaml", PretrainRecipe)
    alone = replace(recipe, cases=(OpenCase("map", "one_labels.nii.gz"),))
    (case,) = read_cases(alone, scans)
    assert case.drawn
    assert case.present_classes() == (1, 2)
    assert case.structures is not None
    assert int((case.structures == 0).sum()) == 0


def test_a_recipe_may_leave_its_schedule_early(scans: Path) -> None:
    (scans / "tiny.yaml").write_text(RECIPE + "stop_after: 2\n")
    assert pretrain(scans / "tiny.yaml", data=scans, folder=scans / "run", workers=0).step == 2
