"""Score a network on a test split: the only reader of test cases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from agseg.errors import RecipeError, UsageError
from agseg.io.atomic import make_folder, replacing
from agseg.io.nifti_write import write_mask
from agseg.training.beside import changes_of, row_beside
from agseg.training.cohort import open_cohort, provenance
from agseg.training.datasets import Task
from agseg.training.description import NIFTI, PNG
from agseg.training.evaluation import CHANGED, COMPUTED, EXPERIMENT, UNRECORDED, Evaluation
from agseg.training.leakage import LEARNED, SAME_IMAGE, refuse_known, unrecorded
from agseg.training.loaders import task_of
from agseg.training.protocol import OWN, Logits, Start, protocol
from agseg.training.scoring import CaseScore, score_cases
from agseg.training.splits import default_split, fold_count, read_split
from agseg.training.trained_model import AS_VALIDATED, Computing, TrainedModel, open_run
from agseg.volume import LabelMask
from agseg.workflows.compare_masks import write_side_by_side
from agseg.workflows.evaluate_frames import FrameReport, evaluate_frames
from agseg.workflows.evaluation_report import EvaluationReport, write_results
from agseg.workflows.worst_cases import WorstCases

Progress = Callable[[int, int, str], None]


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
    computing
        How masks are computed.
    network
        The network itself, where it is no run but weights of the manifest.
    name
        What its row is called; by default the paper's network, or the recipe on data of one's own.
    """

    run: Path
    protocol: str | None = None
    data: Path | None = None
    split: str | None = None
    fold: int | None = None
    last: bool = False
    computing: Computing = AS_VALIDATED
    network: TrainedModel | None = None
    name: str | None = None


def evaluate_run(
    request: RunRequest,
    *,
    output: Path,
    against: Sequence[Path] = (),
    masks: bool = False,
    progress: Progress | None = None,
) -> EvaluationReport | FrameReport:
    """Score a run's network on the test side of a split; see :func:`evaluate_protocol` and :func:`evaluate_frames`."""
    trained = request.network or open_run(request.run, best=not request.last)
    data = request.data or Path("data") / trained.recipe.dataset
    task = task_of(trained.recipe)
    if task is not Task.VOLUME and (request.computing.mirror or request.computing.largest):
        option = "--mirror" if request.computing.mirror else "--largest"
        raise UsageError("only scans are mirrored and cleaned up", value=option, hint=f"Leave {option} out.")
    if task is Task.FRAME:
        if request.computing.device is not None:
            trained.network.to(request.computing.device)
        split = request.split or trained.recipe.split
        fold = _fold(request, trained, split)
        if masks:
            raise UsageError("frames have classes and no masks", value="--masks", hint="Leave --masks out.")
        return evaluate_frames(
            trained, data=data, output=output, split=split, fold=fold, against=against, name=request.name, progress=progress
        )
    is_ours = request.network is None and not trained.is_own
    name = request.protocol or (trained.recipe.protocol if is_ours else OWN.name)
    if request.network is not None and protocol(name).trains and name != OWN.name:
        raise RecipeError(
            "weights of the manifest can be applied to other data, and nothing else is known of them",
            value=f"--protocol {name}",
            expected="--protocol bft, or none",
        )
    # A run's own test side, unless its network is applied to other data.
    own = request.network is None and protocol(name).trains and trained.learned_on == open_cohort(data).name
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
        computing=request.computing,
        called=request.name,
        progress=progress,
    )


def _fold(request: RunRequest, trained: TrainedModel, split: str) -> int:
    """The fold asked for, else the run's own on its own split: the other folds test what it was trained on."""
    if request.fold is not None:
        return request.fold
    return int((trained.about or {}).get("fold", 0)) if split == trained.recipe.split else 0


def evaluate_protocol(
    trained: TrainedModel,
    *,
    protocol_name: str,
    data: Path,
    output: Path,
    split: str,
    fold: int = 0,
    against: Sequence[Path] = (),
    masks: bool = False,
    computing: Computing = AS_VALIDATED,
    called: str | None = None,
    progress: Progress | None = None,
) -> EvaluationReport:
    """Predict the test side of a split under a protocol, score it, and write every report.

    Parameters
    ----------
    trained
        The network: the source's for BFT, the fine-tuned one for AFT, one trained on this data for SCR.
    protocol_name
        ``bft``, ``aft`` or ``scr``; ``own`` where none of them applies.
    data, split, fold
        The cohort, and which test side of it.
    output
        Folder for evaluation.json, per_case.csv, summary.json, the tables and report.html.
    against
        Folders of earlier evaluations on the same cases, to compare with.
    masks
        Write the predicted masks below ``output/predictions``, and pictures beside those of ``against`` that wrote theirs.
    computing
        How masks are computed.
    called
        What the row is called; by default the paper's network, or the recipe on data of one's own.

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

    def keep_picture(case_id: str, labels: NDArray[np.uint8]) -> None:
        with replacing(make_folder(output / "predictions") / f"{case_id}.png") as temporary:
            Image.fromarray(labels).save(temporary, format="PNG")

    kept: dict[str, Any] = {"keep": keep, "keep_picture": keep_picture} if masks else {}
    worst = WorstCases()
    for number, found in enumerate(score_cases(trained, data, ids, computing=computing, look=worst, **kept), start=1):
        scores.extend(found)
        if progress:
            progress(number, len(ids), ids[number - 1])
    about: dict[str, Any] = {"recipe": trained.recipe.name, "split": split, "fold": fold, "folds": fold_count(data, split)}
    about["network"] = _without_cases(trained)
    if trained.recipe.published is not None and not trained.is_own:
        about[EXPERIMENT] = trained.recipe.published
        if changed := changes_of(trained):
            about[CHANGED] = list(changed)
    about[COMPUTED] = {"precision": computing.precision.value, "mirror": computing.mirror, "largest": list(computing.largest)}
    if same:
        about[SAME_IMAGE] = same
    if (unknown := unrecorded(trained)) is not None:
        about[UNRECORDED] = unknown
    is_own = protocol_name == OWN.name
    # Two networks of one architecture on one's own data are two recipes; the papers' rows are called by their networks.
    name = called or (trained.recipe.name if is_own else trained.recipe.network.architecture)
    synthetic = provenance(data).synthetic
    published = None
    if not trained.is_own:
        published = row_beside(trained, cohort=cohort.name, protocol_name=protocol_name, split=split, synthetic=synthetic)
    evaluation = Evaluation("" if is_own else protocol_name, name, cohort.name, tuple(scores), published, about)
    ending = PNG if cohort.file_ending == PNG else NIFTI
    files = {case: (f"predictions/{case}{ending}", str(cohort.label_path(case).relative_to(data))) for case in ids}
    report = write_results(output, evaluation, files=files, against=against, pictures=worst.save(output))
    if masks and ending == NIFTI:
        write_side_by_side(output, evaluation, against, cohort)
    return report


def _without_cases(trained: TrainedModel) -> dict[str, Any]:
    """run.json for the report: what the run has learned from is told there, case by case."""
    return {key: value for key, value in (trained.about or {}).items() if key != LEARNED}


def _check_fits(trained: TrainedModel, protocol_name: str, data: str) -> None:
    """A protocol says where the weights come from; a network that came another way is not it."""
    wanted, came = protocol(protocol_name), protocol(trained.recipe.protocol)
    learned = trained.learned_on
    if wanted is OWN:
        return
    if trained.is_own:
        raise RecipeError(
            "the papers' protocols do not apply to a network that was trained on data of one's own",
            value=f"{wanted.name}, trained on {learned}",
            expected="no --protocol",
            hint="Leave --protocol out: the row is then called by the recipe.",
        )
    is_source = learned != data
    if wanted.start is Start.SOURCE and not wanted.trains:
        if not is_source:
            raise RecipeError(f"{wanted.name} applies a network of another data set", value=learned, expected="the source")
        return
    if is_source:
        raise RecipeError(
            f"{wanted.name} is the way of a network that was trained on the data it is scored on",
            value=f"trained on {learned}, scored on {data}",
            expected="one data set",
            hint="To apply it as it is: --protocol bft. To bring it to this data: agseg finetune.",
        )
    if came.name != wanted.name:
        raise RecipeError(f"this network was not trained under {wanted.name}", value=f"{came.name} on {learned}")
    if (trained.kept is None) == (wanted.logits is Logits.TARGET):
        raise RecipeError(f"the logits that count are not those of {wanted.name}", value=trained.kept)
