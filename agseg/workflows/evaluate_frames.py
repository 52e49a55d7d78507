"""Score a scan-plane classifier on the test frames of a split."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agseg.errors import RecipeError
from agseg.io.atomic import make_folder, write_text
from agseg.measure.overlap import class_scores, confusion_matrix, macro
from agseg.training.cohort import provenance
from agseg.training.datasets import Task, dataset
from agseg.training.lineage import refuse_known
from agseg.training.published import published_row
from agseg.training.scoring import FrameScore, score_frames
from agseg.training.splits import read_split
from agseg.training.trained import Trained

__all__ = ["FrameReport", "evaluate_frames"]

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class FrameReport:
    """Scan planes: accuracy, and macro precision, recall and F1 over classes.

    ``same_image``: test frames that hold the same image as a learned one of another subject, whose id it gives.
    """

    frames: int
    accuracy: float
    precision: float
    recall: float
    f1: float
    output: Path
    same_image: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {**vars(self), "output": str(self.output), "same_image": dict(self.same_image)}


def evaluate_frames(
    trained: Trained, *, data: Path, output: Path, split: str, fold: int = 0, progress: Progress | None = None
) -> FrameReport:
    """Classify the test frames of a split; writes per_frame.csv, classes.csv and table.md.

    Raises
    ------
    RecipeError
        If the recipe does not classify frames, or nothing is kept for the test.
    UsageError
        If the network has learned from a frame of this test side.
    """
    facts = dataset(trained.recipe.dataset)
    if facts.task is not Task.FRAME:
        raise RecipeError("this network does not classify frames", value=trained.recipe.name)
    sides = read_split(data, split, fold=fold)
    ids = sides.test
    if not ids:
        raise RecipeError("this split keeps no frame for the test", path=data, value=split)
    same = refuse_known(trained, data, ids, split=sides)
    scores: list[FrameScore] = []
    for number, score in enumerate(score_frames(trained, data, ids), start=1):
        scores.append(score)
        if progress:
            progress(number, len(ids), score.case)
    order = tuple(facts.labels.values())
    truth, found = [order.index(s.truth) for s in scores], [order.index(s.predicted) for s in scores]
    confusion = confusion_matrix(found, truth=truth, class_count=len(order))
    total = macro(confusion)
    make_folder(output)
    lines = [(s.case, s.truth, s.predicted, f"{s.probability:.5f}") for s in scores]
    write_text(output / "per_frame.csv", _csv(("frame", "truth", "predicted", "probability"), lines))
    classes = [
        (name, c.support, f"{c.precision:.4f}", f"{c.recall:.4f}", f"{c.f1:.4f}")
        for name, c in zip(order, class_scores(confusion), strict=True)
    ]
    write_text(output / "classes.csv", _csv(("class", "frames", "precision", "recall", "f1"), classes))
    report = FrameReport(len(ids), total.accuracy, total.precision, total.recall, total.f1, output, same)
    write_text(output / "table.md", _frame_table(report, trained, total.classes, beside=not provenance(data).synthetic))
    return report


def _csv(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(header)
    out.writerows(rows)
    return text.getvalue()


def _frame_table(report: FrameReport, trained: Trained, classes: int, *, beside: bool) -> str:
    """For people; ``beside``: with the published row, which scores on synthetic frames have no place beside."""
    metrics = ("accuracy", "precision", "recall", "f1")
    lines = ["| model | frames | accuracy | precision | recall | F1 |", "|---|---|---|---|---|---|"]
    ours = " | ".join(f"{getattr(report, metric):.3f}" for metric in metrics)
    lines.append(f"| {trained.recipe.network.architecture} | {report.frames} | {ours} |")
    printed = published_row(trained.recipe.published) if beside else None
    if printed is not None:
        figures = printed.scores["planes"]
        lines.append(f"| *published: {printed.source}* | | {' | '.join(f'{figures[m].mean:.3f}' for m in metrics)} |")
    lines += ["", f"Macro averages over {classes} classes."]
    if report.same_image:
        pairs = ", ".join(f"{frame} = {learned}" for frame, learned in report.same_image.items())
        lines += ["", f"Test frames that hold the image of a learned frame ({len(report.same_image)}): {pairs}."]
    return "\n".join(lines) + "\n"
