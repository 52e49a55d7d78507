"""Which columns a table of evaluations has: those of the paper whose experiment it shows.

Attention Gated Networks averages over scans and prints distances in mm. FocusNet prints SE, SP, AC, JI and DI: recall,
specificity, accuracy, IoU and Dice. ANU-Net's ratios are of the counts of all cases together (in nearly all of its rows Dice is
2PR / (P + R) to the last digit, which it would not be of means): such columns say "pooled".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agseg.training.evaluation import EXPERIMENT, Evaluation
from agseg.training.published import PublishedRow, published_row, published_rows

LABELS = {
    "dice": "DSC",
    "iou": "IoU",
    "precision": "Precision",
    "recall": "Recall",
    "specificity": "Specificity",
    "accuracy": "Accuracy",
    "s2s_mm": "S2S (mm)",
    "s2s_px": "S2S (pixels)",
    "s2s_area_mm": "S2S, by area (mm)",
    "nsd": "NSD",
    "nsd_area": "NSD, by area",
}
"""What a metric is called in a table, in the order of the columns."""

BASE = ("dice", "precision", "recall", "s2s_mm")
"""Columns of every table of scans."""

PICTURE_BASE = ("dice", "iou", "precision", "recall", "specificity", "accuracy", "s2s_px")
"""Columns of every table of pictures: FocusNet's, and ours."""

AGAIN = frozenset({"s2s_area_mm", "nsd_area"})
"""Columns that measure another one's quantity in another way: not tested, as each test would cost all others power."""

COUNTED = ("dice", "iou", "precision", "recall", "specificity", "accuracy")
"""Metrics that follow from counts, so that they can be taken of all cases together."""

OTHERS = ".others."
"""In the key of a published row: a method that is not here."""


@dataclass(frozen=True)
class Column:
    """A metric per case, or of the counts of all cases together."""

    metric: str
    pooled: bool = False

    @property
    def label(self) -> str:
        """Its heading."""
        name = LABELS.get(self.metric, self.metric)
        return f"{name}, pooled" if self.pooled else name


def columns_of(evaluations: Sequence[Evaluation]) -> tuple[Column, ...]:
    """The base columns, and those that the papers print for these experiments."""
    wanted: set[str] = set()
    pooled: set[str] = set()
    for evaluation in evaluations:
        wanted.update(BASE if evaluation.unit == "mm" else PICTURE_BASE)
        if not evaluation.protocol and evaluation.unit == "mm":
            wanted.update({"nsd", *AGAIN})  # beside the papers' rows they have no figure
        printed = _experiment(evaluation)
        if printed is not None:
            metrics = {metric for figures in printed.scores.values() for metric in figures if metric in LABELS}
            (pooled if printed.pooled else wanted).update(metrics)
    order = list(LABELS)
    per_case = tuple(Column(metric) for metric in sorted(wanted, key=order.index))
    return per_case + tuple(Column(metric, True) for metric in sorted(pooled, key=order.index))


def other_methods(evaluations: Sequence[Evaluation]) -> tuple[PublishedRow, ...]:
    """What is in print about methods that are not here, on the data of the evaluations that stand beside a published row."""
    begins = tuple({f"{e.dataset}{OTHERS}" for e in evaluations if e.published is not None})
    return tuple(row for key, row in published_rows().items() if begins and key.startswith(begins))


def _experiment(evaluation: Evaluation) -> PublishedRow | None:
    """The published row of the experiment, whether or not ours may stand beside it."""
    return published_row(evaluation.published or (evaluation.about or {}).get(EXPERIMENT))
