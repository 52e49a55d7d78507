"""Everything that an evaluation leaves: its scores as data, its tables, and a page with the worst cases first."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from agseg import __version__
from agseg.io.atomic import write_text
from agseg.io.html.clock import local_time
from agseg.io.html.evaluation import CaseRow, EvaluationView, Kind, Number, Outcome, WorstView, write_evaluation_page
from agseg.io.html.thumbnail import thumbnail
from agseg.labels import Label
from agseg.measure.significance import Summary
from agseg.training.columns import LABELS
from agseg.training.evaluation import COMPUTED, Evaluation, read_evaluation, write_evaluation
from agseg.training.scoring import CaseScore
from agseg.training.table import Table, make_table
from agseg.training.table_text import table_views, to_csv, to_latex, to_markdown
from agseg.workflows.worst_cases import PICTURES, badness

_FOUND = Outcome("found", "found")
_MISSED = Outcome("missed", "missed: none of it was found", is_bad=True)
_INVENTED = Outcome("invented", "invented: the reference has none", is_bad=True)
_ABSENT = Outcome("absent", "absent in both")


@dataclass(frozen=True)
class EvaluationReport:
    """What was measured, and where it was written."""

    evaluation: Evaluation
    table: Table
    output: Path

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``: a summary per organ and metric."""
        rows = [
            {
                "protocol": row.protocol,
                "model": row.model,
                "organ": row.organ,
                "n": row.n,
                "metrics": {name: _plain(summary) for name, summary in row.summaries.items()},
                "pooled": {name: value if np.isfinite(value) else None for name, value in row.pooled.items()},
            }
            for row in self.table.rows
        ]
        return {"output": str(self.output), "rows": rows}


def _plain(s: Summary) -> dict[str, float | None]:
    """A summary as JSON holds it: NaN becomes null."""
    values = {"mean": s.mean, "sd": s.sd, "low95": s.interval.low, "high95": s.interval.high}
    return {name: value if np.isfinite(value) else None for name, value in values.items()}


def write_results(
    output: Path,
    evaluation: Evaluation,
    *,
    files: Mapping[str, tuple[str, str]],
    against: Sequence[Path] = (),
    pictures: Sequence[Mapping[str, str]] = (),
) -> EvaluationReport:
    """Write scores, tables and the page.

    Parameters
    ----------
    files
        Case id to (prediction file, reference file), for nnU-Net's summary.
    against
        Folders of earlier evaluations, to compare with.
    pictures
        Case, organ and file (below ``output``) of what was drawn, the worst first.
    """
    evaluation = replace(evaluation, about={**(evaluation.about or {}), PICTURES: [dict(told) for told in pictures]})
    write_evaluation(output, evaluation, files=files)
    table = make_table([*(read_evaluation(folder) for folder in against), evaluation])
    write_table(output, table)
    write_evaluation_page(output, _view(output, evaluation, table))
    return EvaluationReport(evaluation, table, output)


def write_table(output: Path, table: Table) -> None:
    """``table.md``, ``table.csv`` and ``table.tex``."""
    for suffix, text in (("md", to_markdown(table)), ("csv", to_csv(table)), ("tex", to_latex(table))):
        write_text(output / f"table.{suffix}", text)


def _view(output: Path, evaluation: Evaluation, table: Table) -> EvaluationView:
    scores = sorted(evaluation.cases, key=badness)
    drawn = {(told["case"], told["organ"]): told["file"] for told in (evaluation.about or {}).get(PICTURES, ())}
    anchors = {key: f"worst-{number}" for number, key in enumerate(drawn, start=1)}
    metrics = tuple(name for name in LABELS if scores and name in scores[0].values)
    outcomes = [_outcome(score) for score in scores]
    counted = Counter(outcomes)
    known = [outcome for outcome in (_FOUND, _MISSED, _INVENTED, _ABSENT) if outcome in counted]
    rows = [
        CaseRow(
            score.case,
            Label(1, score.organ).title,
            outcome,
            tuple(_number(score.values[name]) for name in metrics),
            anchors.get((score.case, score.organ), ""),
        )
        for score, outcome in zip(scores, outcomes, strict=True)
    ]
    by_key = {(score.case, score.organ): score for score in scores}
    return EvaluationView(
        title=f"{evaluation.name} on {evaluation.dataset}",
        facts=_facts(evaluation),
        counts=tuple((outcome.said.split(":")[0], counted[outcome]) for outcome in known),
        not_scored=tuple(evaluation.not_scored.items()),
        worst=tuple(_worst(output, by_key[key], file, anchors[key]) for key, file in drawn.items() if key in by_key),
        metrics=tuple(LABELS[name] for name in metrics),
        cases=tuple(rows),
        outcomes=tuple(known),
        tables=table_views(table),
        version=__version__,
        kind=Kind.SCANS if evaluation.unit == "mm" else Kind.PICTURES,
    )


def _outcome(score: CaseScore) -> Outcome:
    counts = score.counts
    if not counts.truth:
        return _INVENTED if counts.predicted else _ABSENT
    return _FOUND if counts.true_positive else _MISSED


def _number(value: float) -> Number:
    return Number("–", "") if math.isnan(value) else Number(f"{value:.3f}", f"{value:.6g}")


def _worst(output: Path, score: CaseScore, file: str, anchor: str) -> WorstView:
    values, organ, outcome = score.values, Label(1, score.organ).title, _outcome(score)
    said = [f"Dice {_number(values['dice']).text}", f"precision {_number(values['precision']).text}"]
    said += [f"recall {_number(values['recall']).text}", f"S2S {_number(score.s2s).text} {score.unit}"]
    if score.unit == "mm":
        said += [f"reference {values['truth_ml']:.1f} ml, prediction {values['predicted_ml']:.1f} ml"]
    else:
        said += [f"reference {score.counts.truth} pixels, prediction {score.counts.predicted} pixels"]
    told = ", ".join(said)
    alt = f"{organ} of {score.case}, {outcome.said}; contours of reference and prediction: {told}"
    picture = thumbnail(output / file, href=f"./{file}", alt=alt)
    return WorstView(anchor, score.case, organ, outcome, told, picture)


def _facts(evaluation: Evaluation) -> tuple[tuple[str, str], ...]:
    about = evaluation.about or {}
    facts = [
        ("Method", evaluation.name),
        ("Data", evaluation.dataset),
        ("Cases", f"{len(evaluation.case_ids)} scored, {len(evaluation.not_scored)} not"),
        ("Written", local_time(datetime.now().astimezone().isoformat(timespec="seconds"))),
    ]
    if about.get("split"):
        facts.append(("Test side", f"split {about['split']}" + (f", fold {about['fold']}" if "fold" in about else "")))
    if COMPUTED in about:
        facts.append(("Precision", str(about[COMPUTED]["precision"])))
    if "tolerance_mm" in about:
        facts.append(("Tolerance of NSD", f"{about['tolerance_mm']:g} mm"))
    return tuple(facts)
