"""Drives reader processes and the model process through a list of studies; a child that dies costs the study it held.

One thread, one loop: give work, wait for a pipe to speak, look at clocks and memory. It must be the thread that started the
children, because on Linux they are tied to its life.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from agseg.batch.child import Role, Says
from agseg.batch.job import BatchJob, StudyTask
from agseg.batch.memory import machine_memory_bytes
from agseg.batch.outcome import Failure, Fault
from agseg.batch.stop import Stop
from agseg.batch.worker import Gone, Worker
from agseg.errors import Code, UsageError
from agseg.report import StudyReport, StudyStatus

__all__ = ["Supervisor", "how_it_ended"]

_TICK_S = 0.25
"""How often clocks and memory are looked at while no child speaks."""

_READER_MEMORY_SHARE = 0.5
_MODEL_MEMORY_SHARE = 0.9
_LEAST_READER_MEMORY_BYTES = 2 << 30
_STUDIES_PER_READER = 100
"""A reader is replaced after so many studies: what decoders leak does not add up over a night."""

_START_S = 600.0
"""Time a child may take until it is ready: the model process imports torch and loads the weights."""

_STARTS = 3
"""A child that dies this often in a row before it is ready will not start at all."""


@dataclass(frozen=True)
class _Ready:
    """A study that has been read and waits for the model; the voxels' descriptor is open."""

    task: StudyTask
    header: dict[str, Any]
    voxels: int
    seconds: float


class Supervisor:
    """One run's processes.

    Parameters
    ----------
    job
        What to do.
    should_stop
        Asked on every turn; returns a :class:`Stop` when a signal or the deadline says so.
    on_stage
        Told the study and its stage.
    on_end
        Told each study's record and, beside it, whose fault a failure is.
    """

    def __init__(
        self,
        job: BatchJob,
        *,
        should_stop: Callable[[], Stop | None],
        on_stage: Callable[[StudyTask, str], None],
        on_end: Callable[[StudyTask, StudyReport, Fault], None],
    ) -> None:
        self.job = job
        self.should_stop = should_stop
        self.on_stage = on_stage
        self.on_end = on_end
        self.environment: dict[str, Any] = {}
        self.bell: Connection | None = None
        """Whoever adds studies from another thread rings here, so that a turn does not wait for its tick."""
        self._pending: deque[StudyTask] = deque()
        self._ready: deque[_Ready] = deque()
        self._readers: list[Worker] = []
        self._model: Worker | None = None
        self._starts = dict.fromkeys(Role, 0)
        memory = machine_memory_bytes()
        least = min(_LEAST_READER_MEMORY_BYTES, memory)
        self._reader_bytes = job.limits.reader_memory_bytes or max(least, int(memory * _READER_MEMORY_SHARE))
        self._model_bytes = job.limits.model_memory_bytes or int(memory * _MODEL_MEMORY_SHARE)

    def run(self, tasks: Iterable[StudyTask]) -> tuple[Stop | None, tuple[StudyTask, ...]]:
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
        except Stop as stop:
            return stop, self.left()
        finally:
            self.end_all()
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
        Stop
            If the run must end early; :meth:`left` says which studies have no record then.
        UsageError
            If the model cannot be made as asked.
        """
        stop = self.should_stop()
        if stop is not None and (stop.blame is Fault.SIGNAL or not self._model_busy()):
            raise stop
        if stop is None:
            self._give_work()
        else:
            self._recall()
        self._listen()
        self._look_at_clocks()

    # -- giving work ------------------------------------------------------------------------------------------------

    def _busy(self) -> bool:
        return bool(self._ready) or self._model_busy() or any(reader.task for reader in self._readers)

    def _model_busy(self) -> bool:
        return self._model is not None and self._model.task is not None

    def _give_work(self) -> None:
        limits = self.job.limits
        if self._model is None:
            self._start_model()
        self._start_readers()
        reading = sum(reader.task is not None for reader in self._readers)
        for reader in self._readers:
            if not self._pending or reading + len(self._ready) >= limits.ahead:
                break
            if reader.ready and reader.task is None:
                task = self._pending.popleft()
                self.on_stage(task, "read")
                reader.give(task, limit_s=limits.study_timeout_s)
                reading += 1
        model = self._model
        if self._ready and model is not None and model.ready and model.task is None:
            ready = self._ready.popleft()
            limit_s = max(0.0, limits.study_timeout_s - ready.seconds)
            self.on_stage(ready.task, "segment")
            model.give(ready.task, limit_s=limit_s, volume=(ready.header, ready.voxels, ready.seconds))

    def _start_readers(self) -> None:
        """As many readers as there is work for; one that has served long enough is replaced."""
        for reader in [r for r in self._readers if r.task is None and r.studies >= _STUDIES_PER_READER]:
            self._readers.remove(reader)
            reader.end(at_once=True)
        idle = sum(reader.task is None for reader in self._readers)
        for _ in range(min(self.job.limits.readers - len(self._readers), len(self._pending) - idle)):
            size = self._reader_bytes
            reader = self._start(Role.READER, self.job.read, memory_bytes=size, address_space_bytes=size)
            self._readers.append(reader)

    def _start_model(self) -> None:
        self._model = self._start(Role.MODEL, self.job.model, memory_bytes=self._model_bytes, address_space_bytes=None)

    def _start(self, role: Role, target: Callable[..., Any], *, memory_bytes: int, address_space_bytes: int | None) -> Worker:
        if self._starts[role] >= _STARTS:
            raise Stop(Code.CRASHED, f"the {role} process cannot be started", status=StudyStatus.FAILED, blame=Fault.BUG)
        self._starts[role] += 1
        worker = Worker(role, target, memory_bytes=memory_bytes, address_space_bytes=address_space_bytes, debug=self.job.debug)
        worker.due = time.monotonic() + _START_S
        return worker

    def _recall(self) -> None:
        """After the deadline: what is read but not begun goes back; the study in the model may end."""
        for reader in [r for r in self._readers if r.task is not None]:
            self._readers.remove(reader)
            if reader.task is not None:
                self._pending.append(reader.task)
            reader.end(at_once=True)
        while self._ready:
            ready = self._ready.popleft()
            os.close(ready.voxels)
            self._pending.append(ready.task)

    # -- listening --------------------------------------------------------------------------------------------------

    def _workers(self) -> list[Worker]:
        return [*self._readers, *([self._model] if self._model is not None else [])]

    def _listen(self) -> None:
        speakers = {worker.connection: worker for worker in self._workers()}
        bell = [self.bell] if self.bell is not None else []
        for connection in wait([*speakers, *bell], timeout=_TICK_S):
            if connection is self.bell:
                self.bell.recv_bytes()
                continue
            worker = speakers[connection]  # type: ignore[index]
            try:
                self._take(worker, worker.hear())
            except Gone:
                self._lost(worker, worker.end(at_once=False))

    def _take(self, worker: Worker, message: dict[str, Any]) -> None:
        kind, task = message.pop("kind"), worker.task
        if kind == Says.READY:
            worker.ready = True
            worker.due = float("inf")
            self._starts[worker.role] = 0
            if worker.role is Role.MODEL:
                self.environment = message["environment"]
        elif kind == Says.LOG:
            logging.getLogger(message["name"]).log(message["level"], "%s", message["text"])
        elif kind == Says.STAGE and task is not None:
            self.on_stage(task, str(message["stage"]))
        elif kind == Says.VOLUME and task is not None:
            voxels = worker.receive_descriptor()
            self._ready.append(_Ready(task, message["header"], voxels, message["seconds"]))
            worker.idle()
        elif kind == Says.REPORT and task is not None:
            worker.idle()
            self.on_end(task, StudyReport.from_dict(message["report"]), Fault.NONE)
        elif kind == Says.FAILURE:
            self._failed(worker, Failure.from_dict(message))

    def _failed(self, worker: Worker, failure: Failure) -> None:
        task = worker.task
        worker.idle()
        if task is None:
            # The factory itself raised: no study can be done without it.
            if failure.blame is Fault.USAGE:
                raise UsageError(failure.message, code=Code(failure.code), hint=failure.hint)
            blame = failure.blame or Fault.BUG
            raise Stop(Code(failure.code), failure.message, status=StudyStatus.FAILED, blame=blame)
        self.on_end(task, failure.report(task.study), failure.blame)
        if failure.ends_process:
            self._remove(worker)
            worker.end(at_once=True)
        if failure.blame is Fault.OUTPUT and failure.code in (Code.DISK_FULL, Code.OUTPUT_NOT_WRITABLE):
            raise Stop(Code(failure.code), failure.message, status=StudyStatus.DEFERRED, blame=Fault.OUTPUT)
        if failure.blame is Fault.WEIGHTS:
            raise Stop(Code(failure.code), failure.message, status=StudyStatus.FAILED, blame=Fault.WEIGHTS)

    # -- children that must go, or have gone ------------------------------------------------------------------------

    def _look_at_clocks(self) -> None:
        now = time.monotonic()
        for worker in self._workers():
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

    def _remove(self, worker: Worker) -> None:
        if worker is self._model:
            self._model = None
        elif worker in self._readers:
            self._readers.remove(worker)

    def left(self) -> tuple[StudyTask, ...]:
        """The studies that were added and have no record."""
        held = [worker.task for worker in self._workers() if worker.task is not None]
        return (*held, *(ready.task for ready in self._ready), *self._pending)

    def end_all(self) -> None:
        """End every child at once."""
        for worker in self._workers():
            worker.end(at_once=True)
        for ready in self._ready:
            os.close(ready.voxels)
        self._readers, self._model = [], None
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
