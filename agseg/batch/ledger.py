"""The files of a run in its record: how many, and which were left out and why."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agseg.io.names import below_inputs
from agseg.study import Discovery, Skipped

FILES_NAMED = 1000
"""Files left out that the record names; ``inspect -v`` names them all."""


def file_ledger(found: Discovery, inputs: Sequence[Path]) -> dict[str, Any]:
    """``files`` of run.json.

    ``left_out`` names the files that belong to no study, by their path below the input; those that something is wrong with
    (an ``E_`` code) come first. ``left_out_unnamed`` is how many more there are than it names.
    """
    ordered = sorted(found.skipped, key=lambda skip: not _is_wrong(skip))
    named = [
        {"file": below_inputs(skip.path, inputs), "reason": str(skip.reason), "detail": skip.detail}
        for skip in ordered[:FILES_NAMED]
    ]
    return {
        "found": found.files_found,
        "used": found.files_used,
        "skipped": found.skipped_reasons,
        "left_out": named,
        "left_out_unnamed": len(ordered) - len(named),
    }


def _is_wrong(skip: Skipped) -> bool:
    return str(skip.reason).startswith("E_")
