"""Video decoding in a child process: a decoder that crashes, hangs or eats memory costs the clip, never the run.

Decoding also goes on while the parent works: the child is always a frame ahead.

A ``concurrent.futures.ProcessPoolExecutor`` would not do: it unpickles what its workers send, so a hostile clip that takes over
its decoder would have this process too; it can neither end a worker that hangs nor stream the frames of one call; and its
workers outlive a parent that is killed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np

from agseg.batch.child import MessageKind, Role
from agseg.batch.memory import machine_memory_bytes
from agseg.batch.outcome import Failure, ReportedFailure
from agseg.batch.supervise import how_it_ended
from agseg.batch.worker import ChildExited, Worker
from agseg.errors import Code
from agseg.io.video.clips import open_clip
from agseg.io.video.frames import Box, Frame, FrameSource, Wanted
from agseg.report import StudyStatus
from agseg.study import Study
from agseg.volume import Warned

STALL_S = 120.0
"""A decoder that says nothing for this long is hung: the slowest frames known take a tenth of a second."""

_MEMORY_SHARE = 0.5
"""Share of the machine's memory that a decoder may map."""


class ClipError(ReportedFailure):
    """A clip cannot be read; ``failure`` is what its record says."""


class FrameReader:
    """A child process that opens clips; use it as a context, in the thread that started it.

    Parameters
    ----------
    open_source
        Opens a clip, in the child.
    stall_s
        How long the child may be silent.
    """

    def __init__(self, open_source: Callable[[Study], FrameSource] = open_clip, *, stall_s: float = STALL_S) -> None:
        self._open_source, self._stall_s = open_source, stall_s
        self._worker: Worker | None = None
        self._turn = 0
        self._reading = False

    def __enter__(self) -> FrameReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child."""
        self._end()

    def open(self, clip: Study) -> RemoteFrames:
        """What a clip is; its frames are read when they are asked for.

        Raises
        ------
        ClipError
            With the reason why it cannot be read.
        """
        return RemoteFrames(self, clip, self.facts_of(clip))

    def facts_of(self, clip: Study) -> dict[str, Any]:
        """What the child says of a clip without reading its frames."""
        self._begin()
        if self._worker is None:
            size = int(machine_memory_bytes() * _MEMORY_SHARE)
            self._worker = Worker(Role.FRAMES, self._open_source, memory_bytes=size, address_space_bytes=size, debug=False)
            self._receive(MessageKind.READY)
        self._ask((clip, None))
        return self._receive(MessageKind.SOURCE)

    def read(self, clip: Study, wanted: Wanted, *, at_end: Callable[[dict[str, Any]], None]) -> Iterator[Frame]:
        """The wanted frames of a clip that is open; ``at_end`` is told what the child says of the clip after the last one."""
        turn = self._begin()
        self._ask((clip, wanted))
        self._reading = True
        try:
            while turn == self._turn:
                message = self._receive(MessageKind.FRAME, MessageKind.SOURCE)
                if message["kind"] == MessageKind.SOURCE:
                    self._reading = False
                    at_end(message)
                    return
                yield self._frame(message)
        except ClipError:
            self._reading = False
            raise
        finally:
            if turn == self._turn:
                self._leave_rest()

    def _begin(self) -> int:
        """A new question; whoever still reads the frames of an earlier one gets no more of them."""
        self._leave_rest()
        self._turn += 1
        return self._turn

    def _frame(self, message: dict[str, Any]) -> Frame:
        pixels = np.frombuffer(self._bytes(), dtype=np.uint8).reshape(message["shape"])
        return Frame(message["index"], message["time_s"], pixels)

    def _leave_rest(self) -> None:
        """The caller has enough: the child is told, and what is on its way is thrown away."""
        if not self._reading:
            return
        self._reading = False
        with suppress(ClipError):
            self._ask(None)
            while self._receive(MessageKind.FRAME, MessageKind.SOURCE)["kind"] == MessageKind.FRAME:
                self._bytes()

    def _ask(self, request: object) -> None:
        if self._worker is None:
            raise ClipError(Failure(StudyStatus.FAILED, Code.CRASHED, "the decoder has ended"))
        # If it has just died, the next look at the pipe says so.
        with suppress(BrokenPipeError, ConnectionError):
            self._worker.connection.send(request)

    def _receive(self, *kinds: MessageKind) -> dict[str, Any]:
        worker = self._waited()
        try:
            message = worker.receive()
        except ChildExited:
            raise self._lost(worker) from None
        if message["kind"] == MessageKind.LOG:
            return self._receive(*kinds)
        if message["kind"] == MessageKind.FAILURE:
            del message["kind"]
            failure = Failure.from_dict(message)
            if failure.ends_process:
                self._end()
            raise ClipError(failure)
        if message["kind"] not in kinds:
            raise self._lost(worker)
        return message

    def _bytes(self) -> bytes:
        worker = self._waited()
        try:
            return worker.connection.recv_bytes()
        except (EOFError, ConnectionError):
            raise self._lost(worker) from None

    def _waited(self) -> Worker:
        """The child, once it has something to say."""
        worker = self._worker
        if worker is None:
            raise ClipError(Failure(StudyStatus.FAILED, Code.CRASHED, "the decoder has ended"))
        if not worker.connection.poll(self._stall_s):
            self._end()
            message = f"the decoder said nothing for {self._stall_s:g} s"
            raise ClipError(Failure(StudyStatus.FAILED, Code.TIMEOUT, message))
        return worker

    def _lost(self, worker: Worker) -> ClipError:
        self._worker = None
        return ClipError(Failure(StudyStatus.FAILED, Code.CRASHED, how_it_ended(worker.end(at_once=False))))

    def _end(self) -> None:
        if self._worker is not None:
            self._worker.end(at_once=True)
            self._worker = None


class RemoteFrames:
    """A clip in the child, as a :class:`~agseg.io.video.frames.FrameSource`."""

    def __init__(self, reader: FrameReader, clip: Study, facts: dict[str, Any]) -> None:
        self._reader, self._clip = reader, clip
        self._take(facts)

    def frames(self, wanted: Wanted) -> Iterator[Frame]:
        """The wanted frames in order; ``wanted`` must survive pickling.

        Raises
        ------
        ClipError
            If the clip cannot be read on.
        """
        return self._reader.read(self._clip, wanted, at_end=self._take)

    def _take(self, facts: dict[str, Any]) -> None:
        width, height = facts["size"]
        self.moving = bool(facts["moving"])
        self.size: tuple[int, int] = (width, height)
        self.frame_count: int | None = facts["frame_count"]
        self.frames_per_second: float | None = facts["frames_per_second"]
        region = facts["region"]
        self.region: Box | None = None if region is None else (region[0], region[1], region[2], region[3])
        self.warnings = tuple(Warned(Code(warned["code"]), warned["message"]) for warned in facts["warnings"])
