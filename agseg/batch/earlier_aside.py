"""Results that stay when other weights take their place: nothing finished is lost because something else was asked for.

The plain names in a study's folder are those of the newest answer. Organs that other weights made before, or that were made
from input that has changed since and were not asked for again, move to ``<study>/earlier-<12 hex>/`` with their record.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from agseg.batch.json_text import json_text
from agseg.batch.output import make_folders
from agseg.io.atomic import write_text
from agseg.io.finished import CONTENTS, named_files
from agseg.report import STUDY_JSON, StudyReport, weights_from_dict

EARLIER = "earlier"
"""Status in the ``study.json`` of such a result, and the beginning of its folder's name."""


def set_earlier_aside(
    folder: Path, old: dict[str, Any] | None, report: StudyReport, *, kept: frozenset[str], fingerprint: str | None
) -> str | None:
    """Move what the new result would replace although it is no newer version of it.

    Parameters
    ----------
    folder
        The study's folder.
    old, report
        The record of the result that is there, and the new one.
    kept
        Files of the old one that stay where they are.
    fingerprint
        Of the input that the new one was made from.

    Returns
    -------
    name
        Of the folder that has it now, below the study's; None if there is nothing to move.
    """
    if old is None or not _is_worth_it(old, report, fingerprint):
        return None
    files = [name for name in sorted(named_files(old) - kept - {STUDY_JSON}) if os.path.lexists(folder / name)]
    if not files:
        return None
    name = f"{EARLIER}-{hashlib.sha256(json_text(old).encode()).hexdigest()[:12]}"
    aside = make_folders(folder, name)
    # The record first: whatever an interruption leaves behind, the next run moves on.
    gone = {organ["name"] for organ in old["organs"]} - {organ.name for organ in report.organs if organ.run != report.run}
    contents = {file: content for file, content in old.get(CONTENTS, {}).items() if file in files}
    organs = [organ for organ in old["organs"] if organ["name"] in gone]
    record = {**old, "status": EARLIER, "organs": organs, "files": [*files, STUDY_JSON], CONTENTS: contents, "outputs": {}}
    write_text(aside / STUDY_JSON, json_text(record))
    for file in files:
        make_folders(aside, file.rpartition("/")[0])
        (folder / file).rename(aside / file)
    return name


def _is_worth_it(old: dict[str, Any], report: StudyReport, fingerprint: str | None) -> bool:
    """Whether an organ goes that is not simply done again: other weights made it, or it was not asked for this time."""
    by = {organ.name: organ.weights for organ in report.organs}
    try:
        only = weights_from_dict(old)
        if not old["organs"]:  # a clip: other weights made it
            return {one.id for one in only} != {one.id for one in report.weights}
        for organ in old["organs"]:
            weights = organ.get("weights") or (only[0].id if len(only) == 1 else None)
            if organ["voxels"] is None or weights is None:
                continue
            if by.get(organ["name"]) is None or (old.get("fingerprint") == fingerprint and by[organ["name"]] != weights):
                return True
    except (KeyError, TypeError, AttributeError):
        return False
    return False
