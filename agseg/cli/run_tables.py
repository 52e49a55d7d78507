"""The tables that ``segment`` shows a person: volumes of studies, and what was not segmented and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from agseg.cli import console

if TYPE_CHECKING:
    from agseg.report import BatchReport, StudyReport

STATUS_STYLE = {"done": "green", "skipped": "dim", "rejected": "yellow", "failed": "red", "deferred": "cyan"}

MANY_STUDIES = 20
"""Of a run with more, those that were done earlier are counted: what is new would scroll away."""


def print_volumes(report: BatchReport) -> None:
    """A row for each study and organ; nothing where there is none."""
    measured = [study for study in report.studies if study.organs]
    shown = measured
    if len(measured) > MANY_STUDIES:
        shown = [study for study in measured if study.status.value != "skipped"]
    rows = [row for study in shown for row in _volumes(study)]
    if rows:
        columns = ("study", "organ", "status", "ml", "mean HU", "look at")
        console.print_rows("Volumes", columns, rows, whole_names=False, right=("ml", "mean HU"))
    if len(shown) < len(measured):
        console.print_line(f"{len(measured) - len(shown)} more were done earlier: volumes.csv and report.html have them")


def print_reasons(studies: Sequence[StudyReport], *, title: str) -> None:
    """A row for each study that was not segmented."""
    rows = [(study.input, study.status.value, study.code or "", study.message or "") for study in studies]
    styles = [STATUS_STYLE[study.status.value] for study in studies]
    console.print_rows(title, ("study", "status", "code", "why"), rows, styles=styles, whole_names=False)


def _volumes(study: StudyReport) -> Iterator[tuple[str, ...]]:
    for number, organ in enumerate(study.organs):
        yield (
            study.input if number == 0 else "",
            organ.name,
            organ.status.value,
            "" if organ.volume_ml is None else f"{organ.volume_ml:.1f}",
            "" if organ.mean_hu is None else f"{organ.mean_hu:.0f}",
            "; ".join(organ.review),
        )
