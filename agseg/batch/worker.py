"""A child process as the parent sees it: started, given work, listened to, ended."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any

from agseg.batch.child import ChildSpec, Role
from agseg.batch.job import StudyTask
from agseg.batch.memory import resident_bytes
from agseg.spawn import Child, kill, start_child

_REAP_S = 2.0
"""How long an ended child may take to leave (a file system that hangs can hold it for ever; then it is left behind)."""


class ChildExited(Exception):  # noqa: N818
    """The child's end of the pipe is closed: it has ended."""


class Worker:
    """One child process.

    Parameters
    ----------
    role, target, debug, marker
        See :class:`agseg.batch.child.ChildSpec`.
    memory_bytes
        Beyond this the supervisor ends it; a reader also limits its own address space.
    first
        A module that it imports before it listens.
    child
        A process that was started before, with the same ``debug``; None starts one.
    """

    def __init__(
        self,
        role: Role,
        target: Callable[..., Any],
        *,
        memory_bytes: int,
        address_space_bytes: int | None,
        debug: bool,
        marker: int | None = None,
        first: str | None = None,
        child: Child | None = None,
    ) -> None:
        self.role = role
        self.memory_bytes = memory_bytes
        self.ready = False
        self.task: StudyTask | None = None
        self.started = time.monotonic()
        self.due = float("inf")
        self.studies = 0
        if child is None:
            child = start_child(debug=debug, first=first, inherited=() if marker is None else (marker,))
        self.process = child.process
        self.connection = Connection(child.descriptor)
        with suppress(BrokenPipeError, ConnectionError):
            level = logging.getLogger("agseg").getEffectiveLevel()
            self.connection.send(ChildSpec(role, target, address_space_bytes, debug, level, marker))

    def give(
        self, task: StudyTask, *, limit_s: float, content: tuple[Any, ...] = (), descriptors: tuple[int, ...] = ()
    ) -> None:
        """Start the child on a study.

        Parameters
        ----------
        task
            The study.
        limit_s
            How long it may take.
        content, descriptors
            What goes with it to the model and the writer process; the descriptors are closed here.
        """
        self.task = task
        self.studies += 1
        self.due = time.monotonic() + limit_s
        # If it has just died, the next look at the pipe says so.
        try:
            with suppress(BrokenPipeError, ConnectionError):
                self.connection.send((task, *content) if content else task)
                for descriptor in descriptors:
                    send_handle(self.connection, descriptor, self.process.pid)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    @property
    def left_s(self) -> float:
        """How much of its study's time is left."""
        return max(0.0, self.due - time.monotonic())

    def receive(self) -> dict[str, Any]:
        """The next message; raises :class:`ChildExited` at the end of the child."""
        try:
            message = json.loads(self.connection.recv_bytes())
        except (EOFError, ConnectionError) as error:
            raise ChildExited from error
        if not isinstance(message, dict):
            raise ChildExited
        return message

    def receive_descriptor(self) -> int:
        """The descriptor that follows a ``volume`` or ``draft`` message."""
        try:
            return recv_handle(self.connection)
        except (EOFError, OSError, RuntimeError) as error:
            raise ChildExited from error

    def idle(self) -> None:
        """The study is off its hands."""
        self.task = None
        self.due = float("inf")

    @property
    def too_large(self) -> bool:
        """Whether it uses more memory than it may."""
        return (resident_bytes(self.process.pid) or 0) > self.memory_bytes

    def end(self, *, at_once: bool) -> int | None:
        """Take its exit status (negative: the signal), killing it first or, where it is leaving by itself, a moment later.

        Returns
        -------
        status
            None if it does not leave.
        """
        with suppress(OSError):
            self.connection.close()
        if at_once:
            kill(self.process)
        status = None
        for _ in range(2):
            try:
                status = self.process.wait(timeout=_REAP_S)
                break
            except subprocess.TimeoutExpired:
                kill(self.process)
        # Decoders that it had started outlive it only as long as they work on a frame, or for ever if they hang.
        kill(self.process)
        return status
