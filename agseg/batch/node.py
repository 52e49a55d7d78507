"""What runs inside a Dask worker: the same reader and model processes as on one machine, fed by Dask tasks.

A Dask task is one study. It hands the study to the worker's :class:`Node` and waits for its answer; the node drives a
:class:`~agseg.batch.supervise.Supervisor` in a thread of its own, so a study that crashes, hangs or grows costs what it costs
on one machine, never the worker, and the weights are loaded once per worker. Studies are read ahead of the model because a
waiting task gives its slot back (``secede``); the engine limits how many a node holds.

The children live as long as the node's thread. They go when the run says so (:func:`halt`), when Dask no longer wants a study
that the node holds (the run's process was killed), when the worker dies, or when nothing came for a while.
"""

from __future__ import annotations

import logging
import multiprocessing
import pickle
import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from agseg import __version__
from agseg.batch.arrival import check_unchanged
from agseg.batch.folder import published_by_this_run
from agseg.batch.job import BatchJob, Limits, ModelFactory, StudyTask
from agseg.batch.outcome import Fault
from agseg.batch.output import temporary_name
from agseg.batch.stop import Stop
from agseg.batch.supervise import Supervisor
from agseg.errors import AgsegError, Code, UsageError
from agseg.report import StudyReport, StudyStatus

__all__ = ["Answer", "Order", "Placed", "Probe", "halt", "look_around", "process"]

_IDLE_S = 60.0
"""A node without a study for this long ends its processes and gives the device back; the next study starts new ones."""

_WANTED = frozenset({"executing", "long-running", "resumed"})
"""States of a Dask task, on its worker, whose result somebody still waits for."""

_READER_MEMORY_SHARE = 0.5
_MODEL_MEMORY_SHARE = 0.9
"""Shares of what a Dask worker may use (``--memory-limit``), as the supervisor takes them of a whole machine."""

_REMEMBERED_RUNS = 1000

logger = logging.getLogger("agseg.batch.node")


class Answer(StrEnum):
    """How a Dask task ends: ``kind`` of the JSON-able dict it returns."""

    REPORT = "report"
    """The study has its record; with ``stop`` beside it if the node cannot go on."""
    STOP = "stop"
    """The node cannot go on, and the study has no record."""
    USAGE = "usage"
    """The model cannot be made as asked on this node."""
    UNFIT = "unfit"
    """This worker does not see what the run's process sees."""
    LEFT = "left"
    """The node was told to end before it came to the study."""


@runtime_checkable
class Placed(Protocol):
    """A model factory that wants to know where it runs."""

    def on_node(self, threads: int) -> ModelFactory:
        """The factory for a worker with so many threads."""
        ...


@dataclass(frozen=True)
class Probe:
    """What a worker must see: a marker in the output folder, with its content, and the files of one study."""

    marker: Path
    token: str
    sample: StudyTask
    version: str = __version__

    def problem(self) -> str | None:
        """Why this process cannot take part, or None."""
        if self.version != __version__:
            return f"it runs agseg {__version__}, this run agseg {self.version}"
        try:
            if self.marker.read_text(encoding="ascii") != self.token:
                return "its folder of the output's name is another folder"
            beside = self.marker.parent / temporary_name()
            beside.mkdir(mode=0o700)
            beside.rmdir()
        except OSError as error:
            return f"it cannot use the output folder ({type(error).__name__})"
        try:
            check_unchanged(self.sample.study, self.sample.states)
        except AgsegError:
            return "it does not see the input files as this process does"
        return None


@dataclass(frozen=True)
class Order:
    """What a run tells each node: its id (and event topic), the job, and what must be seen."""

    run: str
    job: BatchJob
    probe: Probe


@dataclass
class _Held:
    """A study in the node's hands."""

    key: str
    task: StudyTask
    future: Future[dict[str, Any]] = field(default_factory=Future)


_NODES: dict[tuple[str, str], Node] = {}
_HALTED: deque[str] = deque(maxlen=_REMEMBERED_RUNS)
_LOCK = threading.Lock()


def look_around(probe: Probe) -> str | None:
    """Run on every worker before it gets work: why it cannot take part, or None."""
    return probe.problem()


def process(payload: bytes, order: bytes) -> dict[str, Any]:
    """Do one study; the body of a Dask task.

    Parameters
    ----------
    payload, order
        A pickled :class:`StudyTask` and :class:`Order`. Bytes, so that the scheduler carries them without opening them.

    Returns
    -------
    answer
        JSON-able; see :class:`Answer`. Never voxels.
    """
    distributed = import_module("distributed")
    worker = distributed.get_worker()
    key = str(worker.get_current_task())
    # Both come from the run's own process over Dask's channel, which is trusted to run code anyway.
    task, told = pickle.loads(payload), pickle.loads(order)  # noqa: S301
    distributed.secede()
    while True:
        node = _node_of(worker, told)
        answer: dict[str, Any] = {"kind": Answer.LEFT} if node is None else node.do(key, task)
        if answer.pop("retry", False):
            continue
        return {**answer, "kind": str(answer["kind"]), "worker": worker.address}


async def halt(run: str, stop: dict[str, str], dask_worker: Any) -> None:
    """Tell this worker's node of the run to end; runs beside the tasks, in the worker's event loop."""
    with _LOCK:
        if run not in _HALTED:
            _HALTED.append(run)
        node = _NODES.get((dask_worker.address, run))
    if node is not None:
        node.halt(Stop.from_dict(stop))


def _node_of(worker: Any, order: Order) -> Node | None:
    """The worker's node for the run, made if need be; None if the run is over."""
    place = (worker.address, order.run)
    with _LOCK:
        if order.run in _HALTED:
            return None
        node = _NODES.get(place)
        if node is None or node.closed:
            node = _NODES[place] = Node(order, worker)
        return node


class Node:
    """One run's processes on one Dask worker.

    Parameters
    ----------
    order
        What the run told.
    worker
        The ``distributed.Worker``.
    """

    def __init__(self, order: Order, worker: Any) -> None:
        self.closed = False
        self._order, self._worker = order, worker
        self._lock = threading.Lock()
        self._inbox: deque[_Held] = deque()
        self._held: dict[str, _Held] = {}
        self._done: list[tuple[_Held, dict[str, Any]]] = []
        self._stop: Stop | None = None
        self._bell, self._cord = multiprocessing.Pipe(duplex=False)
        self._thread = threading.Thread(target=self._serve, name="agseg-node", daemon=True)
        self._thread.start()

    def do(self, key: str, task: StudyTask) -> dict[str, Any]:
        """Have one study done; blocks until its answer is there."""
        published = published_by_this_run(task)
        if published is not None:
            # Another worker finished it and died before it could say so.
            report = replace(published, extra={})  # what describes the record, not the study, stays there
            return {"kind": Answer.REPORT, "report": report.to_dict(), "blame": str(Fault.NONE)}
        with self._lock:
            if self.closed:
                return {"kind": Answer.LEFT, "retry": True}
            held = self._held.get(task.output)
            if held is None:
                held = self._held[task.output] = _Held(key, task)
                self._inbox.append(held)
            else:
                # Given a second time while the first is under way: one result serves both.
                held.key = key
        self._ring()
        return held.future.result()

    def halt(self, stop: Stop) -> None:
        """End as the supervisor does: at once for a signal, after the study in the model for the deadline."""
        if self._stop is None or stop.blame is Fault.SIGNAL:
            self._stop = stop
        self._ring()

    def _ring(self) -> None:
        with self._lock:
            if not self.closed:
                self._cord.send_bytes(b".")

    def _serve(self) -> None:
        """The node's thread: it starts the children, so they live as long as it does."""
        supervisor: Supervisor | None = None
        last: dict[str, Any] = {"kind": Answer.LEFT}
        try:
            problem = self._order.probe.problem()
            if problem is not None:
                last = {"kind": Answer.UNFIT, "why": problem}
                return
            supervisor = self._supervisor()
            idle_since = time.monotonic()
            while time.monotonic() - idle_since < _IDLE_S:
                while self._inbox:
                    supervisor.add([self._inbox.popleft().task])
                self._look_who_waits()
                if self._stop is not None and not self._held:
                    return
                supervisor.turn()
                self._answer(supervisor)
                if self._held:
                    idle_since = time.monotonic()
        except Stop as ended:
            if self._stop is None:
                last = {"kind": Answer.STOP, **ended.to_dict()}
        except UsageError as error:
            last = {"kind": Answer.USAGE, "message": error.message, "code": str(error.code), "hint": error.hint}
        except Exception as error:
            logger.exception("the node cannot go on")
            message = f"unexpected {type(error).__name__} on a worker; this is a bug, run this study again with --debug"
            stop = Stop(Code.INTERNAL, message, status=StudyStatus.FAILED, blame=Fault.BUG)
            last = {"kind": Answer.STOP, **stop.to_dict()}
        finally:
            self._close(supervisor, last)

    def _supervisor(self) -> Supervisor:
        job = self._order.job
        threads = self._worker.state.nthreads
        model = job.model.on_node(threads) if isinstance(job.model, Placed) else job.model
        limits = _within(job.limits, self._worker.memory_manager.memory_limit)
        supervisor = Supervisor(
            replace(job, model=model, limits=limits),
            should_stop=lambda: self._stop,
            on_stage=self._on_stage,
            on_end=self._on_end,
        )
        supervisor.bell = self._bell
        return supervisor

    def _on_stage(self, task: StudyTask, stage: str) -> None:
        # The key, not the study: what is logged can be seen on the scheduler's dashboard.
        held = self._held.get(task.output)
        if held is not None:
            self._worker.log_event(self._order.run, {"key": held.key, "stage": stage, "worker": self._worker.address})

    def _on_end(self, task: StudyTask, report: StudyReport, blame: Fault) -> None:
        self._done.append((self._held[task.output], {"kind": Answer.REPORT, "report": report.to_dict(), "blame": str(blame)}))

    def _answer(self, supervisor: Supervisor | None, stop: dict[str, Any] | None = None) -> None:
        """Give the answers of this turn; a turn that ended the node says so with each."""
        for held, answer in self._done:
            del self._held[held.task.output]
            environment = {} if supervisor is None else supervisor.environment
            held.future.set_result({**answer, "environment": environment, **({"stop": stop} if stop else {})})
        self._done.clear()

    def _look_who_waits(self) -> None:
        """A study that Dask has taken back is no longer this node's: its run is gone, or has given it to another."""
        tasks = self._worker.state.tasks
        for held in tuple(self._held.values()):
            found = tasks.get(held.key)
            if found is None or found.state not in _WANTED:
                self._stop = Stop(Code.INTERRUPTED, "the run is gone", status=StudyStatus.DEFERRED, blame=Fault.SIGNAL)

    def _close(self, supervisor: Supervisor | None, last: dict[str, Any]) -> None:
        if supervisor is not None:
            supervisor.close()
        with self._lock:
            self.closed = True
            self._bell.close()
            self._cord.close()
        self._answer(supervisor, last if last["kind"] == Answer.STOP else None)
        for held in tuple(self._held.values()):
            held.future.set_result(dict(last))
        self._held.clear()
        place = (self._worker.address, self._order.run)
        with _LOCK:
            # A study that came in this moment has made a new node already.
            if _NODES.get(place) is self:
                del _NODES[place]


def _within(limits: Limits, memory_bytes: int | None) -> Limits:
    """The limits, with the memory that the Dask worker was given."""
    if not memory_bytes:
        return limits
    return replace(
        limits,
        reader_memory_bytes=limits.reader_memory_bytes or int(memory_bytes * _READER_MEMORY_SHARE),
        model_memory_bytes=limits.model_memory_bytes or int(memory_bytes * _MODEL_MEMORY_SHARE),
    )
