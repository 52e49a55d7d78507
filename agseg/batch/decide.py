"""Plan of a run: for each study found, whether it is done already, rejected before, still arriving, or to be done now."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from agseg import __version__
from agseg.batch.arrival import FileState, newest_mtime_s, states_of
from agseg.batch.earlier import Plan, plan
from agseg.batch.fingerprint import input_fingerprint, joint_key, resume_key
from agseg.batch.job import BatchJob, StudyTask
from agseg.batch.output import Output
from agseg.batch.provenance import Provenance
from agseg.batch.run_id import RUN_JSON, load_run
from agseg.errors import Code, InputError, UsageError
from agseg.io.finished import load_record
from agseg.report import StudyReport, StudyStatus, clip_facts
from agseg.study import Discovery, Study
from agseg.volume import Warned

_RESERVED = frozenset({RUN_JSON, "volumes.csv", "report.html", "runs"})
"""Names directly below the output folder that a study's folder must not take."""

_LIKE_A_RESULT = re.compile(
    r"(?i).+\.(json|nii|nii\.gz|png|dcm|csv|stl|obj|html|mp4)(\.[^.]*)?|attention|best|outdated-.*|\..*"
)
"""Names that a study's own files and folders may have."""

_CURABLE = frozenset({Code.UNREADABLE_FILE, Code.PERMISSION, Code.TRANSFER_SYNTAX, Code.DECODE})
"""Rejections whose cause may lie outside the files (a share, a right, a codec): the next run tries such a study again."""

FAILURES = "failures"
"""Key in a record for how many runs in a row a study has failed in; it comes the later, the more they are."""

REJECTED_BY = "rejected_by"
"""Key in a record for who rejected the study, where that was discovery: it looks at the files beside the study's own too."""

_DRY_RUN_MESSAGE = "it would be read now, and processed if it can be"

_FUTURE = Warned(Code.CLOCK, "a file bears a time in the future: its age is not known, and the study was not deferred for it")


Fingerprint = Callable[[tuple[Path, ...], tuple[FileState, ...]], str | None]
"""Digest of a study's files; None if one cannot be read."""


@dataclass(frozen=True)
class Decisions:
    """The plan of a run.

    Parameters
    ----------
    settled
        Records of studies that need no work, by output folder.
    tasks
        Studies to be done, in order.
    """

    settled: dict[str, StudyReport]
    tasks: tuple[StudyTask, ...]

    @property
    def total(self) -> int:
        """Studies of this run."""
        return len(self.settled) + len(self.tasks)


def decide(
    found: Discovery, job: BatchJob, output: Output, *, run: str, fingerprint: Fingerprint = input_fingerprint
) -> Decisions:
    """Sort the studies of this process's part.

    Parameters
    ----------
    found, job, output
        What there is, what is to be done, and where.
    run
        Id of the run.
    fingerprint
        Reads the files' samples; a run has its child do it.

    Raises
    ------
    UsageError
        If the run's records, or a study's results, would be written into a folder that holds input.
    """
    sources = {folder.resolve() for folder in {path.parent for study in found.studies for path in study.files}}
    last = _last_studies(output)
    refused = (study for study in last.values() if study.status is StudyStatus.REJECTED)
    known = {str(study.extra.get("key")): study for study in refused}
    studies = frozenset(study.id for study in found.studies)
    settled: dict[str, StudyReport] = {}
    tasks: list[StudyTask] = []
    taken: set[str] = set()
    if output.root.resolve() in sources:
        raise _among_the_input(output.root)
    for study in found.studies:
        # The other parts' studies are named too, so that no two parts give one name to two studies.
        name = _output_name(study, taken=taken, studies=studies)
        taken.add(name)
        if not output.part.has(study.id):
            continue
        if output.root / name in sources:
            raise _among_the_input(output.root / name)
        outcome = _decide_one(study, name, job, output, known, run, fingerprint)
        if isinstance(outcome, StudyTask):
            tasks.append(outcome)
        else:
            settled[name] = _with_failures(outcome, last)
    tasks = _in_order(tasks, last)
    if job.dry_run:
        settled.update({task.output: _record(task.study, StudyStatus.DEFERRED, None, _DRY_RUN_MESSAGE) for task in tasks})
        tasks = []
    return Decisions(settled, tuple(tasks))


def _among_the_input(folder: Path) -> UsageError:
    return UsageError(
        "the results would lie among the files of a study",
        path=folder,
        hint="Name another folder with -o: input is never changed.",
    )


def _decide_one(
    study: Study,
    name: str,
    job: BatchJob,
    output: Output,
    known: dict[str, StudyReport],
    run: str,
    fingerprint: Fingerprint,
) -> StudyReport | StudyTask:
    try:
        states = states_of(study)
    except InputError as error:
        return _record(study, StudyStatus.DEFERRED, error.code, error.sentence())
    min_age_s, age_s = job.limits.min_age_s, time.time() - newest_mtime_s(states)
    if abs(age_s) < min_age_s:
        message = f"its newest file is younger than {min_age_s:g} s: it may still be arriving"
        return _record(study, StudyStatus.DEFERRED, Code.CHANGED, message)
    if study.rejected is not None and study.rejected.code is Code.CHANGED:
        return _record(study, StudyStatus.DEFERRED, Code.CHANGED, study.rejected.message)
    if age_s <= -min_age_s < 0:
        # A wrong clock would defer it for ever. Whether it changes while it is read is seen all the same.
        study = replace(study, warnings=(*study.warnings, _FUTURE))
    provenance = _provenance(study, states, job, run, fingerprint)
    if study.rejected is not None:
        earlier = known.get(provenance.key)
        report = _record(study, StudyStatus.REJECTED, study.rejected.code, study.rejected.message)
        return replace(report, new=earlier is None, extra={**provenance.identity, REJECTED_BY: "discovery"})
    task = StudyTask(study, output.root, name, provenance, states)
    everything = tuple(use.weights.id for use in job.networks)
    if job.overwrite:
        return replace(task, plan=plan(task.folder, provenance, job.outputs, overwrite=True))
    task = replace(task, plan=plan(task.folder, provenance, job.outputs))
    rejected = known.get(provenance.key)
    if task.plan.is_empty:
        return _earlier_result(task) or replace(task, plan=Plan(everything, job.outputs))
    return rejected if rejected is not None and _lasts(rejected) and task.plan.todo == everything else task


def _lasts(rejected: StudyReport) -> bool:
    """Whether the study's own bytes earned the rejection; what discovery says comes from its neighbours too, anew each run."""
    return rejected.code not in _CURABLE and REJECTED_BY not in rejected.extra


def _provenance(study: Study, states: tuple[FileState, ...], job: BatchJob, run: str, sampled: Fingerprint) -> Provenance:
    fingerprint: str | None = None
    # The reader says what is wrong with files that cannot be read.
    with suppress(OSError, InputError):
        fingerprint = sampled(study.files, states)
    # A key that fits nothing keeps it from being taken for done.
    of_input = fingerprint or secrets.token_hex(32)
    keys = tuple(
        resume_key(
            fingerprint=of_input,
            weights_sha256=use.weights.sha256,
            usage_sha256=use.usage_sha256,
            shaping=job.shaping,
            version=__version__,
        )
        for use in job.networks
    )
    return Provenance(run, __version__, job.networks, job.parameters, fingerprint, keys, joint_key(of_input, keys))


def _earlier_result(task: StudyTask) -> StudyReport | None:
    """The finished study as ``skipped``, with its organs and files, if it was made from the same things."""
    record = load_record(task.folder)
    if record is None:
        return None
    try:
        report = StudyReport.from_dict(record)
    except (KeyError, TypeError, ValueError):
        return None
    if report.status is not StudyStatus.DONE:
        return None
    extra = clip_facts(report.extra) | task.provenance.identity
    return replace(report, status=StudyStatus.SKIPPED, new=False, seconds=None, extra=extra)


def _last_studies(output: Output) -> dict[str, StudyReport]:
    """The studies of the last run's record, by name."""
    last = load_run(output.root / RUN_JSON) or {"studies": []}
    try:
        reports = [StudyReport.from_dict(study) for study in last["studies"]]
    except (KeyError, TypeError, ValueError):
        return {}
    return {report.input: replace(report, new=False, seconds=None) for report in reports}


def _in_order(tasks: list[StudyTask], last: dict[str, StudyReport]) -> list[StudyTask]:
    """Studies that the last run did not know first, those that have failed last: a bad one keeps no other from its turn."""

    def turn(task: StudyTask) -> tuple[int, bool]:
        known = last.get(task.study.id)
        return (0, False) if known is None else (failures(known), True)

    return [replace(task, failures=turn(task)[0]) for task in sorted(tasks, key=turn)]


def _with_failures(report: StudyReport, last: dict[str, StudyReport]) -> StudyReport:
    """A study that waits once more keeps the count of its failures."""
    known = last.get(report.input)
    if report.status is not StudyStatus.DEFERRED or known is None or not failures(known):
        return report
    return replace(report, extra={**report.extra, FAILURES: failures(known)})


def failures(report: StudyReport) -> int:
    """How many runs in a row the study has failed in, by its last record."""
    told = report.extra.get(FAILURES, 0)
    return told if isinstance(told, int) and not isinstance(told, bool) and told > 0 else 0


def _record(study: Study, status: StudyStatus, code: Code | None, message: str) -> StudyReport:
    return StudyReport(
        input=study.id, status=status, code=code, message=message, warnings=study.warnings, modality=study.modality
    )


def _output_name(study: Study, *, taken: set[str], studies: frozenset[str]) -> str:
    """The study's folder below the output; a name that is taken, or one of ours, gets a tail.

    The folder may be inside another study's (``a`` beside ``a/b``), but not where that one's results are.
    """
    parts = study.id.split("/")
    if parts[0] in _RESERVED or parts[0].startswith(".agseg"):
        parts[0] = f"study-{parts[0]}"
    for number in range(1, len(parts)):
        if "/".join(parts[:number]) in studies and _LIKE_A_RESULT.fullmatch(parts[number]):
            parts[number] = f"study-{parts[number]}"
    name = "/".join(parts)
    while name in taken:
        name += "-again"
    return name
