"""Runs the studies of a batch on a Dask cluster. This process holds the lock, decides, and writes the one record.

Each study is one Dask task for the least busy worker. Dask says who is there, which workers may take it (a resource that
:class:`agseg.batch.node.NodePlugin` offers on workers that see the run's folders), tries again what failed, and carries events
of workers here. This module keeps a few studies per worker under way, so that a run of many thousands does not sit in memory of
the scheduler, and turns answers into records. Answers are JSON-able; masks go straight to the shared output folder.
"""

from __future__ import annotations

import logging
import math
import pickle
import secrets
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from agseg.batch.cluster import Cluster, ClusterKind
from agseg.batch.dask_calls import RunEvents, call_within
from agseg.batch.dask_workers import GPU, DaskWorkers, cannot_take_part, nobody_left
from agseg.batch.job import BatchJob, StudyTask
from agseg.batch.outcome import Failure, Fault
from agseg.batch.probe import Probe, laid_out
from agseg.batch.run_aborted import RunAborted
from agseg.errors import Code, UsageError
from agseg.report import StudyReport, StudyStatus

_TICK_S = 0.25
_SETUP_S = 30.0
"""How long workers may take to say whether they see the run's folders (they may be importing)."""

_FIRST_WORKER_S = 60.0
"""How long a scheduler that runs already may be without workers. Jobs of a queue of our own may wait as long as they must."""

_FETCH_S = 10.0
"""How long an answer may take to come over."""

_SHUTDOWN_S = 3.0
"""How long workers may take to hear that the run ends, and to end their processes. SIGTERM leaves a run 10 s."""

_RETRIES = 5
"""How often Dask tries a study again that ended with an exception instead of an answer."""

_SHARED_DEATHS = 2
"""A study that lost this many workers, which held others too, is tried alone: which of them was to blame cannot be seen."""

_SHARES = 1 << 20
"""A share of a GPU is a multiple of 1 / this, so that shares add up exactly."""

logger = logging.getLogger("agseg.batch.dask")


@dataclass
class _Flight:
    """A study that Dask has."""

    task: StudyTask
    worker: str
    future: Any
    alone: bool


class DaskExecutor:
    """One run on one cluster.

    Parameters
    ----------
    job, should_stop, on_stage, on_end
        As for :class:`agseg.batch.supervise.Supervisor`.
    cluster
        Where the workers are.
    """

    def __init__(
        self,
        job: BatchJob,
        *,
        should_stop: Callable[[], RunAborted | None],
        on_stage: Callable[[StudyTask, str], None],
        on_end: Callable[[StudyTask, StudyReport, Fault], None],
        cluster: Cluster,
    ) -> None:
        self.job, self.cluster = job, cluster
        self.should_stop, self.on_stage, self.on_end = should_stop, on_stage, on_end
        self.environment: dict[str, Any] = {}
        self._run = f"agseg-{secrets.token_hex(8)}"
        self._slots = job.limits.ahead + 1
        self._pending: deque[StudyTask] = deque()
        self._suspects: deque[StudyTask] = deque()
        self._flights: dict[str, _Flight] = {}
        self._submitted = 0
        self._deaths: Counter[str] = Counter()
        self._events = RunEvents(self._run)
        self._announced: RunAborted | None = None
        self._workers = DaskWorkers(use_gpus=cluster.use_gpus)

    def prepare(self) -> None:
        """Nothing: workers load the weights when they get their first study."""

    def close(self) -> None:
        """Nothing."""

    def run(self, tasks: Iterable[StudyTask]) -> tuple[RunAborted | None, tuple[StudyTask, ...]]:
        """Do the studies; see :class:`agseg.batch.executors.Executor`.

        Raises
        ------
        UsageError
            If there is no cluster, a worker does not see the input or the output, or no worker can do what was asked.
        """
        self._pending.extend(tasks)
        if not self._pending:
            return None, ()
        sample = self._pending[0]
        with self.cluster.connect(sample.root) as client, laid_out(sample) as probe:
            self._client = client
            try:
                self._events.subscribe(client, within_s=_SETUP_S)
                self._register(probe)
                self._await_workers()
                while self._pending or self._suspects or self._flights:
                    self._turn()
            except RunAborted as stop:
                return stop, self._end_workers(stop)
            finally:
                call_within(_SHUTDOWN_S, client.unregister_worker_plugin, self._run)
                cluster = {"kind": str(self.cluster.kind), "workers": len(self._workers.used)}
                self.environment = {**self._workers.environment, "cluster": cluster}
        return None, ()

    # -- workers ----------------------------------------------------------------------------------------------------

    def _register(self, probe: Probe) -> None:
        """Have Dask set the run up on every worker, and on those that join later."""
        from agseg.batch.node import NodePlugin

        plugin = NodePlugin(self._run, replace(self.job, inputs=()), probe)
        try:
            call_within(_SETUP_S, self._client.register_plugin, plugin, self._run)
        except (ImportError, AttributeError) as error:
            raise cannot_take_part("a worker", "it does not have this version of agseg") from error

    def _await_workers(self) -> None:
        """Wait for the first workers; all that are there must see what this process sees."""
        began, warned = time.monotonic(), False
        while True:
            self._listen()
            known = self._look()
            waited_s = time.monotonic() - began
            if known and (self._workers.have_all_told(known) or waited_s > _SETUP_S):
                break
            stop = self.should_stop()
            if stop is not None:
                raise stop
            if not known and waited_s > _FIRST_WORKER_S and self.cluster.kind is ClusterKind.SCHEDULER:
                hint = f"Start some: dask worker {self.cluster.address}"
                raise UsageError("the scheduler has no workers", value=self.cluster.address, hint=hint)
            if not known and waited_s > _FIRST_WORKER_S and not warned:
                logger.warning("no worker yet after %d s; the run waits (--deadline limits it)", _FIRST_WORKER_S)
                warned = True
        for why in self._workers.unfit.values():
            raise why

    def _look(self) -> set[str]:
        """Who is there; studies of those that are gone, or take no further part, are given to others."""
        known = self._workers.look(self._client)
        for key, flight in tuple(self._flights.items()):
            if known and flight.worker not in self._workers.fit:
                self._withdraw(key)
                if flight.worker in known:
                    # It takes no further part; the answers that it had are here by now.
                    self._pending.append(flight.task)
                else:
                    self._lost(flight)
        return known

    def _check_workers(self) -> None:
        """End the run if nobody is left."""
        if self._client.status != "running":
            raise nobody_left("the connection to the scheduler is lost")
        if self._workers.is_due:
            self._look()
        self._workers.check()

    # -- giving work and hearing of it ------------------------------------------------------------------------------

    def _turn(self) -> None:
        stop = self.should_stop()
        if stop is None:
            self._check_workers()
            self._give_work()
        else:
            if self._announced is None:
                self._announced = stop
                self._abort_nodes(stop)
            if stop.blame is Fault.SIGNAL or not self._flights:
                raise stop
        self._listen()

    def _give_work(self) -> None:
        load = Counter(flight.worker for flight in self._flights.values())
        while self._pending:
            worker = min(sorted(self._workers.eligible), key=load.__getitem__, default=None)
            if worker is None or load[worker] >= self._slots:
                return
            load[worker] += 1
            self._submit(self._pending.popleft(), worker)
        if self._suspects and self._workers.eligible and not self._flights:
            self._submit(self._suspects.popleft(), min(self._workers.eligible), alone=True)

    def _submit(self, task: StudyTask, worker: str, *, alone: bool = False) -> None:
        from agseg.batch.node import do_study

        self._submitted += 1
        # No study's name in the key: keys are seen on the scheduler's dashboard and in its log.
        key = f"{self._run}-{self._submitted}"
        resources: dict[str, float] = {self._run: self._slots if alone else 1}
        if worker in self._workers.gpus and self.cluster.use_gpus:
            # All studies that a worker holds share its GPU.
            resources[GPU] = math.floor(_SHARES / self._slots) / _SHARES
        future = self._client.submit(
            do_study,
            self._run,
            pickle.dumps(task),
            key=key,
            workers=[worker],
            resources=resources,
            retries=_RETRIES,
            pure=False,
        )
        self._flights[key] = _Flight(task, worker, future, alone)
        future.add_done_callback(self._events.put)

    def _withdraw(self, key: str) -> StudyTask:
        """Take a study from Dask."""
        flight = self._flights.pop(key)
        flight.future.cancel()
        return flight.task

    def _lost(self, flight: _Flight) -> None:
        """Its worker died: another one takes the study, unless the study is what kills them."""
        self._deaths[flight.task.output] += 1
        if flight.alone:
            message = f"each of the {self._deaths[flight.task.output]} workers that it was given to died"
            failure = Failure(StudyStatus.FAILED, Code.CRASHED, message)
            self.on_end(flight.task, failure.report(flight.task.study), failure.blame)
        elif self._deaths[flight.task.output] >= _SHARED_DEATHS:
            self._suspects.append(flight.task)
        else:
            self._pending.appendleft(flight.task)

    def _listen(self) -> None:
        """Hear what is there, or wait a tick for it."""
        for said in self._events.heard(_TICK_S):
            self._receive(said)

    def _receive(self, said: Any) -> None:
        if isinstance(said, dict):
            self._receive_event(said)
            return
        flight = self._flights.pop(said.key, None)
        if flight is None:
            return
        if said.status == "finished":
            try:
                answer = said.result(timeout=_FETCH_S)
            except Exception:
                # Its worker died with the answer; whoever does it again finds the finished study.
                self._pending.appendleft(flight.task)
            else:
                self._take(flight.task, answer)
        elif said.status == "error":
            self._erred(flight, said.exception())
        else:
            self._pending.appendleft(flight.task)

    def _receive_event(self, event: dict[str, Any]) -> None:
        """What a worker tells: a study's stage, or something about itself."""
        if "stage" not in event:
            self._workers.receive(event)
            return
        flight = self._flights.get(event["key"])
        if flight is not None:
            self.on_stage(flight.task, event["stage"])

    def _take(self, task: StudyTask, answer: dict[str, Any]) -> None:
        if answer["report"] is None:
            self._pending.append(task)
            return
        self._workers.note(answer["worker"], answer["environment"])
        self.on_end(task, StudyReport.from_dict(answer["report"]), Fault(answer["blame"]))

    def _erred(self, flight: _Flight, error: BaseException | None) -> None:
        """Dask gave the study up: its worker died and came back under the same name, or something is wrong with agseg."""
        if type(error).__name__ == "KilledWorker":
            self._lost(flight)
            return
        message = f"unexpected {type(error).__name__} on a worker; this is a bug, run this study again with --debug"
        failure = Failure(StudyStatus.FAILED, Code.INTERNAL, message, Fault.BUG)
        self.on_end(flight.task, failure.report(flight.task.study), failure.blame)

    # -- the record and the end -------------------------------------------------------------------------------------

    def _end_workers(self, stop: RunAborted) -> tuple[StudyTask, ...]:
        """End the workers' processes, take the answers that still come, and say which studies are left."""
        self._abort_nodes(stop if stop.blame is Fault.SIGNAL else _over())
        until = time.monotonic() + _SHUTDOWN_S
        while self._flights and time.monotonic() < until and self._client.status == "running":
            with suppress(RunAborted):
                self._listen()
        self._pending.extend(self._withdraw(key) for key in tuple(self._flights))
        return (*self._pending, *self._suspects)

    def _abort_nodes(self, stop: RunAborted) -> None:
        from agseg.batch.node import halt

        with suppress(Exception):  # a worker that leaves in this moment
            call_within(_SHUTDOWN_S, self._client.run, halt, self._run, stop.to_dict(), on_error="ignore")


def _over() -> RunAborted:
    return RunAborted(Code.INTERRUPTED, "the run is over", status=StudyStatus.DEFERRED, blame=Fault.SIGNAL)
