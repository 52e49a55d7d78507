"""Set aside a finished result whose study is now rejected or fails: nothing of it is lost, or passes as current.

Its files go into ``<study>/outdated-<12 hex>/``, with a ``study.json`` whose status is ``outdated``. The record in the study's
own folder goes first, so that at no moment a result that is being moved looks finished; what an interruption leaves, the next
run moves, or replaces.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from agseg.batch.decide import REJECTED_BY
from agseg.batch.folder import LEAVING_JSON, RETIRED_JSON
from agseg.batch.json_text import json_text
from agseg.batch.output import make_folders
from agseg.io.atomic import flush, output_error, write_text
from agseg.io.finished import load_record, named_files
from agseg.report import STUDY_JSON, StudyReport, StudyStatus

OUTDATED = "outdated"
"""Status in the ``study.json`` of a result that was set aside, and the beginning of its folder's name."""


def set_aside(root: Path, output: str, report: StudyReport) -> str | None:
    """Move a study's earlier result out of the way.

    Parameters
    ----------
    root, output
        The run's output folder, and the study's folder below it.
    report
        How the study ended now (rejected or failed), with its key and fingerprint.

    Returns
    -------
    name
        The folder, below the study's own, that has the earlier result now; None if there is none, or it still holds: it is the
        very result that was asked for, the study failed although its files are the same, or they cannot be read at all to tell.

    Raises
    ------
    OutputError
        If it cannot be moved. Then it is not current any more, and the next run goes on.
    """
    folder = root / output
    if _has_link(root, output):
        return None
    try:
        if (folder / STUDY_JSON).is_file():
            if _still_holds(json.loads((folder / STUDY_JSON).read_bytes()), report):
                return None
            (folder / STUDY_JSON).replace(folder / LEAVING_JSON)
            flush(folder)
        elif (folder / RETIRED_JSON).is_file():
            # Killed while a new result took its place: what lies there is of both, and of neither.
            (folder / RETIRED_JSON).replace(folder / LEAVING_JSON)
            flush(folder)
        return _move(root, output) if (folder / LEAVING_JSON).is_file() else None
    except ValueError:
        # No record of ours: resume and push do not take it for one either.
        return None
    except OSError as error:
        raise output_error(error, "an outdated result cannot be set aside") from error


def _has_link(root: Path, output: str) -> bool:
    folder = root
    for name in output.split("/"):
        folder = folder / name
        if folder.is_symlink():
            return True
    return False


def _still_holds(record: Any, report: StudyReport) -> bool:
    if not isinstance(record, dict) or report.extra.get("fingerprint") is None:
        return True
    if REJECTED_BY in report.extra:
        # The study's own files are the same, but discovery knows that they are not all of it.
        return False
    same_files = record.get("fingerprint") == report.extra["fingerprint"]
    return record.get("key") == report.extra.get("key") or (report.status is StudyStatus.FAILED and same_files)


def _move(root: Path, output: str) -> str:
    """Move what the hidden record names, and write it down; what an interruption had moved before is there already."""
    folder = root / output
    text = (folder / LEAVING_JSON).read_bytes()
    name = f"{OUTDATED}-{hashlib.sha256(text).hexdigest()[:12]}"
    aside = make_folders(root, f"{output}/{name}")
    files = sorted(named_files(load_record(folder, name=LEAVING_JSON)) - {STUDY_JSON})
    for file in files:
        parent = file.rpartition("/")[0]
        make_folders(aside, parent)
        with suppress(FileNotFoundError):
            (folder / file).rename(aside / file)
        if parent:
            with suppress(OSError):
                (folder / parent).rmdir()
    write_text(aside / STUDY_JSON, json_text({**json.loads(text), "status": OUTDATED}))
    (folder / LEAVING_JSON).unlink()
    flush(folder)
    return name
