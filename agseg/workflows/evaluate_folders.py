"""Score a folder of masks against another: nnU-Net's predictions, TotalSegmentator's, those of ``agseg segment``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from agseg.errors import AgsegError, RecipeError
from agseg.io.contours import draw_contours
from agseg.io.nifti import read_labels, read_nifti_array
from agseg.io.os_errors import no_folder
from agseg.labels import LabelSet
from agseg.measure.surface import TOLERANCE_MM
from agseg.training.cohort import read_picture_labels
from agseg.training.description import PNG, Meaning, described_meaning
from agseg.training.evaluation import NOT_SCORED, Evaluation
from agseg.training.results import ENDINGS, ResultFolder, picture_labels
from agseg.training.scoring import CaseScore, counted, draw_picture, score_masks, score_picture
from agseg.volume import LabelMask, Quantity, Volume
from agseg.workflows.evaluation_report import EvaluationReport, write_results
from agseg.workflows.worst_cases import WorstCases

Progress = Callable[[int, int, str], None]

_AIR_HU, _GREY_HU = -500, 100


def evaluate_folders(
    truth: Path,
    prediction: Path,
    *,
    output: Path,
    against: Sequence[Path] = (),
    only: Sequence[str] = (),
    name: str | None = None,
    tolerance_mm: float = TOLERANCE_MM,
    progress: Progress | None = None,
) -> EvaluationReport:
    """Score every reference that a folder holds against what another folder has for it.

    ``dataset.json`` in the truth folder, above it or in the prediction folder names the labels, regions and ignored voxels;
    without one every value that occurs is a label. A case without a prediction, on another grid or with a damaged file is left
    out and told.

    Parameters
    ----------
    truth
        ``CASE.nii.gz``: one label map per case; or ``CASE.png``, of pictures.
    prediction
        See :class:`~agseg.training.results.ResultFolder`.
    output
        Folder for evaluation.json, per_case.csv, summary.json, the tables and report.html.
    against
        Folders of earlier evaluations, to be tested against case by case.
    only
        Ids of the cases that count; all by default.
    name
        What the row is called; the prediction folder's name by default.
    tolerance_mm
        Of the surface Dice.

    Raises
    ------
    RecipeError
        If a folder is missing or holds no reference.
    AgsegError
        The first case's problem, where not one could be scored.
    """
    for folder in (truth, prediction):
        if why := no_folder(folder):
            raise RecipeError(why, path=folder)
    files = _references(truth)
    if strangers := sorted(set(only) - set(files)):
        raise RecipeError("no reference mask of this case", path=truth, value=strangers[:5])
    cases = sorted(only or files)
    if not cases:
        raise RecipeError("no reference mask here", path=truth, expected="*.nii.gz or *.png")
    meaning = _meaning_of(truth, prediction, [files[case] for case in cases])
    found = ResultFolder(prediction, meaning)
    scores: list[CaseScore] = []
    problems: dict[str, AgsegError] = {}
    worst = WorstCases()
    for number, case in enumerate(cases, start=1):
        try:
            if files[case].suffix == PNG:
                scores.extend(_score_picture(case, files[case], found, meaning, worst))
            else:
                scores.extend(_score(case, files[case], found, meaning, tolerance_mm, worst))
        except AgsegError as problem:
            problems[case] = problem
        if progress:
            progress(number, len(cases), case)
    if not scores:
        raise next(iter(problems.values()))
    about: dict[str, Any] = {"tolerance_mm": tolerance_mm}
    if problems:
        about[NOT_SCORED] = {case: problem.sentence() for case, problem in problems.items()}
    evaluation = Evaluation("", name or prediction.resolve().name, truth.name, tuple(scores), None, about)
    scored = dict.fromkeys(score.case for score in scores)
    names = {case: (found.named(case), files[case].name) for case in scored}
    return write_results(output, evaluation, files=names, against=against, pictures=worst.save(output))


def _references(folder: Path) -> dict[str, Path]:
    """The label maps of a folder by case; pictures where it has none of scans."""
    found = [path for path in folder.iterdir() if not path.name.startswith(".")]
    scans = [path for path in found if path.name.endswith(ENDINGS)]
    return {_case(path): path for path in scans or found if path.name.endswith((*ENDINGS, PNG))}


def _case(path: Path) -> str:
    return path.name.removesuffix(PNG).removesuffix(".gz").removesuffix(".nii")


def _score(
    case: str, reference: Path, found: ResultFolder, meaning: Meaning, tolerance_mm: float, worst: WorstCases
) -> list[CaseScore]:
    header, values = read_labels(reference)
    truth = LabelMask(values, header.grid, meaning.in_files)
    prediction = found.read(case, like=truth)
    if not prediction.grid.matches(truth.grid):
        raise RecipeError(
            "prediction and reference lie on different grids",
            path=_path(found, case),
            value=prediction.grid.shape,
            expected=truth.grid.shape,
        )
    organs = [name for name in meaning.label_set.names if name in prediction.label_set]
    if not organs:
        raise _nothing_in_common(_path(found, case), prediction.label_set, meaning)
    scores = score_masks(case, prediction, truth, organs=organs, meaning=meaning, tolerance_mm=tolerance_mm)
    masks = counted(prediction, truth, meaning=meaning)
    worst(scores, lambda organ: draw_contours(_image(reference, truth), *masks(organ)))
    return scores


def _score_picture(case: str, reference: Path, found: ResultFolder, meaning: Meaning, worst: WorstCases) -> list[CaseScore]:
    truth, prediction = picture_labels(reference, meaning.in_files), found.read_picture(case)
    if prediction.shape != truth.shape:
        raise RecipeError(
            "prediction and reference differ in size", path=_path(found, case), value=prediction.shape, expected=truth.shape
        )
    known = np.True_ if meaning.ignored is None else truth != meaning.ignored
    masks = {}
    for label in meaning.label_set:
        if label.name in found.label_set:
            values = meaning.regions.get(label.name, (label.index,))
            theirs = meaning.regions.get(label.name, (found.label_set[label.name].index,))
            masks[label.name] = np.isin(prediction, theirs) & known, np.isin(truth, values) & known
    if not masks:
        raise _nothing_in_common(_path(found, case), found.label_set, meaning)
    scores = score_picture(case, masks)
    worst(scores, partial(draw_picture, _picture(reference, truth.shape), masks))
    return scores


def _picture(reference: Path, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The picture of a reference where nnU-Net's folders have one, as far as one file holds it; else plain grey."""
    folder = reference.resolve().parent
    path = folder.with_name(folder.name.replace("labels", "images", 1)) / f"{_case(reference)}_0000{PNG}"
    if folder.name.startswith("labels") and path.is_file():
        with suppress(OSError), Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB")).astype(np.float32)
            if pixels.shape[:2] == shape:
                return pixels.transpose(2, 0, 1)
    return np.full((1, *shape), _GREY_HU, dtype=np.float32)


def _nothing_in_common(path: Path, found: LabelSet, meaning: Meaning) -> RecipeError:
    return RecipeError(
        "prediction and reference have no label in common",
        path=path,
        value=", ".join(found.names),
        expected=", ".join(meaning.label_set.names),
        hint="Put the dataset.json that names their values beside the references, e.g. that of the training data.",
    )


def _image(reference: Path, truth: LabelMask) -> Volume:
    """The scan of a reference where nnU-Net's folders have one (``labelsTr`` beside ``imagesTr``); else plain grey."""
    folder, case = reference.resolve().parent, _case(reference)
    for ending in ENDINGS if folder.name.startswith("labels") else ():
        path = folder.with_name(folder.name.replace("labels", "images", 1)) / f"{case}_0000{ending}"
        if path.is_file():
            with suppress(AgsegError):  # a picture is not worth a case's score
                header, values = read_nifti_array(path)
                # Air of a CT, by its value alone: pictures need a window, and no folder of masks says what its scans are.
                quantity = Quantity.HU if values.min() < _AIR_HU else Quantity.SIGNAL
                if header.grid.matches(truth.grid):
                    return Volume(values, truth.grid, quantity=quantity)
    return Volume(np.full(truth.grid.shape, _GREY_HU, dtype=np.int16), truth.grid)


def _path(found: ResultFolder, case: str) -> Path:
    """Where a case's prediction lies."""
    return found.root / found.named(case)


def _meaning_of(truth: Path, prediction: Path, files: Sequence[Path]) -> Meaning:
    for folder in (truth, truth.resolve().parent, prediction):
        described = described_meaning(folder)
        if described is not None:
            return described
    values = sorted({int(value) for path in files for value in np.unique(_values(path))} - {0})
    return Meaning(LabelSet.from_mapping({value: f"label_{value}" for value in values}))


def _values(path: Path) -> NDArray[np.uint8]:
    return read_picture_labels(path) if path.suffix == PNG else read_labels(path)[1]
