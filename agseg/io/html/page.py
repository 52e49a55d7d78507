"""report.html: what a run did, on one self-contained page that asks nothing of any network.

This module prepares what the template ``report.html.j2`` shows. Whatever comes from outside (names, messages) is escaped by
Jinja2; the page's content security policy lets nothing run but its own script. The page can be read, and printed, without
JavaScript; with it, it can be sorted, filtered and enlarged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from agseg.errors import ExitCode
from agseg.io.atomic import write_text
from agseg.io.html.clip import TIMELINE
from agseg.io.html.clock import local_time
from agseg.io.html.left_out import left_out
from agseg.io.html.patients import patients_of
from agseg.io.html.render import render
from agseg.io.html.study import OUTCOMES, Organ, StudyView, view
from agseg.io.html.thumbnail import PICTURES
from agseg.io.html.trend import trend_of
from agseg.labels import Label
from agseg.report import BatchReport, StudyReport, StudyStatus

TEMPLATE = "report.html.j2"

PREVIEWS_EMBEDDED = 200
"""Studies whose pictures are in the page, the review list's first; the others link to their files. Keeps the page small."""

STUDIES_SHOWN = 2000
"""Studies on the page: the review list's, those that were not done, then the others. More would not open in a browser."""

ORGANS_PER_TABLE = 8
"""Columns that fit a printed page; more organs get further tables."""

Review = Mapping[str, Sequence[str]]
"""Study (path below INPUT) to its reasons, worst study first."""

_GOOD = frozenset({StudyStatus.DONE, StudyStatus.SKIPPED})

_MEANING = {
    ExitCode.OK: "everything that was to be done is done",
    ExitCode.BUG: "an unexpected error happened",
    ExitCode.SOME_NOT_DONE: "some studies were not done",
    ExitCode.NONE_DONE: "no study was done",
    ExitCode.NO_STUDY: "no study was found",
    ExitCode.WEIGHTS: "weights are missing, unverified or corrupt",
    ExitCode.OUTPUT: "the output could not be written",
    ExitCode.DEADLINE: "the deadline was reached; the rest is left for the next run",
    ExitCode.INTERRUPTED: "the run was interrupted",
    ExitCode.TERMINATED: "the run was terminated",
}


def write_report(
    path: Path, report: BatchReport, *, review: Review | None = None, earlier: Sequence[Mapping[str, Any]] = ()
) -> None:
    """Write the page.

    Parameters
    ----------
    path
        ``OUT/report.html``; pictures are taken from the study folders beside it.
    report
        The run.
    review
        Studies to look at first, with the reasons.
    earlier
        Earlier runs' records, oldest first, for the trend.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    write_text(path, render_report(report, review=review, earlier=earlier, root=path.parent))


def render_report(
    report: BatchReport, *, review: Review | None = None, earlier: Sequence[Mapping[str, Any]] = (), root: Path | None = None
) -> str:
    """The page as text; ``root`` is the folder of the study folders (none: no pictures)."""
    review = review or {}
    ordered = _in_order(report, review)
    with_pictures = [study for study in ordered if {*PICTURES, TIMELINE} & set(study.files)][:PREVIEWS_EMBEDDED]
    embedded = {id(study) for study in with_pictures}

    def viewed(number: int, study: StudyReport) -> StudyView:
        return view(study, f"study-{number}", review.get(study.input, ()), root if id(study) in embedded else None)

    # Side by side: each has pictures to be made small, for which Pillow leaves Python's lock.
    with ThreadPoolExecutor() as pool:
        views = dict(zip(map(id, ordered), pool.map(viewed, range(1, len(ordered) + 1), ordered), strict=True))
    shown = [views[id(study)] for study in report.studies if id(study) in views]
    # Ultrasound that a run for scans refuses is no row of a table of planes.
    clips = [study for study in shown if study.is_clip]
    if not any(study.clip for study in clips) and len(clips) < len(shown):
        clips = []
    details = [views[id(study)] for study in ordered]
    organs = [Organ(name, Label(1, name).title) for name in dict.fromkeys(o.name for s in report.studies for o in s.organs)]
    return render(
        TEMPLATE,
        version=report.version,
        finished=local_time(report.finished) if report.finished else "not finished",
        facts=_facts(report),
        counts=[(OUTCOMES[StudyStatus(status)], number) for status, number in report.counts.items()],
        outcomes=[(status.value, said) for status, said in OUTCOMES.items()],
        review=[study for study in details if study.reasons],
        not_done=_not_done(details),
        left_out=len(report.studies) - len(shown),
        organ_groups=[organs[n : n + ORGANS_PER_TABLE] for n in range(0, max(1, len(organs)), ORGANS_PER_TABLE)],
        studies=[study for study in shown if study not in clips],
        clips=clips,
        details=details,
        patients=patients_of([(study, views[id(study)]) for study in report.studies if id(study) in views]),
        trend=trend_of([*earlier, report.to_dict()]),
        skipped_files=left_out(report.files),
    )


def _in_order(report: BatchReport, review: Review) -> list[StudyReport]:
    """The review list's first, then what was not done, then the others; no more than a browser opens."""
    by_name = {study.input: study for study in report.studies}
    first = [by_name[name] for name in review if name in by_name]
    others = [study for study in report.studies if study.input not in review]
    others.sort(key=lambda study: study.status in _GOOD)
    return [*first, *others][:STUDIES_SHOWN]


def _not_done(details: Sequence[StudyView]) -> list[StudyView]:
    return [study for study in details if study.status not in _GOOD]


def _facts(report: BatchReport) -> list[tuple[str, str]]:
    weights = [f"{one.id} ({one.architecture}), licence {one.licence}" for one in report.weights]
    return [
        ("Started", local_time(report.started)),
        ("Finished", local_time(report.finished) if report.finished else "not yet, or never: the run is under way, or it died"),
        ("Result", f"exit code {int(report.exit_code)}: {_MEANING.get(report.exit_code, '')}"),
        ("Weights", "; ".join(weights) or "none"),
        ("Device", str(report.environment.get("device", "none: no study was computed in this run"))),
        ("Version", report.version),
        ("Files", f"{report.files.get('found', 0)} found, {report.files.get('used', 0)} of them part of a study"),
    ]
