"""report.html: what a run did, on one page."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

from agseg.io.atomic import write_text
from agseg.report import DISCLAIMER, BatchReport

__all__ = ["write_report"]


def write_report(path: Path, report: BatchReport, *, earlier: tuple[dict[str, Any], ...] = ()) -> None:
    """Write the page.

    Parameters
    ----------
    path
        ``OUT/report.html``.
    report
        The run.
    earlier
        Earlier runs' records, oldest first.
    """
    rows = "".join(f"<li>{html.escape(study.input)}: {study.status.value}" for study in report.studies)
    write_text(path, f"<!doctype html><title>agseg</title><p>{DISCLAIMER}<p>{len(earlier)} earlier runs<ul>{rows}</ul>")
