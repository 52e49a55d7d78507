"""JSON form of a discovery, for the pipe from the child that opened the files to the parent, which lists them by number.

A child can name no file that the parent has not listed, and no reason or kind of text that the parent does not check.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agseg.errors import Code
from agseg.io.walk import FoundFile
from agseg.study import Discovery, Rejected, Skipped, Study
from agseg.volume import Warned


def discovery_to_json(found: Discovery, files: Sequence[FoundFile]) -> dict[str, Any]:
    """JSON-able; files are numbers of ``files``. What was skipped without being listed there is left to the parent."""
    numbers = {file.path: number for number, file in enumerate(files)}
    return {
        "studies": [
            {
                "id": study.id,
                # Where a header was given by name, the file of its voxels beside it was not listed.
                "files": [numbers.get(path, path.name) for path in study.files],
                "kind": str(study.kind),
                "modality": study.modality,
                "reason": study.reason,
                "rejected": None if study.rejected is None else [str(study.rejected.code), study.rejected.message],
                "warnings": [[str(warned.code), warned.message] for warned in study.warnings],
            }
            for study in found.studies
        ],
        "skipped": [[numbers[skip.path], str(skip.reason), skip.detail] for skip in found.skipped if skip.path in numbers],
    }


def discovery_from_json(told: dict[str, Any], files: Sequence[FoundFile], skipped: Sequence[Skipped]) -> Discovery:
    """The discovery; ``skipped`` is what the parent itself has left out.

    Raises
    ------
    KeyError, IndexError, TypeError, ValueError
        If it is none.
    """
    studies = []
    for study in told["studies"]:
        first = files[study["files"][0]]
        paths = [first.path, *(_path_of(told, files, first) for told in study["files"][1:])]
        rejected = study["rejected"]
        studies.append(
            Study(
                id=str(study["id"]),
                root=first.root,
                files=tuple(paths),
                kind=str(study["kind"]),
                modality=str(study["modality"]),
                reason=str(study["reason"]),
                rejected=None if rejected is None else Rejected(Code(rejected[0]), str(rejected[1])),
                warnings=tuple(Warned(Code(code), str(message)) for code, message in study["warnings"]),
            )
        )
    left_out = [Skipped(files[number].path, str(reason), str(detail)) for number, reason, detail in told["skipped"]]
    return Discovery(tuple(studies), tuple(sorted((*skipped, *left_out), key=lambda skip: str(skip.path))))


def _path_of(told: int | str, files: Sequence[FoundFile], first: FoundFile) -> Path:
    """A listed file, or one in the folder of a study's first."""
    if isinstance(told, int):
        return files[told].path
    if not told or "/" in told or told in (".", ".."):
        raise ValueError("a name that is no file beside the first")
    return first.path.with_name(told)
