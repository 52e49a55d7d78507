"""Put the folds of a cross-validation together: every case is scored once, by the network that did not learn from it."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agseg.errors import RecipeError
from agseg.io.atomic import make_folder
from agseg.training.evaluation import (
    COMPUTED,
    EXPERIMENT,
    MISSING_FOLDS,
    POOLED_FOLDS,
    Evaluation,
    read_evaluation,
)
from agseg.workflows.evaluation_report import EvaluationReport, write_results
from agseg.workflows.worst_cases import gathered

PREDICTIONS = "predictions"
"""Folder of an evaluation with the predicted masks, where they were written."""

SAME = ("recipe", "split", "folds", COMPUTED)
"""What folds of one cross-validation have in common, of what an evaluation tells about itself."""


def pool_folds(
    folders: Sequence[Path], *, output: Path, against: Sequence[Path] = (), name: str | None = None
) -> EvaluationReport:
    """One evaluation from those of the folds: means are over all cases, not over folds; predicted masks go along.

    Where folds are missing the table says which, and no published row stands beside it.

    Parameters
    ----------
    folders
        Evaluations of one recipe on folds of one split, as :func:`agseg.workflows.evaluate.evaluate_run` wrote them.
    output
        Folder for evaluation.json, per_case.csv, summary.json, the tables and report.html.
    against
        Folders of earlier evaluations on the same cases, to compare with.
    name
        What the row is called; the folds' own name by default.

    Raises
    ------
    RecipeError
        If they are not folds of one cross-validation, or a case stands in two of them.
    """
    folds = [read_evaluation(folder) for folder in folders]
    first = folds[0]
    for folder, other in zip(folders, folds, strict=True):
        differing = [name for name in ("protocol", "model", "dataset") if getattr(other, name) != getattr(first, name)]
        differing += [name for name in SAME if _about(other, name) != _about(first, name)]
        if differing or _about(other, "folds") is None:
            raise RecipeError(
                "these are not folds of one cross-validation",
                path=folder,
                value=", ".join(f"{name}: {_named(other, name)}" for name in differing) or "no fold of a split is told",
                expected=", ".join(f"{name}: {_named(first, name)}" for name in differing) or "an evaluation with --fold",
            )
    numbers = [int(_about(fold, "fold")) for fold in folds]
    cases = tuple(score for fold in folds for score in fold.cases)
    if doubled := [case for case, times in Counter((s.case, s.organ) for s in cases).items() if times > 1]:
        raise RecipeError("a case is in two folds", value=sorted({case for case, _ in doubled})[:5])
    missing = sorted(set(range(int(_about(first, "folds")))) - set(numbers))
    about = {name: _about(first, name) for name in (*SAME, EXPERIMENT) if _about(first, name) is not None}
    about |= {POOLED_FOLDS: sorted(numbers), MISSING_FOLDS: missing}
    rows = {fold.published for fold in folds}
    published = first.published if len(rows) == 1 and not missing else None
    evaluation = Evaluation(first.protocol, name or first.model, first.dataset, cases, published, about)
    _gather(folders, output)
    files = {case: (f"{PREDICTIONS}/{case}.nii.gz", case) for case in evaluation.case_ids}
    return write_results(output, evaluation, files=files, against=against, pictures=gathered(folders, folds, output))


def _gather(folders: Sequence[Path], output: Path) -> None:
    """The folds' predicted masks, side by side."""
    for folder in folders:
        for mask in sorted((folder / PREDICTIONS).glob("*.nii.gz")):
            shutil.copyfile(mask, make_folder(output / PREDICTIONS) / mask.name)


def _about(evaluation: Evaluation, name: str) -> Any:
    return (evaluation.about or {}).get(name)


def _named(evaluation: Evaluation, name: str) -> Any:
    return getattr(evaluation, name) if name not in SAME else _about(evaluation, name)
