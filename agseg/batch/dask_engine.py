"""Does a run's studies on a Dask cluster. This process keeps the lock, decides, and writes the one record.

Each study is one Dask task for one chosen worker. A worker holds few studies at a time (one in the model, some read ahead),
the rest wait here: the scheduler never knows more than is under way. Answers are JSON-able records; masks go straight to the
shared output folder.
"""

from __future__ import annotations

import logging
import math
import pickle
import queue
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from agseg.batch.cluster import Cluster, ClusterKind
from agseg.batch.job import BatchJob, StudyTask
from agseg.batch.node import Answer, Order, Probe, halt, process
from agseg.batch.outcome import Failure, Fault
from agseg.batch.output import temporary_name
from agseg.batch.rota import Rota
from agseg.batch.stop import Stop
from agseg.batch.workforce import Workforce, ask
from agseg.errors import Code, UsageError
from agseg.report import StudyReport, StudyStatus

__all__ = ["DaskEngine"]

_TICK_S = 0.25
_FIRST_WORKER_S = 60.0
"""How long a scheduler that runs already may be without workers. Jobs of a queue of our own may wait as long as they must."""

_NO_WORKER_S = 600.0
"""How long a run waits in the middle for a worker to come back."""

_FETCH_S = 10.0
"""How long an answer may take to come over."""

_TELL_S = 3.0
_FAREWELL_S = 3.0
"""How long workers may take to hear that the run ends, and to end their processes. SIGTERM leaves a run 10 s."""

logger = logging.getLogger("agseg.batch.dask")


@dataclass
class _Flight:
    """A study that a worker has, or is about to have."""

    task: StudyTask
    worker: str
    future: Any
    alone: bool = False
    begun: bool = False


class DaskEngine:
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
        should_stop: Callable[[], Stop | None],
        on_stage: Callable[[StudyTask, str], None],
        on_end: Callable[[StudyTask, StudyReport, Fault], None],
        cluster: Cluster,
    ) -> None:
        self.job, self.cluster = job, cluster
        self.should_stop, self.on_stage, self.on_end = should_stop, on_stage, on_end
        self.environment: dict[str, Any] = {}
        self._run = f"agseg-{secrets.token_hex(8)}"
        self._rota = Rota()
        self._flights: dict[str, _Flight] = {}
        self._said: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._told: Stop | None = None
        self._answered = 0
        self._seen: dict[str, set[str]] = {}
        self._used: set[str] = set()

    def prepare(self) -> None:
        """Nothing: workers load the weights when they get their first study."""

    def close(self) -> None:
        """Nothing."""

    def run(self, tasks: Iterable[StudyTask]) -> tuple[Stop | None, tuple[StudyTask, ...]]:
        """Do the studies; see :class:`agseg.batch.engines.Engine`.

        Raises
        ------
        UsageError
            If there is no cluster, a worker does not see the input or the output, or no worker can do what was asked.
        """
        self._rota.add(tasks)
        if not self._rota:
            return None, ()
        sample = self._rota.pending[0]
        with self.cluster.connect(sample.root) as client, self._probe(sample) as probe:
            self._client = client
            self._order = pickle.dumps(Order(self._run, replace(self.job, inputs=()), probe))
            self._client.subscribe_topic(self._run, lambda event: self._said.put(event[1]))
            self._workforce = Workforce(client, probe, ahead=self.job.limits.ahead, use_gpus=self.cluster.use_gpus)
            try:
                self._await_workers()
                while self._rota or self._flights:
                    self._turn()
            except Stop as stop:
                return stop, self._say_farewell(stop)
            finally:
                self._tell_nodes(_over())
                self._describe()
        return None, ()

    @contextmanager
    def _probe(self, sample: StudyTask) -> Iterator[Probe]:
        """A marker in the output folder: a worker that can read it sees the same folder, as the same user."""
        marker, token = sample.root / temporary_name(), secrets.token_hex(16)
        marker.write_text(token, encoding="ascii")
        try:
            yield Probe(marker, token, sample)
        finally:
            marker.unlink(missing_ok=True)

    # -- workers ----------------------------------------------------------------------------------------------------

    def _await_workers(self) -> None:
        """Wait for the first workers; all that are there must see what this process sees."""
        began = time.monotonic()
        said = False
        while not self._workforce.look(at_once=True) and not self._workforce.unfit:
            stop = self.should_stop()
            if stop is not None:
                raise stop
            if time.monotonic() - began > _FIRST_WORKER_S:
                if self.cluster.kind is ClusterKind.SCHEDULER:
                    hint = f"Start some: dask worker {self.cluster.address}"
                    raise UsageError("the scheduler has no workers", value=self.cluster.address, hint=hint)
                if not said:
                    logger.warning("no worker yet after %d s; the run waits (--deadline limits it)", _FIRST_WORKER_S)
                said = True
            time.sleep(_TICK_S)
        for why in self._workforce.unfit.values():
            raise why

    def _look_for_workers(self) -> None:
        """See who came and went; end the run if nobody is left."""
        if self._client.status != "running":
            raise _nobody("the connection to the scheduler is lost")
        there = self._workforce.look()
        for key, flight in tuple(self._flights.items()):
            if not self._workforce.is_there(flight.worker):
                del self._flights[key]
                flight.future.cancel()
                self._lost(flight)
        if there or self._flights:
            return
        for why in self._workforce.unfit.values():
            raise why if isinstance(why, Stop) or not self._answered else _nobody("no worker can go on")
        if self._workforce.alone_s > _NO_WORKER_S:
            raise _nobody("the cluster has no worker left")

    # -- giving work and hearing of it ------------------------------------------------------------------------------

    def _turn(self) -> None:
        stop = self.should_stop()
        if stop is None:
            self._look_for_workers()
            self._give_work()
        else:
            if self._told is None:
                self._told = stop
                self._tell_nodes(stop)
                self._recall()
            if stop.blame is Fault.SIGNAL or not self._flights:
                raise stop
        self._listen()

    def _give_work(self) -> None:
        load: dict[str, float] = {}
        for flight in self._flights.values():
            load[flight.worker] = load.get(flight.worker, 0) + (math.inf if flight.alone else 1)
        while self._rota.pending:
            worker = self._workforce.free(load)
            if worker is None:
                return
            load[worker] = load.get(worker, 0) + 1
            self._send(worker)
        while self._rota.suspects:
            worker = self._workforce.free(load)
            if worker is None or load.get(worker, 0):
                return
            load[worker] = math.inf
            self._send(worker, alone=True)

    def _send(self, worker: str, *, alone: bool = False) -> None:
        task = self._rota.take(alone=alone)
        # No study's name in the key: keys are seen on the scheduler's dashboard and in its log.
        key = f"{self._run}-{self._rota.given}"
        future = self._client.submit(
            process,
            pickle.dumps(task),
            self._order,
            key=key,
            # Only there: what becomes of it if that worker dies is decided here, not by the scheduler's settings.
            workers=[worker],
            resources=self._workforce.resources() or None,
            pure=False,
        )
        self._flights[key] = _Flight(task, worker, future, alone)
        future.add_done_callback(self._said.put)

    def _recall(self) -> None:
        """Take back what no worker has begun."""
        for key, flight in tuple(self._flights.items()):
            if not flight.begun:
                del self._flights[key]
                self._rota.add([flight.task])
                flight.future.cancel()

    def _listen(self) -> None:
        """Hear what is there, or wait a tick for it."""
        with suppress(queue.Empty):
            self._hear(self._said.get(timeout=_TICK_S))
            while True:
                self._hear(self._said.get_nowait())

    def _hear(self, said: Any) -> None:
        if isinstance(said, dict):
            flight = self._flights.get(said["key"])
            if flight is not None:
                flight.begun = True
                self.on_stage(flight.task, said["stage"])
            return
        flight = self._flights.pop(said.key, None)
        if flight is None:
            return
        if said.status == "finished":
            try:
                answer = said.result(timeout=_FETCH_S)
            except Exception:
                # Its worker died with the answer; whoever does it again finds the finished study.
                self._settle(flight.task, self._rota.again(flight.task))
                return
            self._take(flight, answer)
        elif said.status == "error":
            self._erred(flight, said.exception())
        else:
            self._settle(flight.task, self._rota.again(flight.task))

    def _take(self, flight: _Flight, answer: dict[str, Any]) -> None:
        kind, task = answer["kind"], flight.task
        self._note(answer)
        if kind == Answer.REPORT:
            self._answered += 1
            self.on_end(task, StudyReport.from_dict(answer["report"]), Fault(answer["blame"]))
        elif self._told is not None:
            self._rota.add([task])
        else:
            self._settle(task, self._rota.again(task))
        why = _why(answer)
        if why is None:
            return
        if isinstance(why, Stop) and why.blame is Fault.OUTPUT:
            # The folder is everybody's: no other worker would fare better.
            raise why
        logger.warning("a worker takes no further part: %s", why)
        self._workforce.exclude(answer["worker"], why)

    def _erred(self, flight: _Flight, error: BaseException | None) -> None:
        """Dask could not do it: its worker died and came back under the same name, or something is wrong with agseg."""
        if type(error).__name__ == "KilledWorker":
            self._lost(flight)
            return
        message = f"unexpected {type(error).__name__} on a worker; this is a bug, run this study again with --debug"
        self._settle(flight.task, Failure(StudyStatus.FAILED, Code.INTERNAL, message, Fault.BUG))

    def _lost(self, flight: _Flight) -> None:
        self._settle(flight.task, self._rota.lost(flight.task, alone=flight.alone))

    def _settle(self, task: StudyTask, failure: Failure | None) -> None:
        """Record the study's end if it is not to be given out again."""
        if failure is not None:
            self.on_end(task, failure.report(task.study), failure.blame)

    # -- the record and the end -------------------------------------------------------------------------------------

    def _note(self, answer: dict[str, Any]) -> None:
        """What the studies were computed on."""
        self._used.add(answer["worker"])
        for name, value in answer.get("environment", {}).items():
            self._seen.setdefault(name, set()).add(str(value))

    def _describe(self) -> None:
        """The environment as if it were one machine: where workers differ, all that was found."""
        self.environment = {name: ", ".join(sorted(values)) for name, values in sorted(self._seen.items())}
        self.environment["cluster"] = {"kind": str(self.cluster.kind), "workers": len(self._used)}

    def _say_farewell(self, stop: Stop) -> tuple[StudyTask, ...]:
        """End the workers' processes, take the answers that still come, and say which studies are left."""
        self._told = stop
        self._tell_nodes(stop if stop.blame is Fault.SIGNAL else _over())
        until = time.monotonic() + _FAREWELL_S
        while self._flights and time.monotonic() < until:
            with suppress(Stop):
                self._listen()
        for flight in self._flights.values():
            flight.future.cancel()
        return (*(flight.task for flight in self._flights.values()), *self._rota.left)

    def _tell_nodes(self, stop: Stop) -> None:
        ask(self._client, halt, self._run, stop.to_dict(), workers=None, timeout_s=_TELL_S)


def _over() -> Stop:
    return Stop(Code.INTERRUPTED, "the run is over", status=StudyStatus.DEFERRED, blame=Fault.SIGNAL)


def _nobody(why: str) -> Stop:
    return Stop(Code.CRASHED, f"{why}; the next run takes this study", status=StudyStatus.DEFERRED, blame=Fault.BUG)


def _why(answer: dict[str, Any]) -> Stop | UsageError | None:
    """Why the worker that gave this answer cannot go on, if so."""
    told = answer if answer["kind"] == Answer.STOP else answer.get("stop")
    if told is not None:
        return Stop.from_dict(told)
    if answer["kind"] == Answer.USAGE:
        return UsageError(answer["message"], code=Code(answer["code"]), hint=answer["hint"])
    if answer["kind"] == Answer.UNFIT:
        return UsageError(f"a worker cannot take part: {answer['why']}")
    return None
