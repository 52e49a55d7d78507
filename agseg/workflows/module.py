"""``agseg module``: a folder in, a folder out, and ``result.json``, for platforms that start a container per job."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from agseg import __version__
from agseg.errors import AgsegError, Code, InputError, UsageError
from agseg.io.atomic import write_text
from agseg.io.opening import open_regular
from agseg.report import DISCLAIMER, BatchReport, StudyReport

RESULT_JSON = "result.json"
MODULE_SCHEMA = "agseg.module/1"

TASK_JSON = "task.json"
"""What mercure puts beside the images."""

LARGEST_TASK_BYTES = 1 << 20

TASK_OPTIONS = frozenset(
    {"organ", "weights", "precision", "overlap", "fast", "mirror", "prune-depth", "scout", "ml", "output-type", "seg-encoding",
     "preview", "attention", "study-timeout", "threads", "readers"}
)  # fmt: skip
"""Options of ``segment`` that a task may set for its images."""


def write_result(report: BatchReport, output: Path, *, flat: bool = False) -> None:
    """Write ``result.json`` beside the run's own files.

    Parameters
    ----------
    flat
        Also put every DICOM object directly into the folder, ``<number>-seg.dcm``, for routers that look no deeper.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    objects = [f"{study.output}/{name}" for study in report.studies if study.output for name in study.files
               if name.endswith(".dcm")]  # fmt: skip
    if flat:
        objects = [_beside(output, path, number) for number, path in enumerate(objects)]
    content = {
        "counts": report.counts,
        "studies": [_study(study) for study in report.studies],
        "dicom": objects,
    }
    _write(output, int(report.exit_code), content)


def write_failure(error: AgsegError, output: Path) -> None:
    """Write ``result.json`` of a job that could not be begun."""
    said = {"code": str(error.code or Code.INTERNAL), "message": error.sentence()}
    _write(output, int(error.exit_code), {"counts": {}, "studies": [], "dicom": [], "error": said})


def _write(output: Path, exit_code: int, content: dict[str, Any]) -> None:
    head = {"schema": MODULE_SCHEMA, "version": __version__, "exit_code": exit_code, "disclaimer": DISCLAIMER}
    write_text(output / RESULT_JSON, json.dumps({**head, **content}, indent=2) + "\n")


def _study(study: StudyReport) -> dict[str, Any]:
    known = study.to_dict()
    return {key: known[key] for key in ("input", "output", "status", "code", "message", "organs", "files")}


def _beside(output: Path, path: str, number: int) -> str:
    name = f"{number + 1:03d}-{Path(path).name}"
    target = output / name
    with suppress(FileNotFoundError):
        target.unlink()
    try:
        os.link(output / path, target)
    except OSError:  # a file system without links
        shutil.copyfile(output / path, target)
    return name


def task_settings(folder: Path) -> dict[str, Any]:
    """The settings that mercure's ``task.json`` gives this module (``process.settings``); empty without any.

    The file lies among the images, so it may say what is made of them (:data:`TASK_OPTIONS`), not where anything is or goes.

    Parameters
    ----------
    folder
        mercure's own folder of this job; nobody else's ``task.json`` is read.

    Raises
    ------
    UsageError
        If it asks for another option.
    """
    path = folder / TASK_JSON
    try:
        with open_regular(path) as stream:
            told = stream.read(LARGEST_TASK_BYTES + 1)
        if len(told) > LARGEST_TASK_BYTES:
            return {}
        process = json.loads(told)["process"]
        process = process[0] if isinstance(process, list) else process
        settings = process["settings"]
    except (InputError, OSError, ValueError, KeyError, IndexError, TypeError, RecursionError):
        return {}
    if not isinstance(settings, dict):
        return {}
    found = {str(key).lower().replace("_", "-"): value for key, value in settings.items()}
    if other := sorted(set(found) - TASK_OPTIONS):
        raise UsageError(
            "this option cannot stand in task.json",
            value=ascii(other[0][:40]),
            expected=f"one of {', '.join(sorted(TASK_OPTIONS))}",
            hint="Set it for every job, as a variable of the container: AGSEG_SEGMENT_<OPTION>.",
        )
    return found
