"""Compressed frames decoded in several processes at a time, into one array.

This process decodes too, beginning at once, while the others start; so few slices cost no more than before.

A ``concurrent.futures.ProcessPoolExecutor`` would import the caller's main module in every worker, so that a script without
``if __name__ == "__main__"`` could not read compressed DICOM, and its workers outlive a parent that is killed; these end with
their standard input.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import agseg
from agseg.errors import Code, InputError
from agseg.io.dicom.slice_header import SliceHeader

FRAMES_PER_WORKER = 24
"""A further process is started for every so many compressed frames; each takes about half a second to start."""

MOST_WORKERS = 7

FrameJob = tuple[int, SliceHeader, int]
"""Number of the job, header of the file, frame in the file."""

_START = "import sys; sys.path.insert(0, sys.argv[1]); from agseg.io.dicom.worker import main; main()"


def decode_frames(
    jobs: Sequence[FrameJob],
    *,
    here: Callable[[FrameJob], NDArray[Any]],
    done: Callable[[int, NDArray[Any]], None],
) -> None:
    """Decode all jobs.

    Parameters
    ----------
    here
        Decodes one job in this process; returns stored values (rows, columns), unsigned.
    done
        Takes the number of a job and its stored values; called from several threads.

    Raises
    ------
    InputError
        Of the first job that failed.
    """
    queue = _Queue(jobs)
    count = min(MOST_WORKERS, usable_cores() - 1, len(jobs) // FRAMES_PER_WORKER)
    threads = [threading.Thread(target=_drive, args=(queue, done), daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        for job in queue:
            done(job[0], here(job))
    except BaseException:
        queue.stop()
        raise
    finally:
        for thread in threads:
            thread.join()
    if queue.error is not None:
        raise queue.error


class _Queue:
    """Jobs that are left, handed out one at a time; empty once a job has failed."""

    def __init__(self, jobs: Sequence[FrameJob]) -> None:
        self._left = list(reversed(jobs))
        self._lock = threading.Lock()
        self.error: BaseException | None = None

    def __iter__(self) -> Iterator[FrameJob]:
        while True:
            with self._lock:
                if not self._left:
                    return
                job = self._left.pop()
            yield job

    def stop(self, error: BaseException | None = None) -> None:
        with self._lock:
            self._left.clear()
            self.error = self.error or error


def _drive(queue: _Queue, done: Callable[[int, NDArray[Any]], None]) -> None:
    """Feed one worker process until no job is left."""
    try:
        with _worker() as worker:
            for job in queue:
                done(job[0], _ask(worker, job))
    except BaseException as error:
        # Carried to the thread that waits for all of them.
        queue.stop(error)


@contextmanager
def _worker() -> Iterator[subprocess.Popen[bytes]]:
    place = str(Path(agseg.__file__).resolve().parent.parent)
    with ExitStack() as stack:
        worker = stack.enter_context(
            subprocess.Popen(  # noqa: S603
                [sys.executable, "-c", _START, place],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=os.sep,
            )
        )
        try:
            yield worker
        except BaseException:
            worker.kill()
            raise


def _ask(worker: subprocess.Popen[bytes], job: FrameJob) -> NDArray[Any]:
    _, header, frame = job
    assert worker.stdin is not None
    assert worker.stdout is not None
    crashed = InputError("the decoder crashed on a compressed frame", code=Code.DECODE, path=header.path)
    try:
        worker.stdin.write(json.dumps({"path": os.fspath(header.path), "frame": frame}).encode() + b"\n")
        worker.stdin.flush()
        line = worker.stdout.readline()
    except OSError:
        raise crashed from None
    if not line:
        raise crashed
    answer = json.loads(line)
    if "code" in answer:
        raise InputError(answer["message"], code=Code(answer["code"]), path=header.path)
    content = worker.stdout.read(answer["bytes"])
    if len(content) != answer["bytes"] or header.rows is None or header.columns is None:
        raise crashed
    dtype = np.uint8 if header.bits_allocated == 8 else np.uint16
    return np.frombuffer(content, dtype=dtype).reshape(header.rows, header.columns)


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
