"""SIGTERM and SIGINT end a run in order: the handler only takes note, the run stops where it can."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from agseg.errors import ExitCode

_SIGNALS = {signal.SIGTERM: ExitCode.TERMINATED, signal.SIGINT: ExitCode.INTERRUPTED}


@contextmanager
def noting_signals(note: Callable[[ExitCode], None]) -> Iterator[None]:
    """While the context lasts, ``note(exit code)`` is called for each of the two signals; afterwards the old handlers are back.

    Outside the main thread, where no handler can be set, nothing is done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def catch(number: int, _frame: FrameType | None) -> None:
        note(_SIGNALS[signal.Signals(number)])

    before = {number: signal.signal(number, catch) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
