"""Score tables of planes and boxes, whoever made them: ``frames.csv`` against a table of the truth."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agseg.errors import UsageError
from agseg.io.atomic import replacing, write_text
from agseg.io.video.frames import Box
from agseg.training.evaluation import without_nan
from agseg.training.frame_table import FrameTable, Improvement, class_lines, improvement, read_frame_table, write_frame_table
from agseg.training.scoring import FrameScore
from agseg.ultrasound.evaluation import BoxScores, PlaneScores, draw_confusion, score_boxes, score_planes
from agseg.ultrasound.timeline import PLANES
from agseg.workflows.frame_page import write_frame_page

_CORNERS = ("x0", "y0", "x1", "y1")


@dataclass(frozen=True, eq=False)
class PlanesReport:
    """Scores of planes, and of boxes where the truth has some.

    ``drawn`` counts the frames with a true box for which the prediction has one; ``over`` is what the prediction has over those
    it was compared with.
    """

    planes: PlaneScores
    boxes: dict[str, BoxScores]
    frames: int
    output: Path
    drawn: int = 0
    over: tuple[Improvement, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For ``--json`` and ``planes_scores.json``."""
        return {
            "frames": self.frames,
            "planes": self.planes.to_dict(),
            "boxes": {label: scores.to_dict() for label, scores in self.boxes.items()},
            "boxes_in_prediction": self.drawn,
            "over": [without_nan(asdict(gain)) for gain in self.over],
        }


@dataclass(frozen=True)
class _Row:
    label: str
    box: Box | None
    probability: float


def evaluate_planes(
    truth: Path, prediction: Path, *, output: Path, against: Sequence[Path] = (), name: str | None = None
) -> PlanesReport:
    """Compare two tables with the columns ``frame``, ``label`` and, for boxes, ``x0, y0, x1, y1``.

    Every frame of the truth must be in the prediction; frames that only the prediction has are left out. Writes
    ``planes_scores.json``, ``table.md``, ``report.html``, ``confusion.png`` and, for ``against``, ``per_frame.csv``.

    Parameters
    ----------
    against
        Folders of earlier evaluations on the same frames: what this prediction has over each, class by class.
    name
        What the row is called; by default the prediction's name.

    Raises
    ------
    UsageError
        If columns or frames are missing, a frame stands in a table twice, or a box is not four whole numbers.
    RecipeError
        If an earlier evaluation was made on other frames.
    """
    earlier = [read_frame_table(folder) for folder in against]
    true, found = _read(truth), _read(prediction)
    missing = [frame for frame in true if frame not in found]
    if missing or not true:
        raise UsageError(
            "the prediction lacks frames of the truth" if missing else "the truth holds no frame",
            path=prediction if missing else truth,
            value=", ".join(missing[:5]) or None,
        )
    labels = [row.label for row in true.values()]
    classes = PLANES + tuple(sorted({*labels, *(found[frame].label for frame in true)} - set(PLANES)))
    planes = score_planes(labels, [found[frame].label for frame in true], classes=classes)
    boxed = {frame: row.box for frame, row in true.items() if row.box is not None}
    drawn = sum(found[frame].box is not None for frame in boxed)
    if boxed and not drawn:
        raise UsageError(
            "the truth has boxes and the prediction has none for any of its frames",
            path=prediction,
            expected=f"columns {', '.join(_CORNERS)}",
            hint="agseg classify-us --annotate draws one at every frame that is a plane.",
        )
    boxes = score_boxes(list(boxed.values()), [found[frame].box for frame in boxed], [true[frame].label for frame in boxed])
    name = name or (prediction.resolve().parent.name if prediction.stem == "frames" else prediction.stem)
    scores = tuple(FrameScore(f, row.label, found[f].label, found[f].probability) for f, row in true.items())
    table = FrameTable(name, classes, scores)
    over = tuple(improvement(table, theirs) for theirs in earlier)
    report = PlanesReport(planes, boxes, len(true), output, drawn, over)
    write_frame_table(output, table, over=over)
    write_text(output / "planes_scores.json", json.dumps(report.to_dict(), indent=2, ensure_ascii=False) + "\n")
    write_text(
        output / "table.md",
        "\n".join([*_table(report), *(line for gain in over for line in ["", *class_lines(table, gain)]), ""]),
    )
    write_frame_page(output, table, data=truth.name)
    with replacing(output / "confusion.png") as temporary:
        draw_confusion(planes).save(temporary, format="PNG")
    return report


def _read(path: Path) -> dict[str, _Row]:
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        columns = set(reader.fieldnames or ())
        if not {"frame", "label"} <= columns:
            raise UsageError("the table lacks columns", path=path, expected="frame, label")
        rows: dict[str, _Row] = {}
        lines: dict[str, list[int]] = {}
        try:
            for row in reader:
                box = _box(row) if set(_CORNERS) <= columns else None
                rows[row["frame"]] = _Row(row["label"], box, float(row.get("probability") or math.nan))
                lines.setdefault(row["frame"], []).append(reader.line_num)
        except ValueError:
            raise UsageError(
                "a box is not four whole numbers, or a probability no number", path=path, expected=", ".join(_CORNERS)
            ) from None
    repeated = [f"{frame!r} in lines {', '.join(map(str, at))}" for frame, at in lines.items() if len(at) > 1]
    if repeated:
        raise UsageError("a frame is in the table more than once", path=path, value="; ".join(repeated[:5]))
    return rows


def _box(row: dict[str, str]) -> Box | None:
    """A box, or None where its cells are empty."""
    cells = [row[corner] for corner in _CORNERS]
    if not all(cells):
        return None
    x0, y0, x1, y1 = (int(cell) for cell in cells)
    return x0, y0, x1, y1


def _table(report: PlanesReport) -> list[str]:
    planes = report.planes
    lines = [
        "| frames | accuracy | precision | recall | F1 |",
        "|---|---|---|---|---|",
        f"| {report.frames} | {planes.accuracy:.3f} | {planes.macro_precision:.3f} | {planes.macro_recall:.3f} "
        f"| {planes.macro_f1:.3f} |",
        "",
        "| class | frames | precision | recall | F1 |",
        "|---|---|---|---|---|",
    ]
    for name, scores in planes.per_class.items():
        lines.append(f"| {name} | {scores.support} | {scores.precision:.3f} | {scores.recall:.3f} | {scores.f1:.3f} |")
    if report.boxes:
        total = sum(box.count for box in report.boxes.values())
        lines += [
            "",
            f"The prediction has a box for {report.drawn} of {total} frames that have a true one; a missing box has IoU 0.",
        ]
        lines += ["", "| class | boxes | IoU | correct | relatively correct |", "|---|---|---|---|---|"]
    for name, box in report.boxes.items():
        lines.append(
            f"| {name} | {box.count} | {box.iou_mean:.2f} ± {box.iou_sd:.2f} | {box.correct:.2f} | {box.relative_correct:.2f} |"
        )
    return lines
