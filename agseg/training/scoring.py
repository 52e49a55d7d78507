"""Per-case scores of a network: what validation averages and evaluation writes down."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from agseg.io.contours import draw_contours, draw_picture_contours
from agseg.labels import LabelSet
from agseg.measure.overlap import Overlap, confusion_matrix, macro, overlap
from agseg.measure.surface import TOLERANCE_MM, s2s_slice_mm, surface_distance
from agseg.measure.surface_area import area_distance
from agseg.training.cohort import open_cohort
from agseg.training.datasets import Task, dataset
from agseg.training.description import Meaning
from agseg.training.frames import open_frames
from agseg.training.loaders import relabelled, task_of
from agseg.training.loop import Score
from agseg.training.trained_model import AS_VALIDATED, Computing, TrainedModel
from agseg.volume import LabelMask, Volume

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class CaseScore:
    """One organ of one case: counts on the truth's own grid, and surface distances in ``unit`` (``mm``; pictures ``px``).

    ``surface_dice`` is at a tolerance that the evaluation tells; NaN for pictures and in evaluations of earlier versions.
    Those with ``area`` weigh pieces of surface by their area (:mod:`agseg.measure.surface_area`), for scans alone.
    """

    case: str
    organ: str
    counts: Overlap
    s2s: float
    s2s_slice: float
    hausdorff95: float
    voxel_ml: float
    unit: str = "mm"
    surface_dice: float = math.nan
    s2s_area: float = math.nan
    hausdorff95_area: float = math.nan
    surface_dice_area: float = math.nan

    @property
    def values(self) -> dict[str, float]:
        """Every metric by name; the names of distances end in their unit, and a picture has no volume."""
        c, unit = self.counts, self.unit
        of_scans = {
            "nsd": self.surface_dice,
            "s2s_area_mm": self.s2s_area,
            "hausdorff95_area_mm": self.hausdorff95_area,
            "nsd_area": self.surface_dice_area,
            "truth_ml": c.truth * self.voxel_ml,
            "predicted_ml": c.predicted * self.voxel_ml,
        }
        return {
            "dice": c.dice,
            "iou": c.iou,
            "precision": c.precision,
            "recall": c.recall,
            "specificity": c.specificity,
            "accuracy": c.accuracy,
            f"s2s_{unit}": self.s2s,
            f"s2s_slice_{unit}": self.s2s_slice,
            f"hausdorff95_{unit}": self.hausdorff95,
            **(of_scans if unit == "mm" else {}),
        }


Draw = Callable[[str], "Image"]
"""A label's name -> prediction and reference on the image."""

Look = Callable[[Sequence[CaseScore], Draw], None]
"""Who wants to see a case once it is scored."""


@dataclass(frozen=True)
class FrameScore:
    """One frame: true and predicted class, and the probability of the predicted one."""

    case: str
    truth: str
    predicted: str
    probability: float


def score_masks(
    case: str,
    prediction: LabelMask,
    truth: LabelMask,
    *,
    organs: Sequence[str],
    meaning: Meaning | None = None,
    tolerance_mm: float = TOLERANCE_MM,
    distances: bool = True,
) -> list[CaseScore]:
    """Every organ of one case; prediction and truth on one grid, each with its own label indices.

    The slice-wise distance is that of axial slices, however the array lies: the slice axis is the one that runs closest to
    Superior.

    Parameters
    ----------
    organs
        Labels or regions.
    meaning
        Of the truth's values: what its regions are made of, and which voxels nobody labelled; those count for nothing.
    tolerance_mm
        Of the surface Dice.
    distances
        Whether surfaces are measured, which takes most of the time; NaN without.
    """
    grid = truth.grid
    inside = counted(prediction, truth, meaning=meaning)
    axial = next(axis for axis, code in enumerate(grid.axis_codes) if code in "SI")
    axes_mm = None if grid.is_rectangular else grid.affine[:3, :3]
    return [
        _score(
            case,
            name,
            *inside(name),
            grid.spacing_mm,
            grid.voxel_volume_ml,
            slice_axis=axial,
            axes_mm=axes_mm,
            tolerance_mm=tolerance_mm,
            distances=distances,
        )
        for name in organs
    ]


def score_picture(
    case: str, masks: Mapping[str, tuple[NDArray[np.bool_], NDArray[np.bool_]]], *, distances: bool = True
) -> list[CaseScore]:
    """Every label of one picture, from its prediction and truth, bool (row, column); distances are in pixels."""
    flat = (1.0, 1.0)
    return [_score(case, name, found, true, flat, math.nan, distances=distances) for name, (found, true) in masks.items()]


def counted(
    prediction: LabelMask, truth: LabelMask, *, meaning: Meaning | None = None
) -> Callable[[str], tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """What is compared: from a label or region to its voxels in prediction and truth, without those that nobody labelled."""
    made_of = {} if meaning is None else meaning.regions
    known = True if meaning is None or meaning.ignored is None else truth.labels != meaning.ignored
    same_values = relabelled(prediction, truth.label_set) if made_of else prediction

    def inside(mask: LabelMask, name: str) -> NDArray[np.bool_]:
        found = np.isin(mask.labels, made_of[name]) if name in made_of else mask.of(name)
        return np.asarray(found & known)

    return lambda name: (inside(same_values, name), inside(truth, name))


def _score(
    case: str,
    organ: str,
    prediction: NDArray[np.bool_],
    truth: NDArray[np.bool_],
    spacing_mm: Sequence[float],
    voxel_ml: float,
    *,
    slice_axis: int | None = None,
    axes_mm: NDArray[np.float64] | None = None,
    tolerance_mm: float = TOLERANCE_MM,
    distances: bool = True,
) -> CaseScore:
    """One organ; a picture has no slice axis and is its own only slice."""
    counts = overlap(prediction, truth=truth)
    if not distances:
        return CaseScore(case, organ, counts, math.nan, math.nan, math.nan, voxel_ml, "px" if slice_axis is None else "mm")
    distance = surface_distance(prediction, truth=truth, spacing_mm=spacing_mm, axes_mm=axes_mm, tolerance_mm=tolerance_mm)
    plain = (distance.s2s_mm, distance.hausdorff95_mm)
    if slice_axis is None:
        return CaseScore(case, organ, counts, plain[0], plain[0], plain[1], voxel_ml, "px")
    slicewise = s2s_slice_mm(prediction, truth=truth, spacing_mm=spacing_mm, slice_axis=slice_axis, axes_mm=axes_mm)
    area = area_distance(prediction, truth=truth, spacing_mm=spacing_mm, axes_mm=axes_mm, tolerance_mm=tolerance_mm)
    return CaseScore(
        case,
        organ,
        counts,
        plain[0],
        slicewise,
        plain[1],
        voxel_ml,
        surface_dice=distance.surface_dice,
        s2s_area=area.s2s_mm,
        hausdorff95_area=area.hausdorff95_mm,
        surface_dice_area=area.surface_dice,
    )


def score_cases(
    trained: TrainedModel,
    root: Path,
    ids: Sequence[str],
    *,
    keep: Callable[[str, LabelMask], None] | None = None,
    keep_picture: Callable[[str, NDArray[np.uint8]], None] | None = None,
    look: Look | None = None,
    computing: Computing = AS_VALIDATED,
    distances: bool = True,
) -> Iterator[list[CaseScore]]:
    """Predict and score cases one after the other, with the product's prediction path.

    Parameters
    ----------
    trained
        What predicts.
    root
        The cohort's folder.
    ids
        Which cases.
    keep
        Called with every predicted mask, for callers that write them.
    keep_picture
        The same for pictures: labels (row, column), numbered as the cohort's.
    look
        Called with the scores of every case, and with what draws one of its labels: prediction and reference on the image.
    computing
        How masks are computed; pictures are neither mirrored nor cleaned up.
    distances
        See :func:`score_masks`.
    """
    cohort = open_cohort(root)
    organs = [name for name in cohort.label_set.names if name in trained.labels]
    ready = trained.ready(computing)
    if task_of(trained.recipe) is Task.PICTURE:
        for case_id in ids:
            picture = cohort.read_picture(case_id)
            found = trained.segment_picture(picture, ready).numpy()
            if keep_picture is not None:
                keep_picture(case_id, _renumbered(found, trained.labels, cohort.label_set))
            truth = cohort.read_picture_labels(case_id)
            masks = {n: (found == trained.labels[n].index, truth == cohort.label_set[n].index) for n in organs}
            scores = score_picture(case_id, masks, distances=distances)
            if look is not None:
                look(scores, partial(draw_picture, picture, masks))
            yield scores
        return
    for case_id in ids:
        volume = cohort.read_volume(case_id)
        mask = trained.segment(volume, ready, computing=computing)
        if keep is not None:
            keep(case_id, relabelled(mask, LabelSet(cohort.label_set.only(organs).labels)))
        truth_mask = cohort.read_mask(case_id, grid=volume.grid)
        scores = score_masks(
            case_id,
            mask,
            truth_mask,
            organs=organs,
            meaning=cohort.meaning,
            tolerance_mm=computing.tolerance_mm,
            distances=distances,
        )
        if look is not None:
            look(scores, draw_scan(volume, counted(mask, truth_mask, meaning=cohort.meaning)))
        yield scores


def draw_scan(volume: Volume, masks: Callable[[str], tuple[NDArray[np.bool_], NDArray[np.bool_]]]) -> Draw:
    """What draws a label of a scan; ``masks`` as :func:`counted` gives them."""
    return lambda name: draw_contours(volume, *masks(name))


def draw_picture(
    picture: NDArray[np.float32], masks: Mapping[str, tuple[NDArray[np.bool_], NDArray[np.bool_]]], name: str
) -> Image:
    """A label of a picture (channel, row, column); ``masks`` as :func:`score_picture` takes them."""
    return draw_picture_contours(picture, *masks[name])


def _renumbered(found: NDArray[np.uint8], own: LabelSet, labels: LabelSet) -> NDArray[np.uint8]:
    """Labels by name as another label set numbers them; what it does not have is background."""
    table = np.zeros(256, dtype=np.uint8)
    for label in own:
        table[label.index] = labels[label.name].index if label.name in labels else 0
    return table[found]


def score_frames(trained: TrainedModel, root: Path, ids: Sequence[str]) -> Iterator[FrameScore]:
    """Classify frames one after the other."""
    cohort, order = open_frames(root), tuple(dataset(trained.recipe.dataset).labels.values())
    for frame_id in ids:
        scores = trained.classify(cohort.read(frame_id))
        best = int(scores.argmax())
        yield FrameScore(frame_id, cohort.rows[frame_id].label, order[best], float(scores[best]))


def validation_score(trained: TrainedModel, root: Path, ids: Sequence[str]) -> Score:
    """One number, more is better: mean Dice over cases and organs, or macro F1 for frames; 0 where nothing can be said.

    Its parts are the mean Dice of each organ.
    """
    parts: dict[str, float] = {}
    if task_of(trained.recipe) is Task.FRAME:
        order = tuple(dataset(trained.recipe.dataset).labels.values())
        scores = list(score_frames(trained, root, ids))
        truth, predicted = [order.index(s.truth) for s in scores], [order.index(s.predicted) for s in scores]
        value = macro(confusion_matrix(predicted, truth=truth, class_count=len(order))).f1
    else:
        dice = [
            (score.organ, score.counts.dice) for scores in score_cases(trained, root, ids, distances=False) for score in scores
        ]
        known = [(organ, d) for organ, d in dice if not math.isnan(d)]
        value = float(np.mean([d for _, d in known])) if known else math.nan
        organs = dict.fromkeys(organ for organ, _ in known)
        parts = {organ: float(np.mean([d for name, d in known if name == organ])) for organ in organs}
    return Score(0.0 if math.isnan(value) else value, parts)
