"""Examining files one by one, none of which may cost the others: which one is being looked at, and what it may cost.

Law: whatever a file raises, or however long it takes, its outcome is a value or a :class:`~agseg.study.Rejected`.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, TypeVar

from agseg.errors import Code, InputError
from agseg.study import Rejected

T = TypeVar("T")

NO_FILE = -1
"""What is noted between two files."""


class _Overdue(BaseException):
    """The file in hand has had its time. No ``except Exception`` on the way may take it for the file's own error."""


@dataclass(frozen=True)
class Watch:
    """Looks after whoever examines a list of files.

    Parameters
    ----------
    note
        Told the number of the file that is about to be examined, and :data:`NO_FILE` behind it.
    lost
        Files that are known already to end a process: they are not examined again.
    cpu_s
        Processor seconds that one file may take; None for as many as it needs. A limit can be had in a main thread only.
    """

    note: Callable[[int], None] = lambda _number: None
    lost: Mapping[int, Rejected] = field(default_factory=dict)
    cpu_s: float | None = None

    def examine(self, number: int, work: Callable[[], T]) -> T | Rejected:
        """What the work on a file gives, or why it gives nothing."""
        if number in self.lost:
            return self.lost[number]
        self.note(number)
        try:
            with _limited(self.cpu_s):
                return outcome(work)
        except _Overdue:
            return Rejected(Code.TIMEOUT, f"looking at the file took more than {self.cpu_s:g} s of processor time")
        finally:
            self.note(NO_FILE)


def outcome(work: Callable[[], T]) -> T | Rejected:
    """What the work on a file gives, or the reason that its exception is."""
    try:
        return work()
    except InputError as error:
        return Rejected(error.code, error.sentence())
    except FileNotFoundError:
        return Rejected(Code.CHANGED, "the file has gone since its folder was listed")
    except PermissionError:
        return Rejected(Code.PERMISSION, "the file may not be read")
    except OSError as error:
        return Rejected(Code.UNREADABLE_FILE, f"the file cannot be read (errno {error.errno})")
    except MemoryError:
        return Rejected(Code.OUT_OF_MEMORY, "looking at the file takes more memory than it may")
    except RecursionError:
        return Rejected(Code.HEADER_INVALID, "the header is nested too deeply")
    except Exception as error:
        # Its text may quote a header.
        return Rejected(Code.HEADER_INVALID, f"the file cannot be understood ({type(error).__name__})")


@contextmanager
def _limited(cpu_s: float | None) -> Iterator[None]:
    if cpu_s is None:
        yield
        return

    def overdue(_signal: int, _frame: FrameType | None) -> None:
        raise _Overdue

    before = signal.signal(signal.SIGPROF, overdue)
    # It comes again, should a library's own cleaning-up swallow it once.
    signal.setitimer(signal.ITIMER_PROF, cpu_s, 0.2)
    try:
        yield
    finally:
        _disarm(before)


def _disarm(handler: Any) -> None:
    """End the timer, even if it goes off meanwhile."""
    while True:
        try:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.signal(signal.SIGPROF, handler)
        except _Overdue:
            continue
        return
