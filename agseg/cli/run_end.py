"""What ``segment`` and ``classify-us`` say of a run: how far it is, and that it found nothing, or left studies over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from agseg.errors import Code, ExitCode

if TYPE_CHECKING:
    from agseg.batch import BatchEvent
    from agseg.cli.console import Advance
    from agseg.report import BatchReport


def show_event(advance: Advance, event: BatchEvent) -> None:
    """Move the progress bar to where the run is."""
    text = f"{event.study} {event.stage}".strip()
    advance(event.done, event.total, text or None)


def mute_ending(
    report: BatchReport, *, what: str, inputs: Sequence[Path], expected: str, record: Path | None
) -> tuple[str, ...]:
    """The lines for exit codes that no study's own line explains: nothing was found, the deadline was reached.

    Parameters
    ----------
    what
        A thing that is looked for: ``"study"`` or ``"clip"``.
    inputs
        Where it was looked for.
    expected
        What would have been taken.
    record
        The run's record, None where none is written.
    """
    see = "" if record is None else f"; see {record}"
    late = sum(study.code is Code.DEADLINE for study in report.studies)
    lines = []
    if late:
        begun = len(report.studies) - late
        lines.append(f"the deadline was reached: {late} of {late + begun} not begun, the next run takes them{see}")
    if report.exit_code is ExitCode.NO_STUDY:
        where = ", ".join(str(path) for path in inputs)
        lines.append(f"no {what} found in {where}: expected {expected}, {_left_out(report.files['skipped'])}{see}")
        lines += [f"  {advice}" for advice in _advice(report, what)]
    return tuple(lines)


def _advice(report: BatchReport, what: str) -> Iterator[str]:
    """What to do with what was found instead, a line for each kind of thing."""
    from agseg.io.walk import CLIP_NOTE

    left_out = report.files.get("left_out", [])
    reasons = {entry["reason"] for entry in left_out}
    if Code.SYMLINK in reasons:
        yield "Links are not followed, because they may lead to files of others: give the folder that they point to."
    if what == "study" and any(entry["detail"] == CLIP_NOTE for entry in left_out):
        yield "There are videos or pictures: agseg classify-us finds fetal standard planes in those of ultrasound."
    volumes = (".nii", ".nii.gz", ".hdr", ".mha", ".mhd", ".nrrd", ".nhdr")
    is_ct = what == "clip" and (Code.MODALITY in reasons or any(entry["file"].lower().endswith(volumes) for entry in left_out))
    if is_ct:
        yield "There are images of another kind: agseg segment takes CT, agseg inspect says what each file is."


def _left_out(reasons: dict[str, int]) -> str:
    """``found 3 other files (2 hidden, 1 E_MODALITY)``."""
    count = sum(reasons.values())
    if not count:
        return "found no file"
    told = ", ".join(f"{number} {reason}" for reason, number in sorted(reasons.items()))
    return f"found {count} other {'file' if count == 1 else 'files'} ({told})"
