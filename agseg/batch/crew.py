"""Process pool of one run: readers, the model, the writer; started within their limits, replaced, ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from agseg.batch.child import Role
from agseg.batch.job import BatchJob
from agseg.batch.memory import machine_memory_bytes, reader_memory_bytes
from agseg.batch.outcome import Fault
from agseg.batch.run_aborted import RunAborted
from agseg.batch.worker import Worker
from agseg.errors import Code
from agseg.report import StudyStatus
from agseg.spawn import take_ahead

_MODEL_MEMORY_SHARE = 0.9
_STUDIES_PER_READER = 100
"""A reader is replaced after so many studies: what decoders leak does not add up over a night."""

_START_S = 600.0
"""Time a child may take until it is ready: the model process imports torch and loads the weights."""

_STARTS = 3
"""A child that dies this often in a row before it is ready will not start at all."""


class Crew:
    """The children that live now.

    Parameters
    ----------
    job
        What they are for, and their limits.
    """

    def __init__(self, job: BatchJob) -> None:
        self._job = job
        self.readers: list[Worker] = []
        self.model: Worker | None = None
        self.writer: Worker | None = None
        self._starts = dict.fromkeys(Role, 0)
        memory = machine_memory_bytes()
        self._reader_bytes = job.limits.reader_memory_bytes or reader_memory_bytes()
        self._model_bytes = job.limits.model_memory_bytes or int(memory * _MODEL_MEMORY_SHARE)

    def all(self) -> list[Worker]:
        """Every child."""
        return [*self.readers, *(worker for worker in (self.model, self.writer) if worker is not None)]

    def need_model(self) -> None:
        """Start the model process if there is none."""
        if self.model is None:
            self.model = self._start(Role.MODEL, self._job.model, self._model_bytes, limited=False)

    def need_writer(self) -> None:
        """Start the writer process if there is none and the job has one."""
        if self.writer is None and self._job.writer is not None:
            self.writer = self._start(Role.WRITER, self._job.writer, self._reader_bytes, limited=True)

    def need_readers(self, pending: int) -> None:
        """As many readers as there is work for; one that has served long enough is replaced."""
        if self._job.read is None:
            return
        for reader in [r for r in self.readers if r.task is None and r.studies >= _STUDIES_PER_READER]:
            self.readers.remove(reader)
            reader.end(at_once=True)
        idle = sum(reader.task is None for reader in self.readers)
        for _ in range(min(self._job.limits.readers - len(self.readers), pending - idle)):
            self.readers.append(self._start(Role.READER, self._job.read, self._reader_bytes, limited=True))

    def _start(self, role: Role, target: Callable[..., Any], memory_bytes: int, *, limited: bool) -> Worker:
        """``limited``: the child sets the limit on its own addresses too; a GPU's driver reserves more than there is memory."""
        if self._starts[role] >= _STARTS:
            raise RunAborted(Code.CRASHED, f"the {role} process cannot be started", status=StudyStatus.FAILED, blame=Fault.BUG)
        self._starts[role] += 1
        space = memory_bytes if limited else None
        debug = self._job.debug
        child = take_ahead(debug=debug) if role is Role.MODEL else None
        worker = Worker(role, target, memory_bytes=memory_bytes, address_space_bytes=space, debug=debug, child=child)
        worker.due = time.monotonic() + _START_S
        return worker

    def is_ready(self, worker: Worker) -> None:
        """The child says that it can begin."""
        worker.ready = True
        worker.due = float("inf")
        self._starts[worker.role] = 0

    def remove(self, worker: Worker) -> None:
        """It is gone, or goes: the next one that is needed is started anew."""
        if worker is self.model:
            self.model = None
        elif worker is self.writer:
            self.writer = None
        elif worker in self.readers:
            self.readers.remove(worker)
