"""Entry point of the child processes: reader, frame reader, model, writer, answerer.

It answers in JSON and raw bytes: the parent unpickles nothing from a child.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any

from agseg.batch.arrival import check_unchanged, files_beside
from agseg.batch.draft import Draft
from agseg.batch.handover import pack, pack_array, unpack, unpack_array
from agseg.batch.job import StudyTask, Writer
from agseg.batch.marker import Marker
from agseg.batch.memory import virtual_bytes
from agseg.batch.outcome import failure_of
from agseg.io.video.frames import FrameSource
from agseg.spawn import ready


class Role(StrEnum):
    """Role of a child process."""

    READER = "reader"
    FRAMES = "frames"
    MODEL = "model"
    WRITER = "writer"
    ANSWERER = "answerer"


class MessageKind(StrEnum):
    """Kind of a message from a child."""

    READY = "ready"
    STAGE = "stage"
    VOLUME = "volume"
    DRAFT = "draft"
    SOURCE = "source"
    FRAME = "frame"
    REPORT = "report"
    FAILURE = "failure"
    LOG = "log"
    ANSWER = "answer"


@dataclass(frozen=True)
class ChildSpec:
    """The first message to a child: its role and limits.

    Parameters
    ----------
    role
        What it is for.
    target
        ``read(study) -> Volume`` for a reader, ``open(study) -> FrameSource`` for a frame reader, the model factory for the
        model process, the writer factory for the writer process.
    address_space_bytes
        How much more it may map: a hard limit that the child sets on itself (not the model process; a GPU's driver reserves
        more addresses than there is memory).
    debug
        Tracebacks go to stderr.
    log_level
        From which level on log records are passed to the parent.
    marker
        Inherited descriptor of a :class:`~agseg.batch.marker.Marker`, for an answerer.
    """

    role: Role
    target: Callable[..., Any]
    address_space_bytes: int | None
    debug: bool
    log_level: int
    marker: int | None = None


def main(descriptor: int) -> None:
    """Serve until the parent closes the pipe; :func:`agseg.spawn.begin` has run before."""
    ready()
    connection = Connection(descriptor)
    with suppress(EOFError, ConnectionError):
        spec: ChildSpec = connection.recv()
        if spec.address_space_bytes is not None:
            # Where the system cannot (macOS), the parent's watch over resident memory remains.
            # What is mapped already does not count: on a machine with many cores, numpy's threads alone map gigabytes.
            limit = spec.address_space_bytes + (virtual_bytes(os.getpid()) or 0)
            with suppress(ValueError, OSError):
                resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _forward_logs(connection, spec.log_level)
        if spec.role is Role.FRAMES:
            _serve_frames(connection, spec)
        elif spec.role is Role.ANSWERER:
            _serve_answers(connection, spec)
        elif spec.role is Role.READER:
            _serve_reader(connection, spec)
        elif spec.role is Role.WRITER:
            _serve_writer(connection, spec)
        else:
            _serve_model(connection, spec)
    # No interpreter shutdown: whatever a library does there must not keep the parent waiting.
    os._exit(0)


def _serve_answers(connection: Connection, spec: ChildSpec) -> None:
    """Call what the parent names, one question after the other; the answers are JSON."""
    marker = Marker(spec.marker)

    def note(number: int) -> None:
        marker.value = number

    _send(connection, MessageKind.READY, environment={})
    while True:
        function, arguments = connection.recv()
        try:
            answer = function(*arguments, note=note)
        except BaseException as error:
            if _fail(connection, error, None, spec.debug, writing=False):
                return
        else:
            _send(connection, MessageKind.ANSWER, answer=answer)


def _serve_reader(connection: Connection, spec: ChildSpec) -> None:
    _send(connection, MessageKind.READY, environment={})
    while True:
        task: StudyTask = connection.recv()
        started = time.monotonic()
        try:
            beside = files_beside(task.study)
            check_unchanged(task.study, task.states)
            volume = spec.target(task.study)
            check_unchanged(task.study, task.states, listing=beside)
            header, voxels = _in_memory(pack, volume)
            del volume
        except BaseException as error:
            if _fail(connection, error, task, spec.debug, writing=False):
                return
            continue
        try:
            _send(connection, MessageKind.VOLUME, header=header, seconds=time.monotonic() - started)
            send_handle(connection, voxels, os.getppid())
        finally:
            os.close(voxels)


def _in_memory(pack_up: Callable[[Any], tuple[dict[str, Any], int]], what: Any) -> tuple[dict[str, Any], int]:
    """What is handed over, in anonymous memory; no room for it is not the fault of the study's files or of the output."""
    # A limit on the size of files would also hold for the memory in which something is handed over.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    try:
        return pack_up(what)
    except OSError as error:
        raise MemoryError from error
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _serve_frames(connection: Connection, spec: ChildSpec) -> None:
    """Open a clip and say what it is; if frames are wanted, send them first, until the last or until the parent has enough."""
    _send(connection, MessageKind.READY, environment={})
    while True:
        request = connection.recv()
        if request is None:
            continue  # it had enough when the last frame was already on its way
        clip, wanted = request
        try:
            source = spec.target(clip)
            if wanted is not None:
                for frame in source.frames(wanted):
                    _send(connection, MessageKind.FRAME, index=frame.index, time_s=frame.time_s, shape=frame.pixels.shape)
                    connection.send_bytes(memoryview(frame.pixels.reshape(-1)))
                    if connection.poll():
                        connection.recv()
                        break
            _send(connection, MessageKind.SOURCE, **_facts(source))
        except BaseException as error:
            if _fail(connection, error, None, spec.debug, writing=False):
                return


def _facts(source: FrameSource) -> dict[str, Any]:
    return {
        "moving": source.moving,
        "size": source.size,
        "frame_count": source.frame_count,
        "frames_per_second": source.frames_per_second,
        "region": source.region,
        "warnings": [warned.to_dict() for warned in source.warnings],
    }


def _serve_model(connection: Connection, spec: ChildSpec) -> None:
    try:
        processor = spec.target()
    except BaseException as error:
        _fail(connection, error, None, spec.debug, writing=False)
        return
    _send(connection, MessageKind.READY, environment=processor.environment)
    while True:
        task, header = connection.recv()
        voxels = None if header is None else recv_handle(connection)
        try:
            task = replace(task, provenance=replace(task.provenance, environment=processor.environment))
            _process(processor, task, header, voxels, connection)
        except BaseException as error:
            if _fail(connection, error, task, spec.debug, writing=True):
                return


def _process(
    processor: Any, task: StudyTask, header: dict[str, Any] | None, voxels: int | None, connection: Connection
) -> None:
    """One study; its volume, where a reader made one, is gone when this returns."""

    def stage(name: str) -> None:
        _send(connection, MessageKind.STAGE, stage=name)

    if header is None or voxels is None:
        made = processor.process(task, stage)
    else:
        made = processor.process(task, unpack(header, voxels), stage)
    if not isinstance(made, Draft):
        _send(connection, MessageKind.REPORT, report=made.to_dict())
        return
    layout, labels = _in_memory(pack_array, made.labels)
    try:
        _send(connection, MessageKind.DRAFT, layout=layout, facts=made.facts)
        send_handle(connection, labels, os.getppid())
    finally:
        os.close(labels)


def _serve_writer(connection: Connection, spec: ChildSpec) -> None:
    try:
        writer = spec.target()
    except BaseException as error:
        _fail(connection, error, None, spec.debug, writing=False)
        return
    _send(connection, MessageKind.READY, environment={})
    while True:
        task, header, layout, facts = connection.recv()
        voxels, labels = recv_handle(connection), recv_handle(connection)
        try:
            report = _write(writer, task, (header, voxels), (layout, labels, facts), connection)
        except BaseException as error:
            if _fail(connection, error, task, spec.debug, writing=True):
                return
        else:
            _send(connection, MessageKind.REPORT, report=report)


def _write(
    writer: Writer,
    task: StudyTask,
    volume: tuple[dict[str, Any], int],
    draft: tuple[dict[str, Any], int, dict[str, Any]],
    connection: Connection,
) -> dict[str, Any]:
    """One study; its volume and labels are gone when this returns."""
    layout, labels, facts = draft
    left = Draft(unpack_array(layout, labels), facts)
    return writer.write(task, unpack(*volume), left, lambda stage: _send(connection, MessageKind.STAGE, stage=stage)).to_dict()


def _send(connection: Connection, kind: MessageKind, **content: Any) -> None:
    connection.send_bytes(json.dumps({"kind": kind, **content}, default=str).encode())


def _fail(connection: Connection, error: BaseException, task: StudyTask | None, debug: bool, *, writing: bool) -> bool:
    """Tell what went wrong; True if this process is not to be used again."""
    if isinstance(error, SystemExit | KeyboardInterrupt):
        raise error
    failure = failure_of(error, None if task is None else task.study, writing=writing)
    if debug:
        sys.excepthook(type(error), error, error.__traceback__)
    # The traceback holds the frames, and they hold the volume.
    error.__traceback__ = None
    _send(connection, MessageKind.FAILURE, **failure.to_dict())
    return failure.ends_process


class _PipeHandler(logging.Handler):
    """Passes agseg's own log records on; other libraries' may quote headers."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self.connection = connection

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError, ValueError):
            _send(self.connection, MessageKind.LOG, name=record.name, level=record.levelno, text=record.getMessage())


def _forward_logs(connection: Connection, level: int) -> None:
    logger = logging.getLogger("agseg")
    logger.setLevel(level)
    logger.addHandler(_PipeHandler(connection))
    logger.propagate = False
