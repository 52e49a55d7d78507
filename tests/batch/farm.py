"""A Dask scheduler and workers as processes of their own, on the loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
READY_S = 60.0


class Farm:
    """Started with :func:`farm`; workers are added one by one."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder, self.options = folder, options
        self.workers: list[subprocess.Popen[bytes]] = []
        self.scheduler = self._start("scheduler", "--port", "0", "--scheduler-file", str(self.file))
        end = time.monotonic() + READY_S
        while not self.file.exists() or not self.file.read_text():
            assert time.monotonic() < end, "the scheduler did not start"
            time.sleep(0.05)
        self.address = str(json.loads(self.file.read_text())["address"])

    @property
    def file(self) -> Path:
        return self.folder / "scheduler.json"

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "error"}
        command = [sys.executable, "-m", "dask", *arguments, *self.options, "--host", "127.0.0.1", "--no-dashboard"]
        return subprocess.Popen(
            command, cwd=self.folder, env=environment, stdout=subprocess.DEVNULL, stderr=(self.folder / "log").open("ab")
        )

    def add_worker(self, *options: str) -> subprocess.Popen[bytes]:
        worker = self._start(
            "worker", self.address, "--nthreads", "1", "--local-directory", str(self.folder), *(options or ("--no-nanny",))
        )
        self.workers.append(worker)
        return worker

    def close(self) -> None:
        for process in [*self.workers, self.scheduler]:
            process.terminate()
        for process in [*self.workers, self.scheduler]:
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def farm(folder: Path, workers: int = 0, *, options: tuple[str, ...] = ()) -> Iterator[Farm]:
    """Options go to the scheduler and to every worker."""
    folder.mkdir(parents=True, exist_ok=True)
    started = Farm(folder, *options)
    try:
        for _ in range(workers):
            started.add_worker()
        yield started
    finally:
        started.close()


def children_of(worker: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The readers and the model of a worker (without a nanny)."""
    try:
        found = psutil.Process(worker.pid).children(recursive=True)
        return [child for child in found if "agseg.batch.child" in " ".join(child.cmdline())]
    except psutil.NoSuchProcess:
        return []
