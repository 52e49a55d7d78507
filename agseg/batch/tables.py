"""volumes.csv and report.html of an output folder; imported when they are about to be written."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import PIL.Image  # noqa: F401 - the page's pictures

from agseg.batch.holdings import held_results
from agseg.batch.job import REPORT_HTML, VOLUMES_CSV
from agseg.batch.output import Output
from agseg.batch.run_id import EARLIER_RUNS, load_run
from agseg.batch.style import Style
from agseg.io.html import render
from agseg.io.html.page import TEMPLATE, write_report
from agseg.io.tables import write_volumes
from agseg.measure.review import review_list
from agseg.report import BatchReport

TREND_RUNS = 60
"""How many of them are read for the trend: two months of nights."""


def prepare() -> None:
    """Compile the page's template."""
    render.load(TEMPLATE)


def write_tables(whole: BatchReport, output: Output, tables: Collection[str], *, style: Style) -> None:
    """Write volumes.csv and report.html of an output folder.

    They show all that the folder holds: a study that was done before, and is no more in the input, keeps its rows.

    Parameters
    ----------
    whole
        The record of all parts of the run.
    output
        The folder.
    tables
        Which of them; the page is always written.
    style
        How.

    Raises
    ------
    OutputError
        If one cannot be written.
    """
    own = {study.output for study in whole.studies if study.output is not None}
    held = tuple(held_results(output.root, besides=own, identified=style.identified))
    if VOLUMES_CSV in tables:
        # A clip has no volume, and no row.
        with_organs = tuple(study for study, _ in held if study.organs)
        everything = replace(whole, studies=(*whole.studies, *with_organs))
        write_volumes(output.root / VOLUMES_CSV, everything, style=style.table)
    names = {study.input for study in whole.studies}
    gone = tuple(study for study, is_current in held if is_current and study.input not in names)
    whole = replace(whole, studies=(*whole.studies, *gone))
    review = {item.study.input: item.reasons for item in review_list(whole)}
    write_report(output.root / REPORT_HTML, whole, review=review, earlier=earlier_runs(output.root))


def earlier_runs(root: Path) -> tuple[dict[str, Any], ...]:
    """The newest earlier runs' records, oldest first."""
    newest = sorted((root / EARLIER_RUNS).glob("run-*.json"))[-TREND_RUNS:]
    loaded = [load_run(path) for path in newest]
    return tuple(sorted((run for run in loaded if run is not None), key=_order))


def _order(run: dict[str, Any]) -> tuple[int, str]:
    """Runs are counted; those of before that come first, by their clock."""
    return int(run.get("run_number", 0)), str(run.get("finished"))
