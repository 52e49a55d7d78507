"""Overlap metrics of two masks, or of two lists of classes: everything that follows from counts.

The rule for empty masks: where prediction and truth are both empty there is nothing to find, and Dice, IoU, precision and
recall are NaN; means leave NaN out and say how many values they rest on. Where only one of the two is empty they are 0, so
that an organ that was missed, or invented, never drops out of a mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Overlap:
    """Counts of one binary comparison (voxels, pixels or frames), and the ratios that follow from them."""

    true_positive: int
    false_positive: int
    false_negative: int
    true_negative: int

    def __add__(self, other: Overlap) -> Overlap:
        """Counts put together, as if both comparisons were one image."""
        return Overlap(
            self.true_positive + other.true_positive,
            self.false_positive + other.false_positive,
            self.false_negative + other.false_negative,
            self.true_negative + other.true_negative,
        )

    @property
    def truth(self) -> int:
        """Voxels of the truth."""
        return self.true_positive + self.false_negative

    @property
    def predicted(self) -> int:
        """Voxels of the prediction."""
        return self.true_positive + self.false_positive

    @property
    def both_empty(self) -> bool:
        """True if neither has a voxel."""
        return self.truth == 0 and self.predicted == 0

    @property
    def dice(self) -> float:
        """2 TP / (2 TP + FP + FN), the Sørensen-Dice coefficient (FocusNet's DI); NaN if both are empty."""
        return _ratio(2 * self.true_positive, self.truth + self.predicted)

    @property
    def iou(self) -> float:
        """TP / (TP + FP + FN), the Jaccard index (FocusNet's JI); NaN if both are empty."""
        return _ratio(self.true_positive, self.true_positive + self.false_positive + self.false_negative)

    @property
    def precision(self) -> float:
        """TP / (TP + FP); 0 if only the prediction is empty, NaN if both are."""
        return math.nan if self.both_empty else _ratio(self.true_positive, self.predicted, otherwise=0.0)

    @property
    def recall(self) -> float:
        """TP / (TP + FN) (FocusNet's SE); 0 if only the truth is empty, NaN if both are."""
        return math.nan if self.both_empty else _ratio(self.true_positive, self.truth, otherwise=0.0)

    @property
    def specificity(self) -> float:
        """TN / (TN + FP) (FocusNet's SP); NaN if the truth fills the image."""
        return _ratio(self.true_negative, self.true_negative + self.false_positive)

    @property
    def accuracy(self) -> float:
        """(TP + TN) / all (FocusNet's AC); NaN if nothing was compared."""
        right = self.true_positive + self.true_negative
        return _ratio(right, right + self.false_positive + self.false_negative)


def overlap(prediction: NDArray[np.bool_], *, truth: NDArray[np.bool_]) -> Overlap:
    """Count one binary prediction against its truth; bool arrays of one shape, any number of axes.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    prediction, truth = np.asarray(prediction, dtype=bool), np.asarray(truth, dtype=bool)
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction {prediction.shape} and truth {truth.shape} differ in shape")
    hit = int(np.count_nonzero(prediction & truth))
    predicted, true = int(np.count_nonzero(prediction)), int(np.count_nonzero(truth))
    return Overlap(hit, predicted - hit, true - hit, int(truth.size) - predicted - true + hit)


def pooled(overlaps: Iterable[Overlap]) -> Overlap:
    """All counts put together, as ANU-Net's tables do; AGN's tables average per scan instead."""
    return sum(overlaps, start=Overlap(0, 0, 0, 0))


@dataclass(frozen=True)
class ClassScores:
    """Precision, recall and F1 of one class; NaN where the class is neither true nor predicted anywhere."""

    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class MacroScores:
    """Accuracy over all frames, and the unweighted means over classes; ``f1`` is the mean of the classes' F1."""

    accuracy: float
    precision: float
    recall: float
    f1: float
    classes: int


def confusion_matrix(predicted: ArrayLike, *, truth: ArrayLike, class_count: int) -> NDArray[np.int64]:
    """Frames counted as [true class, predicted class], int64 of shape (class_count, class_count).

    Raises
    ------
    ValueError
        If the lists differ in length or hold an index outside 0 to class_count - 1.
    """
    rows, columns = np.asarray(truth, dtype=np.int64), np.asarray(predicted, dtype=np.int64)
    if rows.shape != columns.shape or rows.ndim != 1:
        raise ValueError(f"truth {rows.shape} and prediction {columns.shape} must be two lists of one length")
    if rows.size and (min(rows.min(), columns.min()) < 0 or max(rows.max(), columns.max()) >= class_count):
        raise ValueError(f"class indices must lie in 0 to {class_count - 1}")
    flat = np.bincount(rows * class_count + columns, minlength=class_count**2)
    return np.asarray(flat.reshape(class_count, class_count), dtype=np.int64)


def class_scores(confusion: NDArray[np.int64]) -> tuple[ClassScores, ...]:
    """Precision, recall and F1 per class from a confusion matrix [true, predicted]."""
    total = int(confusion.sum())
    scores = []
    for index in range(confusion.shape[0]):
        hit, row, column = int(confusion[index, index]), int(confusion[index].sum()), int(confusion[:, index].sum())
        counts = Overlap(hit, column - hit, row - hit, total - row - column + hit)
        scores.append(ClassScores(counts.precision, counts.recall, counts.dice, row))
    return tuple(scores)


def macro(confusion: NDArray[np.int64]) -> MacroScores:
    """Accuracy and macro precision, recall and F1, over the classes that occur in truth or prediction.

    Source: Schlemper et al., Table 5: its macro F1 (0.922) is the mean of Table 6's class F1, not the F1 of the means.
    """
    scores = [score for score in class_scores(confusion) if not math.isnan(score.f1)]
    if not scores:
        return MacroScores(math.nan, math.nan, math.nan, math.nan, 0)
    return MacroScores(
        accuracy=float(np.trace(confusion) / confusion.sum()),
        precision=float(np.mean([score.precision for score in scores])),
        recall=float(np.mean([score.recall for score in scores])),
        f1=float(np.mean([score.f1 for score in scores])),
        classes=len(scores),
    )


def _ratio(part: int, whole: int, *, otherwise: float = math.nan) -> float:
    return part / whole if whole else otherwise
