"""Pictures of two evaluations' masks side by side, where both wrote them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from agseg.io.drawing import save
from agseg.io.nifti import read_labels
from agseg.labels import LabelSet
from agseg.training.cohort import Cohort
from agseg.training.evaluation import Evaluation, read_evaluation
from agseg.training.side_by_side import Shown, chosen_cases, draw_side_by_side
from agseg.volume import LabelMask

PREDICTIONS = "predictions"


def write_side_by_side(output: Path, ours: Evaluation, against: Sequence[Path], cohort: Cohort) -> tuple[Path, ...]:
    """``side_by_side-<n>-<organ>.png`` for the n-th earlier evaluation that wrote its masks, and every organ of both.

    Parameters
    ----------
    output
        Folder of our evaluation, with its ``predictions``.
    ours
        Its scores.
    against
        Folders of earlier evaluations.
    cohort
        The scans.
    """
    written = []
    for number, folder in enumerate(against, start=1):
        theirs = read_evaluation(folder)
        for organ in (o for o in theirs.organs if o in ours.organs and o in cohort.label_set):
            dice = [
                {case: d for case, d in found.values(organ, "dice").items() if _mask(place, case).is_file()}
                for found, place in ((theirs, folder), (ours, output))
            ]
            chosen = chosen_cases(*dice)
            if not chosen:
                continue
            cases = [_shown(cohort, case, gain, [(theirs, folder), (ours, output)], organ) for case, gain in chosen]
            path = output / f"side_by_side-{number}-{organ}.png"
            save(draw_side_by_side(cases, organ=organ), path)
            written.append(path)
    return tuple(written)


def _mask(folder: Path, case: str) -> Path:
    return folder / PREDICTIONS / f"{case}.nii.gz"


def _shown(cohort: Cohort, case: str, gain: float, evaluations: Sequence[tuple[Evaluation, Path]], organ: str) -> Shown:
    volume = cohort.read_volume(case)
    labels = LabelSet(cohort.label_set.only([organ]).labels)
    masks, dice = {}, []
    for evaluation, folder in evaluations:
        header, values = read_labels(_mask(folder, case))
        keep = values == labels[organ].index
        masks[evaluation.name] = LabelMask((values * keep).astype(values.dtype), header.grid, labels)
        dice.append(f"{evaluation.values(organ, 'dice')[case]:.3f}")
    title = f"{case}: Dice {' and '.join(dice)} ({gain:+.3f})"
    return Shown(title, volume, cohort.read_mask(case, grid=volume.grid), masks)
