"""All finished results that an output folder holds, whichever run made them."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from agseg.batch.earlier_aside import EARLIER
from agseg.io.finished import load_record
from agseg.report import STUDY_JSON, StudyReport, StudyStatus, clip_facts


def held_results(root: Path, *, besides: Collection[str], identified: bool = False) -> Iterator[tuple[StudyReport, bool]]:
    """The results below the output folder that are no part of a run's own record, in the order of their folders.

    Parameters
    ----------
    root
        The output folder.
    besides
        Folders, below it, of the run's own studies.
    identified
        Keep the identifiers that a run was asked to leave in a record.

    Yields
    ------
    report, is_current
        With status ``skipped``, as of a study that was done before. ``is_current`` is False for a result of other weights, or
        other input, that has stepped aside for a newer one.
    """
    for folder, below, names in os.walk(root, followlinks=False):
        below[:] = sorted(name for name in below if not name.startswith("."))
        place = Path(folder).relative_to(root).as_posix()
        if STUDY_JSON not in names or place in besides:
            continue
        record = load_record(Path(folder))
        if record is None or record["status"] not in (StudyStatus.DONE, EARLIER):
            continue
        report = _report(record, place)
        if report is not None:
            yield report if identified else report.without_identifiers(), record["status"] == StudyStatus.DONE


def _report(record: dict[str, Any], place: str) -> StudyReport | None:
    try:
        report = StudyReport.from_dict({**record, "status": StudyStatus.SKIPPED})
    except (KeyError, TypeError, ValueError):
        return None
    return replace(report, output=place, new=False, seconds=None, extra=clip_facts(report.extra))
