"""Result folders of others are read as they write them; what is missing or damaged costs its case."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from agseg.errors import RecipeError
from agseg.training.evaluation import read_evaluation
from agseg.workflows.evaluate_folders import evaluate_folders

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
LABELS = {"background": 0, "liver": 1, "tumour": 2}


def save(path: Path, values: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values.astype(np.uint8), affine), path)


@pytest.fixture
def truth(tmp_path: Path) -> np.ndarray:
    """Three cases of one truth: a liver with a tumour in it."""
    values = np.zeros((10, 9, 8), dtype=np.uint8)
    values[1:8, 1:8, 1:7] = 1
    values[3:5, 3:5, 3:5] = 2
    for case in ("a", "b", "c"):
        save(tmp_path / f"labelsTr/{case}.nii.gz", values)
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": LABELS}))
    return values


def dice(root: Path, prediction: str, **how: object) -> dict[tuple[str, str], float]:
    report = evaluate_folders(root / "labelsTr", root / prediction, output=root / "out", **how)  # type: ignore[arg-type]
    return {(score.case, score.organ): score.counts.dice for score in report.evaluation.cases}


def test_label_maps_with_a_key_of_their_own_are_read_by_it(tmp_path: Path, truth: np.ndarray) -> None:
    swapped = np.array([0, 2, 1], dtype=np.uint8)[truth]
    for case in ("a", "b", "c"):
        save(tmp_path / f"nnunet/{case}.nii.gz", swapped)
    (tmp_path / "nnunet/dataset.json").write_text(json.dumps({"labels": {"background": 0, "tumour": 1, "liver": 2}}))
    assert set(dice(tmp_path, "nnunet").values()) == {1.0}


def test_a_folder_with_a_mask_per_organ_is_scored_on_the_organs_that_it_has(tmp_path: Path, truth: np.ndarray) -> None:
    save(tmp_path / "total/a/liver.nii.gz", truth == 1)
    save(tmp_path / "total/b_0000/liver.nii.gz", truth == 1)
    save(tmp_path / "total/b_0000/tumour.nii.gz", truth == 9)
    save(tmp_path / "total/c/labels.nii.gz", truth * 3)
    (tmp_path / "total/c/labels.json").write_text(json.dumps({"3": "liver", "6": "tumour"}))
    found = dice(tmp_path, "total")
    assert found == {("a", "liver"): 1, ("b", "liver"): 1, ("b", "tumour"): 0, ("c", "liver"): 1, ("c", "tumour"): 1}


def test_what_cannot_be_scored_costs_its_case(tmp_path: Path, truth: np.ndarray) -> None:
    save(tmp_path / "p/a.nii.gz", truth)
    save(tmp_path / "p/b.nii.gz", truth, np.diag([3.0, 2.0, 2.0, 1.0]))
    found = dice(tmp_path, "p")
    assert set(found) == {("a", "liver"), ("a", "tumour")}
    told = read_evaluation(tmp_path / "out").not_scored
    assert "different grids" in told["b"]
    assert "no prediction" in told["c"]
    assert "2 of 3 cases have no score" in (tmp_path / "out/table.md").read_text()
    assert set(dice(tmp_path, "p", only=["a"])) == set(found)
    with pytest.raises(RecipeError, match="no reference mask of this case"):
        dice(tmp_path, "p", only=["z"])


def test_regions_are_scored_as_unions_and_ignored_voxels_not_at_all(tmp_path: Path, truth: np.ndarray) -> None:
    labels = {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels, "regions_class_order": [1, 2]}))
    for case in ("a", "b", "c"):
        marked = truth.copy()
        marked[8:] = 3
        save(tmp_path / f"labelsTr/{case}.nii.gz", marked)
        predicted = np.where(truth > 0, 1, 0)  # the whole is found, its core is not
        predicted[8:] = 2  # and what lies where nobody looked does not count
        save(tmp_path / f"p/{case}.nii.gz", predicted)
    found = dice(tmp_path, "p")
    assert found["a", "whole"] == 1
    assert found["a", "core"] == 0


@pytest.mark.slow
def test_the_surface_dice_is_at_the_tolerance_that_is_asked_for(tmp_path: Path, truth: np.ndarray) -> None:
    for case in ("a", "b", "c"):
        save(tmp_path / f"p/{case}.nii.gz", np.roll(truth, 1, axis=0))  # 2 mm aside

    def nsd(tolerance_mm: float) -> float:
        evaluate_folders(tmp_path / "labelsTr", tmp_path / "p", output=tmp_path / "out", tolerance_mm=tolerance_mm)
        return read_evaluation(tmp_path / "out").values("liver", "nsd")["a"]

    assert nsd(2.0) == 1
    assert nsd(1.9) < 1


def test_surfaces_by_area_stand_beside_the_others_and_are_not_tested(tmp_path: Path, truth: np.ndarray) -> None:
    for case in ("a", "b", "c"):
        save(tmp_path / f"p/{case}.nii.gz", np.roll(truth, 1, axis=0))
        save(tmp_path / f"q/{case}.nii.gz", truth)
    evaluate_folders(tmp_path / "labelsTr", tmp_path / "q", output=tmp_path / "first")
    report = evaluate_folders(tmp_path / "labelsTr", tmp_path / "p", output=tmp_path / "out", against=[tmp_path / "first"])
    table = (tmp_path / "out/table.md").read_text()
    assert "| S2S (mm) | S2S, by area (mm) | NSD | NSD, by area |" in table.splitlines()[0]
    assert {c.metric for c in report.table.comparisons} == {"dice", "precision", "recall", "s2s_mm", "nsd"}
    assert 0 < read_evaluation(tmp_path / "out").values("liver", "s2s_area_mm")["a"] <= 2.0


def test_pictures_are_scored_as_scans_are_with_distances_in_pixels(tmp_path: Path) -> None:
    truth = np.zeros((12, 10), dtype=np.uint8)
    truth[2:8, 2:8] = 1
    truth[4:6, 4:6] = 2
    truth[11] = 3
    found = truth.copy()
    found[11] = 1  # nobody labelled these
    found[2, 2:8] = 0
    for name in ("labelsTr", "theirs"):
        (tmp_path / name).mkdir()
    labels = {"background": 0, "mole": [1, 2], "core": 2, "ignore": 3}
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels, "regions_class_order": [1, 2]}))
    for case, prediction in {"a": found, "b": found[:5], "c": None, "d": None}.items():
        Image.fromarray(truth).save(tmp_path / f"labelsTr/{case}.png")
        if prediction is not None:
            Image.fromarray(prediction).save(tmp_path / f"theirs/{case}.png")
    (tmp_path / "theirs/d.png").write_bytes(b"no picture")
    report = evaluate_folders(tmp_path / "labelsTr", tmp_path / "theirs", output=tmp_path / "out")
    mole, core = report.evaluation.cases
    assert (mole.case, mole.organ, mole.unit) == ("a", "mole", "px")
    assert mole.counts.dice == pytest.approx(2 * 30 / (30 + 36))
    assert mole.counts.false_positive == 0
    assert core.counts.dice == 1
    assert 0 < mole.s2s < 1
    told = read_evaluation(tmp_path / "out").not_scored
    assert "differ in size" in told["b"]
    assert "no prediction" in told["c"]
    assert "not a picture" in told["d"]
    assert "S2S (pixels)" in (tmp_path / "out/table.md").read_text()
    assert (tmp_path / "out/worst/01.png").is_file()
