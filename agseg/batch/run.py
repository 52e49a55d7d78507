"""A run from its inputs to its records: find, decide, do, write down."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from agseg import __version__
from agseg.batch.decide import FAILURES, Decisions, decide
from agseg.batch.events import BatchEvent, EventKind
from agseg.batch.executors import Executor, ExecutorFactory
from agseg.batch.exit_code import exit_code_of
from agseg.batch.folder import published_by_this_run
from agseg.batch.intake import Intake
from agseg.batch.job import BatchJob, StudyTask
from agseg.batch.ledger import file_ledger
from agseg.batch.outcome import Fault
from agseg.batch.outdated import OUTDATED, set_aside
from agseg.batch.output import Output
from agseg.batch.record import prepare_tables, undone_if_refused, unlooked, write_begun, write_records, write_unlooked
from agseg.batch.run_aborted import RunAborted
from agseg.batch.run_id import RUN_JSON, begin_run
from agseg.batch.signals import noting_signals
from agseg.batch.sources import source_of
from agseg.batch.style import Style
from agseg.batch.supervise import Supervisor
from agseg.errors import Code, ExitCode, OutputError
from agseg.report import BatchReport, StudyReport, StudyStatus
from agseg.study import Discovery, Study, StudyKind

FILES_ASKED = 3
"""Files of a study that are opened to learn whose it is: the first may be the broken one."""

_EXIT_CODES = {
    Fault.BUG: ExitCode.BUG,
    Fault.OUTPUT: ExitCode.OUTPUT,
    Fault.WEIGHTS: ExitCode.WEIGHTS,
    Fault.DEADLINE: ExitCode.DEADLINE,
}

_NOT_THE_STUDYS = frozenset({Fault.OUTPUT, Fault.WEIGHTS, Fault.USAGE})
"""Faults that say nothing about the study in hand: its earlier result stays."""


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def run_batch(
    job: BatchJob,
    output: Output,
    *,
    on_event: Callable[[BatchEvent], None] | None = None,
    executor: ExecutorFactory = Supervisor,
    intake: Intake | None = None,
) -> BatchReport:
    """Do a whole run in a claimed output folder.

    Parameters
    ----------
    job
        What to do.
    output
        From :func:`agseg.batch.output.claim_output`; its part says which studies are this process's.
    on_event
        Told what happens, for progress.
    executor
        What does the studies: this machine's processes, or a cluster's.
    intake
        Opens the input files; one that was started already saves its start. The caller ends it.

    Returns
    -------
    report
        One record per study, and the exit code. run.json, volumes.csv and report.html are written, unless it is a dry run.

    Raises
    ------
    UsageError
        If the model cannot be made as asked (a device that is not there); then nothing was done and nothing is written.
    OutputError
        If the records themselves cannot be written.
    """
    with ExitStack() as held:
        if intake is None:
            intake = held.enter_context(Intake(debug=job.debug))
        return _Run(job, output, on_event or (lambda _event: None), executor, intake).go()


class _Caught(BaseException):
    """A signal came while the studies were being found: nothing has begun, so it may end at once."""


class _Run:
    """What a run knows as it goes."""

    def __init__(
        self, job: BatchJob, output: Output, tell: Callable[[BatchEvent], None], executor: ExecutorFactory, intake: Intake
    ) -> None:
        self.job, self.output, self.tell, self.executor, self.intake = job, output, tell, executor, intake
        self.started, self.clock = _now(), time.monotonic()
        self.id = begin_run(output)
        self.records: dict[str, StudyReport] = {}
        self.asked: set[ExitCode] = set()
        self.caught: ExitCode | None = None
        self.total = 0
        self.finding = False
        self.environment: dict[str, Any] = {}

    def go(self) -> BatchReport:
        """Find, decide, do, write down."""
        found, decisions = Discovery((), ()), None
        likely = self._is_likely_to_work()
        refused = nullcontext() if self.job.dry_run else undone_if_refused(self.output, self.job.tables)
        with noting_signals(self._note), refused, self._executor() as executor:
            if likely:
                executor.prepare()
            if not self.job.dry_run:
                self._begin()
            with suppress(_Caught):
                self.finding = True
                if self.caught is not None:
                    raise _Caught
                found = self._with_sources(self.job.find(self.intake, self.job))
                decisions = decide(found, self.job, self.output, run=self.id.id, fingerprint=self.intake.fingerprint)
                self.finding = False
            if decisions is None:
                self.records.update(unlooked(self.output))
            else:
                self.total = decisions.total
                for name, settled in decisions.settled.items():
                    self.records[name] = self._without_outdated(name, settled)
                self._event(EventKind.PLANNED)
                if not self.job.dry_run and decisions.tasks:
                    self._work(decisions, executor)
            executor.close()
            report = self._report(found)
            if not self.job.dry_run:
                self.output.release_reserve()
                write = write_records if decisions is not None else write_unlooked
                write(report, self.output, self.job.tables, style=self._style)
        return report

    @property
    def _style(self) -> Style:
        return Style(self.job.include_identifiers, self.job.table_style)

    def _begin(self) -> None:
        """Leave a record of a run that has begun: who dies from here on leaves this one, not the last run's success."""
        waiting = unlooked(self.output)
        studies = tuple(waiting[name] for name in sorted(waiting))
        begun = replace(self._report(Discovery((), ())), studies=studies, finished="", exit_code=ExitCode.BUG)
        write_begun(begun, self.output)

    def _work(self, decisions: Decisions, executor: Executor) -> None:
        stop, left = self._should_stop(), decisions.tasks
        if stop is None:
            stop, left = executor.run(decisions.tasks)
            self.environment = executor.environment
        if stop is not None:
            if stop.blame in _EXIT_CODES:
                self.asked.add(_EXIT_CODES[stop.blame])
            for task in left:
                self._end(task, self._left_over(task, stop), Fault.NONE)

    @contextmanager
    def _executor(self) -> Iterator[Executor]:
        executor = self.executor(self.job, should_stop=self._should_stop, on_stage=self._stage, on_end=self._ended)
        try:
            yield executor
        finally:
            executor.close()

    def _is_likely_to_work(self) -> bool:
        """Whether there will be a study to do, as far as can be said before one is looked for.

        A run over a folder that has been done before often finds nothing new: it is not to load a network every night for that.
        """
        return not self.job.dry_run and (self.job.overwrite or not (self.output.root / RUN_JSON).exists())

    @staticmethod
    def _left_over(task: StudyTask, stop: RunAborted) -> StudyReport:
        """The record of a study that the run did not come to."""
        return StudyReport(
            input=task.study.id,
            status=stop.status,
            code=stop.code,
            message=stop.message,
            warnings=task.study.warnings,
            modality=task.study.modality,
        )

    def _should_stop(self) -> RunAborted | None:
        if self.caught is not None:
            return RunAborted(
                Code.INTERRUPTED,
                "the run was interrupted; the next run takes this study",
                status=StudyStatus.DEFERRED,
                blame=Fault.SIGNAL,
            )
        deadline_s = self.job.limits.deadline_s
        if deadline_s is not None and time.monotonic() - self.clock > deadline_s:
            return RunAborted(
                Code.DEADLINE,
                "the deadline was reached; the next run takes this study",
                status=StudyStatus.DEFERRED,
                blame=Fault.DEADLINE,
            )
        return None

    def _stage(self, task: StudyTask, stage: str) -> None:
        if stage == "read":
            self._event(EventKind.STARTED, study=task.study.id)
        elif stage == "write":
            prepare_tables()
        self._event(EventKind.STAGE, study=task.study.id, stage=stage)

    def _ended(self, task: StudyTask, report: StudyReport, blame: Fault) -> None:
        """A study that was tried: an earlier result that does not hold any more steps aside, if the study is what failed."""
        self._end(task, report, blame)
        if blame not in _NOT_THE_STUDYS:
            self.records[task.output] = self._without_outdated(task.output, self.records[task.output])

    def _without_outdated(self, name: str, report: StudyReport) -> StudyReport:
        if self.job.dry_run or report.status not in (StudyStatus.REJECTED, StudyStatus.FAILED):
            return report
        try:
            aside = set_aside(self.output.root, name, report)
        except OutputError:
            self.asked.add(ExitCode.OUTPUT)
            return report
        return report if aside is None else replace(report, extra={**report.extra, OUTDATED: aside})

    def _end(self, task: StudyTask, report: StudyReport, blame: Fault) -> None:
        if report.status is StudyStatus.DONE:
            report = replace(report, extra={**report.extra, **task.provenance.identity})
        elif (published := published_by_this_run(task)) is not None:
            report, blame = replace(published, extra=task.provenance.identity), Fault.NONE
        else:
            report = _explained(report, task, blame)
        if blame in _EXIT_CODES:
            self.asked.add(_EXIT_CODES[blame])
        self.records[task.output] = report
        self._event(EventKind.FINISHED, study=task.study.id, report=report)

    def _event(self, kind: EventKind, *, study: str = "", stage: str = "", report: StudyReport | None = None) -> None:
        self.tell(BatchEvent(kind, len(self.records), self.total, study, stage, report))

    def _report(self, found: Discovery) -> BatchReport:
        sources = {study.id: study for study in found.studies}
        studies = tuple(self._identified(self.records[name], sources) for name in sorted(self.records))
        return BatchReport(
            version=__version__,
            started=self.started,
            finished=_now(),
            exit_code=self._exit_code(studies, found),
            weights=self.job.weights,
            parameters=self.job.parameters,
            environment={**self.job.environment, **self.environment},
            studies=studies,
            files=file_ledger(found, self.job.inputs),
            run_id=self.id.id,
            run_number=self.id.number,
        )

    def _exit_code(self, studies: tuple[StudyReport, ...], found: Discovery) -> ExitCode:
        """As for a run; in a dry run the studies that would be segmented count as such, and a part may have none."""
        code = exit_code_of(studies, asked=self.asked, caught=self.caught)
        if code is ExitCode.NO_STUDY and found.studies:
            return ExitCode.OK
        if self.job.dry_run and code is ExitCode.NONE_DONE and any(s.status is StudyStatus.DEFERRED for s in studies):
            return ExitCode.SOME_NOT_DONE
        return code

    def _with_sources(self, found: Discovery) -> Discovery:
        """Whose the DICOM studies are, by the header of their first file that can be read."""
        studies = []
        for study in found.studies:
            if study.kind == StudyKind.DICOM:
                headers = (self.intake.identifiers(path) for path in study.files[:FILES_ASKED])
                told = next((header for header in headers if header), {})
                source = source_of(told, key=self.job.pseudonym_key, identifiers=self.job.include_identifiers)
                study = replace(study, source=source)
            studies.append(study)
        return replace(found, studies=tuple(studies))

    def _identified(self, report: StudyReport, sources: Mapping[str, Study]) -> StudyReport:
        """The record with whose the study is, and without the identifiers of an earlier run if they are not asked for."""
        study = sources.get(report.input)
        if study is not None and study.source is not None:
            report = replace(report, source=study.source)
        return report if self.job.include_identifiers else report.without_identifiers()

    def _note(self, code: ExitCode) -> None:
        """The first signal ends the run in order: at once while studies are being found, else after those in hand."""
        if self.caught is not None:
            return
        self.caught = code
        if self.finding:
            raise _Caught


def _explained(report: StudyReport, task: StudyTask, blame: Fault) -> StudyReport:
    """The record with what the next run needs to know: the key, and how often the study has failed."""
    failed = report.status is StudyStatus.FAILED and blame not in _NOT_THE_STUDYS
    failures = task.failures + 1 if failed else task.failures if report.status is not StudyStatus.REJECTED else 0
    count = {FAILURES: failures} if failures else {}
    return replace(report, extra={**report.extra, **task.provenance.identity, **count})
