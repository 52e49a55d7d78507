"""Files that belong to no study, as the page lists them: by reason, in words, with names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agseg.errors import Code
from agseg.study import Reason

FILES_SHOWN = 20
"""Names per reason on the page."""

_WORDS: Mapping[str, str] = {
    Reason.EXCLUDED: "left out by --include or --exclude",
    Reason.HIDDEN: "hidden",
    Reason.NOT_REGULAR: "not a regular file",
    Reason.OWN_OUTPUT: "results of agseg",
    Reason.NOT_AN_IMAGE: "not an image",
    Reason.LABEL_MAP: "a label map, not a scan",
    Reason.DICOMDIR: "the table of contents of a disc",
    Reason.DICOM_OBJECT: "a DICOM object that is no image (a report, a segmentation, a presentation state)",
    Reason.SECONDARY_CAPTURE: "a screenshot",
    Reason.LOCALIZER: "a localiser",
    Reason.OTHER_MODALITY: "another modality, beside a CT",
    Reason.IDENTICAL_COPY: "a copy of another file",
    Reason.OTHER_KIND: "not a slice of the scan (a page, a reformat)",
    Reason.MONITORING: "a monitoring or planning image beside the scan",
    Code.UNSUPPORTED_INPUT: "a format that is not read",
    Code.SYMLINK: "a link: links are not followed",
    Code.PERMISSION: "agseg may not read it",
    Code.UNREADABLE_FILE: "it cannot be read",
    Code.TRUNCATED: "empty, or it ends too early",
    Code.CHANGED: "it went while the folder was looked through",
}


@dataclass(frozen=True)
class Group:
    """Files left out for one reason: in words, how many, the names of the first, and how many have none here."""

    reason: str
    why: str
    number: int
    named: tuple[str, ...]
    more: int


def left_out(files: Mapping[str, Any]) -> tuple[Group, ...]:
    """The groups of ``files`` of a run's record; reasons that say that something is wrong come first."""
    named: dict[str, list[str]] = {}
    for one in files.get("left_out") or ():
        detail = f" ({one['detail']})" if one.get("detail") else ""
        named.setdefault(str(one["reason"]), []).append(f"{one['file']}{detail}")
    groups = []
    counts: Mapping[str, int] = files.get("skipped") or {}
    for reason, number in sorted(counts.items(), key=lambda item: (not item[0].startswith("E_"), item[0])):
        shown = tuple(named.get(reason, ())[:FILES_SHOWN])
        groups.append(Group(reason, _WORDS.get(reason, "left out"), int(number), shown, int(number) - len(shown)))
    return tuple(groups)
