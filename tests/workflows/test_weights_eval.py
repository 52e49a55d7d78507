"""What the packaged network is worth on left-out scans: scores by organ, open voxels not counted, inventions in ml."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agseg.errors import RecipeError
from agseg.grid import Grid
from agseg.inference.segment import Segmentation
from agseg.io.nifti_write import write_mask, write_scalar
from agseg.labels import LabelSet
from agseg.training.cases import IGNORE
from agseg.training.listing import OpenCase, Structure
from agseg.training.patch_draws import PatchSettings
from agseg.training.recipe import LossName, NetworkChoice, Recipe
from agseg.training.settings import LoopSettings
from agseg.training.synthesis import Phase, Tissue
from agseg.volume import LabelMask, Volume
from agseg.weights.input_spec import InputSpec, Normalisation
from agseg.weights.manifest import Manifest
from agseg.workflows.weights_eval import chosen, evaluate_left_out, evaluate_negatives, table

LABELS = {1: "liver", 2: "spleen"}
GRID = Grid((20, 18, 12), np.diag([2.0, 2.0, 2.0, 1.0]))


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    labels = np.zeros(GRID.shape, dtype=np.uint8)
    labels[2:10, 2:10, 2:10], labels[12:18, 4:10, 2:8] = 5, 1
    labels[2:10, 2:10, 8:10] = IGNORE
    write_mask(tmp_path / "labels.nii.gz", labels, GRID)
    scan = np.full(GRID.shape, -1000.0, dtype=np.float32)
    scan[1:19, 1:17], scan[4:8, 4:8] = -100.0, 300.0
    scan[labels > 0] = 60.0
    write_scalar(tmp_path / "scan.nii.gz", scan, GRID)
    return Recipe(
        name="tiny",
        title="two boxes",
        source="us",
        dataset="open-scans",
        split="listed",
        loss=LossName.PARTIAL,
        batch=1,
        network=NetworkChoice("attention-unet", {"classes": 3, "widths": [2, 4]}),
        input=InputSpec(
            modality="CT",
            axis_codes="RAS",
            spacing_mm=(4.0, 4.0, 4.0),
            window_hu=(-200.0, 300.0),
            normalisation=Normalisation.WINDOW_TO_UNIT,
            tile=(16, 16, 16),
        ),
        labels=LABELS,
        structures={5: Structure(Tissue.LIVER, 1), 1: Structure(Tissue.SPLEEN, 2)},
        cases=(OpenCase("two", "labels.nii.gz"),),
        patches=PatchSettings(shape=(16, 16, 16)),
        loop=LoopSettings(steps=1),
        left_out=(OpenCase("one", "labels.nii.gz", "scan.nii.gz", phase=Phase.VENOUS),),
        negatives={"nothing": "scan.nii.gz"},
    )


def _finds(*boxes: tuple[int, tuple[slice, slice, slice]]):
    def segment(volume: Volume) -> Segmentation:
        found = np.zeros(volume.grid.shape, dtype=np.uint8)
        for label, box in boxes:
            found[box] = label
        return Segmentation(LabelMask(found, volume.grid, LabelSet.from_mapping(LABELS)), {"liver": 0.9}, {}, {})

    return segment


LIVER = (1, (slice(2, 10), slice(2, 10), slice(2, 10)))
HALF_SPLEEN = (2, (slice(12, 15), slice(4, 10), slice(2, 8)))


def test_scores_are_by_organ_and_open_voxels_do_not_count(recipe: Recipe, tmp_path: Path) -> None:
    liver, spleen = evaluate_left_out(recipe, tmp_path, _finds(LIVER, HALF_SPLEEN))
    assert (liver.case, liver.phase, liver.organ) == ("one", "venous", "liver")
    # The mask reaches into the ignored slices; they belong to neither side.
    assert (liver.dice, liver.s2s_mm, liver.surface_dice) == (1.0, 0.0, 1.0)
    assert liver.truth_ml == pytest.approx(8 * 8 * 6 * 0.008)
    assert spleen.dice == pytest.approx(2 / 3)
    assert 0 < spleen.surface_dice < 1


def test_how_sure_stands_beside_how_right(recipe: Recipe, tmp_path: Path) -> None:
    too_large = (1, (slice(2, 10), slice(2, 10), slice(0, 10)))
    liver, spleen = evaluate_left_out(recipe, tmp_path, _finds(too_large))
    assert (liver.sure, liver.right) == (0.9, pytest.approx(6 / 8))
    assert np.isnan([spleen.sure, spleen.right]).all()  # nothing was found
    lines = table([liver, spleen], []).splitlines()
    assert "| mean winning probability | 0.90 |  |" in lines
    assert "| part of what is found that is right | 0.75 |  |" in lines


def test_an_organ_that_the_labels_do_not_know_is_not_scored(recipe: Recipe, tmp_path: Path) -> None:
    partial = replace(recipe, left_out=(replace(recipe.left_out[0], known=(2,)),))
    assert [score.organ for score in evaluate_left_out(partial, tmp_path, _finds())] == ["spleen"]


@pytest.mark.slow
def test_what_is_invented_is_said_in_ml(recipe: Recipe, tmp_path: Path) -> None:
    found = {item.name: item.found_ml for item in evaluate_negatives(recipe, tmp_path, _finds(HALF_SPLEEN))}
    assert found.pop("nothing") == pytest.approx(3 * 6 * 6 * 0.008)
    assert set(found) == {"made-up head", "made-up thighs", "made-up shapeless", "made-up table"}


@pytest.mark.slow
def test_the_table_has_a_row_per_scan_and_means_by_phase(recipe: Recipe, tmp_path: Path) -> None:
    segment = _finds(LIVER, HALF_SPLEEN)
    lines = table(evaluate_left_out(recipe, tmp_path, segment), evaluate_negatives(recipe, tmp_path, segment)).splitlines()
    assert lines[0] == "| scan | phase | liver | spleen |"
    assert lines[2].startswith("| one | venous | 1.00 / 0.0 / 1.00 | 0.67 / ")
    assert lines[3] == "| mean | venous | 1.00 | 0.67 |"
    assert lines[4] == "| mean | all | 1.00 | 0.67 |"


def test_packaged_weights_are_measured_by_their_own_recipe() -> None:
    manifest = Manifest.load()
    usual, recipe, file = chosen(manifest, None, None)
    assert (usual.id, recipe.name, file) == (manifest.default_for("liver", "CT").id, usual.id, None)
    for weights_id in ("attention-unet-abdomen", "attention-unet-3mm"):
        entry, recipe, file = chosen(manifest, weights_id, None)
        assert (entry.id, recipe.name, file) == (weights_id, weights_id, None)
        assert entry.input == recipe.input


def test_a_file_is_measured_by_the_recipe_that_is_named(tmp_path: Path) -> None:
    entry, recipe, file = chosen(Manifest.load(), str(tmp_path / "network.safetensors"), "attention-unet-3mm")
    assert (entry.input, recipe.name, file) == (recipe.input, "attention-unet-3mm", tmp_path / "network.safetensors")


def test_a_recipe_without_left_out_scans_measures_nothing() -> None:
    with pytest.raises(RecipeError, match="no left-out scan"):
        chosen(Manifest.load(), "anu-net-abdomen", None)
    assert chosen(Manifest.load(), "anu-net-abdomen", "attention-unet-abdomen")[0].id == "anu-net-abdomen"
