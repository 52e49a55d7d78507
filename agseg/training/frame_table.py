"""Classes that one network found in frames, beside another's and the published ones: Tables 5 and 6 of Schlemper et al. (2019).

Frames of one subject resemble each other, so tests are over subjects: each has one value per network. Table 6 prints what a
network has over its baseline in brackets, and so does this.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agseg.errors import RecipeError
from agseg.io.atomic import make_folder, write_text
from agseg.measure.overlap import ClassScores, MacroScores, class_scores, confusion_matrix, macro
from agseg.measure.significance import PairedTest, holm, paired_wilcoxon
from agseg.training.beside import PRIVATE
from agseg.training.published import PublishedRow
from agseg.training.scoring import FrameScore

FRAMES_FILE = "per_frame.csv"
FACTS_FILE = "frames.json"
METRICS = ("precision", "recall", "f1")


@dataclass(frozen=True)
class FrameTable:
    """What one network made of the frames of a test side.

    Parameters
    ----------
    model
        Its name.
    classes
        All classes, in order.
    frames
        One score per frame; the id is ``subject/frame``.
    """

    model: str
    classes: tuple[str, ...]
    frames: tuple[FrameScore, ...]

    @property
    def per_class(self) -> dict[str, ClassScores]:
        """Precision, recall, F1 and number of frames of each class."""
        return dict(zip(self.classes, class_scores(self._confusion()), strict=True))

    @property
    def total(self) -> MacroScores:
        """Accuracy, and macro averages."""
        return macro(self._confusion())

    def _confusion(self) -> np.ndarray:
        place = {name: number for number, name in enumerate(self.classes)}
        found = [place[score.predicted] for score in self.frames]
        return confusion_matrix(found, truth=[place[s.truth] for s in self.frames], class_count=len(self.classes))

    def share_right(self, truth: str | None = None) -> dict[str, float]:
        """By subject, the share of its frames (of one class) that are called right."""
        by_subject: dict[str, list[bool]] = {}
        for score in self.frames:
            if truth is None or score.truth == truth:
                by_subject.setdefault(score.case.rpartition("/")[0] or score.case, []).append(score.predicted == score.truth)
        return {subject: sum(right) / len(right) for subject, right in by_subject.items()}


@dataclass(frozen=True)
class Improvement:
    """Over another network on the same frames.

    Parameters
    ----------
    over
        The other network.
    classes
        Class to metric to difference; NaN where either has none.
    accuracy
        Paired test of the subjects' accuracies.
    recall
        Class to the paired test of the subjects' recalls, with its p-value after Holm's correction over the classes.
    """

    over: str
    classes: dict[str, dict[str, float]]
    accuracy: PairedTest
    recall: dict[str, tuple[PairedTest, float]]


def improvement(ours: FrameTable, theirs: FrameTable) -> Improvement:
    """What one network has over another, class by class.

    Raises
    ------
    RecipeError
        If they were not made on the same frames.
    """
    true = {score.case: score.truth for score in ours.frames}
    if true != {score.case: score.truth for score in theirs.frames} or ours.classes != theirs.classes:
        raise RecipeError(
            "these evaluations were not made on the same frames", value=theirs.model, expected=f"the frames of {ours.model}"
        )
    one, other = ours.per_class, theirs.per_class
    gains = {name: {m: getattr(one[name], m) - getattr(other[name], m) for m in METRICS} for name in ours.classes}
    tests = {name: _paired(ours.share_right(name), theirs.share_right(name)) for name in ours.classes}
    corrected = holm([test.p for test in tests.values()])
    recall = {name: (test, p) for (name, test), p in zip(tests.items(), corrected, strict=True)}
    return Improvement(theirs.model, gains, _paired(ours.share_right(), theirs.share_right()), recall)


def _paired(ours: dict[str, float], theirs: dict[str, float]) -> PairedTest:
    return paired_wilcoxon(list(ours.values()), [theirs[subject] for subject in ours])


def write_frame_table(folder: Path, table: FrameTable, *, over: Sequence[Improvement] = ()) -> None:
    """``per_frame.csv``, ``frames.json`` (for :func:`read_frame_table`) and ``classes.csv``."""
    make_folder(folder)
    lines = [(s.case, s.truth, s.predicted, f"{s.probability:.5f}") for s in table.frames]
    write_text(folder / FRAMES_FILE, _csv(("frame", "truth", "predicted", "probability"), lines))
    facts = {"model": table.model, "classes": list(table.classes), "frames": len(table.frames)}
    write_text(folder / FACTS_FILE, json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
    header = ["class", "frames", *METRICS]
    for gain in over:
        header += [*(f"{m} over {gain.over}" for m in METRICS), f"p (recall over {gain.over})", "p (Holm)"]
    rows = []
    for name, scores in table.per_class.items():
        row = [name, str(scores.support), *(_number(getattr(scores, m)) for m in METRICS)]
        for gain in over:
            test, p_holm = gain.recall[name]
            row += [*(_number(gain.classes[name][m], sign="+") for m in METRICS), _p(test.p), _p(p_holm)]
        rows.append(row)
    write_text(folder / "classes.csv", _csv(header, rows))


def read_frame_table(folder: Path) -> FrameTable:
    """What :func:`write_frame_table` wrote.

    Raises
    ------
    RecipeError
        If there is no evaluation of frames in the folder.
    """
    try:
        facts = json.loads((folder / FACTS_FILE).read_text(encoding="utf-8"))
        with (folder / FRAMES_FILE).open(encoding="utf-8", newline="") as file:
            rows = [FrameScore(r["frame"], r["truth"], r["predicted"], float(r["probability"])) for r in csv.DictReader(file)]
        return FrameTable(str(facts["model"]), tuple(facts["classes"]), tuple(rows))
    except OSError:
        raise RecipeError("no evaluation of frames here", path=folder, expected=f"{FACTS_FILE} and {FRAMES_FILE}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise RecipeError("the evaluation of frames is not as agseg writes it", path=folder) from error


def to_markdown(
    table: FrameTable, over: Sequence[Improvement], printed: PublishedRow | None, by_class: PublishedRow | None
) -> str:
    """Table 5's row and Table 6 for people; published rows where they are given."""
    total, metrics = table.total, ("accuracy", *METRICS)
    lines = ["| model | frames | accuracy | precision | recall | F1 |", "|---|---|---|---|---|---|"]
    ours = " | ".join(f"{getattr(total, metric):.3f}" for metric in metrics)
    lines.append(f"| {table.model} | {len(table.frames)} | {ours} |")
    if printed is not None:
        figures = printed.scores["planes"]
        shown = " | ".join(f"{figures[m].mean:.3f}" for m in metrics)
        lines.append(f"| *published: {printed.method}, {printed.source}* | | {shown} |")
    lines += ["", f"Macro averages over {total.classes} classes." + (f" {PRIVATE}" if printed is not None else "")]
    for number, gain in enumerate(over or (None,)):
        lines += ["", *class_lines(table, gain, by_class if number == 0 else None)]
    return "\n".join(lines) + "\n"


def class_lines(table: FrameTable, gain: Improvement | None, by_class: PublishedRow | None = None) -> list[str]:
    """Table 6 for people: each class, in brackets what it has over another network, and the published line below."""
    lines = ["| class | frames | precision | recall | F1 |" + (" p (recall) | p (Holm) |" if gain else "")]
    lines.append("|---|---|---|---|---|" + ("---|---|" if gain else ""))
    for name, scores in table.per_class.items():
        cells = [_beside(getattr(scores, m), gain.classes[name][m] if gain else None) for m in METRICS]
        cells += [_p(gain.recall[name][0].p), _p(gain.recall[name][1])] if gain else []
        lines.append(f"| {name} | {scores.support} | {' | '.join(cells)} |")
        if by_class is not None:
            figures = by_class.scores[name]
            shown = " | ".join(_beside(figures[m].mean, figures[m].gain) for m in METRICS)
            lines.append(f"| *published: {name}* | | {shown} |" + (" | |" if gain else ""))
    if gain:
        lines += ["", f"In brackets: what {table.model} has over {gain.over}. {_told(gain)}"]
    if by_class is not None:
        lines += ["", f"Published: {by_class.method}, {by_class.source}; in brackets its {by_class.setting}."]
    return lines


def _told(gain: Improvement) -> str:
    test = gain.accuracy
    return (
        f"Accuracy per subject {test.difference:+.3f} (n = {test.n} subjects, p = {_p(test.p) or '–'}). Paired two-sided "
        "Wilcoxon signed-rank tests over subjects, of accuracy and of each class's recall; Holm's correction over the classes."
    )


def _beside(value: float, gain: float | None) -> str:
    bracket = "" if gain is None or math.isnan(gain) else f" ({gain:+.3f})"
    return "–" if math.isnan(value) else f"{value:.3f}{bracket}"


def _number(value: float, *, sign: str = "") -> str:
    return "" if math.isnan(value) else f"{value:{sign}.4f}"


def _p(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.2g}"


def _csv(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(header)
    out.writerows(rows)
    return text.getvalue()
