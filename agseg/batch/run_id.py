"""Identity of a run: an id and a number, so that no clock has to tell two runs, or two parts of one, apart.

A run without parts is a run of its own. The parts of one run (``--num-parts``) find each other in the output folder: the first
one opens a run there, the others join it. A part that has written its record in the open run already begins the next run.
"""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agseg.batch.json_text import json_text
from agseg.batch.output import LOCK_NAME, Output, exclusive
from agseg.io.atomic import write_text
from agseg.report import new_run_id

RUN_JSON = "run.json"

EARLIER_RUNS = "runs"
"""Folder of the records of earlier runs that measured something; the report draws the trend from it."""

OPEN_RUN = ".agseg.run"
"""The run that parts join, in the output folder."""


@dataclass(frozen=True)
class RunId:
    """One run of one output folder.

    Parameters
    ----------
    id
        16 hex digits, drawn at random.
    number
        One more than that of the run before it in this folder; it orders records whose clocks agree or went backwards.
    parts
        How many parts share the run.
    """

    id: str
    number: int
    parts: int = 1


def begin_run(output: Output) -> RunId:
    """The run of this process: a new one, or the one that the other parts have opened.

    Raises
    ------
    OutputError
        If the output folder cannot be written to.
    """
    last = load_run(output.root / RUN_JSON) or {}
    new = RunId(new_run_id(), int(last.get("run_number", 0)) + 1, output.part.count)
    if output.dry_run:
        return new
    if output.part.is_whole:
        (output.root / OPEN_RUN).unlink(missing_ok=True)
        return new
    with record_turn(output):
        opened = open_run(output.root)
        if opened is not None and opened.parts == output.part.count and not _has_ended(output, opened):
            return opened
        new = RunId(new.id, max(new.number, 0 if opened is None else opened.number + 1), new.parts)
        write_text(output.root / OPEN_RUN, json_text(asdict(new)))
        return new


def _has_ended(output: Output, run: RunId) -> bool:
    """Whether this part has finished in that run; one that has only begun died, and is done again in the same run."""
    record = load_run(output.root / part_record(output))
    return record is not None and record.get("run_id") == run.id and record.get("finished") is not None


def open_run(root: Path) -> RunId | None:
    """The run that parts join, or None."""
    try:
        return RunId(**json.loads((root / OPEN_RUN).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def part_record(output: Output, index: int | None = None) -> str:
    """Name of the record of this part, or of the part with that index."""
    return f"run.part-{output.part.index if index is None else index}-of-{output.part.count}.json"


def record_turn(output: Output) -> AbstractContextManager[None]:
    """A context in which no other part reads or writes the common record."""
    return exclusive(output.root / f"{LOCK_NAME}.record")


def load_run(path: Path) -> dict[str, Any] | None:
    """A run's record, or None if there is none that can be read."""
    try:
        run = json.loads(path.read_bytes())
        if isinstance(run, dict) and isinstance(run["studies"], list):
            return run
    except (OSError, ValueError, KeyError):
        return None
    return None
