"""Metrics for planes and boxes: those of Tables 5, 6 and 7 of Attention Gated Networks (2019).

``agseg evaluate`` of two tables calls :func:`score_planes` and :func:`score_boxes`, which take lists and return frozen records.
A measure whose denominator is empty is NaN and left out of the means, and the record says how many classes were counted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from agseg.errors import UsageError
from agseg.io.video.frames import Box
from agseg.ultrasound.fan import box_iou

CORRECT_IOU = 0.5
"""A box is correct above this IoU; relatively correct above this share of the best IoU of its class.

Source: Attention Gated Networks (2019), appendix on weakly supervised localisation.
"""


@dataclass(frozen=True)
class ClassScores:
    """One class: precision, recall, F1 (fractions; NaN where undefined) and the number of true frames."""

    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True, eq=False)
class PlaneScores:
    """Scores over all frames; ``confusion`` is int64 (true class, predicted class)."""

    classes: tuple[str, ...]
    accuracy: float
    macro_precision: float
    macro_recall: float
    macro_f1: float
    per_class: dict[str, ClassScores]
    confusion: NDArray[np.int64]

    def to_dict(self) -> dict[str, Any]:
        """For JSON: NaN becomes null."""
        return {
            "accuracy": _number(self.accuracy),
            "macro_precision": _number(self.macro_precision),
            "macro_recall": _number(self.macro_recall),
            "macro_f1": _number(self.macro_f1),
            "per_class": {
                name: {
                    "precision": _number(s.precision),
                    "recall": _number(s.recall),
                    "f1": _number(s.f1),
                    "support": s.support,
                }
                for name, s in self.per_class.items()
            },
            "confusion": {"classes": list(self.classes), "rows_true_columns_predicted": self.confusion.tolist()},
        }


@dataclass(frozen=True)
class BoxScores:
    """Boxes of one class: IoU (mean, sample standard deviation), share correct, share relatively correct, count."""

    iou_mean: float
    iou_sd: float
    correct: float
    relative_correct: float
    count: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON: NaN becomes null."""
        return {
            "iou": {"mean": _number(self.iou_mean), "sd": _number(self.iou_sd)},
            "correct": _number(self.correct),
            "relative_correct": _number(self.relative_correct),
            "count": self.count,
        }


def score_planes(truth: Sequence[str], predicted: Sequence[str], *, classes: tuple[str, ...]) -> PlaneScores:
    """Accuracy, macro precision, recall and F1, per class, and the confusion matrix.

    Macro F1 is the mean of the classes' F1, as in Table 6 of Attention Gated Networks (2019), over the classes that occur in
    the truth or the prediction.

    Raises
    ------
    UsageError
        If the lists differ in length or name an unknown class.
    """
    if len(truth) != len(predicted):
        raise UsageError("as many predictions as true labels are needed", value=len(predicted), expected=len(truth))
    unknown = sorted({*truth, *predicted} - set(classes))
    if unknown:
        raise UsageError("unknown plane", value=", ".join(unknown), expected=", ".join(classes))
    place = {name: index for index, name in enumerate(classes)}
    confusion = np.zeros((len(classes), len(classes)), dtype=np.int64)
    for true, guess in zip(truth, predicted, strict=True):
        confusion[place[true], place[guess]] += 1
    per_class = {name: _class_scores(confusion, index) for name, index in place.items()}
    counted = [scores for scores in per_class.values() if not math.isnan(scores.f1)]
    return PlaneScores(
        classes=classes,
        accuracy=_ratio(int(np.trace(confusion)), len(truth)),
        macro_precision=_mean([scores.precision for scores in counted]),
        macro_recall=_mean([scores.recall for scores in counted]),
        macro_f1=_mean([scores.f1 for scores in counted]),
        per_class=per_class,
        confusion=confusion,
    )


def score_boxes(truth: Sequence[Box], predicted: Sequence[Box | None], labels: Sequence[str]) -> dict[str, BoxScores]:
    """Table 7: IoU, correctness and relative correctness per class; a missing box has IoU 0.

    Raises
    ------
    UsageError
        If the lists differ in length.
    """
    if not len(truth) == len(predicted) == len(labels):
        raise UsageError("boxes and labels must come in threes", value=[len(truth), len(predicted), len(labels)])
    ious: dict[str, list[float]] = {}
    for true, guess, label in zip(truth, predicted, labels, strict=True):
        ious.setdefault(label, []).append(0.0 if guess is None else box_iou(true, guess))
    return {label: _box_scores(np.asarray(values)) for label, values in sorted(ious.items())}


def draw_confusion(scores: PlaneScores) -> Image.Image:
    """The confusion matrix as a picture: rows true, columns predicted, shade = share of the row."""
    cell, left, top = 44, 110, 110
    side = cell * len(scores.classes)
    image = Image.new("RGB", (left + side + 10, top + side + 10), "white")
    draw = ImageDraw.Draw(image)
    draw.text((8, 8), "rows: true\ncolumns: predicted", fill="black")
    for row, name in enumerate(scores.classes):
        draw.text((8, top + row * cell + cell // 2 - 6), name, fill="black")
        tile = Image.new("RGB", (top - 10, 14), "white")
        ImageDraw.Draw(tile).text((0, 0), name, fill="black")
        image.paste(tile.rotate(90, expand=True), (left + row * cell + cell // 2 - 7, 8))
        total = max(int(scores.confusion[row].sum()), 1)
        for column in range(len(scores.classes)):
            count = int(scores.confusion[row, column])
            share = count / total
            x, y = left + column * cell, top + row * cell
            fade = round(255 * (1 - share))
            draw.rectangle((x, y, x + cell - 2, y + cell - 2), fill=(fade, fade, 255), outline=(220, 220, 220))
            if count:
                draw.text((x + 6, y + cell // 2 - 6), str(count), fill="white" if share > 0.5 else "black")
    return image


def _class_scores(confusion: NDArray[np.int64], index: int) -> ClassScores:
    hits = int(confusion[index, index])
    true, guessed = int(confusion[index].sum()), int(confusion[:, index].sum())
    # A class that occurs but is never predicted has precision 0, not an undefined one: it was missed.
    precision = _ratio(hits, guessed) if guessed else (0.0 if true else math.nan)
    recall = _ratio(hits, true) if true else (0.0 if guessed else math.nan)
    return ClassScores(precision, recall, _ratio(2 * hits, true + guessed), true)


def _box_scores(ious: NDArray[np.float64]) -> BoxScores:
    return BoxScores(
        iou_mean=float(ious.mean()),
        iou_sd=float(ious.std(ddof=1)) if len(ious) > 1 else math.nan,
        correct=float((ious > CORRECT_IOU).mean()),
        relative_correct=float((ious > CORRECT_IOU * ious.max()).mean()),
        count=len(ious),
    )


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
