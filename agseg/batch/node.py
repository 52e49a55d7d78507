"""What runs inside a Dask worker: the same reader and model processes as on one machine, fed by Dask tasks.

Each run registers one :class:`NodePlugin` with its cluster; Dask sets it up on every worker, those that join later included. A
worker that sees the run's folders offers *slots* for it, a Dask resource, so Dask itself decides who may get a study, and gives
the studies of a worker that died to another one. The plugin drives a :class:`~agseg.batch.supervise.Supervisor` in a thread of
its own, so a study that crashes, hangs or grows costs what it costs on one machine, never the worker, and weights are loaded
once per worker. Studies are read ahead of the model because a waiting task gives its thread back (``secede``).

The children end when the run says so, when Dask no longer wants a study that the node holds (the run's process was killed),
when the worker dies, or when no study came for a while.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import pickle
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import distributed

from agseg.batch.folder import published_by_this_run
from agseg.batch.job import BatchJob, Limits, ModelFactory, StudyTask
from agseg.batch.outcome import Fault
from agseg.batch.probe import Probe
from agseg.batch.run_aborted import RunAborted
from agseg.batch.supervise import Supervisor
from agseg.errors import Code, UsageError
from agseg.report import StudyReport, StudyStatus

_IDLE_S = 60.0
"""A node without a study for this long ends its processes and gives the device back; the next study starts new ones."""

_WANTED = frozenset({"executing", "long-running", "resumed"})
"""States of a Dask task, on its worker, whose result somebody still waits for."""

_READER_MEMORY_SHARE = 0.5
_MODEL_MEMORY_SHARE = 0.9
"""Shares of what a Dask worker may use (``--memory-limit``), as the supervisor takes them of a whole machine."""

logger = logging.getLogger("agseg.batch.node")


@runtime_checkable
class Placed(Protocol):
    """A model factory that depends on the worker it runs on."""

    def on_node(self, threads: int) -> ModelFactory:
        """The factory for a worker with so many threads."""
        ...


Answer = Future[dict[str, Any] | None]
"""How a study ended, to come; None when another worker has to do it."""


@dataclass
class _Held:
    """A study that the node works on."""

    key: str
    task: StudyTask
    future: Answer = field(default_factory=Future)


def do_study(run: str, payload: bytes) -> dict[str, Any]:
    """Do one study; the body of a Dask task.

    Parameters
    ----------
    run
        Name of the run's plugin.
    payload
        A pickled :class:`StudyTask`: bytes, so that the scheduler carries them without opening them.

    Returns
    -------
    answer
        JSON-able: ``report``, ``blame``, ``environment`` and ``worker``. Never voxels. ``report`` is None if the run said that
        it ends before the study was done.

    Raises
    ------
    distributed.Reschedule
        If this worker cannot do it; Dask gives it to another one.
    """
    worker: Any = distributed.get_worker()
    key = str(worker.get_current_task())
    plugin: NodePlugin | None = worker.plugins.get(run)
    # It comes from the run's own process over Dask's channel, which is trusted to run code anyway.
    task = pickle.loads(payload)  # noqa: S301
    # Taken before the thread is given back, so that the node gets studies in the order in which Dask begins them.
    future = None if plugin is None else plugin.take(key, task)
    distributed.secede()  # type: ignore[no-untyped-call]
    answer = None if future is None else future.result()
    if answer is None and (plugin is None or not plugin.over):
        raise distributed.Reschedule
    return {"report": None, **(answer or {}), "worker": worker.address}


async def halt(run: str, stop: dict[str, str], dask_worker: Any) -> None:
    """Tell this worker's node to end; runs beside the tasks, in the worker's event loop."""
    plugin = dask_worker.plugins.get(run)
    if plugin is not None:
        plugin.halt(RunAborted.from_dict(stop))


class NodePlugin(distributed.WorkerPlugin):
    """One run on one Dask worker.

    Parameters
    ----------
    run
        The run's name: of this plugin, of its event topic, and of the resource that its studies ask for.
    job
        What to do.
    probe
        What the worker must see.
    """

    def __init__(self, run: str, job: BatchJob, probe: Probe) -> None:
        self.name = self.run = run
        self.job, self.probe = job, probe
        self.over = False
        """Whether the run said that it ends."""
        self._closed = False
        self._node: Node | None = None

    async def setup(self, worker: Any) -> None:
        """Called by Dask on each worker: offer slots if it sees what the run's process sees, and tell the run either way."""
        self._worker, self._lock = worker, threading.Lock()
        problem = await asyncio.to_thread(self.probe.problem)
        if problem is None:
            await worker.set_resources(**{self.run: self.job.limits.ahead + 1})
        self.tell(unfit=problem)

    def teardown(self, worker: Any) -> None:
        """Called by Dask when the run is over, or the worker ends in order."""
        self.halt(RunAborted(Code.INTERRUPTED, "the run is over", status=StudyStatus.DEFERRED, blame=Fault.SIGNAL))

    def take(self, key: str, task: StudyTask) -> Answer | None:
        """Have one study done; its answer comes later. None if this worker takes no more."""
        published = published_by_this_run(task)
        if published is not None:
            # Another worker finished it and died before its answer was out.
            report = replace(published, extra={})
            found: Answer = Future()
            found.set_result({"report": report.to_dict(), "blame": str(Fault.NONE), "environment": {}})
            return found
        while not self._closed:
            with self._lock:
                if self._node is None or self._node.closed:
                    self._node = Node(self, self._worker)
                future = self._node.add(key, task)
            if future is not None:
                return future
        return None

    def halt(self, stop: RunAborted) -> None:
        """End as the supervisor does: at once for a signal, after the study in the model for the deadline."""
        self.over = self._closed = True
        with self._lock:
            if self._node is not None:
                self._node.halt(stop)

    def give_up(self, **why: Any) -> None:
        """Take no further study, and tell the run why."""
        self._closed = True
        self._worker.loop.add_callback(self._worker.set_resources, **{self.run: 0})
        self.tell(**why)

    def tell(self, **event: Any) -> None:
        """Send an event to the run's process."""
        self._worker.log_event(self.run, {"worker": self._worker.address, **event})


class Node:
    """The processes of a run on a worker, from the first study until none comes any more.

    Parameters
    ----------
    plugin
        Whose studies these are.
    worker
        The ``distributed.Worker``.
    """

    def __init__(self, plugin: NodePlugin, worker: Any) -> None:
        self.closed = False
        self._plugin, self._worker = plugin, worker
        self._lock = threading.Lock()
        self._held: dict[str, _Held] = {}
        self._done: list[tuple[_Held, dict[str, Any]]] = []
        self._stop: RunAborted | None = None
        self._supervisor = self._make_supervisor()
        self._supervisor.wake, self._waker = multiprocessing.Pipe(duplex=False)
        threading.Thread(target=self._serve, name="agseg-node", daemon=True).start()

    def add(self, key: str, task: StudyTask) -> Answer | None:
        """Take a study; None if the node has closed meanwhile."""
        with self._lock:
            if self.closed:
                return None
            held = self._held.get(task.output)
            if held is None:
                held = self._held[task.output] = _Held(key, task)
                self._supervisor.add([task])
            else:
                # Given a second time while the first is under way: one result serves both.
                held.key = key
            self._waker.send_bytes(b".")
            return held.future

    def halt(self, stop: RunAborted) -> None:
        """See :meth:`NodePlugin.halt`."""
        if self._stop is None or stop.blame is Fault.SIGNAL:
            self._stop = stop
        with self._lock:
            if not self.closed:
                self._waker.send_bytes(b".")

    def _serve(self) -> None:
        """The node's thread: it starts the children, so they live as long as it does."""
        try:
            self._turn_until_idle()
        except RunAborted as ended:
            if self._stop is None:
                self._plugin.give_up(stop=ended.to_dict())
        except UsageError as error:
            self._plugin.give_up(usage={"message": error.message, "code": str(error.code), "hint": error.hint})
        except Exception as error:
            logger.exception("the node cannot continue")
            message = f"unexpected {type(error).__name__} on a worker; this is a bug, run this study again with --debug"
            self._plugin.give_up(stop=RunAborted(Code.INTERNAL, message, status=StudyStatus.FAILED, blame=Fault.BUG).to_dict())
        finally:
            self._supervisor.close()
            with self._lock:
                self.closed = True
                self._waker.close()
            self._answer()
            for held in tuple(self._held.values()):
                held.future.set_result(None)

    def _turn_until_idle(self) -> None:
        idle_since = time.monotonic()
        while time.monotonic() - idle_since < _IDLE_S:
            self._check_who_waits()
            if self._stop is not None and not self._held:
                return
            self._supervisor.turn()
            self._answer()
            if self._held:
                idle_since = time.monotonic()

    def _make_supervisor(self) -> Supervisor:
        job = self._plugin.job
        model = job.model.on_node(self._worker.state.nthreads) if isinstance(job.model, Placed) else job.model
        limits = _within(job.limits, self._worker.memory_manager.memory_limit)
        return Supervisor(
            replace(job, model=model, limits=limits),
            should_stop=lambda: self._stop,
            on_stage=self._on_stage,
            on_end=self._on_end,
        )

    def _on_stage(self, task: StudyTask, stage: str) -> None:
        # The key, not the study: what is logged can be seen on the scheduler's dashboard.
        held = self._held.get(task.output)
        if held is not None:
            self._plugin.tell(key=held.key, stage=stage)

    def _on_end(self, task: StudyTask, report: StudyReport, blame: Fault) -> None:
        self._done.append((self._held[task.output], {"report": report.to_dict(), "blame": str(blame)}))

    def _answer(self) -> None:
        """Hand out the answers of this turn."""
        for held, answer in self._done:
            del self._held[held.task.output]
            held.future.set_result({**answer, "environment": self._supervisor.environment})
        self._done.clear()

    def _check_who_waits(self) -> None:
        """A study that Dask has taken back is no longer this node's: its run is gone, or has given it to another."""
        tasks = self._worker.state.tasks
        for held in tuple(self._held.values()):
            found = tasks.get(held.key)
            if found is None or found.state not in _WANTED:
                self._stop = RunAborted(Code.INTERRUPTED, "the run is gone", status=StudyStatus.DEFERRED, blame=Fault.SIGNAL)


def _within(limits: Limits, memory_bytes: int | None) -> Limits:
    """The limits, with the memory that the Dask worker was given."""
    if not memory_bytes:
        return limits
    return replace(
        limits,
        reader_memory_bytes=limits.reader_memory_bytes or int(memory_bytes * _READER_MEMORY_SHARE),
        model_memory_bytes=limits.model_memory_bytes or int(memory_bytes * _MODEL_MEMORY_SHARE),
    )
