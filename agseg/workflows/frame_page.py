"""report.html of an evaluation of frames: those first that were taken for another class with the greatest probability."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agseg import __version__
from agseg.io.atomic import make_folder
from agseg.io.drawing import save
from agseg.io.html.clock import local_time
from agseg.io.html.evaluation import CaseRow, EvaluationView, Kind, Number, Outcome, TableView, WorstView, write_evaluation_page
from agseg.io.html.thumbnail import PLANE_WIDTH_PX, thumbnail
from agseg.training.frame_table import FrameTable
from agseg.training.scoring import FrameScore
from agseg.workflows.worst_cases import FOLDER, MOST, clear_pictures

_RIGHT = Outcome("right", "right")


def write_frame_page(
    output: Path, table: FrameTable, *, data: str, read: Callable[[str], NDArray[np.uint8]] | None = None
) -> None:
    """Write the page.

    Parameters
    ----------
    output
        The evaluation's folder; pictures go to its ``worst``.
    table
        What was made of the frames.
    data
        What the frames are called together.
    read
        A frame by its id, uint8 (row, column); without it there are no pictures.
    """
    frames = sorted(table.frames, key=_badness)
    wrong = [score for score in frames if score.predicted != score.truth]
    clear_pictures(output)
    worst = [_worst(output, score, number, read) for number, score in enumerate(wrong[:MOST], start=1)] if read else []
    anchors = {view.case: view.anchor for view in worst}
    outcomes = {score.case: _outcome(score) for score in frames}
    counted = Counter(score.predicted == score.truth for score in frames)
    shown = tuple(dict.fromkeys(outcomes[score.case] for score in frames))
    rows = (CaseRow(s.case, s.truth, outcomes[s.case], (_number(s.probability),), anchors.get(s.case, "")) for s in frames)
    write_evaluation_page(
        output,
        EvaluationView(
            title=f"{table.model} on {data}",
            facts=(
                ("Method", table.model),
                ("Data", data),
                ("Frames", str(len(frames))),
                ("Written", local_time(datetime.now().astimezone().isoformat(timespec="seconds"))),
            ),
            counts=(("right", counted[True]), ("taken for another class", counted[False])),
            not_scored=(),
            worst=tuple(worst),
            metrics=("probability",),
            cases=tuple(rows),
            outcomes=shown,
            tables=(_classes(table),),
            version=__version__,
            kind=Kind.FRAMES,
        ),
    )


def _badness(score: FrameScore) -> tuple[bool, float]:
    """Wrong ones first, the surest of them at the head; right ones after them, the least sure at the head."""
    sure = 0.0 if math.isnan(score.probability) else score.probability
    is_right = score.predicted == score.truth
    return is_right, sure if is_right else -sure


def _outcome(score: FrameScore) -> Outcome:
    if score.predicted == score.truth:
        return _RIGHT
    return Outcome(f"as {score.predicted}", f"taken for {score.predicted}", is_bad=True)


def _number(value: float) -> Number:
    return Number("–", "") if math.isnan(value) else Number(f"{value:.3f}", f"{value:.6g}")


def _worst(output: Path, score: FrameScore, number: int, read: Callable[[str], NDArray[np.uint8]]) -> WorstView:
    import PIL.Image

    file = f"{FOLDER}/{number:02d}.png"
    make_folder(output / FOLDER)
    save(PIL.Image.fromarray(np.ascontiguousarray(read(score.case))), output / file)
    said = f"probability {_number(score.probability).text}"
    alt = f"frame {score.case}, {score.truth}, taken for {score.predicted} with {said}"
    picture = thumbnail(output / file, href=f"./{file}", alt=alt, width=PLANE_WIDTH_PX)
    return WorstView(f"worst-{number}", score.case, score.truth, _outcome(score), said, picture)


def _classes(table: FrameTable) -> TableView:
    total = table.total
    rows = [("all, macro averages", str(len(table.frames)), *map(_text, (total.precision, total.recall, total.f1)))]
    rows += [(name, str(s.support), *map(_text, (s.precision, s.recall, s.f1))) for name, s in table.per_class.items()]
    note = f"Accuracy over all frames: {_text(total.accuracy)}. Tests and published figures: table.md."
    return TableView("Classes", ("class", "frames", "precision", "recall", "F1"), tuple(rows), 1, notes=(note,))


def _text(value: float) -> str:
    return _number(value).text
