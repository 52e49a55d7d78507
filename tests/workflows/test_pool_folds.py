"""Folds are put together: each case once, means over cases, and the published row only where no fold is missing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from agseg.cli.app import app
from agseg.errors import RecipeError
from agseg.measure.overlap import Overlap
from agseg.training.evaluation import Evaluation, read_evaluation, write_evaluation
from agseg.training.scoring import CaseScore
from agseg.workflows.pool_folds import pool_folds

ROW = "ct82.5-fold.attention-unet3d"


def fold(number, *, of=3, cases=4):
    """One fold with cases of its own and Dice that rises with the fold."""
    scores = tuple(
        CaseScore(f"f{number}c{n}", "pancreas", Overlap(40 + 10 * number + n, 20, 20, 999), 2.0, 2.0, 4.0, 0.008)
        for n in range(cases)
    )
    about = {"recipe": "attention-unet3d-ct82-5-fold", "split": "5-fold", "fold": number, "folds": of, "network": {}}
    return Evaluation("scr", "attention-unet3d", "ct82", scores, ROW, about)


@pytest.fixture
def folders(tmp_path):
    made = []
    for number in range(3):
        made.append(tmp_path / f"cv{number}")
        write_evaluation(made[-1], fold(number, cases=3 + number))
    return made


def test_the_mean_is_over_all_cases_not_over_folds(folders, tmp_path):
    result = CliRunner().invoke(app, ["evaluate", *(f"--pool={f}" for f in folders), "-o", str(tmp_path / "all")])
    assert result.exit_code == 0, result.output
    pooled = read_evaluation(tmp_path / "all")
    assert len(pooled.cases) == 3 + 4 + 5
    every = [score.counts.dice for n in range(3) for score in fold(n, cases=3 + n).cases]
    table = (tmp_path / "all/table.md").read_text()
    assert f"{np.mean(every):.3f} ± {np.std(every, ddof=1):.3f}" in table
    assert "0.8148 ± 0.0623" in table
    assert "folds 0, 1, 2 together" in table
    assert "HN 2D FCN Stage-2" in table  # Table 4, below


def test_a_missing_fold_is_told_and_leaves_no_published_row(folders, tmp_path):
    report = pool_folds([folders[2], folders[0]], output=tmp_path / "all")
    assert report.evaluation.published is None
    assert "Not there: folds 1." in (tmp_path / "all/table.md").read_text()


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({"model": "unet3d"}, "model: unet3d"),
        ({"about": {**fold(1).about, "split": "61-21"}}, "split: 61-21"),
        ({"about": {**fold(1).about, "recipe": "other"}}, "recipe: other"),
        ({"about": None}, "folds: None"),
    ],
)
def test_what_is_no_fold_of_the_same_cross_validation_is_refused(folders, tmp_path, changed, found):
    write_evaluation(folders[1], replace(fold(1), **changed))
    with pytest.raises(RecipeError, match="not folds of one") as refused:
        pool_folds(folders, output=tmp_path / "all")
    assert found in str(refused.value)
    assert not (tmp_path / "all").exists()


def test_a_case_is_scored_once(folders, tmp_path):
    with pytest.raises(RecipeError, match="two folds"):
        pool_folds([*folders, folders[0]], output=tmp_path / "all")
