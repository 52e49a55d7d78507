"""A fold is trained, scored on its own patients and told of: at toy size, and what the tables are made of by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agseg.labels import LabelSet
from agseg.measure.calibration import Calibration
from agseg.measure.reliability import Tally
from agseg.training.listed_folds import find_plan
from agseg.training.listing import OpenCase
from agseg.weights.manifest import Manifest
from agseg.workflows.fold_tables import by_patient, calibration_table, calibrations_of, means_table, wins_from_table
from agseg.workflows.weights_eval import Invented, OrganScore
from agseg.workflows.weights_folds import FoldScores, score_fold, summary, train_fold
from tests.workflows.test_make_weights import CONFIG, recipe_of, scans

__all__ = ["scans"]

pytestmark = pytest.mark.usefixtures("one_thread")

TOO_SURE = Calibration(0.4, -0.5)


def patient_of(case: str) -> str:
    return case.split("_")[0]


def score(case: str, *, dice: float = 0.5, phase: str = "venous", seed: int = 0) -> OrganScore:
    rng = np.random.default_rng(seed)
    p = rng.uniform(0.4, 0.999, 4000)
    right = rng.uniform(size=4000) < TOO_SURE.of(p)
    return OrganScore(
        case, phase, "pancreas", dice, 2.0, 0.6, truth_ml=50.0, found_ml=40.0, sure=0.8, right=0.7, tally=Tally.of(p, right)
    )


SCORES = (
    score("a_portal", dice=0.8),
    score("a_late", dice=0.6, phase="delayed", seed=1),
    score("b", dice=0.4, seed=2),
    score("c", dice=0.6, seed=3),
)


def fold_scores() -> FoldScores:
    return FoldScores("tiny-fold-1", "ab" * 32, 10, SCORES, (Invented("thigh", 0.25),))


def test_what_a_fold_scored_is_written_and_read_without_loss() -> None:
    told = fold_scores()
    again = FoldScores.from_json(told.to_json())
    assert again == told
    for one, other in zip(told.scores, again.scores, strict=True):
        assert one.tally is not None
        assert other.tally is not None
        assert (one.tally.right == other.tally.right).all()
        assert (one.tally.wrong == other.tally.wrong).all()
    bare = replace(told, scores=(replace(SCORES[0], tally=None),))
    assert FoldScores.from_json(bare.to_json()).scores[0].tally is None


def test_means_are_over_scans_by_phase_and_over_patients() -> None:
    lines = means_table(SCORES, patient_of).splitlines()
    assert lines[2:] == [
        "| venous | 3 | 3 | 0.60 / 2.0 / 0.60 |",
        "| delayed | 1 | 1 | 0.60 / 2.0 / 0.60 |",
        "| all scans | 4 | 3 | 0.60 / 2.0 / 0.60 |",
        "| all patients, Dice (least) |  | 3 | 0.57 (0.40) |",
    ]


def test_a_calibration_is_fitted_by_patient_and_its_table_says_what_it_does_to_others() -> None:
    tallies = by_patient(SCORES, "pancreas", patient_of)
    assert {name: tally.total for name, tally in tallies.items()} == {"a": 8000, "b": 4000, "c": 4000}
    fit = calibrations_of(SCORES, patient_of)["pancreas"]
    assert (fit.calibration.scale, fit.calibration.shift) == (pytest.approx(0.4, abs=0.1), pytest.approx(-0.5, abs=0.1))
    assert fit.after < fit.before
    row = calibration_table(SCORES, patient_of).splitlines()[2]
    assert row.startswith(f"| pancreas | 3 | {fit.calibration.scale:.3f} | {fit.calibration.shift:.3f} |")
    assert calibrations_of(SCORES[:2], patient_of) == {}  # one patient


def test_dice_from_a_higher_probability_on_counts_what_stays() -> None:
    p, right = np.array([0.45, 0.62, 0.9, 0.9]), np.array([False, True, True, True])
    one = replace(SCORES[0], tally=Tally.of(p, right), truth_ml=4.0, found_ml=4.0)
    row = wins_from_table([one], patient_of).splitlines()[2]
    assert row == "| pancreas | 0.750 | 0.857 | 0.857 | 0.857 | 0.667 | 0.667 | 0.667 | 0.667 |"


def test_all_folds_together_say_their_steps_and_the_most_that_any_invented() -> None:
    more = replace(fold_scores(), fold="tiny-fold-2", negatives=(Invented("thigh", 1.5),), scores=(score("d", seed=4),))
    text = summary(find_plan("attention-unet-3mm"), [fold_scores(), more])
    assert "tiny-fold-1: 10 steps, sha256 abab" in text
    assert "| thigh | 1.5 |" in text
    assert "| thigh | 0.2 |" not in text


@pytest.mark.slow
def test_a_fold_at_toy_size_is_trained_and_scored_on_its_own_scan(scans: Path) -> None:
    whole = recipe_of(scans)
    out = whole.cases[1]
    left = (OpenCase("left", out.labels, out.image, known=out.known),)
    recipe = replace(whole, name="tiny-fold-0", cases=(whole.cases[0], whole.cases[2]), left_out=left)
    file = train_fold(recipe, data=scans, build=scans / "runs", home=scans / "home", workers=0)
    assert file is not None
    packaged = replace(
        Manifest.load().entry("attention-unet-3mm"),
        config=CONFIG,
        labels=LabelSet.from_mapping(recipe.labels),
        cleanup={},
        calibration={},
        default_for=(),
    )
    found = score_fold(recipe, file, packaged=packaged, data=scans)
    assert (found.fold, found.steps) == ("tiny-fold-0", recipe.loop.steps)
    assert [(one.case, one.organ) for one in found.scores] == [("left", "liver")]
    assert found.scores[0].tally is not None
    assert FoldScores.from_json(found.to_json()).sha256 == found.sha256
