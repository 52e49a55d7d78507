"""What a night did, in one record; and which of its failures are new."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agseg import __version__
from agseg.batch.decide import REJECTED_BY
from agseg.errors import Code, ExitCode
from agseg.io.atomic import write_text
from agseg.report import DISCLAIMER, BatchReport, StudyReport, StudyStatus
from agseg.workflows.pacs import PacsReport, PacsStatus

NIGHT_JSON = "night.json"
NIGHT_SCHEMA = "agseg.night/1"

MOST_LINES = 50
"""Lines of a mail; the record has them all."""


@dataclass(frozen=True)
class Failure:
    """Something that did not work, and when it was first met.

    ``step`` is ``"pull NAME"``, ``"segment"`` or ``"push NAME"``; ``what`` a path below the folder concerned, or empty for the
    whole step.
    """

    step: str
    what: str
    code: str
    message: str
    first: str
    new: bool

    @property
    def key(self) -> tuple[str, str, str]:
        """What makes it the same failure as last night's."""
        return self.step, self.what, self.code

    def line(self) -> str:
        """For a mail."""
        return f"{self.step}: {self.what + ': ' if self.what else ''}{self.code} {self.message}".replace("\n", " ")

    def to_dict(self) -> dict[str, Any]:
        """As it stands in night.json."""
        return {"step": self.step, "what": self.what, "code": self.code, "message": self.message, "first": self.first,
                "new": self.new}  # fmt: skip


@dataclass(frozen=True)
class StepError:
    """A step that ended with an error, as a whole; ``hint`` says what to do, to people, and is in no record."""

    step: str
    code: str
    message: str
    exit_code: ExitCode
    hint: str | None = None

    def lines(self) -> list[str]:
        """What a mail says of it."""
        return [f"{self.step}: {self.code} {self.message}", *([f"  {self.hint}"] if self.hint else [])]


@dataclass
class NightReport:
    """What a night did, as it goes on."""

    started: str
    finished: str = ""
    pulled: dict[str, PacsReport] = field(default_factory=dict)
    run: BatchReport | None = None
    pushed: dict[str, PacsReport] = field(default_factory=dict)
    errors: list[StepError] = field(default_factory=list)
    failures: tuple[Failure, ...] = ()
    removed: int = 0
    caught: ExitCode | None = None

    @property
    def exit_code(self) -> ExitCode:
        """One number: a signal's, a step's own if it ended the night's work, 3 or 4 for new failures, else 0.

        4 if nothing at all was done or is there. That nothing matched is a quiet night.
        """
        if self.caught is not None:
            return self.caught
        ending = [error.exit_code for error in self.errors] + ([] if self.run is None else [self.run.exit_code])
        for code in (ExitCode.BUG, ExitCode.OUTPUT, ExitCode.WEIGHTS, ExitCode.USAGE, ExitCode.LOCKED, ExitCode.DEADLINE):
            if code in ending:
                return code
        if not self.errors and not any(failure.new for failure in self.failures):
            return ExitCode.OK
        return ExitCode.SOME_NOT_DONE if self._anything_worked else ExitCode.NONE_DONE

    @property
    def _anything_worked(self) -> bool:
        moved = any(report.counts[status] for report in (*self.pulled.values(), *self.pushed.values())
                    for status in (PacsStatus.PULLED, PacsStatus.PUSHED, PacsStatus.PRESENT))  # fmt: skip
        done = self.run is not None and (self.run.counts["done"] or self.run.counts["skipped"])
        return bool(moved or done)

    @property
    def did_something(self) -> bool:
        """Whether anything was moved or segmented."""
        moved = any(report.counts[status] for report in (*self.pulled.values(), *self.pushed.values())
                    for status in (PacsStatus.PULLED, PacsStatus.PUSHED))  # fmt: skip
        return moved or (self.run is not None and bool(self.run.counts["done"]))

    def lines(self) -> list[str]:
        """One mail's worth of text: nothing if nothing is new."""
        said = [line for error in self.errors for line in error.lines()]
        new = [failure for failure in self.failures if failure.new]
        together: dict[tuple[str, str, str], list[Failure]] = {}
        for failure in new:
            together.setdefault((failure.step, failure.code, failure.message), []).append(failure)
        for (step, code, message), alike in together.items():
            said.append(alike[0].line() if len(alike) == 1 else f"{step}: {len(alike)} times {code} {message}")
        if len(said) > MOST_LINES:
            said = [*said[:MOST_LINES], f"... and {len(said) - MOST_LINES} more lines, see {NIGHT_JSON}"]
        return said

    def summary(self) -> str:
        """The night in one line."""
        words = []
        for action, reports in (("pull", self.pulled), ("push", self.pushed)):
            counts = {s.value: sum(report.counts[s] for report in reports.values()) for s in PacsStatus}
            words.append(f"{action}: {', '.join(f'{n} {s}' for s, n in counts.items() if n) or 'nothing'}")
        if self.run is not None:
            words.insert(1, f"segment: {', '.join(f'{n} {s}' for s, n in self.run.counts.items() if n) or 'nothing'}")
        known = sum(not failure.new for failure in self.failures)
        return "; ".join(words) + (f"; {known} known failures" if known else "")

    def to_dict(self) -> dict[str, Any]:
        """As it stands in night.json."""
        return {
            "schema": NIGHT_SCHEMA,
            "version": __version__,
            "started": self.started,
            "finished": self.finished,
            "exit_code": int(self.exit_code),
            "disclaimer": DISCLAIMER,
            "run": None if self.run is None else self.run.to_dict().get("run_id"),
            "counts": {
                "pull": {name: report.counts for name, report in self.pulled.items()},
                "segment": None if self.run is None else self.run.counts,
                "push": {name: report.counts for name, report in self.pushed.items()},
            },
            "errors": [{"step": e.step, "code": e.code, "message": e.message} for e in self.errors],
            "failures": [failure.to_dict() for failure in self.failures],
            "removed": self.removed,
        }


def failures_of(report: NightReport, known: dict[tuple[str, str, str], str], *, root: Path) -> tuple[Failure, ...]:
    """Everything that failed, as new or as known since an earlier night.

    Studies of other modalities are no failures: they were never asked for.

    Parameters
    ----------
    known
        From :func:`known_failures`.
    root
        The output folder, for the paths of results.
    """
    found: list[tuple[str, str, str, str]] = []
    for action, reports in (("pull", report.pulled), ("push", report.pushed)):
        for name, moved in reports.items():
            found += [
                (f"{action} {name}", _below(record.path, root), str(record.code), record.message or "")
                for record in moved.records
                if record.status is PacsStatus.FAILED
            ]
    for study in () if report.run is None else report.run.studies:
        if study.status in (StudyStatus.REJECTED, StudyStatus.FAILED) and not _is_other_modality(study):
            found.append(("segment", study.input, str(study.code), study.message or ""))
    return tuple(
        Failure(step, what, code, message, known.get((step, what, code), report.started), (step, what, code) not in known)
        for step, what, code, message in found
    )


def _is_other_modality(study: StudyReport) -> bool:
    """Whether the headers said so; values that no scan of the modality has are a failure."""
    return study.code is Code.MODALITY and REJECTED_BY in study.extra


def _below(path: str, root: Path) -> str:
    try:
        return Path(path).relative_to(root).as_posix()
    except ValueError:
        return path


def known_failures(root: Path) -> dict[tuple[str, str, str], str]:
    """The failures in the last night's record, and when each was first met."""
    try:
        last = json.loads((root / NIGHT_JSON).read_bytes())["failures"]
        return {(str(f["step"]), str(f["what"]), str(f["code"])): str(f["first"]) for f in last}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}


def write_night(report: NightReport, root: Path) -> None:
    """Write night.json.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    write_text(root / NIGHT_JSON, json.dumps(report.to_dict(), indent=2, ensure_ascii=False) + "\n")
