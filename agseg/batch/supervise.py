"""Supervisor of the reader, model and writer processes; a child that dies costs the study it held.

One thread, one loop: give work, wait for a pipe to speak, look at clocks and memory. It must be the thread that started the
children, because on Linux they are tied to its life.
"""

from __future__ import annotations

import logging
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from typing import Any

from agseg.batch.child import MessageKind, Role
from agseg.batch.crew import Crew
from agseg.batch.job import BatchJob, StudyTask
from agseg.batch.outcome import Failure, Fault
from agseg.batch.run_aborted import RunAborted
from agseg.batch.stations import Drafted, Ready
from agseg.batch.worker import ChildExited, Worker
from agseg.errors import Code, UsageError
from agseg.report import StudyReport, StudyStatus
from agseg.spawn import kill

_TICK_S = 0.25
"""How often clocks and memory are looked at while no child speaks."""


class Supervisor:
    """One run's processes.

    Parameters
    ----------
    job
        What to do.
    should_stop
        Asked on every turn; returns a :class:`RunAborted` when a signal or the deadline says so.
    on_stage
        Told the study and its stage.
    on_end
        Called with each study's report and, beside it, the fault class of a failure.
    """

    def __init__(
        self,
        job: BatchJob,
        *,
        should_stop: Callable[[], RunAborted | None],
        on_stage: Callable[[StudyTask, str], None],
        on_end: Callable[[StudyTask, StudyReport, Fault], None],
    ) -> None:
        self.job = job
        self.should_stop = should_stop
        self.on_stage = on_stage
        self.on_end = on_end
        self.environment: dict[str, Any] = {}
        self.wake: Connection | None = None
        """Whoever adds studies from another thread rings here, so that a turn does not wait for its tick."""
        self._pending: deque[StudyTask] = deque()
        self._ready: deque[Ready] = deque()
        self._drafts: deque[Drafted] = deque()
        self._in_model: Ready | None = None
        self._crew = Crew(job)

    def prepare(self) -> None:
        """Start the model process and one reader: while studies are looked for there is a processor for both."""
        self._crew.need_model()
        self._crew.need_readers(1)

    def run(self, tasks: Iterable[StudyTask]) -> tuple[RunAborted | None, tuple[StudyTask, ...]]:
        """Do the studies.

        Returns
        -------
        stop
            Why the run ended early, or None.
        left
            The studies that have no record then.
        """
        self.add(tasks)
        try:
            while self.has_work:
                self.turn()
        except RunAborted as stop:
            return stop, self.left()
        finally:
            self.close()
        return None, ()

    def add(self, tasks: Iterable[StudyTask]) -> None:
        """Put studies at the end of the queue."""
        self._pending.extend(tasks)

    @property
    def has_work(self) -> bool:
        """Whether a study is waiting or under way."""
        return bool(self._pending) or self._busy()

    def turn(self) -> None:
        """One round: give work, listen for a tick, look at clocks and memory.

        Raises
        ------
        RunAborted
            If the run must end early; :meth:`left` says which studies have no record then.
        UsageError
            If the model cannot be made as asked.
        """
        stop = self.should_stop()
        if stop is not None and (stop.blame is Fault.SIGNAL or not self._begun()):
            raise stop
        if stop is None:
            self._give_work()
        else:
            self._recall()
        self._give_writing()
        self._listen()
        self._look_at_clocks()

    # -- giving work ------------------------------------------------------------------------------------------------

    def _busy(self) -> bool:
        return bool(self._ready) or self._begun() or any(reader.task for reader in self._crew.readers)

    def _begun(self) -> bool:
        """Whether a study is in the model or behind it."""
        return bool(self._drafts) or any(worker is not None and worker.task for worker in (self._crew.model, self._crew.writer))

    def _give_work(self) -> None:
        limits, crew = self.job.limits, self._crew
        crew.need_model()
        if self.job.read is None:
            self._give_files()
            return
        crew.need_readers(len(self._pending))
        reading = sum(reader.task is not None for reader in crew.readers)
        for reader in crew.readers:
            if not self._pending or reading + len(self._ready) >= limits.ahead:
                break
            if reader.ready and reader.task is None:
                task = self._pending.popleft()
                self.on_stage(task, "read")
                reader.give(task, limit_s=limits.study_timeout_s)
                reading += 1
        model = crew.model
        # A draft that waits for the writer holds the model up: never more than one study more is in memory.
        if self._ready and model is not None and model.ready and model.task is None and not self._drafts:
            ready = self._ready.popleft()
            self._in_model = ready.copy()
            self.on_stage(ready.task, "segment")
            model.give(ready.task, limit_s=ready.left_s, content=(ready.header,), descriptors=(ready.voxels,))

    def _give_files(self) -> None:
        """A study whose files the model process reads itself."""
        model = self._crew.model
        if self._pending and model is not None and model.ready and model.task is None:
            task = self._pending.popleft()
            self.on_stage(task, "read")
            model.give(task, limit_s=self.job.limits.study_timeout_s, content=(None,))

    def _give_writing(self) -> None:
        """The writer starts when the first study has been read: before, the processors have other things to import."""
        if self._ready or self._begun():
            self._crew.need_writer()
        writer = self._crew.writer
        if self._drafts and writer is not None and writer.ready and writer.task is None:
            draft = self._drafts.popleft()
            ready = draft.ready
            task = replace(ready.task, provenance=replace(ready.task.provenance, environment=self.environment))
            content = (ready.header, draft.layout, draft.facts)
            writer.give(task, limit_s=draft.left_s, content=content, descriptors=(ready.voxels, draft.labels))

    def _recall(self) -> None:
        """After the deadline: what is read but not begun goes back; the study in the model may end."""
        for reader in [r for r in self._crew.readers if r.task is not None]:
            self._crew.remove(reader)
            if reader.task is not None:
                self._pending.append(reader.task)
            reader.end(at_once=True)
        while self._ready:
            ready = self._ready.popleft()
            ready.close()
            self._pending.append(ready.task)

    # -- listening --------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        speakers = {worker.connection: worker for worker in self._crew.all()}
        wakers = [self.wake] if self.wake is not None else []
        for connection in wait([*speakers, *wakers], timeout=_TICK_S):
            if connection is self.wake:
                self.wake.recv_bytes()
                continue
            worker = speakers[connection]  # type: ignore[index]
            try:
                self._take(worker, worker.receive())
            except ChildExited:
                self._lost(worker, worker.end(at_once=False))

    def _take(self, worker: Worker, message: dict[str, Any]) -> None:
        kind, task = message.pop("kind"), worker.task
        if kind == MessageKind.READY:
            self._crew.is_ready(worker)
            if worker.role is Role.MODEL:
                self.environment = message["environment"]
        elif kind == MessageKind.LOG:
            logging.getLogger(message["name"]).log(message["level"], "%s", message["text"])
        elif kind == MessageKind.STAGE and task is not None:
            self.on_stage(task, str(message["stage"]))
        elif kind == MessageKind.VOLUME and task is not None:
            voxels = worker.receive_descriptor()
            read = replace(task, read_seconds=message["seconds"])
            self._ready.append(Ready(read, message["header"], voxels, worker.left_s))
            worker.idle()
        elif kind == MessageKind.DRAFT and task is not None and self._in_model is not None:
            labels = worker.receive_descriptor()
            self._drafts.append(Drafted(self._in_model, message["layout"], labels, message["facts"], worker.left_s))
            self._in_model = None
            worker.idle()
        elif kind == MessageKind.REPORT and task is not None:
            self._forget(worker)
            worker.idle()
            self.on_end(task, StudyReport.from_dict(message["report"]), Fault.NONE)
        elif kind == MessageKind.FAILURE:
            self._failed(worker, Failure.from_dict(message))

    def _failed(self, worker: Worker, failure: Failure) -> None:
        task = worker.task
        self._forget(worker)
        worker.idle()
        if task is None:
            # The factory itself raised: no study can be done without it.
            if failure.blame is Fault.USAGE:
                raise UsageError(failure.message, code=Code(failure.code), hint=failure.hint)
            blame = failure.blame or Fault.BUG
            raise RunAborted(Code(failure.code), failure.message, status=StudyStatus.FAILED, blame=blame)
        self.on_end(task, failure.report(task.study), failure.blame)
        if failure.ends_process:
            self._remove(worker)
            worker.end(at_once=True)
        if failure.blame is Fault.OUTPUT and failure.code in (Code.DISK_FULL, Code.OUTPUT_NOT_WRITABLE):
            raise RunAborted(Code(failure.code), failure.message, status=StudyStatus.DEFERRED, blame=Fault.OUTPUT)
        if failure.blame is Fault.WEIGHTS:
            raise RunAborted(Code(failure.code), failure.message, status=StudyStatus.FAILED, blame=Fault.WEIGHTS)

    # -- children that must go, or have gone ------------------------------------------------------------------------

    def _look_at_clocks(self) -> None:
        now = time.monotonic()
        for worker in self._crew.all():
            if now > worker.due:
                message = f"it took longer than {self.job.limits.study_timeout_s:g} s"
                self._lost(worker, worker.end(at_once=True), Failure(StudyStatus.FAILED, Code.TIMEOUT, message))
            elif worker.too_large:
                message = "it needs more memory than it may use"
                self._lost(worker, worker.end(at_once=True), Failure(StudyStatus.FAILED, Code.OUT_OF_MEMORY, message))

    def _lost(self, worker: Worker, status: int | None, why: Failure | None = None) -> None:
        """A child is gone: its study has failed, the next one gets a new child."""
        self._remove(worker)
        task = worker.task
        if task is None:
            return
        why = why or Failure(StudyStatus.FAILED, Code.CRASHED, how_it_ended(status))
        self.on_end(task, why.report(task.study), why.blame)

    def _forget(self, worker: Worker) -> None:
        """Give back what was kept of the study in the model."""
        if worker is self._crew.model and self._in_model is not None:
            self._in_model.close()
            self._in_model = None

    def _remove(self, worker: Worker) -> None:
        self._forget(worker)
        self._crew.remove(worker)

    def left(self) -> tuple[StudyTask, ...]:
        """The studies that were added and have no record."""
        held = [worker.task for worker in self._crew.all() if worker.task is not None]
        waiting = [*(draft.ready.task for draft in self._drafts), *(ready.task for ready in self._ready)]
        return (*held, *waiting, *self._pending)

    def close(self) -> None:
        """End every child at once."""
        for worker in self._crew.all():
            kill(worker.process)  # all before the first is waited for: a network's memory takes a moment to be given back
        for worker in self._crew.all():
            worker.end(at_once=True)
            self._remove(worker)
        for draft in self._drafts:
            draft.close()
        for ready in self._ready:
            ready.close()
        self._drafts.clear()
        self._ready.clear()


def how_it_ended(status: int | None) -> str:
    """How a process ended, in words."""
    if status is None or status >= 0:
        return f"the process that worked on it ended by itself (status {status})"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = str(-status)
    hint = "; the system may have run out of memory" if name == "SIGKILL" else ""
    return f"the process that worked on it was ended by {name}{hint}"
