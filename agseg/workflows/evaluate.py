"""Score a network on a test split, or a folder of masks against another: the only reader of test cases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agseg.errors import RecipeError, UsageError
from agseg.io.absence import no_folder
from agseg.io.atomic import make_folder, write_text
from agseg.io.nifti import read_labels
from agseg.io.nifti_write import write_mask
from agseg.labels import LabelSet
from agseg.measure.significance import Summary
from agseg.training.beside import row_beside
from agseg.training.cohort import described_labels, open_cohort, provenance
from agseg.training.datasets import Task
from agseg.training.evaluation import EXPERIMENT, Evaluation, read_evaluation, write_evaluation
from agseg.training.lineage import LEARNED, SAME_IMAGE, refuse_known
from agseg.training.material import task_of
from agseg.training.protocol import Logits, Start, protocol
from agseg.training.scoring import CaseScore, score_cases, score_masks
from agseg.training.splits import default_split, fold_count, read_split
from agseg.training.table import Table, make_table, to_csv, to_latex, to_markdown
from agseg.training.trained import Trained, open_run
from agseg.volume import LabelMask
from agseg.workflows.evaluate_frames import FrameReport, evaluate_frames

__all__ = [
    "EvaluationReport",
    "RunRequest",
    "evaluate_folders",
    "evaluate_protocol",
    "evaluate_run",
    "write_table",
]

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class EvaluationReport:
    """What was measured, and where it was written."""

    evaluation: Evaluation
    table: Table
    output: Path

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``: a summary per organ and metric."""
        rows = [
            {
                "protocol": row.protocol,
                "model": row.model,
                "organ": row.organ,
                "n": row.n,
                "metrics": {name: _plain(summary) for name, summary in row.summaries.items()},
                "pooled": {name: value if np.isfinite(value) else None for name, value in row.pooled.items()},
            }
            for row in self.table.rows
        ]
        return {"output": str(self.output), "rows": rows}


def _plain(s: Summary) -> dict[str, float | None]:
    """A summary as JSON holds it: NaN becomes null."""
    values = {"mean": s.mean, "sd": s.sd, "low95": s.interval.low, "high95": s.interval.high}
    return {name: value if np.isfinite(value) else None for name, value in values.items()}


@dataclass(frozen=True)
class RunRequest:
    """Which run is evaluated on what.

    Parameters
    ----------
    run
        Its folder.
    protocol
        ``bft``, ``aft`` or ``scr``; None means the run's own.
    data
        The cohort; None means ``data/<data set>``.
    split, fold
        Which test side; None means the run's own split and fold, or the cohort's first where the run comes from other data.
    last
        Take the last checkpoint instead of the best.
    """

    run: Path
    protocol: str | None = None
    data: Path | None = None
    split: str | None = None
    fold: int | None = None
    last: bool = False


def evaluate_run(
    request: RunRequest,
    *,
    output: Path,
    against: Sequence[Path] = (),
    masks: bool = False,
    progress: Progress | None = None,
) -> EvaluationReport | FrameReport:
    """Score a run's network on the test side of a split; see :func:`evaluate_protocol` and :func:`evaluate_frames`."""
    trained = open_run(request.run, best=not request.last)
    data = request.data or Path("data") / trained.recipe.dataset
    if task_of(trained.recipe) is Task.FRAME:
        split = request.split or trained.recipe.split
        fold = _fold(request, trained, split)
        if masks:
            raise UsageError("frames have classes and no masks", value="--masks", hint="Leave --masks out.")
        return evaluate_frames(trained, data=data, output=output, split=split, fold=fold, against=against, progress=progress)
    name = request.protocol or trained.recipe.protocol
    own = protocol(name).trains
    split = request.split or (trained.recipe.split if own else default_split(data))
    return evaluate_protocol(
        trained,
        protocol_name=name,
        data=data,
        output=output,
        split=split,
        fold=_fold(request, trained, split) if own else request.fold or 0,
        against=against,
        masks=masks,
        progress=progress,
    )


def _fold(request: RunRequest, trained: Trained, split: str) -> int:
    """The fold asked for, else the run's own on its own split: the other folds test what it was trained on."""
    if request.fold is not None:
        return request.fold
    return int((trained.about or {}).get("fold", 0)) if split == trained.recipe.split else 0


def evaluate_protocol(
    trained: Trained,
    *,
    protocol_name: str,
    data: Path,
    output: Path,
    split: str,
    fold: int = 0,
    against: Sequence[Path] = (),
    masks: bool = False,
    progress: Progress | None = None,
) -> EvaluationReport:
    """Predict the test side of a split under a protocol, score it, and write every report.

    Parameters
    ----------
    trained
        The network: the source's for BFT, the fine-tuned one for AFT, one trained on this data for SCR.
    protocol_name
        ``bft``, ``aft`` or ``scr``.
    data, split, fold
        The cohort, and which test side of it.
    output
        Folder for evaluation.json, per_case.csv, summary.json and the tables.
    against
        Folders of earlier evaluations on the same cases, to compare with.
    masks
        Write the predicted masks below ``output/predictions``.

    Raises
    ------
    RecipeError
        If the network does not fit the protocol, or nothing is kept for the test.
    UsageError
        If the network has learned from a case of this test side.
    """
    _check_fits(trained, protocol_name, open_cohort(data).name)
    sides = read_split(data, split, fold=fold)
    ids = sides.test
    if not ids:
        raise RecipeError("this split keeps no case for the test", path=data, value=split)
    same = refuse_known(trained, data, ids, split=sides)
    cohort = open_cohort(data)
    scores: list[CaseScore] = []

    def keep(case_id: str, mask: LabelMask) -> None:
        write_mask(make_folder(output / "predictions") / f"{case_id}.nii.gz", mask.labels, mask.grid)

    for number, found in enumerate(score_cases(trained, data, ids, keep=keep if masks else None), start=1):
        scores.extend(found)
        if progress:
            progress(number, len(ids), ids[number - 1])
    arch = trained.recipe.network.architecture
    about: dict[str, Any] = {"recipe": trained.recipe.name, "split": split, "fold": fold, "folds": fold_count(data, split)}
    about["network"] = _without_cases(trained)
    if trained.recipe.published is not None:
        about[EXPERIMENT] = trained.recipe.published
    if same:
        about[SAME_IMAGE] = same
    synthetic = provenance(data).synthetic
    published = row_beside(trained, cohort=cohort.name, protocol_name=protocol_name, split=split, synthetic=synthetic)
    evaluation = Evaluation(protocol_name, arch, cohort.name, tuple(scores), published, about)
    files = {case: (f"predictions/{case}.nii.gz", str(cohort.label_path(case).relative_to(data))) for case in ids}
    write_evaluation(output, evaluation, files=files)
    table = make_table([*(read_evaluation(folder) for folder in against), evaluation])
    write_table(output, table)
    return EvaluationReport(evaluation, table, output)


def _without_cases(trained: Trained) -> dict[str, Any]:
    """run.json for the report: what the run has learned from is told there, case by case."""
    return {key: value for key, value in (trained.about or {}).items() if key != LEARNED}


def _check_fits(trained: Trained, protocol_name: str, data: str) -> None:
    """A protocol says where the weights come from; a network that came another way is not it."""
    wanted, came = protocol(protocol_name), protocol(trained.recipe.protocol)
    is_source = trained.recipe.dataset != data
    if wanted.start is Start.SOURCE and not wanted.trains:
        if not is_source:
            raise RecipeError(
                f"{wanted.name} applies a network of another data set", value=trained.recipe.dataset, expected="the source"
            )
        return
    if is_source or came.name != wanted.name:
        raise RecipeError(f"this network was not trained under {wanted.name}", value=f"{came.name} on {trained.recipe.dataset}")
    if (trained.kept is None) == (wanted.logits is Logits.TARGET):
        raise RecipeError(f"the logits that count are not those of {wanted.name}", value=trained.kept)


def evaluate_folders(truth: Path, prediction: Path, *, output: Path, against: Sequence[Path] = ()) -> EvaluationReport:
    """Score every mask of a folder against the reference of the same name.

    ``dataset.json`` in the truth folder or above it names the labels; without one every value that occurs is a label.

    Raises
    ------
    RecipeError
        If a reference has no prediction, or the two lie on different grids.
    """
    for folder in (truth, prediction):
        if why := no_folder(folder):
            raise RecipeError(why, path=folder)
    names = sorted(path.name for path in truth.glob("*.nii*") if not path.name.startswith("."))
    if not names:
        raise RecipeError("no reference mask here", path=truth, expected="*.nii.gz")
    missing = [name for name in names if not (prediction / name).is_file()]
    if missing:
        raise RecipeError("a reference has no prediction", path=prediction, value=", ".join(missing[:5]))
    labels = _labels_of(truth, names)
    scores = []
    for name in names:
        reference, found = _mask(truth / name, labels), _mask(prediction / name, labels)
        if not found.grid.matches(reference.grid):
            raise RecipeError("prediction and reference lie on different grids", path=prediction / name)
        case = name.removesuffix(".gz").removesuffix(".nii")
        scores.extend(score_masks(case, found, reference, organs=labels.names))
    evaluation = Evaluation("", prediction.name, truth.name, tuple(scores))
    files = {n.removesuffix(".gz").removesuffix(".nii"): (n, n) for n in names}
    write_evaluation(output, evaluation, files=files)
    table = make_table([*(read_evaluation(folder) for folder in against), evaluation])
    write_table(output, table)
    return EvaluationReport(evaluation, table, output)


def _labels_of(truth: Path, names: Sequence[str]) -> LabelSet:
    for folder in (truth, truth.parent):
        described = described_labels(folder)
        if described is not None:
            return described
    return _every_value(truth, names)


def _every_value(truth: Path, names: Sequence[str]) -> LabelSet:
    values = sorted({int(v) for name in names for v in np.unique(read_labels(truth / name)[1])} - {0})
    return LabelSet.from_mapping({value: f"label_{value}" for value in values})


def _mask(path: Path, labels: LabelSet) -> LabelMask:
    header, values = read_labels(path)
    return LabelMask(values, header.grid, labels)


def write_table(output: Path, table: Table) -> None:
    """``table.md``, ``table.csv`` and ``table.tex``."""
    for suffix, text in (("md", to_markdown(table)), ("csv", to_csv(table)), ("tex", to_latex(table))):
        write_text(output / f"table.{suffix}", text)
