"""Function calls in a child process, for questions about untrusted files: the parent opens none of them.

A child that dies, hangs or grows costs the file that it was at. The answer comes as JSON; the parent unpickles nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from agseg.batch.child import MessageKind, Role
from agseg.batch.marker import Marker
from agseg.batch.outcome import Failure
from agseg.batch.supervise import how_it_ended
from agseg.batch.worker import ChildExited, Worker
from agseg.errors import AgsegError, Code, UsageError
from agseg.io.watch import NO_FILE

_TICK_S = 0.1
"""How often clock and memory are looked at while the child works."""


@dataclass(frozen=True)
class CallLimits:
    """What a child may cost.

    Parameters
    ----------
    memory_bytes
        Largest resident memory, and how much more address space it may take than it has at its start.
    file_s
        Seconds without a sign of life at one file.
    start_s
        Seconds until it is ready.
    """

    memory_bytes: int
    file_s: float = 120.0
    start_s: float = 120.0


class Lost(Exception):  # noqa: N818
    """The child has ended, or was ended, before it answered.

    ``number`` is the file that it was at, or :data:`~agseg.io.watch.NO_FILE`; ``code`` and ``message`` say why.
    """

    def __init__(self, number: int, code: Code, message: str) -> None:
        super().__init__(message)
        self.number, self.code, self.message = number, code, message


class Calls:
    """A child process that calls functions; started by :meth:`start` or the first question, and again after one died.

    Use it in the thread that made it.

    Parameters
    ----------
    limits
        What it may cost.
    debug
        Let its tracebacks through to stderr.
    """

    def __init__(self, limits: CallLimits, *, debug: bool = False) -> None:
        self._limits, self._debug = limits, debug
        self._worker: Worker | None = None
        self._marker = Marker()

    def start(self, *, first: str | None = None) -> None:
        """Start the child, so that it is ready when the first question comes; ``first`` is a module that it imports at once."""
        if self._worker is None:
            size = self._limits.memory_bytes
            self._marker.value = NO_FILE
            self._worker = Worker(
                Role.ANSWERER,
                _nothing,
                memory_bytes=size,
                address_space_bytes=size,
                debug=self._debug,
                marker=self._marker.descriptor,
                first=first,
            )

    def ask(self, function: Callable[..., Any], *arguments: Any, limit_s: float | None = None) -> Any:
        """What a function gives in the child.

        Parameters
        ----------
        function, arguments
            Called as ``function(*arguments, note=note)``; picklable. The answer is JSON-able. ``note`` is told the number of
            the file that is about to be opened.
        limit_s
            Seconds for the whole answer, for questions that note no file; None counts the time at each file.

        Raises
        ------
        Lost
            If the child ended before it answered.
        AgsegError
            If it answered with an error.
        """
        self.start()
        worker = self._worker
        if worker is None:
            raise RuntimeError("the child was not started")
        if not worker.ready:
            self._receive(worker, MessageKind.READY, self._limits.start_s)
            worker.ready = True
        self._marker.value = NO_FILE
        try:
            worker.connection.send((function, arguments))
        except (BrokenPipeError, ConnectionError):
            raise self._gone(worker) from None
        return self._receive(worker, MessageKind.ANSWER, limit_s)["answer"]

    def close(self) -> None:
        """End the child."""
        self._end()
        self._marker.close()

    def _receive(self, worker: Worker, kind: MessageKind, limit_s: float | None) -> dict[str, Any]:
        """The next message of a kind, while clock and memory are watched."""
        at, since = self._marker.value, time.monotonic()
        patience_s = self._limits.file_s if limit_s is None else limit_s
        while True:
            if worker.connection.poll(_TICK_S):
                try:
                    message = worker.receive()
                except (ChildExited, ValueError):
                    raise self._gone(worker) from None
                if message["kind"] == MessageKind.LOG:
                    logging.getLogger(message["name"]).log(message["level"], "%s", message["text"])
                    continue
                if message["kind"] == MessageKind.FAILURE:
                    raise self._failed(message)
                if message["kind"] != kind:
                    raise self._gone(worker)
                return message
            now = time.monotonic()
            if limit_s is None and self._marker.value != at:
                at, since = self._marker.value, now
            if now - since > patience_s:
                raise self._kill(Code.TIMEOUT, f"it took longer than {patience_s:g} s")
            if worker.too_large:
                raise self._kill(Code.OUT_OF_MEMORY, "it needs more memory than it may use")

    def _failed(self, message: dict[str, Any]) -> Exception:
        del message["kind"]
        failure = Failure(**message)
        if failure.ends_process:
            number = self._marker.value
            self._end()
            return Lost(number, Code(failure.code), failure.message)
        return call_error(failure)

    def _gone(self, worker: Worker) -> Lost:
        number, self._worker = self._marker.value, None
        return Lost(number, Code.CRASHED, how_it_ended(worker.end(at_once=False)))

    def _kill(self, code: Code, message: str) -> Lost:
        number = self._marker.value
        self._end()
        return Lost(number, code, message)

    def _end(self) -> None:
        if self._worker is not None:
            self._worker.end(at_once=True)
            self._worker = None


def _nothing() -> None:
    """An answerer is told with each question what to call."""


def call_error(failure: Failure) -> AgsegError:
    """A child's failure as the parent raises it."""
    kind = UsageError if failure.blame == "usage" else AgsegError
    return kind(failure.message, code=Code(failure.code), hint=failure.hint)
