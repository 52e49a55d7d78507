"""Child processes of agseg: how one is started, and how it begins.

A child can be started *ahead*, before the command line has been read: importing torch takes most of the time of a small
run, so it is done beside everything that this process has to import itself. Whoever needs a child of that kind takes it
(:func:`take_ahead`) and tells it its role as any other; one that nobody takes is ended.

Only modules that start quickly are imported here.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass

from agseg.threads import settle_threads

PRIVATE_UMASK = 0o077
"""Nothing for group and others."""

_BOOT = (
    "import sys; sys.path[:] = {path!r}; from agseg.spawn import begin; begin({parent}); {first}"
    "from agseg.batch.child import main; main({descriptor})"
)
_ON_LINUX = sys.platform.startswith("linux")
_PR_SET_PDEATHSIG = 1
_ORPHAN_CHECK_S = 1.0
_OOM_SCORE = "500"
"""Where memory runs out, the kernel ends a child before the process that writes the record."""

_REAP_S = 2.0
"""How long an ended child may take to leave; then it is left behind."""


@dataclass(frozen=True)
class Child:
    """A process that waits to be told its role.

    Parameters
    ----------
    process
        The leader of a session and a process group of its own.
    descriptor
        This end of the pipe to it.
    debug
        Whether what it prints is seen.
    """

    process: subprocess.Popen[bytes]
    descriptor: int
    debug: bool


def start_child(*, debug: bool, first: str | None = None, inherited: tuple[int, ...] = ()) -> Child:
    """Start a child.

    Parameters
    ----------
    debug
        Whether its stderr is this process's.
    first
        A module that it imports before it listens.
    inherited
        Descriptors that it keeps.
    """
    settle_threads()  # a cluster's worker, or a notebook, does not begin with the command
    ours, theirs = socket.socketpair()
    boot = _BOOT.format(
        path=sys.path, descriptor=theirs.fileno(), parent=os.getpid(), first="" if first is None else f"import {first}; "
    )
    # A session of its own: Ctrl-C in the terminal reaches the parent alone, which ends the children in order.
    # Output of C libraries may quote headers: it goes nowhere, unless --debug asks for it.
    process = subprocess.Popen(  # noqa: S603 - our own interpreter and our own code
        [sys.executable, "-P", "-c", boot],
        pass_fds=(theirs.fileno(), *inherited),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL if not debug else sys.stderr,
        stderr=subprocess.DEVNULL if not debug else None,
        start_new_session=True,
    )
    theirs.close()
    return Child(process, ours.detach(), debug)


_ahead: Child | None = None


def start_ahead(first: str, *, debug: bool) -> None:
    """Start a child that imports ``first``, for whoever takes it."""
    global _ahead
    if _ahead is None:
        _ahead = start_child(debug=debug, first=first)


def take_ahead(*, debug: bool) -> Child | None:
    """The child that was started ahead, once; None if there is none that fits."""
    global _ahead
    child = _ahead
    if child is None or child.debug != debug or child.process.poll() is not None:
        return None
    _ahead = None
    return child


def end_ahead() -> None:
    """End the child that nobody took."""
    global _ahead
    child, _ahead = _ahead, None
    if child is None:
        return
    os.close(child.descriptor)
    kill(child.process)
    with suppress(subprocess.TimeoutExpired):
        child.process.wait(timeout=_REAP_S)


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a child and whatever it started: it leads a process group of its own."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def begin(parent: int) -> None:
    """What every child does first: leave Ctrl-C to the parent, keep its files private, end with the parent.

    Nothing is collected until :func:`ready`: imports leave no garbage, and looking for it takes a tenth of their time.
    """
    gc.disable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.umask(PRIVATE_UMASK)
    end_with(parent)
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:  # noqa: PTH123 - pathlib takes 10 ms to import
        score.write(_OOM_SCORE)


def ready() -> None:
    """What every child does after its imports: collect again, but never look at what they made."""
    gc.freeze()
    gc.enable()


def end_with(parent: int) -> None:
    """End with the parent: by the kernel's word on Linux, by looking elsewhere."""
    if _ON_LINUX:
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(0)
        return

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_ORPHAN_CHECK_S)
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()
